//! Checks whether a replica answers: one that is ejected, before it gets requests again; one that
//! does not answer a request; and, where the configuration says so, all of them at intervals.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::StatusCode;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::error::UpstreamError;
use super::health::FailureReason;
use super::replica::Replica;
use super::replica_group::ReplicaGroup;
use super::transfer::TransferLimits;

impl ReplicaGroup {
    /// Checks all replicas at the intervals of the configuration, if there are any, as long as the
    /// group is in use. Does nothing outside the runtime.
    pub(crate) fn begin_checks(self: &Arc<Self>) {
        let (Some(check), Ok(runtime)) = (&self.check, Handle::try_current()) else {
            return;
        };
        runtime.spawn(check_all(Arc::downgrade(self), check.interval));
    }

    /// Begins a check of one replica, unless one is under way.
    #[expect(clippy::disallowed_methods, reason = "ends by its time limit")]
    #[cold]
    pub(super) fn begin_check(self: &Arc<Self>, replica: &Arc<Replica>) {
        if replica.service.is_checked() {
            return;
        }
        let (group, replica) = (self.clone(), replica.clone());
        tokio::spawn(async move {
            if let Some(_running) = replica.service.begin_check() {
                group.check_replica(&replica).await;
            }
        });
    }

    /// One that is in service may fail once.
    async fn check_replica(&self, replica: &Replica) {
        for check in 1.. {
            let (reason, error) = match self.ask(replica).await {
                Ok(status) if !status.is_server_error() => return self.restore(replica),
                Ok(status) => {
                    let error = format!("it answers {status} to a check: see its own log");
                    (FailureReason::Status, error)
                }
                Err(error) => match error.reason() {
                    Some(reason) => (reason, error.explained()),
                    // moorgate's own fault says nothing.
                    None => return,
                },
            };
            if let Some(health) = replica.health() {
                health.failed(reason, error.clone());
            }
            if replica.service.is_ejected() {
                return replica.service.eject(reason, error);
            }
            if check == MAX_FAILED_CHECKS {
                return self.eject(replica, reason, error);
            }
        }
    }

    async fn ask(&self, replica: &Replica) -> Result<StatusCode, UpstreamError> {
        let limits = TransferLimits {
            first_body_byte: CHECK_TIMEOUT,
            stall: CHECK_TIMEOUT,
            head: CHECK_TIMEOUT,
            idle: CHECK_TIMEOUT,
        };
        let path = self.check.as_ref().map_or("/v2/", |check| &check.path);
        let answer = replica.ask(replica.request(path), limits);
        let answered = timeout(CHECK_TIMEOUT, answer).await;
        answered.unwrap_or(Err(UpstreamError::TimedOut))
    }

    fn restore(&self, replica: &Replica) {
        let Some(health) = replica.health() else {
            return;
        };
        if !replica.service.is_ejected() {
            return;
        }
        health.succeeded();
        if let Some(ejection) = replica.service.restore() {
            let (domain, upstream) = (health.domain(), health.url());
            let ejected_s = ejection.since.elapsed().unwrap_or_default().as_secs();
            tracing::info!(domain, upstream, ejected_s, "replica is back in service");
        }
    }
}

async fn check_all(group: Weak<ReplicaGroup>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(group) = group.upgrade() else {
            return;
        };
        for replica in group.replicas() {
            group.begin_check(replica);
        }
    }
}

/// A server that works answers at once.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// So many without an answer eject.
const MAX_FAILED_CHECKS: u32 = 2;
