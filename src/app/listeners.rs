//! The listeners of the process: bound when a configuration takes effect, stopped when another one
//! does. A start needs all of them; later, one that cannot be bound is reported and tried again.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::listen_problem::listen_problem;
use super::{App, StartError};
use crate::config::problem::{Colour, Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::ListenAddress;
use crate::connection::{AcceptedConnection, serve_plain, serve_tls};
use crate::listen::accept::accept;
use crate::listen::inherited::{InheritedSockets, ListenerOwner, PassedListener};
use crate::listen::limits::{ConnectionLimits, ConnectionPermit};
use crate::listen::socket;
use crate::request::plain::answer_plain;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerKind {
    /// Virtual hosts over TLS.
    Https,
    /// Redirects to https, and http-01 challenges.
    Http,
    /// Health, status and metrics.
    Admin,
}

impl ListenerKind {
    /// The name in `/status` and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Admin => "admin",
        }
    }
}

/// A listener and its address.
#[derive(Clone, Copy, Debug)]
pub struct ListenerStatus {
    pub kind: ListenerKind,
    /// The address in the configuration.
    pub configured: ListenAddress,
    /// The address of the socket: it differs for port 0.
    pub bound: SocketAddr,
}

/// The running listeners.
#[derive(Debug, Default)]
pub(super) struct RunningListeners {
    inherited: InheritedSockets,
    by_key: HashMap<ListenerKey, RunningListener>,
    /// Those that could not be bound, with the problem.
    unbound: BTreeMap<ListenerKey, Problem>,
}

type ListenerKey = (ListenerKind, ListenAddress);

/// A listener that could not be bound.
#[derive(Clone, Debug)]
pub(crate) struct UnboundListener {
    pub(crate) kind: ListenerKind,
    pub(crate) configured: ListenAddress,
    pub(crate) problem: String,
}

#[derive(Debug)]
struct RunningListener {
    bound: SocketAddr,
    stop: CancellationToken,
    /// The same socket, for a successor of the process. `None` once the process drains: clients are
    /// refused only when nobody has it open.
    socket: Option<std::net::TcpListener>,
}

impl RunningListeners {
    pub(super) fn new(inherited: InheritedSockets) -> Self {
        Self {
            inherited,
            by_key: HashMap::new(),
            unbound: BTreeMap::new(),
        }
    }

    /// The socket that the service manager or a predecessor has passed on, or else a new one.
    fn open(
        &mut self,
        kind: ListenerKind,
        configured: ListenAddress,
    ) -> io::Result<std::net::TcpListener> {
        match self.inherited.find(&owner(kind, configured)) {
            Some(socket) => socket,
            None => socket::bind(configured),
        }
    }

    fn passed(&self) -> io::Result<Vec<PassedListener>> {
        let mut all = self.inherited.of_service_manager()?;
        for (&(kind, configured), listener) in &self.by_key {
            if let Some(socket) = &listener.socket
                && !self.inherited.is_of_service_manager(listener.bound)
            {
                let (socket, owner) = (socket.try_clone()?, Some(owner(kind, configured)));
                all.push(PassedListener { socket, owner });
            }
        }
        Ok(all)
    }

    pub(super) fn status(&self) -> Vec<ListenerStatus> {
        let status = |(&(kind, configured), listener): (&_, &RunningListener)| ListenerStatus {
            kind,
            configured,
            bound: listener.bound,
        };
        let mut all: Vec<ListenerStatus> = self.by_key.iter().map(status).collect();
        all.sort_by_key(|status| (status.kind, status.configured));
        all
    }
}

fn owner(kind: ListenerKind, configured: ListenAddress) -> ListenerOwner {
    ListenerOwner {
        kind: kind.as_str().to_owned(),
        configured,
    }
}

/// A listener that is bound and not yet served.
#[derive(Debug)]
pub(crate) struct BoundListener {
    socket: TcpListener,
    configured: ListenAddress,
    stop: CancellationToken,
}

/// A socket that is bound and not yet registered with the runtime.
pub(super) struct NewSocket {
    kind: ListenerKind,
    configured: ListenAddress,
    socket: std::net::TcpListener,
}

/// The sockets that could be bound, and the problems of the others.
#[derive(Default)]
struct BoundSockets {
    sockets: Vec<NewSocket>,
    failed: BTreeMap<ListenerKey, Problem>,
}

pub(super) fn configured_listeners(snapshot: &Snapshot) -> Vec<(ListenerKind, ListenAddress)> {
    let https = snapshot
        .https
        .iter()
        .map(|&address| (ListenerKind::Https, address));
    let http = snapshot
        .http
        .iter()
        .map(|&address| (ListenerKind::Http, address));
    let admin = snapshot
        .admin
        .iter()
        .map(|&address| (ListenerKind::Admin, ListenAddress(address)));
    https.chain(http).chain(admin).collect()
}

impl App {
    /// Binds the listeners of a configuration, for a start: all or none.
    pub(super) fn bind_all(&self, snapshot: &Snapshot) -> Result<Vec<NewSocket>, StartError> {
        let BoundSockets { sockets, failed } = self.bind_missing(snapshot);
        if failed.is_empty() {
            return Ok(sockets);
        }
        Err(StartError::System(failed.into_values().collect()))
    }

    /// Binds the listeners of a configuration that are not running, as far as that is possible.
    ///
    /// Errors: no https listener would be there.
    pub(super) fn bind_some(&self, snapshot: &Snapshot) -> Result<Vec<NewSocket>, StartError> {
        let BoundSockets { sockets, failed } = self.bind_missing(snapshot);
        let mut listeners = self.running();
        let is_own = |address: ListenAddress| {
            let mut running = listeners.by_key.values();
            running.any(|running| running.bound.port() == address.0.port())
        };
        // What only our own listeners are in the way of is free when they stop.
        let is_hopeless = |(kind, address): &ListenerKey| {
            *kind == ListenerKind::Https
                && failed.contains_key(&(*kind, *address))
                && !is_own(*address)
        };
        let mut https = snapshot
            .https
            .iter()
            .map(|address| (ListenerKind::Https, *address));
        if https.all(|key| is_hopeless(&key)) {
            return Err(StartError::System(failed.into_values().collect()));
        }
        listeners.unbound.retain(|key, _| failed.contains_key(key));
        Ok(sockets)
    }

    fn bind_missing(&self, snapshot: &Snapshot) -> BoundSockets {
        let mut listeners = self.running();
        let mut missing = configured_listeners(snapshot);
        missing.retain(|key| !listeners.by_key.contains_key(key));
        let mut bound = BoundSockets::default();
        for (kind, configured) in missing {
            match listeners.open(kind, configured) {
                Ok(socket) => bound.sockets.push(NewSocket {
                    kind,
                    configured,
                    socket,
                }),
                Err(error) => {
                    let problem = listen_problem(snapshot, configured, &error);
                    bound.failed.insert((kind, configured), problem);
                }
            }
        }
        bound
    }

    /// Binds what could not be bound before others had stopped, and reports what cannot be bound.
    pub(super) async fn bind_rest(self: &Arc<Self>, snapshot: &Snapshot) {
        for _ in 0..MAX_RELEASE_CHECKS {
            if self.bind_again(snapshot).is_empty() {
                break;
            }
            // Listeners that stop close their sockets on another thread.
            tokio::time::sleep(RELEASE_CHECK_INTERVAL).await;
        }
        let failed = self.bind_again(snapshot);
        let mut listeners = self.running();
        for (key, problem) in &failed {
            if !listeners.unbound.contains_key(key) {
                let (kind, address) = (key.0.as_str(), key.1);
                let problem = problem.render(Colour::Never);
                tracing::error!(kind, %address, "a listener is missing, its address is tried again:\n{problem}");
            }
        }
        listeners.unbound = failed;
        drop(listeners);
        self.publish_listeners();
    }

    /// Serves the missing listeners that can be bound now, and returns the others.
    fn bind_again(self: &Arc<Self>, snapshot: &Snapshot) -> BTreeMap<ListenerKey, Problem> {
        let BoundSockets { sockets, failed } = self.bind_missing(snapshot);
        self.listen(sockets);
        failed
    }

    /// Tries again to bind the listeners that are missing.
    pub(super) async fn retry_listeners(self: Arc<Self>) {
        if self.running().unbound.is_empty() {
            return;
        }
        let _alone = self.reloading.lock().await;
        let snapshot = self.snapshot();
        let failed = self.bind_again(&snapshot);
        self.running().unbound = failed;
        self.publish_listeners();
    }

    /// What is wrong with the listeners that could not be bound.
    pub(super) fn listen_problems(&self) -> Problems {
        self.running().unbound.values().cloned().collect()
    }

    /// The listeners that could not be bound.
    pub(crate) fn unbound_listeners(&self) -> Vec<UnboundListener> {
        let listeners = self.running();
        let unbound = listeners.unbound.iter();
        let unbound = unbound.map(|(&(kind, configured), problem)| UnboundListener {
            kind,
            configured,
            problem: problem.message().to_owned(),
        });
        unbound.collect()
    }

    pub(super) fn running(&self) -> MutexGuard<'_, RunningListeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The sockets for a successor of the process: those of all listeners, and those that the
    /// service manager has passed on.
    pub(super) fn passed_listeners(&self) -> io::Result<Vec<PassedListener>> {
        self.running().passed()
    }

    /// Leaves the sockets to whoever else has them open.
    pub(super) fn release_sockets(&self) {
        for listener in self.running().by_key.values_mut() {
            listener.socket = None;
        }
    }

    /// Closes the sockets of a predecessor that this configuration does not use.
    pub(super) fn close_untaken_sockets(&self) {
        self.running().inherited.close_untaken();
    }

    /// Says which inherited sockets no listener uses: their clients wait for ever.
    pub(super) fn warn_of_unused_sockets(&self, snapshot: &Snapshot) {
        let configured: Vec<_> = configured_listeners(snapshot)
            .into_iter()
            .map(|(_, address)| address)
            .collect();
        for address in self.running().inherited.unused(&configured) {
            tracing::warn!(%address, "the service manager passed a socket that no setting names: nobody answers there");
        }
    }

    /// Serves new sockets.
    pub(super) fn listen(self: &Arc<Self>, sockets: Vec<NewSocket>) {
        for new in sockets {
            let address = new.configured;
            if let Err(error) = self.listen_on(new) {
                tracing::error!(%address, %error, "listener could not be started");
            }
        }
    }

    fn listen_on(self: &Arc<Self>, new: NewSocket) -> Result<(), Box<dyn std::error::Error>> {
        let NewSocket {
            kind,
            configured,
            socket,
        } = new;
        let passable = socket.try_clone()?;
        let socket = TcpListener::from_std(socket)?;
        let bound = socket.local_addr()?;
        let stop = self.drain.child_token();
        let listener = BoundListener {
            socket,
            configured,
            stop: stop.clone(),
        };
        match kind {
            ListenerKind::Https => self.serve_https(listener)?,
            ListenerKind::Http => {
                self.serve_plain(listener, self.connections.clone(), Self::answer_http);
            }
            // Dropped if nothing serves it.
            ListenerKind::Admin => drop(self.admin_listeners.sender.send(listener)),
        }
        tracing::info!(kind = kind.as_str(), address = %bound, "listening");
        let running = RunningListener {
            bound,
            stop,
            socket: Some(passable),
        };
        self.running().by_key.insert((kind, configured), running);
        Ok(())
    }

    fn serve_https(
        self: &Arc<Self>,
        listener: BoundListener,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let BoundListener {
            socket,
            configured: listener,
            stop,
        } = listener;
        let config = self
            .server_configs
            .for_listener(self.certificates.table().clone(), listener)?;
        let app = self.clone();
        let own = self.clone();
        self.tasks.spawn(accept(
            socket,
            self.connections.clone(),
            stop,
            move |address| own.is_trusted_proxy(address),
            move |stream, peer, permit| {
                let (config, gateway) = (config.clone(), app.gateway.clone());
                let drain = app.connection_drain.clone();
                app.workers.serve(stream, peer, async move |io, peer| {
                    let _ = io.set_nodelay(true);
                    let accepted = AcceptedConnection {
                        io,
                        peer,
                        listener,
                        at: Instant::now(),
                        open: permit.connection.clone(),
                        limits: permit.limits.clone(),
                    };
                    let serving = pin!(serve_tls(accepted, config, gateway, drain));
                    permit.serve(serving).await;
                });
            },
        ));
        Ok(())
    }

    /// Serves plain HTTP on a listener until it stops.
    pub(crate) fn serve_plain<F, R, B>(
        self: &Arc<Self>,
        listener: BoundListener,
        limits: Arc<ConnectionLimits>,
        answer: F,
    ) where
        F: Fn(Arc<Self>, Request<Incoming>) -> R + Copy + Send + Sync + Unpin + 'static,
        R: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let BoundListener {
            socket,
            configured: listener,
            stop,
        } = listener;
        let app = self.clone();
        let serve = move |stream, peer, permit: ConnectionPermit| {
            let own = app.clone();
            app.workers.serve(stream, peer, async move |io, peer| {
                let accepted = AcceptedConnection {
                    io,
                    peer,
                    listener,
                    at: Instant::now(),
                    open: permit.connection.clone(),
                    limits: permit.limits.clone(),
                };
                let snapshot = own.snapshot();
                let drain = own.connection_drain.clone();
                let answer = move |request| answer(own.clone(), request);
                let serving = pin!(serve_plain(accepted, &snapshot, drain, answer));
                permit.serve(serving).await;
            });
        };
        let own = self.clone();
        let is_trusted = move |address| own.is_trusted_proxy(address);
        self.tasks
            .spawn(accept(socket, limits, stop, is_trusted, serve));
    }

    async fn answer_http(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let port = |configured: ListenAddress| {
            self.address(ListenerKind::Https, configured)
                .map_or(configured.0.port(), |real| real.port())
        };
        let sites = self.gateway.sites.load_full();
        let challenges = self.certificates.table().challenges();
        answer_plain(&sites, challenges, &request, &port).await
    }

    /// Stops the listeners that a configuration does not have. Their connections continue.
    pub(super) fn stop_unwanted(&self, snapshot: &Snapshot) {
        let wanted = configured_listeners(snapshot);
        self.running().by_key.retain(|key, listener| {
            let is_wanted = wanted.contains(key);
            if !is_wanted {
                let address = listener.bound;
                tracing::info!(kind = key.0.as_str(), %address, "no longer listening");
                listener.stop.cancel();
            }
            is_wanted
        });
    }
}

/// A listener that stops has closed its socket after the first of them, or a busy machine needs more.
const MAX_RELEASE_CHECKS: usize = 20;
const RELEASE_CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// How often an address that could not be bound is tried again.
pub(super) const LISTENER_RETRY_INTERVAL: Duration = Duration::from_secs(3);
