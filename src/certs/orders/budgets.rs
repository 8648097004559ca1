//! The remaining rate limits at the CAs, for status and metrics.

use super::Issuer;
use super::plan::request_of;
use crate::certs::names::NameSet;
use crate::certs::served::report::DomainBudget;
use crate::certs::state::ledger::{Ledger, LimitUsage, OrderKind, OrderRequest};
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::sorted;

impl Issuer {
    /// What remains of each limit for each domain at each of its CAs, as this process knows it:
    /// reads no files and sends nothing. Costs domains × CAs plus the orders of the last week.
    pub fn budgets(&self) -> Vec<DomainBudget> {
        let (plan, now) = (self.context.plan.load(), self.context.now());
        let ledger = self.context.last_ledger.load_full();
        let empty = Ledger::new(now);
        let ledger = ledger.as_deref().unwrap_or(&empty);
        let cas: Vec<(CaId, LimitUsage<'_>)> = plan
            .authorities()
            .map(|(_, id)| {
                let usage = ledger.usage(&id, now);
                (id, usage)
            })
            .collect();
        let mut all = Vec::new();
        for host in &plan.hosts {
            let Some(request) = request_of(host) else {
                continue;
            };
            let Ok(names) = NameSet::new(sorted(&request.names)) else {
                continue;
            };
            let issued = self.context.issued_for_names(host, request);
            for (ca, usage) in &cas {
                let renews = issued.as_ref().is_some_and(|issued| issued.ca == *ca);
                let kind = if renews {
                    OrderKind::Renewal
                } else {
                    OrderKind::New
                };
                let budget = usage.budget(&OrderRequest {
                    ca,
                    account: ledger.account(ca).unwrap_or_default(),
                    names: &names,
                    kind,
                    held: None,
                });
                all.push(DomainBudget {
                    domain: host.domain.clone(),
                    ca: ca.clone(),
                    budget,
                });
            }
        }
        all
    }
}
