//! Orders certificates from CAs and renews them: one scheduler for the process, one state for each
//! domain. It stores certificates below `state`, where [`Certificates`] finds them.

mod attempt;
mod attempt_error;
mod budgets;
mod changes;
mod clock;
mod contacts;
mod context;
mod domain;
mod domain_state;
mod issued;
mod local_error;
mod order_error;
mod plan;
mod registrations;
mod request;
mod solver;
mod step;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::changes::AppliedChanges;
use self::context::OrderContext;
use self::domain::ScheduledDomain;
use self::domain_state::{AttemptOutcome, DomainState};
use self::plan::Plan;
use self::request::RequestedRenewal;
use self::step::StepResult;
use crate::certs::renewal::Validity;
use crate::certs::served::manager::Certificates;
use crate::certs::served::report::AcmeStatus;
use crate::config::snapshot::Snapshot;
use crate::registry::host::HostName;

/// The system clock, or another one in tests.
pub type SystemClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Schedules orders and renewals. [`run`](Self::run) is the task; the other methods send to it.
pub struct Issuer {
    context: Arc<OrderContext>,
    /// Requests to renew that `run` has not seen yet.
    requested: Mutex<Vec<RequestedRenewal>>,
    wake: Notify,
}

/// The steps that run.
#[derive(Default)]
struct Running {
    steps: JoinSet<StepResult>,
    /// The domain of each: the result of a task that has panicked does not say it.
    names: HashMap<task::Id, HostName>,
}

impl Running {
    fn finish(
        &mut self,
        done: Result<(task::Id, StepResult), JoinError>,
    ) -> (HostName, Result<StepResult, JoinError>) {
        let (id, step) = match done {
            Ok((id, step)) => (id, Ok(step)),
            Err(error) => (error.id(), Err(error)),
        };
        (
            self.names
                .remove(&id)
                .expect("a step is inserted when it is spawned"),
            step,
        )
    }
}

impl Issuer {
    /// Creates the scheduler for the certificates of a process. Nothing is read before
    /// [`run`](Self::run).
    pub fn new(
        certificates: Arc<Certificates>,
        snapshot: &Snapshot,
        system_clock: SystemClock,
    ) -> Self {
        Self {
            context: Arc::new(OrderContext::new(certificates, snapshot, system_clock)),
            requested: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Applies another configuration. Orders in progress go on.
    pub fn apply(&self, snapshot: &Snapshot) {
        self.context
            .plan
            .store(Arc::new(Plan::from_snapshot(snapshot)));
        self.wake.notify_one();
    }

    /// Orders and renews until `stop`. Orders in progress are resumed after the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut domains: HashMap<HostName, ScheduledDomain> = HashMap::new();
        let mut running = Running::default();
        if !self.context.plan.load().hosts.is_empty()
            && let Err(error) = self.context.ledger(|_, _| ()).await
        {
            // Attempts fail with the same error and order nothing.
            tracing::debug!(%error, "ledger cannot be opened");
        }
        let mut applied = AppliedChanges::new(&self);
        loop {
            applied.update(&self, &mut domains);
            self.start_due(&mut domains, &mut running);
            self.publish_status(&mut domains);
            let pause = self.pause(&domains, running.steps.len());
            tokio::select! {
                // All branches are cancel safe: a missed event is seen in the next round.
                () = stop.cancelled() => return,
                Some(done) = running.steps.join_next_with_id() => {
                    let (name, step) = running.finish(done);
                    self.settle(&mut domains, &name, step);
                }
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Updates the contacts at the CAs, in a task that ends when the result is dropped.
    fn start_contact_updates(&self, plan: Arc<Plan>) -> JoinSet<()> {
        let mut updates = JoinSet::new();
        updates.spawn(self.context.clone().update_contacts(plan));
        updates
    }

    fn start_due(
        self: &Arc<Self>,
        domains: &mut HashMap<HostName, ScheduledDomain>,
        running: &mut Running,
    ) {
        let now = self.context.now();
        for domain in domains.values_mut() {
            if running.steps.len() >= MAX_CONCURRENT_STEPS {
                return;
            }
            if domain.next_step().is_none_or(|at| now < at) {
                continue;
            }
            let (context, host, trigger) =
                (self.context.clone(), domain.host.clone(), domain.begin());
            let name = host.domain.clone();
            let step = running
                .steps
                .spawn(async move { context.step(&host, trigger).await });
            running.names.insert(step.id(), name);
        }
    }

    fn settle(
        &self,
        domains: &mut HashMap<HostName, ScheduledDomain>,
        name: &HostName,
        step: Result<StepResult, JoinError>,
    ) {
        let Some(domain) = domains.get_mut(name) else {
            return;
        };
        let StepResult { state, status, outcome } = step.unwrap_or_else(|error| {
            tracing::error!(domain = %name, %error, "certificate task panicked, please report this");
            // A step that has panicked would panic again at once. Other domains go on.
            let until = self.retry_after_panic(&domain.host.domain);
            let state = DomainState::Waiting { until, why: PANIC_MESSAGE.to_owned() };
            let status = AcmeStatus { error: Some(PANIC_MESSAGE.to_owned()), ..domain.status.clone() };
            StepResult { state, status, outcome: Some(AttemptOutcome::Failed) }
        });
        domain.status = status;
        domain.end(state, outcome, self.context.serial(name));
    }

    /// After an hour, or after half of what is left of the domain's certificate.
    fn retry_after_panic(&self, domain: &HostName) -> SystemTime {
        let now = self.context.now();
        let issued = self.context.certificates.issued(domain);
        let left = issued.map(|issued| Validity::of(&issued.certificate.facts).left(now));
        let by_life = left.filter(|left| !left.is_zero()).map(|left| left / 2);
        now + by_life.map_or(PANIC_RETRY_DELAY, |by_life| {
            by_life.clamp(MIN_PANIC_RETRY_DELAY, PANIC_RETRY_DELAY)
        })
    }

    /// The time until the next step, at most a minute so that a change of the clock is noticed.
    fn pause(&self, domains: &HashMap<HostName, ScheduledDomain>, running: usize) -> Duration {
        if running >= MAX_CONCURRENT_STEPS {
            return MAX_IDLE;
        }
        let now = self.context.now();
        let next = domains
            .values()
            .filter_map(ScheduledDomain::next_step)
            .min();
        next.map_or(MAX_IDLE, |at| {
            at.duration_since(now).unwrap_or_default().min(MAX_IDLE)
        })
    }

    /// Publishes the status of all domains, and logs which certificates are close to their end.
    fn publish_status(&self, domains: &mut HashMap<HostName, ScheduledDomain>) {
        let now = self.context.now();
        for domain in domains.values_mut() {
            let issued = self.context.certificates.issued(&domain.host.domain);
            domain.warn_of_expiry(issued.map(|issued| issued.certificate.facts), now);
        }
        let status = domains
            .iter()
            .map(|(name, domain)| (name.clone(), domain.report()));
        self.context.certificates.publish_status(status.collect());
    }
}

/// A CA completes an order within seconds, and a thousand domains on one account are limited by its
/// orders per account, not by this.
const MAX_CONCURRENT_STEPS: usize = 8;
const MAX_IDLE: Duration = Duration::from_mins(1);
const PANIC_RETRY_DELAY: Duration = Duration::from_hours(1);
const MIN_PANIC_RETRY_DELAY: Duration = Duration::from_mins(1);
const PANIC_MESSAGE: &str = "internal error, see the log; another attempt follows";

#[cfg(test)]
mod tests;
