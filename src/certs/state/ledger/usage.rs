//! The remaining budgets of the limits of one CA, for any number of orders.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use super::display::Limit;
use super::limits::{CaLimits, Rate, registered_domain};
use super::record::{CaRecord, OrderKind, OrderRecord};
use super::{OrderRequest, limits_on};
use crate::certs::names::NameSet;

/// The remaining budget of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitBudget {
    pub limit: Limit,
    /// How many more events the limit allows now.
    pub left: usize,
    /// How many events the limit allows in its window.
    pub most: usize,
}

/// What counts towards the limits of one CA at a given time.
///
/// It is built once from all attempts. The budget of an order then takes time proportional to the
/// names of that order: a report on a thousand domains reads the attempts of a week once, not a
/// thousand times.
#[derive(Debug, Default)]
pub(crate) struct LimitUsage<'a> {
    accounts: usize,
    by_account: HashMap<&'a str, usize>,
    /// Failed authorizations, by account and name.
    failures: HashMap<(&'a str, &'a str), usize>,
    duplicates: HashMap<&'a NameSet, usize>,
    replacements: HashMap<&'a NameSet, usize>,
    by_domain: HashMap<Cow<'a, str>, usize>,
}

impl<'a> LimitUsage<'a> {
    pub(super) fn new(limits: &CaLimits, record: &'a CaRecord, now: SystemTime) -> Self {
        let accounts = record
            .accounts()
            .filter(|at| limits.accounts.end(*at, now) > now);
        let mut usage = Self {
            accounts: accounts.count(),
            ..Self::default()
        };
        for attempt in record.attempts() {
            usage.count(attempt, limits, now);
        }
        usage
    }

    fn count(&mut self, attempt: &'a OrderRecord, limits: &CaLimits, now: SystemTime) {
        let account = attempt.account.as_str();
        let is_recent = |rate: Rate, at| rate.end(at, now) > now;
        let is_certificate =
            |rate| (attempt.issue_counts_until(rate, now)).is_some_and(|end| end > now);
        if is_recent(limits.orders, attempt.placed) {
            *self.by_account.entry(account).or_default() += 1;
        }
        if is_recent(limits.failures, attempt.moved) {
            for name in attempt.may_have_failed() {
                *self.failures.entry((account, name)).or_default() += 1;
            }
        }
        let (same_names, rate) = match attempt.kind {
            OrderKind::Replacement => (&mut self.replacements, limits.replacements),
            OrderKind::New | OrderKind::Renewal => (&mut self.duplicates, limits.duplicates),
        };
        if is_certificate(rate) {
            *same_names.entry(&attempt.names).or_default() += 1;
        }
        if attempt.kind == OrderKind::New && limits.domain.is_some_and(is_certificate) {
            let domains: BTreeSet<_> = attempt.names.iter().map(registered_domain).collect();
            for domain in domains {
                *self.by_domain.entry(domain).or_default() += 1;
            }
        }
    }

    /// The remaining budget of each limit that `request` would use. For a limit that applies to
    /// each of its names, the smallest.
    pub(crate) fn budget(&self, request: &OrderRequest<'_>) -> Vec<LimitBudget> {
        let mut least: BTreeMap<Limit, LimitBudget> = BTreeMap::new();
        for on in limits_on(request) {
            let used = match on.limit {
                Limit::Accounts => Some(&self.accounts),
                Limit::Orders => self.by_account.get(request.account),
                Limit::Failures => self.failures.get(&(request.account, on.of.as_str())),
                Limit::Duplicates => self.duplicates.get(request.names),
                Limit::Replacements => self.replacements.get(request.names),
                Limit::Domain => self.by_domain.get(on.of.as_str()),
            };
            let left = on
                .rate
                .most
                .saturating_sub(used.copied().unwrap_or_default());
            let budget = least.entry(on.limit).or_insert(LimitBudget {
                limit: on.limit,
                left,
                most: on.rate.most,
            });
            budget.left = budget.left.min(left);
        }
        least.into_values().collect()
    }
}
