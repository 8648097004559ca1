//! The record of one CA: accounts created, orders and their progress, consecutive failures, and the
//! pauses that the CA asked for.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::display::{BlockReason, RetryAt};
use super::failure::{Failure, FailureKind, RateLimitScope};
use super::limits::{CaLimits, Rate};
use super::{OrderRequest, SLACK};
use crate::certs::names::NameSet;
use crate::certs::renewal::Seed;
use crate::certs::timestamps;

/// How the CA counts an order: it exempts renewals from some limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderKind {
    /// For names that this CA has not certified together lately.
    New,
    /// For exactly the names of a certificate that this CA has issued.
    Renewal,
    /// An order that names the certificate that it replaces (RFC 9773 §5).
    Replacement,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderRecord {
    pub(super) account: String,
    pub(super) names: NameSet,
    pub(super) kind: OrderKind,
    #[serde(with = "timestamps")]
    pub(super) placed: SystemTime,
    /// When the order made its last progress.
    #[serde(with = "timestamps")]
    pub(super) moved: SystemTime,
    #[serde(rename = "stage")]
    progress: OrderProgress,
    /// The names whose authorizations are known not to have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    not_failed: Vec<String>,
}

/// The progress of an order, as far as a limit depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OrderProgress {
    Placed,
    Finalizing,
    Issued,
    Ended,
    /// Ended with neither a certificate nor a failed authorization.
    NotIssued,
}

impl OrderRecord {
    /// The names for which the CA counted, or may yet count, a failed authorization.
    pub(super) fn may_have_failed(&self) -> impl Iterator<Item = &str> {
        let has_failures = matches!(self.progress, OrderProgress::Placed | OrderProgress::Ended);
        let names = self.names.iter().filter(move |_| has_failures);
        names.filter(|name| !self.not_failed.iter().any(|other| other == name))
    }

    /// Until when the order counts as a certificate, because it was or may have been issued. An
    /// order that was placed but not finalized cannot have been issued.
    pub(super) fn issue_counts_until(&self, rate: Rate, now: SystemTime) -> Option<SystemTime> {
        match self.progress {
            OrderProgress::Finalizing | OrderProgress::Issued => Some(rate.end(self.moved, now)),
            OrderProgress::Placed => Some(self.moved.min(now) + MAX_IN_FLIGHT),
            OrderProgress::Ended | OrderProgress::NotIssued => None,
        }
    }

    /// Ends a placed order.
    fn end(&mut self, not_failed: &[String], now: SystemTime) {
        let is_spared = |name: &str| not_failed.iter().any(|other| other == name);
        if self.names.iter().all(is_spared) {
            (self.progress, self.moved) = (OrderProgress::NotIssued, now);
            return;
        }
        (self.progress, self.moved) = (OrderProgress::Ended, now);
        self.not_failed = not_failed.to_vec();
    }

    fn is_open(&self) -> bool {
        matches!(
            self.progress,
            OrderProgress::Placed | OrderProgress::Finalizing
        )
    }

    fn is_for(&self, request: &OrderRequest<'_>) -> bool {
        self.account == request.account && self.names == *request.names
    }
}

/// Consecutive failed validations of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FailureStreak {
    account: String,
    name: String,
    times: u32,
    /// When a failure was last added or stopped counting.
    #[serde(with = "timestamps")]
    at: SystemTime,
}

impl FailureStreak {
    fn days(&self, now: SystemTime) -> u32 {
        let days = now.duration_since(self.at).unwrap_or_default().as_secs()
            / Duration::from_hours(24).as_secs();
        u32::try_from(days).unwrap_or(u32::MAX)
    }

    /// The failures that still count: each day one stops counting.
    fn level(&self, now: SystemTime) -> u32 {
        self.times.saturating_sub(self.days(now))
    }
}

/// The CA rejects orders of this account until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CaPause {
    /// `None`: the whole CA.
    account: Option<String>,
    #[serde(with = "timestamps")]
    until: SystemTime,
    #[serde(rename = "words")]
    message: String,
}

impl CaPause {
    fn retry_at(&self, now: SystemTime) -> RetryAt {
        // A clock that was set back must not extend the pause.
        RetryAt {
            at: self.until.min(now + Duration::from_hours(24)),
            why: BlockReason::RetryAfter {
                last: self.message.clone(),
            },
        }
    }
}

/// The record of one CA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CaRecord {
    #[serde(with = "timestamps::list")]
    accounts: Vec<SystemTime>,
    attempts: Vec<OrderRecord>,
    #[serde(with = "timestamps::pairs")]
    backoffs: BTreeMap<NameSet, Backoff>,
    streaks: Vec<FailureStreak>,
    closed: Vec<CaPause>,
}

impl CaRecord {
    pub(super) fn attempts(&self) -> impl Iterator<Item = &OrderRecord> {
        self.attempts.iter()
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = SystemTime> {
        self.accounts.iter().copied()
    }

    #[cfg(test)]
    pub(super) fn last_failure(&self, names: &NameSet) -> Option<&str> {
        let backoff = self.backoffs.get(names)?;
        Some(backoff.last.as_str())
    }

    pub(super) fn knows(&self, names: &NameSet) -> bool {
        self.backoffs.contains_key(names)
            || self.attempts.iter().any(|attempt| attempt.names == *names)
    }

    /// When the order may be placed, as far as anything but a rate limit blocks it.
    pub(super) fn retry_times(&self, request: &OrderRequest<'_>, now: SystemTime) -> Vec<RetryAt> {
        let pace = CaLimits::for_ca(request.ca).failures.pace();
        let backoff = self.backoffs.get(request.names);
        let waits = backoff
            .map(|backoff| backoff.retry_times(request.held, pace, now))
            .unwrap_or_default();
        let closed = self.closed.iter().filter(|closed| {
            closed
                .account
                .as_deref()
                .is_none_or(|account| account == request.account)
        });
        let mut all: Vec<_> = waits.into_iter().flatten().collect();
        all.extend(closed.map(|closed| closed.retry_at(now)));
        all.extend(self.paused(request, now));
        if self.attempts.len() >= MAX_ATTEMPTS {
            all.push(RetryAt {
                at: now + Duration::from_mins(60),
                why: BlockReason::Full,
            });
        }
        all
    }

    /// When an account may be created, as far as pauses of the whole CA block it.
    pub(super) fn pauses_of_the_ca(&self, now: SystemTime) -> Vec<RetryAt> {
        let all = self.closed.iter().filter(|closed| closed.account.is_none());
        all.map(|closed| closed.retry_at(now)).collect()
    }

    fn paused(&self, request: &OrderRequest<'_>, now: SystemTime) -> Option<RetryAt> {
        let most = CaLimits::for_ca(request.ca).consecutive_failures?;
        let of_these = |streak: &&FailureStreak| {
            streak.account == request.account && request.names.contains(&streak.name)
        };
        let pauses = self.streaks.iter().filter(of_these).filter_map(|streak| {
            let in_flight = self.attempts.iter().filter(|attempt| {
                attempt.progress == OrderProgress::Placed
                    && attempt.account == streak.account
                    && attempt.names.contains(&streak.name)
            });
            let in_flight = u32::try_from(in_flight.count()).unwrap_or(u32::MAX);
            // One below the limit, as the days of the CA do not begin with ours.
            let over = (streak.level(now).saturating_add(in_flight) + 2)
                .checked_sub(most)
                .filter(|n| *n > 0)?;
            let at = streak.at.min(now)
                + Duration::from_hours(24) * streak.days(now).saturating_add(over);
            let why = BlockReason::Paused {
                name: streak.name.clone(),
                times: streak.level(now),
            };
            Some(RetryAt { at, why })
        });
        pauses.max_by_key(|until| until.at)
    }

    pub(super) fn new_account(&mut self, now: SystemTime) {
        self.accounts.push(now);
    }

    /// Removes the account that was counted last: it was not created.
    pub(super) fn no_account(&mut self) {
        self.accounts.pop();
    }

    pub(super) fn place(&mut self, request: &OrderRequest<'_>, now: SystemTime) {
        self.push(request, OrderProgress::Placed, now);
    }

    /// Removes the order that was placed last: the CA has not counted it.
    pub(super) fn not_placed(&mut self, request: &OrderRequest<'_>) {
        let placed = |attempt: &OrderRecord| {
            attempt.progress == OrderProgress::Placed && attempt.is_for(request)
        };
        if let Some(last) = self.attempts.iter().rposition(placed) {
            self.attempts.remove(last);
        }
    }

    pub(super) fn advance(
        &mut self,
        request: &OrderRequest<'_>,
        progress: OrderProgress,
        now: SystemTime,
    ) -> &mut OrderRecord {
        let is_it = |attempt: &OrderRecord| attempt.is_open() && attempt.is_for(request);
        match self.attempts.iter().rposition(is_it) {
            Some(open) => {
                let attempt = &mut self.attempts[open];
                (attempt.progress, attempt.moved) = (progress, now);
                attempt
            }
            // The ledger was lost while the order was in flight.
            None => self.push(request, progress, now),
        }
    }

    /// Returns an order that was being finalized to the state before: nothing can have been issued
    /// yet, and all names have been validated.
    pub(super) fn not_finalized(&mut self, request: &OrderRequest<'_>, now: SystemTime) {
        let finalizing = |attempt: &&mut OrderRecord| {
            attempt.progress == OrderProgress::Finalizing && attempt.is_for(request)
        };
        if let Some(attempt) = self.attempts.iter_mut().rev().find(finalizing) {
            (attempt.progress, attempt.moved) = (OrderProgress::Placed, now);
            attempt.not_failed = request.names.iter().map(str::to_owned).collect();
        }
    }

    pub(super) fn issued(&mut self, request: &OrderRequest<'_>, now: SystemTime) {
        self.advance(request, OrderProgress::Issued, now);
        self.backoffs.remove(request.names);
        self.streaks
            .retain(|s| s.account != request.account || !request.names.contains(&s.name));
    }

    /// Ends a placed order, if there is one. An order that was being finalized may have been
    /// issued. `not_failed`: the names whose authorizations are known not to have failed.
    pub(super) fn end(
        &mut self,
        request: &OrderRequest<'_>,
        not_failed: &[String],
        now: SystemTime,
    ) {
        let placed = |attempt: &&mut OrderRecord| {
            attempt.progress == OrderProgress::Placed && attempt.is_for(request)
        };
        if let Some(attempt) = self.attempts.iter_mut().rev().find(placed) {
            attempt.end(not_failed, now);
        }
    }

    /// Ends a placed order of which no name was validated.
    pub(super) fn only_placed(&mut self, request: &OrderRequest<'_>, now: SystemTime) {
        let all: Vec<String> = request.names.iter().map(str::to_owned).collect();
        self.end(request, &all, now);
    }

    /// Ends an order that is known not to have been issued.
    pub(super) fn not_issued(&mut self, request: &OrderRequest<'_>, now: SystemTime) {
        let open = self
            .attempts
            .iter_mut()
            .rev()
            .find(|attempt| attempt.is_open() && attempt.is_for(request));
        if let Some(attempt) = open {
            let was_finalized = attempt.progress == OrderProgress::Finalizing;
            let progress = if was_finalized {
                OrderProgress::NotIssued
            } else {
                OrderProgress::Ended
            };
            (attempt.progress, attempt.moved) = (progress, now);
        }
    }

    pub(super) fn failed(&mut self, request: &OrderRequest<'_>, failure: Failure, now: SystemTime) {
        match failure.kind {
            FailureKind::Validation => self.not_validated(request, &failure.not_failed, now),
            // The order may be resumed.
            FailureKind::Unavailable | FailureKind::Slow => {}
            FailureKind::RateLimited(_) | FailureKind::Refused | FailureKind::Ours => {
                self.end(request, &failure.not_failed, now)
            }
        }
        if let Some((scope, wait)) = failure.pause() {
            let account = (scope == RateLimitScope::Account).then(|| request.account.to_owned());
            self.closed.push(CaPause {
                account,
                until: now + wait,
                message: failure.message.clone(),
            });
        }
        let seed = request
            .names
            .iter()
            .fold(Seed::new(0), |seed, name| seed.and(name));
        let backoff = Backoff::after(self.backoffs.get(request.names), &failure, seed, now);
        self.backoffs.insert(request.names.clone(), backoff);
    }

    /// Ends an order because of failed authorizations.
    fn not_validated(
        &mut self,
        request: &OrderRequest<'_>,
        not_failed: &[String],
        now: SystemTime,
    ) {
        let is_spared = |name: &str| not_failed.iter().any(|other| other == name);
        let attempt = self.advance(request, OrderProgress::Ended, now);
        if !request.names.iter().all(is_spared) {
            attempt.not_failed = not_failed.to_vec();
        }
        let failed: Vec<String> = attempt.may_have_failed().map(str::to_owned).collect();
        for name in failed {
            self.count(request.account, &name, now);
        }
    }

    /// Ends the backoff of these names, unless an order is in flight: that would only be polled
    /// more often.
    pub(super) fn reset_backoff(&mut self, names: &NameSet) {
        if self
            .backoffs
            .get(names)
            .is_some_and(Backoff::is_for_an_order)
        {
            return;
        }
        if let Some(mut backoff) = self
            .backoffs
            .remove(names)
            .filter(|backoff| backoff.retry_at.is_some())
        {
            backoff.times = 0;
            self.backoffs.insert(names.clone(), backoff);
        }
    }

    fn count(&mut self, account: &str, name: &str, now: SystemTime) {
        match self
            .streaks
            .iter_mut()
            .find(|streak| streak.account == account && streak.name == name)
        {
            Some(streak) => (streak.times, streak.at) = (streak.level(now).saturating_add(1), now),
            None => self.streaks.push(FailureStreak {
                account: account.to_owned(),
                name: name.to_owned(),
                times: 1,
                at: now,
            }),
        }
    }

    fn push(
        &mut self,
        request: &OrderRequest<'_>,
        progress: OrderProgress,
        now: SystemTime,
    ) -> &mut OrderRecord {
        let OrderRequest {
            ca: _,
            account,
            names,
            kind,
            held: _,
        } = *request;
        self.attempts.push_mut(OrderRecord {
            account: account.to_owned(),
            names: names.clone(),
            kind,
            placed: now,
            moved: now,
            progress,
            not_failed: Vec::new(),
        })
    }

    /// Moves times in the future to `now` and drops entries that no longer count.
    pub(super) fn settle(&mut self, limits: &CaLimits, now: SystemTime) {
        let CaLimits {
            accounts,
            orders,
            failures,
            duplicates,
            domain,
            replacements,
            ..
        } = limits;
        let issued = [Some(*duplicates), *domain, Some(*replacements)]
            .into_iter()
            .flatten();
        let issued = issued.map(|rate| rate.per).max().unwrap_or_default();
        let others = orders.per.max(failures.per).max(MAX_IN_FLIGHT);
        let old = |at: SystemTime, age: Duration| at + age + SLACK < now;
        self.accounts.iter_mut().for_each(|at| *at = now.min(*at));
        self.accounts.retain(|at| !old(*at, accounts.per));
        for attempt in &mut self.attempts {
            attempt.placed = attempt.placed.min(now);
            attempt.moved = attempt.moved.min(now);
        }
        self.attempts.retain(|attempt| {
            let may_be_issued = matches!(
                attempt.progress,
                OrderProgress::Finalizing | OrderProgress::Issued
            );
            !old(
                attempt.moved,
                if may_be_issued {
                    issued.max(others)
                } else {
                    others
                },
            )
        });
        self.backoffs
            .values_mut()
            .for_each(|backoff| backoff.settle(now));
        self.backoffs.retain(|_, backoff| !backoff.is_over(now));
        self.streaks
            .iter_mut()
            .for_each(|streak| streak.at = streak.at.min(now));
        self.streaks.retain(|streak| streak.level(now) > 0);
        self.closed
            .iter_mut()
            .for_each(|closed| closed.until = closed.until.min(now + Duration::from_hours(24)));
        self.closed.retain(|closed| closed.until > now);
    }

    pub(super) fn shift(&mut self, by: Duration) {
        self.accounts.iter_mut().for_each(|at| *at += by);
        for attempt in &mut self.attempts {
            attempt.placed += by;
            attempt.moved += by;
        }
        self.backoffs
            .values_mut()
            .for_each(|backoff| backoff.shift(by));
        self.streaks.iter_mut().for_each(|streak| streak.at += by);
        self.closed.iter_mut().for_each(|closed| closed.until += by);
    }
}

/// An order without progress for this long was lost in a crash.
const MAX_IN_FLIGHT: Duration = Duration::from_hours(1);
/// About 5 MB, more than 300 orders in 3 hours make in a week.
const MAX_ATTEMPTS: usize = 20_000;
