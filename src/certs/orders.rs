//! Orders certificates from CAs and renews them: one task for the process, a state for each domain.
//! What it gets lies below `state`, where [`Certificates`] finds it.

mod attempt;
mod attempt_error;
mod budgets;
mod changes;
mod contacts;
mod context;
mod domain;
mod domain_state;
mod issued;
mod local_error;
mod order_error;
mod plan;
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
use self::domain::ManagedDomain;
use self::domain_state::{AttemptOutcome, DomainState};
use self::plan::Plan;
use self::step::StepResult;
use crate::certs::served::manager::Certificates;
use crate::certs::served::report::AcmeStatus;
use crate::config::snapshot::Snapshot;
use crate::registry::host::HostName;

/// What the wall's clock shows. Another one in tests.
pub type SystemClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Orders and renews. [`run`](Self::run) does it; everything else only tells it something.
pub struct Issuer {
    context: Arc<OrderContext>,
    /// Domains whose renewal was requested and not yet taken up.
    requested: Mutex<Vec<HostName>>,
    wake: Notify,
}

/// The steps that are being taken.
#[derive(Default)]
struct Running {
    steps: JoinSet<StepResult>,
    /// Whose. One that has panicked cannot say it itself.
    names: HashMap<task::Id, HostName>,
}

impl Running {
    fn ended(
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
                .expect("each step is entered when it is spawned"),
            step,
        )
    }
}

impl Issuer {
    /// For the certificates of a process and their state directory. Nothing happens before
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

    /// Takes another configuration. Neither cancels nor repeats an order that is under way.
    pub fn apply(&self, snapshot: &Snapshot) {
        self.context
            .plan
            .store(Arc::new(Plan::from_snapshot(snapshot)));
        self.wake.notify_one();
    }

    /// Orders and renews until `stop`. What is under way then is taken up after the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut domains: HashMap<HostName, ManagedDomain> = HashMap::new();
        let mut running = Running::default();
        if !self.context.plan.load().hosts.is_empty()
            && let Err(error) = self.context.ledger(|_, _| ()).await
        {
            // Attempts will say so, and not be made.
            tracing::debug!(%error, "the ledger of attempts cannot be opened yet");
        }
        let mut applied = AppliedChanges::new(&self);
        loop {
            applied.update(&self, &mut domains);
            self.start_due(&mut domains, &mut running);
            self.publish_status(&mut domains);
            let pause = self.pause(&domains, running.steps.len());
            tokio::select! {
                // Each only waits: what one misses is there in the next round.
                () = stop.cancelled() => return,
                Some(done) = running.steps.join_next_with_id() => {
                    let (name, step) = running.ended(done);
                    self.settle(&mut domains, &name, step);
                }
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Tells the CAs the contacts, as long as the answer is kept.
    fn start_contact_updates(&self, plan: Arc<Plan>) -> JoinSet<()> {
        let mut updates = JoinSet::new();
        updates.spawn(self.context.clone().update_contacts(plan));
        updates
    }

    fn start_due(
        self: &Arc<Self>,
        domains: &mut HashMap<HostName, ManagedDomain>,
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
        domains: &mut HashMap<HostName, ManagedDomain>,
        name: &HostName,
        step: Result<StepResult, JoinError>,
    ) {
        let Some(domain) = domains.get_mut(name) else {
            return;
        };
        let StepResult { state, status, outcome } = step.unwrap_or_else(|error| {
            tracing::error!(domain = %name, %error, "certificate task panicked, please report this");
            // What panicked would do so again at once. The others go on meanwhile.
            let state = DomainState::Waiting { until: self.context.now() + PANIC_RETRY_DELAY, why: PANIC_MESSAGE.to_owned() };
            let status = AcmeStatus { error: Some(PANIC_MESSAGE.to_owned()), ..domain.status.clone() };
            StepResult { state, status, outcome: Some(AttemptOutcome::Failed) }
        });
        domain.status = status;
        domain.end(state, outcome);
    }

    /// Until something is due, and never so long that a clock that was set goes unnoticed.
    fn pause(&self, domains: &HashMap<HostName, ManagedDomain>, running: usize) -> Duration {
        if running >= MAX_CONCURRENT_STEPS {
            return MAX_IDLE;
        }
        let now = self.context.now();
        let next = domains.values().filter_map(ManagedDomain::next_step).min();
        next.map_or(MAX_IDLE, |at| {
            at.duration_since(now).unwrap_or_default().min(MAX_IDLE)
        })
    }

    /// Shows what is going on, and says what presses.
    fn publish_status(&self, domains: &mut HashMap<HostName, ManagedDomain>) {
        let now = self.context.now();
        for domain in domains.values_mut() {
            let held = self.context.certificates.issued(&domain.host.domain);
            domain.warn_of_expiry(held.map(|held| held.certificate.facts), now);
        }
        let status = domains
            .iter()
            .map(|(name, domain)| (name.clone(), domain.report()));
        self.context.certificates.publish_status(status.collect());
    }
}

/// Domains that are looked after at the same time. A CA answers an order in seconds, and a thousand
/// domains on one account are bounded by its limit of orders, not by this.
const MAX_CONCURRENT_STEPS: usize = 8;
const MAX_IDLE: Duration = Duration::from_secs(60);
const PANIC_RETRY_DELAY: Duration = Duration::from_secs(60 * 60);
const PANIC_MESSAGE: &str =
    "moorgate itself has failed here, as its log says; it goes on in an hour";

#[cfg(test)]
mod tests;
