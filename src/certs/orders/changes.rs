//! Changes that discard the states of domains: another configuration, a clock that was set back, a
//! requested renewal.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Issuer;
use super::domain::ScheduledDomain;
use super::plan::{Plan, request_of};
use super::request::RequestedRenewal;
use crate::certs::state::ledger::file::Clock;
use crate::registry::host::HostName;

/// The configuration and clock by which the states of the domains were decided.
pub(super) struct AppliedChanges {
    plan: Arc<Plan>,
    clock: Clock,
    /// Updates the contacts at the CAs. Replaced, and so ended, when they change again.
    _contact_updates: JoinSet<()>,
}

impl AppliedChanges {
    /// The current configuration and clock. Begins to update the contacts at the CAs.
    pub(super) fn new(issuer: &Issuer) -> Self {
        let plan = issuer.context.plan.load_full();
        Self {
            _contact_updates: issuer.start_contact_updates(plan.clone()),
            plan,
            clock: issuer.context.clock(),
        }
    }

    /// Applies what has changed since the last call.
    pub(super) fn update(
        &mut self,
        issuer: &Issuer,
        domains: &mut HashMap<HostName, ScheduledDomain>,
    ) {
        let clock = issuer.context.clock();
        if was_set_back(std::mem::replace(&mut self.clock, clock), clock) {
            tracing::info!("clock was set back, reevaluating all certificates");
            domains.values_mut().for_each(ScheduledDomain::reevaluate);
        }
        let plan = issuer.context.plan.load_full();
        let before = std::mem::replace(&mut self.plan, plan.clone());
        if !Arc::ptr_eq(&before, &plan) {
            if before.contacts != plan.contacts {
                self._contact_updates = issuer.start_contact_updates(plan.clone());
            }
            if before.settings != plan.settings {
                domains.values_mut().for_each(ScheduledDomain::change);
            }
        }
        apply_hosts(&plan, domains);
        let requested = std::mem::take(
            &mut *issuer
                .requested
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for RequestedRenewal { domain, served } in requested {
            match domains.get_mut(&domain) {
                Some(known) => known.request_renewal(served),
                None => {
                    tracing::warn!(%domain, "renewal requested for a domain whose certificate is not from a CA")
                }
            }
        }
    }
}

fn apply_hosts(plan: &Plan, domains: &mut HashMap<HostName, ScheduledDomain>) {
    domains.retain(|name, _| plan.hosts.iter().any(|host| host.domain == *name));
    for host in &plan.hosts {
        let Some(known) = domains.get_mut(&host.domain) else {
            domains.insert(host.domain.clone(), ScheduledDomain::new(host.clone()));
            continue;
        };
        if !Arc::ptr_eq(&known.host, host) {
            if request_of(&known.host) != request_of(host) {
                known.change();
            }
            known.host = host.clone();
        }
    }
}

/// Whether the clock was set back. Scheduled times are then too far ahead, perhaps by years: a
/// machine may start with any clock.
fn was_set_back(before: Clock, now: Clock) -> bool {
    let Some(elapsed) = now.steady.checked_sub(before.steady) else {
        return false;
    };
    (before.now + elapsed)
        .duration_since(now.now)
        .is_ok_and(|lost| lost > MIN_CLOCK_STEP)
}

/// Smaller differences come from a clock that is being slewed, or a loaded machine.
const MIN_CLOCK_STEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_a_clock_that_was_set_back_is_noticed() {
        let clock = |now: u64, steady: u64| Clock {
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + now),
            steady: Duration::from_secs(steady),
        };
        assert!(was_set_back(clock(10_000, 1), clock(0, 2)));
        assert!(
            was_set_back(clock(100, 0), clock(100, 60)),
            "it stood still for a minute"
        );
        assert!(!was_set_back(clock(100, 0), clock(160, 60)));
        assert!(!was_set_back(clock(100, 0), clock(157, 60)), "slewed");
        assert!(!was_set_back(clock(0, 0), clock(10_000, 1)), "set forward");
    }
}
