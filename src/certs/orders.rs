//! Orders certificates from CAs and renews them: one task for the process, a state for each domain.
//! What it gets lies below `state`, where [`Certificates`] finds it.

mod attempt;
mod budgets;
mod contacts;
mod domain;
mod follow;
mod issued;
mod plan;
mod prove;
mod renew;
mod state;
mod step;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::domain::Domain;
use self::plan::Plan;
use self::state::{Outcome, State};
use self::step::Step;
use crate::certs::served::manager::Certificates;
use crate::certs::served::report::AcmeStatus;
use crate::certs::state::ledger::Ledger;
use crate::certs::state::ledger::file::{Clock, LedgerFile};
use crate::certs::state::storage::Storage;
use crate::config::snapshot::Snapshot;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// What the wall's clock shows. Another one in tests.
pub type Wall = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Orders and renews. [`run`](Self::run) does it; everything else only tells it something.
pub struct Issuer {
    storage: Storage,
    certificates: Arc<Certificates>,
    plan: ArcSwap<Plan>,
    /// Domains that somebody wants renewed at once.
    forced: Mutex<Vec<HostName>>,
    /// Opened by whoever needs it first.
    ledger: Mutex<Option<LedgerFile>>,
    /// As of the last look into it.
    known: ArcSwapOption<Ledger>,
    wake: Notify,
    wall: Wall,
    started: Instant,
}

/// The steps that are being taken.
#[derive(Default)]
struct Running {
    steps: JoinSet<Step>,
    /// Whose. One that has panicked cannot say it itself.
    names: HashMap<task::Id, HostName>,
}

impl Running {
    fn ended(
        &mut self,
        done: Result<(task::Id, Step), JoinError>,
    ) -> (HostName, Result<Step, JoinError>) {
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
    pub fn new(certificates: Arc<Certificates>, snapshot: &Snapshot, wall: Wall) -> Self {
        Self {
            storage: Storage::below(certificates.state()),
            certificates,
            plan: ArcSwap::from_pointee(Plan::of(snapshot)),
            forced: Mutex::default(),
            ledger: Mutex::default(),
            known: ArcSwapOption::empty(),
            wake: Notify::new(),
            wall,
            started: Instant::now(),
        }
    }

    /// Takes another configuration. Neither cancels nor repeats an order that is under way.
    pub fn apply(&self, snapshot: &Snapshot) {
        self.plan.store(Arc::new(Plan::of(snapshot)));
        self.wake.notify_one();
    }

    /// Orders and renews until `stop`. What is under way then is taken up after the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut domains: HashMap<HostName, Domain> = HashMap::new();
        let mut running = Running::default();
        if !self.plan.load().hosts.is_empty()
            && let Err(error) = self.ledger(|_, _| ()).await
        {
            // Attempts will say so, and not be made.
            tracing::debug!(error, "the ledger of attempts cannot be opened yet");
        }
        let mut followed = self.begin_to_follow();
        loop {
            self.follow(&mut followed, &mut domains);
            self.start_due(&mut domains, &mut running);
            self.tell(&mut domains);
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
    fn start_telling(self: &Arc<Self>, plan: Arc<Plan>) -> JoinSet<()> {
        let mut telling = JoinSet::new();
        telling.spawn(self.clone().tell_contacts(plan));
        telling
    }

    fn start_due(self: &Arc<Self>, domains: &mut HashMap<HostName, Domain>, running: &mut Running) {
        let now = (self.wall)();
        for domain in domains.values_mut() {
            if running.steps.len() >= MOST_AT_ONCE {
                return;
            }
            if domain.running || !(domain.forced || domain.state.is_due(now)) {
                continue;
            }
            let (issuer, host, spur) = (self.clone(), domain.host.clone(), domain.begin());
            let name = host.domain.clone();
            let step = running
                .steps
                .spawn(async move { issuer.step(&host, spur).await });
            running.names.insert(step.id(), name);
        }
    }

    fn settle(
        &self,
        domains: &mut HashMap<HostName, Domain>,
        name: &HostName,
        step: Result<Step, JoinError>,
    ) {
        let Some(domain) = domains.get_mut(name) else {
            return;
        };
        let Step { state, status, outcome } = step.unwrap_or_else(|error| {
            tracing::error!(domain = %name, %error, "a step towards a certificate has broken down, please report this");
            // What panicked would do so again at once. The others go on meanwhile.
            let state = State::Waiting { until: (self.wall)() + AFTER_A_PANIC, why: BROKEN.to_owned() };
            let status = AcmeStatus { error: Some(BROKEN.to_owned()), ..domain.status.clone() };
            Step { state, status, outcome: Some(Outcome::Failed) }
        });
        domain.status = status;
        domain.count(outcome);
        domain.end(state);
    }

    /// Until something is due, and never so long that a clock that was set goes unnoticed.
    fn pause(&self, domains: &HashMap<HostName, Domain>, running: usize) -> Duration {
        if running >= MOST_AT_ONCE {
            return LOOK_AGAIN;
        }
        let now = (self.wall)();
        let idle = domains.values().filter(|domain| !domain.running);
        let next = idle.map(|domain| domain.state.due()).min();
        next.map_or(LOOK_AGAIN, |at| {
            at.duration_since(now).unwrap_or_default().min(LOOK_AGAIN)
        })
    }

    /// Shows what is going on, and says what presses.
    fn tell(&self, domains: &mut HashMap<HostName, Domain>) {
        let now = (self.wall)();
        for domain in domains.values_mut() {
            let held = self.certificates.issued(&domain.host.domain);
            domain.warn(held.map(|held| held.certificate.facts), now);
        }
        let status = domains
            .iter()
            .map(|(name, domain)| (name.clone(), domain.shown()));
        self.certificates.tell(status.collect());
    }

    fn clock(&self) -> Clock {
        Clock {
            now: (self.wall)(),
            steady: self.started.elapsed(),
        }
    }

    /// Asks or changes the ledger, on a blocking thread. With an error nothing that a CA counts may
    /// follow.
    async fn ledger<R: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Ledger, SystemTime) -> R + Send + 'static,
    ) -> Result<R, String> {
        let issuer = self.clone();
        let clock = self.clock();
        run_blocking(move || {
            let mut opened = issuer.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let file = match opened.as_mut() {
                Some(file) => file,
                None => {
                    let (file, damaged) = LedgerFile::open(issuer.storage.state(), clock)
                        .map_err(|error| error.to_string())?;
                    if let Some(damaged) = damaged {
                        tracing::error!("{damaged}");
                    }
                    opened.insert(file)
                }
            };
            let (answer, written) = file.update(clock, change);
            issuer.known.store(Some(file.ledger().clone()));
            written.map(|()| answer).map_err(|error| error.to_string())
        })
        .await
    }
}

/// Domains that are looked after at the same time. A CA answers an order in seconds, and a thousand
/// domains on one account are bounded by its limit of orders, not by this.
const MOST_AT_ONCE: usize = 8;
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const AFTER_A_PANIC: Duration = Duration::from_secs(60 * 60);
const BROKEN: &str = "moorgate itself has failed here, as its log says; it goes on in an hour";

#[cfg(test)]
mod tests;
