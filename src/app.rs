//! The composition root: builds every part in order, swaps the configuration, owns the tasks.

mod access;
mod background;
mod build;
pub(crate) mod lifecycle;
mod listen_problem;
mod listeners;
pub(crate) mod live;
mod port_holder;
pub(crate) mod preconditions;
pub(crate) mod resources;
mod site;
mod stores;
pub(crate) mod tokens;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::verify::VerifierError;
use crate::certs::orders::Issuer;
use crate::certs::served::manager::Certificates;
use crate::config::problem::{Colour, Problems};
use crate::config::snapshot::{LogLevel, Snapshot};
use crate::config::vhost::ListenAddress;
use crate::listen::inherited::InheritedSockets;
use crate::listen::limits::ConnectionLimits;
use crate::observe::log_queue::{LogKind, LogQueue};
use crate::observe::log_writer::LogQueues;
use crate::observe::logging::LogControl;
use crate::request::gateway::Gateway;
use crate::tls::server_config::ServerConfigs;
use crate::workers::Workers;
use background::run_logged;
use build::LoadedConfig;
pub(crate) use build::problems as file_problems;
pub(crate) use build::site_problems;
use lifecycle::service_manager;
pub(crate) use listeners::BoundListener;
pub use listeners::ListenerKind;
pub(crate) use listeners::ListenerStatus;
use listeners::RunningListeners;
pub(crate) use port_holder::listener_owners;

/// A running moorgate.
pub struct App {
    directory: PathBuf,
    gateway: Arc<Gateway>,
    certificates: Arc<Certificates>,
    issuer: Arc<Issuer>,
    server_configs: ServerConfigs,
    workers: Workers,
    connections: Arc<ConnectionLimits>,
    listeners: Mutex<RunningListeners>,
    /// Passes admin listeners to [`crate::admin`].
    admin_listeners: AdminListeners,
    tasks: TaskTracker,
    drain: CancellationToken,
    ready: AtomicBool,
    started: SystemTime,
    log: Option<LogControl>,
    /// Serializes reloads: two would bind the same listeners.
    reloading: tokio::sync::Mutex<()>,
    last_reload: ArcSwap<LastReload>,
}

/// Passes admin listeners to the layer above, which serves them. The app binds and stops them with
/// all others.
#[derive(Debug)]
struct AdminListeners {
    sender: mpsc::UnboundedSender<BoundListener>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<BoundListener>>>,
}

impl AdminListeners {
    fn new() -> Self {
        // Bounded by the admin listeners of all configurations that took effect.
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

/// The result of the last reload.
#[derive(Clone, Debug)]
pub(crate) struct LastReload {
    /// Why the newest configuration is not in force; `None`: it is.
    pub(crate) refused: Option<String>,
    /// When the configuration in force was read.
    pub(crate) loaded: SystemTime,
}

impl LastReload {
    fn accepted() -> Self {
        Self {
            refused: None,
            loaded: SystemTime::now(),
        }
    }
}

/// How an [`App`] is started.
#[derive(Debug)]
pub struct StartOptions {
    /// The directory with `moorgate.toml` and `conf.d`.
    pub directory: PathBuf,
    /// The number of worker threads; `None`: serve on the caller's runtime.
    pub workers: Option<usize>,
    /// The minimum log level, whatever the configuration says.
    pub log_floor: Option<LogLevel>,
    /// Where the logs of the process go. `None`: events go to whoever has installed a log of them.
    pub logs: Option<LogQueues>,
    /// Sockets that are open already.
    pub sockets: InheritedSockets,
}

/// Why a configuration did not take effect.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration has problems")]
    Configuration(Problems),
    /// The machine lacks what the configuration needs: an address, or a directory to write to.
    #[error("the machine lacks what the configuration needs")]
    System(Problems),
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl StartError {
    /// All that is wrong, for people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Configuration(problems) | Self::System(problems) => {
                problems.render(Colour::Never)
            }
            error => error.to_string(),
        }
    }

    /// Logs that a reload failed, and why.
    pub(crate) fn log_reload(&self) {
        match self {
            Self::Configuration(problems) | Self::System(problems) => {
                let problems = problems.render(Colour::Never);
                tracing::error!("the new configuration has problems and is not used:\n{problems}");
            }
            error => tracing::error!(%error, "the new configuration is not used"),
        }
    }
}

impl App {
    /// Reads the configuration, binds the listeners and serves. Logs warnings.
    pub async fn start(options: StartOptions) -> Result<Arc<Self>, StartError> {
        let StartOptions {
            directory,
            workers,
            log_floor,
            logs,
            sockets,
        } = options;
        let LoadedConfig { snapshot, warnings } = build::load(directory.clone()).await?;
        let log_lines = logs.as_ref().map(|logs| logs.access.clone());
        let log = logs
            .map(|logs| crate::observe::logging::install(&snapshot.log, log_floor, logs.events));
        build::log_warnings(&warnings);
        let workers = match workers {
            Some(count) => Workers::start(count).map_err(StartError::Worker)?,
            None => Workers::here(),
        };
        let sites = build::sites(snapshot.clone(), None, workers.count()).await?;
        let gateway = Arc::new(Gateway::new(sites, log_lines.unwrap_or_default())?);
        let certificates = Arc::new(Certificates::new(snapshot.state.clone()));
        build::apply_certificates(&certificates, &snapshot).await;
        let now = Arc::new(SystemTime::now);
        let app = Arc::new(Self {
            directory,
            gateway,
            issuer: Arc::new(Issuer::new(certificates.clone(), &snapshot, now)),
            certificates,
            server_configs: ServerConfigs::new()
                .map_err(|error| StartError::Tls(error.to_string()))?,
            workers,
            connections: ConnectionLimits::new(snapshot.connection.connections),
            listeners: Mutex::new(RunningListeners::new(sockets)),
            admin_listeners: AdminListeners::new(),
            tasks: TaskTracker::new(),
            drain: CancellationToken::new(),
            ready: AtomicBool::new(false),
            started: SystemTime::now(),
            log,
            reloading: tokio::sync::Mutex::default(),
            last_reload: ArcSwap::from_pointee(LastReload::accepted()),
        });
        let bound = app.bind_missing(&snapshot)?;
        app.warn_of_unused_sockets(&snapshot);
        app.listen(bound);
        app.publish_listeners();
        app.start_background_tasks();
        app.ready.store(true, Ordering::Release);
        Ok(app)
    }

    /// Reads the configuration again and makes it take effect. On any error nothing changes.
    pub async fn reload(self: &Arc<Self>) -> Result<(), StartError> {
        let _alone = self.reloading.lock().await;
        service_manager::reloading().await;
        let loaded = self.last_reload.load().loaded;
        let done = self.reload_alone().await;
        self.last_reload.store(Arc::new(match &done {
            Ok(()) => LastReload::accepted(),
            Err(error) => LastReload {
                refused: Some(error.text()),
                loaded,
            },
        }));
        service_manager::reloaded(self, done.is_ok()).await;
        done
    }

    async fn reload_alone(self: &Arc<Self>) -> Result<(), StartError> {
        let LoadedConfig { snapshot, warnings } = build::load(self.directory.clone()).await?;
        build::log_warnings(&warnings);
        let current = self.gateway.sites.load_full();
        build::warn_of_fixed(&current.snapshot, &snapshot);
        build::warn_of_opened(&current.snapshot, &snapshot);
        let bound = self.bind_missing(&snapshot)?;
        let sites = build::sites(snapshot.clone(), Some(&current), self.workers.count()).await?;
        build::apply_certificates(&self.certificates, &snapshot).await;
        // Files of the previous configuration may have changed since the last poll.
        let own = sites.clone();
        run_logged("re-reading htpasswd files", move || {
            build::refresh_users(&own)
        })
        .await;
        self.gateway.sites.store(sites);
        self.issuer.apply(&snapshot);
        self.gateway
            .access_log
            .configure(snapshot.log.access, snapshot.log.format);
        if let Some(log) = &self.log {
            log.configure(&snapshot.log);
        }
        self.listen(bound);
        self.stop_unwanted(&snapshot);
        self.publish_listeners();
        tracing::info!(domains = snapshot.domains.len(), "configuration reloaded");
        Ok(())
    }

    /// Stops accepting and waits for all connections to end, for `timeout` at most. Returns whether
    /// all ended by themselves.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.ready.store(false, Ordering::Release);
        self.drain.cancel();
        self.workers.connections.close();
        self.tasks.close();
        let all = async {
            self.tasks.wait().await;
            self.workers.connections.wait().await;
        };
        let ended = tokio::time::timeout(timeout, all).await.is_ok();
        let flush = async {
            tokio::join!(
                self.run_on_sites("writing tokens", tokens::refresh),
                self.run_on_sites("flushing stores", stores::flush),
            )
        };
        if tokio::time::timeout(FLUSH_TIMEOUT, flush).await.is_err() {
            tracing::warn!("state was not written in time, a lock or the disk is busy");
        }
        if let Some(log) = &self.log {
            log.repeats().finish();
        }
        ended
    }

    /// The `drain` timeout of the configuration in force.
    pub fn drain_limit(&self) -> Duration {
        self.gateway.sites.load().snapshot.connection.drain
    }

    /// Whether connections are accepted.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether the directories of all stores are there. Blocks on the disk.
    pub fn has_all_stores(&self) -> bool {
        stores::all_exist(&self.gateway.sites.load())
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        self.workers.connections.len()
    }

    /// Tells requests which sockets are moorgate's own.
    fn publish_listeners(&self) {
        let sockets = self.listeners().into_iter().map(|listener| listener.bound);
        self.gateway.listeners.store(Arc::new(sockets.collect()));
    }

    /// The running listeners.
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .status()
    }

    /// The address of the socket of a listener: it differs from the configured one for port 0.
    pub fn address(&self, kind: ListenerKind, configured: ListenAddress) -> Option<SocketAddr> {
        let all = self.listeners();
        all.iter()
            .find(|bound| bound.kind == kind && bound.configured == configured)
            .map(|bound| bound.bound)
    }

    /// The lines of requests that wait to be written.
    pub fn access_log(&self) -> &Arc<LogQueue> {
        self.gateway.access_log.queue()
    }

    /// The lines of a log that were never written.
    pub(crate) fn lost_log_lines(&self, log: LogKind) -> u64 {
        let queue = match (log, &self.log) {
            (LogKind::Events, Some(events)) => events.queue(),
            (LogKind::Access, _) | (LogKind::Events, None) => self.access_log(),
        };
        queue.lost(log)
    }

    /// The number of bcrypt hashes computed since the start.
    pub fn hashes(&self) -> u64 {
        self.gateway.verifier.status().hashed
    }

    pub(crate) fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// The certificate of each domain and the state of its renewal.
    pub fn certificate_reports(&self) -> Vec<crate::certs::served::report::CertificateReport> {
        self.certificates.report()
    }

    pub(crate) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    pub(crate) fn last_reload(&self) -> Arc<LastReload> {
        self.last_reload.load_full()
    }

    /// What is wrong with the files of the configuration in force, each with its domain: it is
    /// served as well as it can be.
    pub(crate) fn file_problems(&self) -> Vec<(String, String)> {
        let certificates = self.certificates.report().into_iter();
        let certificates =
            certificates.filter_map(|report| Some((report.domain.to_string(), report.problem?)));
        let sites = self.gateway.sites.load();
        let users = sites.all.iter().filter_map(|site| {
            let problem = site.users.problem()?;
            Some((site.host.domain.to_string(), problem))
        });
        certificates.chain(users).collect()
    }

    pub(crate) fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    pub(crate) fn started(&self) -> SystemTime {
        self.started
    }

    /// The directory of the configuration, as it was given.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The state directory, which also holds the control socket.
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

    /// Runs a task that is dropped when the app drains.
    pub(crate) fn spawn_until_drain(&self, task: impl Future<Output = ()> + Send + 'static) {
        let drain = self.drain.clone();
        self.tasks.spawn(drain.run_until_cancelled_owned(task));
    }

    fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        let sites = self.gateway.sites.load();
        sites.snapshot.trusted_proxies.contain(address)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.gateway.sites.load().snapshot.clone()
    }
}

/// For the last writes of a drain.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
