//! The composition root: builds every part in order, swaps the configuration, owns the tasks.

mod access;
mod background;
mod build;
pub(crate) mod configuration;
mod descriptors;
pub(crate) mod lifecycle;
mod listen_problem;
mod listeners;
pub(crate) mod live;
mod port_holder;
pub(crate) mod preconditions;
mod reload;
pub(crate) mod resources;
pub(crate) mod retention;
mod site;
mod stores;
pub(crate) mod tokens;
pub(crate) mod upgrade;
mod watch;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch as watch_channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::verify::VerifierError;
use crate::certs::orders::Issuer;
use crate::certs::served::manager::Certificates;
use crate::config::loader::Loader;
use crate::config::problem::{Colour, Problems};
use crate::config::snapshot::{LogLevel, Snapshot};
use crate::config::vhost::ListenAddress;
use crate::connection::drain::ConnectionDrain;
use crate::listen::inherited::InheritedSockets;
use crate::listen::limits::ConnectionLimits;
use crate::observe::log_queue::{LogKind, LogQueue};
use crate::observe::log_writer::LogQueues;
use crate::observe::logging::LogControl;
use crate::request::gateway::Gateway;
use crate::request::retained::RetainedUpstream;
use crate::request::retained::driver::RetainedDriver;
use crate::request::site::{Site, Sites};
use crate::state_file::run_blocking;
use crate::tls::server_config::ServerConfigs;
use crate::workers::Workers;
use build::SiteBuild;
pub(crate) use build::problems as file_problems;
pub(crate) use build::site_problems;
use configuration::{ConfigurationStatus, ProblemReports};
pub(crate) use listeners::BoundListener;
pub use listeners::ListenerKind;
pub(crate) use listeners::ListenerStatus;
use listeners::RunningListeners;
pub(crate) use port_holder::listener_owners;
use reload::ReloadCause;
use retention::RetentionJobs;
use upgrade::UpgradeRequests;
pub(crate) use upgrade::predecessor::{Predecessor, PredecessorGone};
use upgrade::state::PassedState;

/// A running moorgate.
pub struct App {
    directory: PathBuf,
    gateway: Arc<Gateway>,
    certificates: Arc<Certificates>,
    issuer: Arc<Issuer>,
    retention: RetentionJobs,
    server_configs: ServerConfigs,
    workers: Workers,
    connections: Arc<ConnectionLimits>,
    listeners: Mutex<RunningListeners>,
    /// Passes admin listeners to [`crate::admin`].
    admin_listeners: AdminListeners,
    tasks: TaskTracker,
    /// Nothing new begins any more.
    drain: CancellationToken,
    connection_drain: ConnectionDrain,
    /// What goes on until the last transfer has ended.
    drain_tasks: TaskTracker,
    drained: CancellationToken,
    upgrades: UpgradeRequests,
    /// Whether another process serves in the place of this one.
    replaced: AtomicBool,
    ready: AtomicBool,
    started: SystemTime,
    log: Option<LogControl>,
    /// Serializes reloads: two would bind the same listeners.
    reloading: tokio::sync::Mutex<()>,
    loader: Arc<Mutex<Loader>>,
    /// Changes of files, for the tasks that read them again.
    file_changes: watch_channel::Sender<()>,
    reports: Mutex<ProblemReports>,
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
    /// The process that this one takes over from.
    pub predecessor: Option<Predecessor>,
    /// Whether a problem of one domain file prevents the start, rather than leaving out its domain.
    pub strict: bool,
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
    #[error(transparent)]
    Predecessor(#[from] PredecessorGone),
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
}

/// What the first configuration of the process becomes.
struct FirstBuild {
    loader: Arc<Mutex<Loader>>,
    sites: Arc<Sites>,
    reports: ProblemReports,
    access_log: Arc<LogQueue>,
    log: Option<LogControl>,
    workers: Workers,
}

impl FirstBuild {
    /// Reads the configuration, whose settings install the log, and starts the workers.
    async fn new(
        directory: PathBuf,
        workers: Option<usize>,
        (logs, log_floor): (Option<LogQueues>, Option<LogLevel>),
        strict: bool,
    ) -> Result<Self, StartError> {
        let of_all = directory.clone();
        let loader = Arc::new(Mutex::new(Loader::new(directory)));
        let candidate = match build::read(&loader, BTreeSet::new()).await {
            // All that is wrong, also with the files of domains.
            Err(StartError::Configuration(of_main)) => {
                let loaded = run_blocking(move || crate::config::load(&of_all)).await;
                return Err(StartError::Configuration(loaded.err().unwrap_or(of_main)));
            }
            read => read?,
        };
        let access_log = logs.as_ref().map(|logs| logs.access.clone());
        let log_settings = candidate.log_settings();
        let log =
            logs.map(|logs| crate::observe::logging::install(log_settings, log_floor, logs.events));
        let workers = match workers {
            Some(count) => Workers::start(count).map_err(StartError::Worker)?,
            None => Workers::here(),
        };
        let built = SiteBuild {
            loader: loader.clone(),
            candidate,
            before: None,
            workers: workers.count(),
        };
        let (sites, reports) = built.start(strict).await?;
        Ok(Self {
            loader,
            sites,
            reports,
            access_log: access_log.unwrap_or_default(),
            log,
            workers,
        })
    }

    fn into_app(
        self,
        directory: PathBuf,
        sockets: InheritedSockets,
        certificates: Arc<Certificates>,
        passed: PassedState,
    ) -> Result<App, StartError> {
        let Self {
            loader,
            sites,
            reports,
            access_log,
            log,
            workers,
        } = self;
        let PassedState { tickets, logins } = passed;
        let snapshot = sites.snapshot.clone();
        let gateway = Arc::new(Gateway::new(sites, access_log, logins)?);
        let now = Arc::new(SystemTime::now);
        let drain = CancellationToken::new();
        Ok(App {
            directory,
            gateway,
            issuer: Arc::new(Issuer::new(certificates.clone(), &snapshot, now)),
            certificates,
            retention: RetentionJobs::default(),
            server_configs: ServerConfigs::new(tickets)
                .map_err(|error| StartError::Tls(error.to_string()))?,
            workers,
            connections: ConnectionLimits::new(descriptors::bounds_at_start(&snapshot)?),
            listeners: Mutex::new(RunningListeners::new(sockets)),
            admin_listeners: AdminListeners::new(),
            tasks: TaskTracker::new(),
            connection_drain: ConnectionDrain::new(drain.clone()),
            drain,
            drain_tasks: TaskTracker::new(),
            drained: CancellationToken::new(),
            upgrades: UpgradeRequests::new(),
            replaced: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            started: SystemTime::now(),
            log,
            reloading: tokio::sync::Mutex::default(),
            loader,
            file_changes: watch_channel::channel(()).0,
            reports: Mutex::new(reports),
        })
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
            predecessor,
            strict,
        } = options;
        // The predecessor serves on what its domain files were when they were valid.
        let strict = strict || predecessor.is_some();
        let first = FirstBuild::new(directory.clone(), workers, (logs, log_floor), strict).await?;
        let snapshot = first.sites.snapshot.clone();
        let certificates = Arc::new(Certificates::new(snapshot.state.clone()));
        build::apply_certificates(&certificates, &snapshot).await;
        // After all that takes long.
        let passed = match &predecessor {
            Some(predecessor) => predecessor.state().await?,
            None => PassedState::default(),
        };
        let app = Arc::new(first.into_app(directory, sockets, certificates, passed)?);
        app.begin(&snapshot)?;
        Ok(app)
    }

    /// Accepts connections, and begins what runs beside them.
    fn begin(self: &Arc<Self>, snapshot: &Snapshot) -> Result<(), StartError> {
        let bound = self.bind_all(snapshot)?;
        self.warn_of_unused_sockets(snapshot);
        self.listen(bound);
        self.close_untaken_sockets();
        self.publish_listeners();
        self.start_background_tasks();
        self.spawn_until_drain(watch::run(self.clone()));
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Reads the configuration again and makes it take effect.
    ///
    /// Errors: what is not in force of it. The rest is, unless `moorgate.toml` is at fault.
    pub async fn reload(self: &Arc<Self>) -> Result<(), StartError> {
        reload::reload(self, ReloadCause::Command).await
    }

    /// Stops accepting, ends idle connections and waits for all others to end, for `timeout` at
    /// most. Returns whether all ended by themselves.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.end_idle();
        self.finish(timeout).await
    }

    /// Stops accepting, and ends the connections between two requests.
    fn end_idle(&self) {
        self.ready.store(false, Ordering::Release);
        self.release_sockets();
        self.connection_drain.end_idle();
    }

    /// Another process accepts connections from now on: those of this one end with their next
    /// answers.
    fn leave_to_successor(&self) {
        self.replaced.store(true, Ordering::Release);
        self.release_sockets();
        self.connection_drain.begin();
    }

    fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Waits for all connections to end, for `timeout` at most, and writes what is pending. Returns
    /// whether all ended by themselves.
    async fn finish(&self, timeout: Duration) -> bool {
        self.workers.connections.close();
        self.tasks.close();
        let all = async {
            self.tasks.wait().await;
            self.workers.connections.wait().await;
        };
        let ended = tokio::time::timeout(timeout, all).await.is_ok();
        self.drained.cancel();
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

    /// The number of requests whose responses have not ended.
    pub(crate) fn running_requests(&self) -> i64 {
        let sites = self.gateway.sites.load();
        let domains = sites.all.iter().map(|site| site.traffic.open());
        domains.sum::<i64>() + self.gateway.unlocated_traffic.open()
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
        self.running().status()
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

    /// Drives retention at the upstream of a domain, for tests.
    pub fn retained(&self, domain: &str) -> Result<RetainedDriver, String> {
        let sites = self.gateway.sites.load();
        let mut all = sites.all.iter();
        let site = all.find(|site| site.host.domain.as_str() == domain);
        let site = site.expect("a domain of the configuration");
        let upstream =
            RetainedUpstream::new(&self.gateway, site).map_err(|error| error.to_string())?;
        Ok(RetainedDriver::new(upstream))
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

    /// What is in force of the configuration, and what is not.
    pub(crate) fn configuration(&self) -> ConfigurationStatus {
        self.reports().status.clone()
    }

    fn reports(&self) -> MutexGuard<'_, ProblemReports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(crate) fn retention(&self) -> &RetentionJobs {
        &self.retention
    }

    /// The domain of this name, if it is served here.
    pub(crate) fn site(&self, domain: &str) -> Option<Arc<Site>> {
        let sites = self.gateway.sites.load();
        let mut all = sites.all.iter();
        all.find(|site| site.host.domain.as_str() == domain)
            .cloned()
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

    /// Runs a task that is dropped when the last transfer has ended.
    fn spawn_until_drained(&self, task: impl Future<Output = ()> + Send + 'static) {
        let drained = self.drained.clone();
        self.drain_tasks
            .spawn(drained.run_until_cancelled_owned(task));
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
