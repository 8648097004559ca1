//! Orders certificates from CAs and renews them: one task for the process, a state for each domain. What
//! it gets lies below `state`, where [`Certificates`] finds it.

mod attempt;
mod budgets;
mod look;
mod prove;
mod state;
mod step;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::state::{Outcome, State};
use self::step::Step;
use super::ledger::Ledger;
use super::ledger::file::{Clock, LedgerFile};
use super::manager::Certificates;
use super::renewal::{Life, Urgency, urgency};
use super::report::{AcmeStatus, Attempts};
use super::state::CaId;
use super::storage::Storage;
use crate::config::acme::{AcmeRequest, AcmeSettings, CaSettings};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::{CertificateSource, SharedVirtualHost};
use crate::registry::host::HostName;

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

/// What is wanted. Swapped whole by a reload; an order that is under way goes on.
#[derive(Debug)]
struct Plan {
    settings: AcmeSettings,
    hosts: Vec<SharedVirtualHost>,
    /// As the CAs are to know them: those of all domains.
    contacts: Vec<String>,
}

/// A domain while the task runs.
struct Domain {
    host: SharedVirtualHost,
    state: State,
    status: AcmeStatus,
    running: bool,
    forced: bool,
    attempts: Attempts,
    /// What was last said about the end of its certificate.
    urgency: Urgency,
}

impl Plan {
    fn of(snapshot: &Snapshot) -> Self {
        let asking = snapshot.domains.iter().filter(|host| request_of(host).is_some());
        let hosts: Vec<SharedVirtualHost> = asking.cloned().collect();
        let contacts = hosts.iter().filter_map(|host| request_of(host)?.contact.as_ref());
        let mut contacts: Vec<String> = contacts.map(|contact| format!("mailto:{contact}")).collect();
        contacts.sort();
        contacts.dedup();
        Self { settings: snapshot.acme.clone(), hosts, contacts }
    }

    /// The CAs, in the order in which they are asked.
    fn authorities(&self) -> impl Iterator<Item = (&CaSettings, CaId)> {
        let all = self.settings.authorities.iter();
        all.filter_map(|ca| Some((ca, CaId::new(ca.directory.url()).ok()?)))
    }
}

fn request_of(host: &SharedVirtualHost) -> Option<&AcmeRequest> {
    match &host.certificate {
        CertificateSource::Acme(request) => Some(request),
        CertificateSource::Files { .. } | CertificateSource::Internal => None,
    }
}

impl Issuer {
    /// For the certificates of a process and their state directory. Nothing happens before [`run`](Self::run).
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

    /// Renews a domain's certificate as soon as limits allow, due or not.
    pub fn renew(&self, domain: HostName) {
        self.forced.lock().unwrap_or_else(PoisonError::into_inner).push(domain);
        self.wake.notify_one();
    }

    /// Looks for word from other processes: to be called about every second, on a blocking thread.
    pub fn look(&self) {
        for domain in self.storage.take_requests() {
            tracing::info!(%domain, "asked to renew the certificate");
            self.renew(domain);
        }
    }

    /// Orders and renews until `stop`. What is under way then is taken up after the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut domains: HashMap<HostName, Domain> = HashMap::new();
        let mut running: JoinSet<(HostName, Step)> = JoinSet::new();
        if !self.plan.load().hosts.is_empty()
            && let Err(error) = self.ledger(|_, _| ()).await
        {
            // Attempts will say so, and not be made.
            tracing::debug!(error, "the ledger of attempts cannot be opened yet");
        }
        loop {
            self.follow_plan(&mut domains);
            self.start_due(&mut domains, &mut running);
            self.tell(&mut domains);
            let pause = self.pause(&domains, running.len());
            tokio::select! {
                // Each only waits: what one misses is there in the next round.
                () = stop.cancelled() => return,
                Some(done) = running.join_next() => self.settle(&mut domains, done),
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    fn follow_plan(&self, domains: &mut HashMap<HostName, Domain>) {
        let plan = self.plan.load();
        domains.retain(|name, _| plan.hosts.iter().any(|host| host.domain == *name));
        for host in &plan.hosts {
            let Some(known) = domains.get_mut(&host.domain) else {
                domains.insert(host.domain.clone(), Domain::new(host.clone()));
                continue;
            };
            if !Arc::ptr_eq(&known.host, host) {
                if request_of(&known.host) != request_of(host) {
                    known.state = State::New;
                }
                known.host = host.clone();
            }
        }
        for domain in std::mem::take(&mut *self.forced.lock().unwrap_or_else(PoisonError::into_inner)) {
            match domains.get_mut(&domain) {
                Some(known) => known.forced = true,
                None => tracing::warn!(%domain, "no CA is asked for this domain's certificate"),
            }
        }
    }

    fn start_due(
        self: &Arc<Self>,
        domains: &mut HashMap<HostName, Domain>,
        running: &mut JoinSet<(HostName, Step)>,
    ) {
        let now = (self.wall)();
        for domain in domains.values_mut() {
            if running.len() >= MOST_AT_ONCE {
                return;
            }
            if domain.running || !(domain.forced || domain.state.is_due(now)) {
                continue;
            }
            domain.running = true;
            let forced = std::mem::take(&mut domain.forced);
            let (issuer, host) = (self.clone(), domain.host.clone());
            running.spawn(async move { (host.domain.clone(), issuer.step(&host, forced).await) });
        }
    }

    fn settle(&self, domains: &mut HashMap<HostName, Domain>, done: Result<(HostName, Step), JoinError>) {
        let (name, Step { state, status, outcome }) = match done {
            Ok(done) => done,
            Err(error) => {
                // Its domain stays marked as running, so that what panicked is not repeated for ever.
                tracing::error!(%error, "a step towards a certificate has failed, please report this");
                return;
            }
        };
        let Some(domain) = domains.get_mut(&name) else { return };
        domain.running = false;
        domain.status = status;
        domain.count(outcome);
        // A reload may have changed what is wanted meanwhile: then it is looked at anew.
        let still_wanted = self.plan.load().hosts.iter().any(|host| Arc::ptr_eq(host, &domain.host));
        domain.state = if still_wanted { state } else { State::New };
    }

    /// Until something is due, and never so long that a clock that was set goes unnoticed.
    fn pause(&self, domains: &HashMap<HostName, Domain>, running: usize) -> Duration {
        if running >= MOST_AT_ONCE {
            return LOOK_AGAIN;
        }
        let now = (self.wall)();
        let idle = domains.values().filter(|domain| !domain.running);
        let next = idle.map(|domain| domain.state.due()).min();
        next.map_or(LOOK_AGAIN, |at| at.duration_since(now).unwrap_or_default().min(LOOK_AGAIN))
    }

    /// Shows what is going on, and says what presses.
    fn tell(&self, domains: &mut HashMap<HostName, Domain>) {
        let now = (self.wall)();
        for domain in domains.values_mut() {
            let held = self.certificates.issued(&domain.host.domain);
            let life = held.map(|held| held.certificate.facts);
            let life = life.map(|facts| Life { not_before: facts.not_before, not_after: facts.not_after });
            let urgency = life.map_or(Urgency::Calm, |life| urgency(life, now));
            if urgency != std::mem::replace(&mut domain.urgency, urgency) {
                say(&domain.host.domain, urgency, domain.status.error.as_deref());
            }
        }
        let status = domains.iter().map(|(name, domain)| (name.clone(), domain.shown()));
        self.certificates.tell(status.collect());
    }

    /// Asks or changes the ledger, on a blocking thread. With an error nothing that a CA counts may follow.
    async fn ledger<R: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Ledger, SystemTime) -> R + Send + 'static,
    ) -> Result<R, String> {
        let issuer = self.clone();
        let clock = Clock { now: (self.wall)(), steady: self.started.elapsed() };
        on_disk(move || {
            let mut opened = issuer.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let file = match opened.as_mut() {
                Some(file) => file,
                None => {
                    let (file, damaged) =
                        LedgerFile::open(issuer.storage.state(), clock).map_err(|error| error.to_string())?;
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

impl Domain {
    fn new(host: SharedVirtualHost) -> Self {
        let (state, status, attempts) = (State::New, AcmeStatus::default(), Attempts::default());
        Self { host, state, status, running: false, forced: false, attempts, urgency: Urgency::Calm }
    }

    fn count(&mut self, outcome: Option<Outcome>) {
        let Attempts { issued, failed, postponed } = &mut self.attempts;
        match outcome {
            Some(Outcome::Issued) => *issued += 1,
            Some(Outcome::Failed) => *failed += 1,
            Some(Outcome::Postponed) => *postponed += 1,
            None => {}
        }
    }

    fn shown(&self) -> AcmeStatus {
        let state = if self.running { "being looked after".to_owned() } else { self.state.to_string() };
        let (next_attempt, attempts) = (self.state.next(), self.attempts);
        AcmeStatus { state, next_attempt, attempts, ..self.status.clone() }
    }
}

/// Louder, the nearer the end.
fn say(domain: &HostName, urgency: Urgency, error: Option<&str>) {
    let error = error.unwrap_or("none yet");
    match urgency {
        Urgency::Calm => {}
        Urgency::Notice => {
            tracing::warn!(%domain, error, "less than a fifth of the certificate's life is left, and it is not renewed")
        }
        Urgency::Warning => {
            tracing::warn!(%domain, error, "less than a tenth of the certificate's life is left, and it is not renewed")
        }
        Urgency::Alarm => {
            tracing::error!(%domain, error, "less than a twentieth of the certificate's life is left, and it is not renewed")
        }
        Urgency::Expired => {
            tracing::error!(%domain, error, "the certificate has expired and is served all the same")
        }
    }
}

/// Runs what waits for the disk where it does not hold up anything else.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Domains that are looked after at the same time. A CA answers an order in seconds, and a thousand domains
/// on one account are bounded by its limit of orders, not by this.
const MOST_AT_ONCE: usize = 8;
const LOOK_AGAIN: Duration = Duration::from_secs(60);
