//! The composition root: builds every part in order, swaps the configuration, owns the tasks.

mod access;
mod build;
pub(crate) mod lifecycle;
mod listeners;
mod stores;
pub(crate) mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::verify::{Verifier, VerifierError, VerifierSettings};
use crate::certs::orders::Issuer;
use crate::certs::served::manager::Certificates;
use crate::config::problem::{Colour, Problems};
use crate::config::snapshot::{LogLevel, Snapshot};
use crate::config::vhost::ListenAddress;
use crate::observe::access_log::AccessLog;
use crate::observe::logging::LogControl;
use crate::request::Gate;
use crate::request::answer::manifest_budget::Rooms;
use crate::request::answer::tag_write::TagTurns;
use crate::request::site::Sites;
use crate::tls::server_config::ServerConfigs;
use crate::workers::Workers;
pub(crate) use build::problems as file_problems;
pub(crate) use listeners::BoundListener;
use listeners::Listeners;
pub use listeners::{Bound, ListenerKind};

/// A running moorgate.
pub struct App {
    directory: PathBuf,
    gate: Arc<Gate>,
    certificates: Arc<Certificates>,
    issuer: Arc<Issuer>,
    server_configs: ServerConfigs,
    workers: Workers,
    connections: Arc<Semaphore>,
    listeners: Mutex<Listeners>,
    /// Admin listeners on their way to whoever serves them.
    admin_listeners: AdminListeners,
    tasks: TaskTracker,
    drain: CancellationToken,
    ready: AtomicBool,
    started: SystemTime,
    log: Option<LogControl>,
    /// Held by the one reload that goes on: two would bind the same listeners.
    reloading: tokio::sync::Mutex<()>,
    last_reload: ArcSwap<LastReload>,
}

/// Hands admin listeners over to the layer above: the app binds and stops them with all others, and
/// does not know what they serve.
#[derive(Debug)]
struct AdminListeners {
    sender: mpsc::UnboundedSender<BoundListener>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<BoundListener>>>,
}

impl AdminListeners {
    fn new() -> Self {
        // As long as the admin listeners of the configurations that were in force.
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

/// What became of the newest configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastReload {
    /// Whether it is in force.
    pub(crate) accepted: bool,
    /// When the one in force was read.
    pub(crate) loaded: SystemTime,
}

/// How a process is started.
#[derive(Debug)]
pub struct Options {
    /// The directory with `moorgate.toml` and `conf.d`.
    pub directory: PathBuf,
    /// The threads that serve; `None`: those of the caller's runtime.
    pub workers: Option<usize>,
    /// Log at least this much.
    pub log_floor: Option<LogLevel>,
    /// Install the process's log.
    pub install_log: bool,
}

/// Why a configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something is wrong with it.
    #[error("the configuration has problems")]
    Configuration(Problems),
    /// A listener cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: ListenAddress,
        /// Why.
        source: std::io::Error,
    },
    /// A worker thread cannot be started.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    /// Passwords cannot be checked.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl StartError {
    /// Tells the log that a reload was refused, and why.
    pub(crate) fn log_reload(&self) {
        match self {
            Self::Configuration(problems) => {
                let problems = problems.render(Colour::Never);
                tracing::error!("the new configuration has problems and is not used:\n{problems}");
            }
            error => tracing::error!(%error, "the new configuration is not used"),
        }
    }
}

/// How often files are looked at for changes. A `stat` each costs microseconds, and unlike
/// notifications of the kernel it also works on bind mounts and network file systems.
const LOOK: Duration = Duration::from_secs(1);

impl App {
    /// Reads the configuration, binds the listeners and serves. Warnings are logged.
    pub async fn start(options: Options) -> Result<Arc<Self>, StartError> {
        let Options {
            directory,
            workers,
            log_floor,
            install_log,
        } = options;
        let snapshot = build::load(directory.clone()).await?;
        let log = install_log.then(|| crate::observe::logging::install(&snapshot.log, log_floor));
        let drain = CancellationToken::new();
        let workers = match workers {
            Some(count) => Workers::start(count).map_err(StartError::Worker)?,
            None => Workers::here(),
        };
        let sites = build::sites(snapshot.clone(), None, workers.count()).await?;
        let verifier = Arc::new(Verifier::new(VerifierSettings::default())?);
        let access_log = Arc::new(AccessLog::new());
        access_log.configure(snapshot.log.access, snapshot.log.format);
        let certificates = Arc::new(Certificates::new(snapshot.state.clone()));
        build::apply_certificates(&certificates, &snapshot).await;
        let issuer = Arc::new(Issuer::new(
            certificates.clone(),
            &snapshot,
            Arc::new(SystemTime::now),
        ));
        let app = Arc::new(Self {
            directory,
            gate: Arc::new(Gate {
                sites: ArcSwap::from(sites),
                verifier,
                access_log,
                nowhere: Arc::default(),
                tag_turns: TagTurns::new(),
                rooms: Rooms::new(),
            }),
            certificates,
            issuer,
            server_configs: ServerConfigs::new()
                .map_err(|error| StartError::Tls(error.to_string()))?,
            workers,
            connections: Arc::new(Semaphore::new(snapshot.connection.connections)),
            listeners: Mutex::new(Listeners::default()),
            admin_listeners: AdminListeners::new(),
            tasks: TaskTracker::new(),
            drain,
            ready: AtomicBool::new(false),
            started: SystemTime::now(),
            log,
            reloading: tokio::sync::Mutex::default(),
            last_reload: ArcSwap::from_pointee(LastReload {
                accepted: true,
                loaded: SystemTime::now(),
            }),
        });
        let bound = app.bind_missing(&snapshot)?;
        app.listen(bound);
        app.tasks.spawn(app.clone().look_for_changes());
        app.tasks.spawn(app.clone().look_after_stores());
        app.tasks.spawn(app.issuer.clone().run(app.drain.clone()));
        app.ready.store(true, Ordering::Release);
        Ok(app)
    }

    /// Makes the files' configuration the one in force. On any error nothing changes.
    pub async fn reload(self: &Arc<Self>) -> Result<(), StartError> {
        let _alone = self.reloading.lock().await;
        let before = **self.last_reload.load();
        let done = self.reload_alone().await;
        self.last_reload.store(Arc::new(match &done {
            Ok(()) => LastReload {
                accepted: true,
                loaded: SystemTime::now(),
            },
            Err(_) => LastReload {
                accepted: false,
                ..before
            },
        }));
        done
    }

    async fn reload_alone(self: &Arc<Self>) -> Result<(), StartError> {
        let snapshot = build::load(self.directory.clone()).await?;
        let current = self.gate.sites.load_full();
        build::warn_of_fixed(&current.snapshot, &snapshot);
        let bound = self.bind_missing(&snapshot)?;
        let sites = build::sites(snapshot.clone(), Some(&current), self.workers.count()).await?;
        build::apply_certificates(&self.certificates, &snapshot).await;
        // Files that were kept may have changed since the last look.
        let kept = sites.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || build::refresh_users(&kept)).await {
            tracing::error!(%error, "looking for changed password files failed");
        }
        self.gate.sites.store(sites);
        self.issuer.apply(&snapshot);
        self.gate
            .access_log
            .configure(snapshot.log.access, snapshot.log.format);
        if let Some(log) = &self.log {
            log.configure(&snapshot.log);
        }
        self.listen(bound);
        self.stop_unwanted(&snapshot);
        tracing::info!(domains = snapshot.domains.len(), "configuration reloaded");
        Ok(())
    }

    /// Stops accepting and waits until all connections have ended, or `limit` has passed.
    /// Returns whether all ended by themselves.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.ready.store(false, Ordering::Release);
        self.drain.cancel();
        self.workers.connections.close();
        self.tasks.close();
        let all = async {
            self.tasks.wait().await;
            self.workers.connections.wait().await;
        };
        let ended = tokio::time::timeout(limit, all).await.is_ok();
        self.on_sites(tokens::look).await;
        self.on_sites(stores::finish).await;
        ended
    }

    async fn on_sites(&self, work: fn(&Sites)) {
        let sites = self.gate.sites.load_full();
        if let Err(error) = tokio::task::spawn_blocking(move || work(&sites)).await {
            tracing::error!(%error, "looking after the stores or tokens failed");
        }
    }

    async fn look_after_stores(self: Arc<Self>) {
        let mut tick = tokio::time::interval(stores::LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let looking = async {
            loop {
                tick.tick().await;
                self.on_sites(stores::look_after).await;
            }
        };
        self.drain.run_until_cancelled(looking).await;
    }

    /// The limit of a drain by the configuration in force.
    pub fn drain_limit(&self) -> Duration {
        self.gate.sites.load().snapshot.connection.drain
    }

    /// Whether connections are accepted.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.workers.connections.len()
    }

    /// The sockets that are listened on.
    pub fn listeners(&self) -> Vec<Bound> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bound()
    }

    /// Where a listener of the configuration really is: they differ for port 0.
    pub fn address(&self, kind: ListenerKind, configured: ListenAddress) -> Option<SocketAddr> {
        let all = self.listeners();
        all.iter()
            .find(|bound| bound.kind == kind && bound.configured == configured)
            .map(|bound| bound.bound)
    }

    /// The access log, for the thread that writes it.
    pub fn access_log(&self) -> &Arc<AccessLog> {
        &self.gate.access_log
    }

    /// How many bcrypt hashes have been computed since the start.
    pub fn hashes(&self) -> u64 {
        self.gate.verifier.status().hashed
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What is held for each domain, and how far its renewal is.
    pub fn certificate_reports(&self) -> Vec<crate::certs::served::report::CertificateReport> {
        self.certificates.report()
    }

    pub(crate) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    pub(crate) fn last_reload(&self) -> LastReload {
        **self.last_reload.load()
    }

    pub(crate) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// The directory that holds what outlives the process, the control socket among it.
    pub(crate) fn state_directory(&self) -> PathBuf {
        self.snapshot().state.clone()
    }

    /// The admin listeners, those of later configurations too. `None` after the first call.
    pub(crate) fn take_admin_listeners(&self) -> Option<mpsc::UnboundedReceiver<BoundListener>> {
        let receiver = &self.admin_listeners.receiver;
        receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Runs a task that is dropped when the process drains.
    pub(crate) fn spawn_until_drain(&self, task: impl Future<Output = ()> + Send + 'static) {
        let drain = self.drain.clone();
        self.tasks.spawn(drain.run_until_cancelled_owned(task));
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.gate.sites.load().snapshot.clone()
    }

    /// Re-reads htpasswd and certificate files that have changed, and renews the leaves that are
    /// due.
    pub async fn look_now(&self) {
        let sites = self.gate.sites.load_full();
        let certificates = self.certificates.clone();
        let looked = tokio::task::spawn_blocking(move || {
            certificates.refresh();
            build::refresh_users(&sites);
            tokens::look(&sites);
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "looking for changed files failed");
        }
    }

    /// Re-reads htpasswd and certificate files when they change, and renews the internal CA's
    /// leaves.
    async fn look_for_changes(self: Arc<Self>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let looking = async {
            loop {
                tick.tick().await;
                self.look_now().await;
            }
        };
        self.drain.run_until_cancelled(looking).await;
    }
}
