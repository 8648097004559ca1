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
}

/// The progress of an order, as far as a limit depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OrderProgress {
    Placed,
    Finalizing,
    Issued,
    Ended,
    /// Finalized and rejected: neither a certificate nor a failed authorization.
    NotIssued,
}

impl OrderRecord {
    /// Whether the CA counted, or may yet count, a failed authorization for its names.
    pub(super) fn may_have_failed(&self) -> bool {
        matches!(self.progress, OrderProgress::Placed | OrderProgress::Ended)
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

    pub(super) fn place(&mut self, request: &OrderRequest<'_>, now: SystemTime) {
        self.push(request, OrderProgress::Placed, now);
    }

    pub(super) fn advance(
        &mut self,
        request: &OrderRequest<'_>,
        progress: OrderProgress,
        now: SystemTime,
    ) {
        let open = self
            .attempts
            .iter_mut()
            .rev()
            .find(|attempt| attempt.is_open() && attempt.is_for(request));
        match open {
            Some(attempt) => (attempt.progress, attempt.moved) = (progress, now),
            // The ledger was lost while the order was in flight.
            None => self.push(request, progress, now),
        }
    }

    pub(super) fn issued(&mut self, request: &OrderRequest<'_>, now: SystemTime) {
        self.advance(request, OrderProgress::Issued, now);
        self.backoffs.remove(request.names);
        self.streaks
            .retain(|s| s.account != request.account || !request.names.contains(&s.name));
    }

    /// Ends a placed order, if there is one. An order that was being finalized may have been
    /// issued.
    pub(super) fn end(&mut self, request: &OrderRequest<'_>, now: SystemTime) {
        let placed = |attempt: &&mut OrderRecord| {
            attempt.progress == OrderProgress::Placed && attempt.is_for(request)
        };
        if let Some(attempt) = self.attempts.iter_mut().rev().find(placed) {
            (attempt.progress, attempt.moved) = (OrderProgress::Ended, now);
        }
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
            FailureKind::Validation => {
                self.advance(request, OrderProgress::Ended, now);
                request
                    .names
                    .iter()
                    .for_each(|name| self.count(request.account, name, now));
            }
            // The order may be resumed.
            FailureKind::Unavailable | FailureKind::Slow => {}
            FailureKind::RateLimited(_) | FailureKind::Refused | FailureKind::Ours => {
                self.end(request, now)
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

    fn push(&mut self, request: &OrderRequest<'_>, progress: OrderProgress, now: SystemTime) {
        let OrderRequest {
            ca: _,
            account,
            names,
            kind,
            held: _,
        } = *request;
        self.attempts.push(OrderRecord {
            account: account.to_owned(),
            names: names.clone(),
            kind,
            placed: now,
            moved: now,
            progress,
        });
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
