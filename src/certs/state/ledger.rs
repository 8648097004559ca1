//! The ledger of orders and failures: never exceeds a limit of a CA, honours `Retry-After`, and
//! backs off without ever giving up. Pure: takes facts and the time, returns a decision.
//! `ledger/file` stores it on disk.

mod backoff;
mod display;
mod failure;
pub(crate) mod file;
pub(crate) mod limits;
mod record;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::certs::names::NameSet;
use crate::certs::renewal::Validity;
use crate::certs::state::paths::CaId;
use crate::certs::timestamps;
pub(crate) use display::{BlockReason, Limit, RetryAt};
pub(crate) use failure::{Failure, FailureKind, RateLimitScope};
use limits::{CaLimits, Rate, registered_domain};
pub(crate) use record::OrderKind;
use record::{CaRecord, OrderProgress, OrderRecord};
pub(crate) use usage::{LimitBudget, LimitUsage};

/// The recent orders at all CAs and their results.
///
/// A step that the CA counts is recorded **before** it is taken ([`Event::NewAccount`],
/// [`Event::Placed`], [`Event::Finalizing`]), so that a crash cannot lose it. The protocol:
/// [`place`](Self::place), `newOrder`; [`Event::Finalizing`], `finalize`; then [`Event::Issued`].
/// [`Event::Failed`] may follow at any point, even before an order was placed. An order that is
/// resumed after a restart is not placed again.
///
/// What was recorded is taken back once the CA is known not to have counted it:
/// [`Event::NoAccount`] and [`Event::NotPlaced`] after a request that never reached the CA, or that
/// it refused, and so [`Event::NotFinalized`]; [`Event::OnlyPlaced`] where no name of an order can be validated;
/// [`Event::NotIssued`] before [`Event::Failed`] if the CA has rejected the order, as otherwise an
/// order that was being finalized counts as a certificate.
///
/// Ages are measured by the clock of the machine. Entries in the future count as entries of now;
/// `ledger/file` detects jumps of the clock while the process runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// When the ledger was created: with the state directory, or after an older one was lost.
    #[serde(with = "timestamps")]
    founded: SystemTime,
    /// The domains whose first order the administrator has confirmed.
    #[serde(default)]
    confirmed: BTreeSet<String>,
    #[serde(default)]
    cas: BTreeMap<CaId, CaRecord>,
}

/// An order to be placed.
#[derive(Clone, Copy, Debug)]
pub struct OrderRequest<'a> {
    pub ca: &'a CaId,
    /// The URL of the account; before there is one, any text that will not change.
    pub account: &'a str,
    pub names: &'a NameSet,
    pub kind: OrderKind,
    /// The life of the served certificate; `None` without one.
    pub held: Option<Validity>,
}

/// A change of the ledger.
#[derive(Clone, Debug)]
pub(crate) enum Event<'a> {
    /// An account is about to be created.
    NewAccount { ca: &'a CaId },
    /// The account was not created, and the CA has counted none.
    NoAccount { ca: &'a CaId },
    /// An order is about to be placed; [`Ledger::place`] records it.
    Placed(OrderRequest<'a>),
    /// The order was not placed, and the CA has counted none.
    NotPlaced(OrderRequest<'a>),
    /// The order may have been placed, and is lost: it counts as an order, and nothing else can
    /// come of it.
    OnlyPlaced(OrderRequest<'a>),
    /// The order is about to be finalized: from now on the CA may issue.
    Finalizing(OrderRequest<'a>),
    /// The order was not finalized, and its names have been validated: it is as it was before.
    NotFinalized(OrderRequest<'a>),
    /// The certificate was issued.
    Issued(OrderRequest<'a>),
    /// The CA has ended the order without issuing a certificate.
    NotIssued(OrderRequest<'a>),
    /// The order has ended without a certificate and without a failure that requires a wait, like
    /// one that the CA no longer knows.
    Abandoned(OrderRequest<'a>),
    /// The attempt has failed, before or after an order was placed.
    Failed(OrderRequest<'a>, Failure),
    /// The administrator has requested a certificate, whatever blocked or failed before.
    Confirmed {
        /// The domain of the domain file.
        domain: &'a str,
        /// The names of the certificate: their backoff ends. Limits and the `Retry-After` of the
        /// CA stay.
        names: &'a NameSet,
    },
    /// The configuration has changed, so that a failed order may succeed: the backoff ends as well.
    Changed { names: &'a NameSet },
}

impl Ledger {
    /// An empty ledger.
    pub(crate) fn new(now: SystemTime) -> Self {
        Self {
            founded: now,
            confirmed: BTreeSet::new(),
            cas: BTreeMap::new(),
        }
    }

    /// When the ledger was created.
    pub(crate) fn founded(&self) -> SystemTime {
        self.founded
    }

    /// Whether an order for this domain was confirmed.
    pub(crate) fn is_confirmed(&self, domain: &str) -> bool {
        self.confirmed.contains(domain)
    }

    /// Whether the ledger has an attempt for exactly these names.
    pub(crate) fn knows(&self, names: &NameSet) -> bool {
        self.cas.values().any(|record| record.knows(names))
    }

    /// The account of the last order at a CA.
    pub(crate) fn account(&self, ca: &CaId) -> Option<&str> {
        self.cas
            .get(ca)?
            .attempts()
            .last()
            .map(|attempt| attempt.account.as_str())
    }

    /// The message of the last failure for these names at this CA; `None` if the last attempt
    /// succeeded.
    #[cfg(test)]
    fn last_failure(&self, ca: &CaId, names: &NameSet) -> Option<&str> {
        self.cas.get(ca)?.last_failure(names)
    }

    /// Whether the order may be placed now. The answer is valid for one order: record each placed
    /// order before asking for the next.
    pub(crate) fn may_order(
        &self,
        request: &OrderRequest<'_>,
        now: SystemTime,
    ) -> Result<(), RetryAt> {
        let Some(record) = self.cas.get(request.ca) else {
            return Ok(());
        };
        let waits = record.retry_times(request, now).into_iter().chain(
            limits_on(request)
                .into_iter()
                .filter_map(|on| on.retry_at(record, request, now)),
        );
        latest(waits, now)
    }

    /// Records the order as placed if it may be placed now.
    pub(crate) fn place(
        &mut self,
        request: OrderRequest<'_>,
        now: SystemTime,
    ) -> Result<(), RetryAt> {
        self.settle(now);
        self.may_order(&request, now)?;
        self.record(Event::Placed(request), now);
        Ok(())
    }

    /// Whether an account may be created now.
    pub(crate) fn may_create_account(&self, ca: &CaId, now: SystemTime) -> Result<(), RetryAt> {
        let Some(record) = self.cas.get(ca) else {
            return Ok(());
        };
        let rate = CaLimits::for_ca(ca).accounts;
        let free = free_again(rate, record.accounts().map(|at| rate.end(at, now)), now);
        let limit = free.map(|at| RetryAt {
            at,
            why: BlockReason::Limit {
                limit: Limit::Accounts,
                rate,
                of: "this machine".into(),
            },
        });
        latest(limit.into_iter().chain(record.pauses_of_the_ca(now)), now)
    }

    /// Records an event.
    pub(crate) fn record(&mut self, event: Event<'_>, now: SystemTime) {
        self.settle(now);
        match event {
            Event::NewAccount { ca } => self.record_of(ca).new_account(now),
            Event::NoAccount { ca } => self.record_of(ca).no_account(),
            Event::Placed(request) => self.record_of(request.ca).place(&request, now),
            Event::NotPlaced(request) => self.record_of(request.ca).not_placed(&request),
            Event::OnlyPlaced(request) => self.record_of(request.ca).only_placed(&request, now),
            Event::Finalizing(request) => {
                self.record_of(request.ca)
                    .advance(&request, OrderProgress::Finalizing, now);
            }
            Event::NotFinalized(request) => self.record_of(request.ca).not_finalized(&request, now),
            Event::Issued(request) => self.record_of(request.ca).issued(&request, now),
            Event::NotIssued(request) => self.record_of(request.ca).not_issued(&request, now),
            Event::Abandoned(request) => self.record_of(request.ca).end(&request, &[], now),
            Event::Failed(request, failure) => {
                self.record_of(request.ca).failed(&request, failure, now)
            }
            Event::Confirmed { domain, names } => {
                self.confirmed.insert(domain.to_owned());
                self.cas
                    .values_mut()
                    .for_each(|record| record.reset_backoff(names));
            }
            Event::Changed { names } => self
                .cas
                .values_mut()
                .for_each(|record| record.reset_backoff(names)),
        }
    }

    /// What counts towards the limits of a CA, from which remaining budgets are computed.
    pub(crate) fn usage(&self, ca: &CaId, now: SystemTime) -> LimitUsage<'_> {
        let record = self.cas.get(ca);
        record
            .map(|record| LimitUsage::new(&CaLimits::for_ca(ca), record, now))
            .unwrap_or_default()
    }

    /// Adjusts all times to a clock that was set forward by `jump` since the last call, so that no
    /// entry seems older than it is. A clock that was set back needs no adjustment: times in the
    /// future count as `now`.
    fn follow(&mut self, now: SystemTime, jump: Duration) {
        if !jump.is_zero() {
            self.cas.values_mut().for_each(|record| record.shift(jump));
        }
        self.settle(now);
    }

    /// Moves times in the future to `now` and drops entries that no longer count.
    fn settle(&mut self, now: SystemTime) {
        self.founded = self.founded.min(now);
        for (ca, record) in &mut self.cas {
            record.settle(&CaLimits::for_ca(ca), now);
        }
        self.cas.retain(|_, record| *record != CaRecord::default());
    }

    fn record_of(&mut self, ca: &CaId) -> &mut CaRecord {
        self.cas.entry(ca.clone()).or_default()
    }
}

/// Returns the wait that ends last as an error, if any ends after `now`.
fn latest(waits: impl IntoIterator<Item = RetryAt>, now: SystemTime) -> Result<(), RetryAt> {
    match waits
        .into_iter()
        .filter(|until| until.at > now)
        .max_by_key(|until| until.at)
    {
        Some(until) => Err(until),
        None => Ok(()),
    }
}

/// A limit and what it applies to.
struct AppliedLimit {
    limit: Limit,
    rate: Rate,
    /// A name, a registered domain, or a text for people.
    of: String,
}

/// All limits that apply to an order.
fn limits_on(request: &OrderRequest<'_>) -> Vec<AppliedLimit> {
    let CaLimits {
        orders,
        failures,
        duplicates,
        domain,
        replacements,
        ..
    } = CaLimits::for_ca(request.ca);
    let names = request.names;
    let mut all = vec![AppliedLimit {
        limit: Limit::Orders,
        rate: orders,
        of: "the account".into(),
    }];
    all.extend(names.iter().map(|name| AppliedLimit {
        limit: Limit::Failures,
        rate: failures,
        of: name.into(),
    }));
    let same = |limit, rate| AppliedLimit {
        limit,
        rate,
        of: names.to_string(),
    };
    match request.kind {
        OrderKind::Replacement => all.push(same(Limit::Replacements, replacements)),
        OrderKind::Renewal => all.push(same(Limit::Duplicates, duplicates)),
        OrderKind::New => {
            all.push(same(Limit::Duplicates, duplicates));
            let domains = names
                .iter()
                .map(|name| registered_domain(name).into_owned());
            let domains: BTreeSet<String> = domains.collect();
            let of_domain = |(rate, of)| AppliedLimit {
                limit: Limit::Domain,
                rate,
                of,
            };
            all.extend(
                domains
                    .into_iter()
                    .filter_map(|of| Some((domain?, of)))
                    .map(of_domain),
            );
        }
    }
    all
}

impl AppliedLimit {
    fn retry_at(
        &self,
        record: &CaRecord,
        request: &OrderRequest<'_>,
        now: SystemTime,
    ) -> Option<RetryAt> {
        let at = free_again(self.rate, self.ends(record, request, now), now)?;
        let why = BlockReason::Limit {
            limit: self.limit,
            rate: self.rate,
            of: self.of.clone(),
        };
        Some(RetryAt { at, why })
    }

    /// When each attempt that the CA counted, or may have counted, stops counting towards this
    /// limit.
    fn ends(
        &self,
        record: &CaRecord,
        request: &OrderRequest<'_>,
        now: SystemTime,
    ) -> Vec<SystemTime> {
        let account = |attempt: &&OrderRecord| attempt.account == request.account;
        let attempts = record.attempts();
        let issue_counts = |attempt: &OrderRecord| attempt.issue_counts_until(self.rate, now);
        match self.limit {
            Limit::Accounts => record.accounts().map(|at| self.rate.end(at, now)).collect(),
            Limit::Orders => attempts
                .filter(account)
                .map(|attempt| self.rate.end(attempt.placed, now))
                .collect(),
            Limit::Failures => attempts
                .filter(account)
                .filter(|attempt| attempt.may_have_failed().any(|name| name == self.of))
                .map(|attempt| self.rate.end(attempt.moved, now))
                .collect(),
            Limit::Duplicates | Limit::Replacements => attempts
                .filter(|attempt| attempt.names == *request.names)
                .filter(|attempt| {
                    (attempt.kind == OrderKind::Replacement) == (self.limit == Limit::Replacements)
                })
                .filter_map(issue_counts)
                .collect(),
            Limit::Domain => attempts
                .filter(|attempt| attempt.kind == OrderKind::New)
                .filter(|attempt| attempt.names.iter().any(|name| is_below(name, &self.of)))
                .filter_map(issue_counts)
                .collect(),
        }
    }
}

/// Whether a name counts for a registered domain. The suffix decides in most cases, without the
/// Public Suffix List.
fn is_below(name: &str, domain: &str) -> bool {
    (name.ends_with(domain) || domain.ends_with("/64")) && registered_domain(name) == domain
}

impl Rate {
    /// When an event at `at` stops counting. A time in the future counts as `now`.
    fn end(&self, at: SystemTime, now: SystemTime) -> SystemTime {
        at.min(now) + self.per + SLACK
    }
}

/// When one more event fits beside those that count until `ends`; `None`: now.
fn free_again(
    rate: Rate,
    ends: impl IntoIterator<Item = SystemTime>,
    now: SystemTime,
) -> Option<SystemTime> {
    let mut counting: Vec<_> = ends.into_iter().filter(|end| *end > now).collect();
    counting.sort_unstable();
    counting
        .len()
        .checked_sub(rate.most)
        .and_then(|last| counting.get(last).copied())
}

/// The CA counts at slightly different times, by another clock.
const SLACK: Duration = Duration::from_mins(1);
