//! The listeners of the process: bound before a configuration takes effect, stopped after another
//! one has.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError};

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
use crate::config::problem::Problems;
use crate::config::snapshot::Snapshot;
use crate::config::vhost::ListenAddress;
use crate::connection::{AcceptedConnection, serve_plain, serve_tls};
use crate::listen::accept::accept;
use crate::listen::inherited::InheritedSockets;
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
    by_key: HashMap<(ListenerKind, ListenAddress), RunningListener>,
}

#[derive(Debug)]
struct RunningListener {
    bound: SocketAddr,
    stop: CancellationToken,
}

impl RunningListeners {
    pub(super) fn new(inherited: InheritedSockets) -> Self {
        Self {
            inherited,
            by_key: HashMap::new(),
        }
    }

    /// The socket that the service manager has passed on, or else a new one.
    fn open(&self, address: ListenAddress) -> io::Result<std::net::TcpListener> {
        match self.inherited.find(address) {
            Some(socket) => socket,
            None => socket::bind(address),
        }
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
    /// Binds the listeners of a configuration that are not running. All or none.
    pub(super) fn bind_missing(&self, snapshot: &Snapshot) -> Result<Vec<NewSocket>, StartError> {
        let listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let missing = configured_listeners(snapshot)
            .into_iter()
            .filter(|key| !listeners.by_key.contains_key(key));
        let (mut sockets, mut problems) = (Vec::new(), Problems::default());
        for (kind, configured) in missing {
            match listeners.open(configured) {
                Ok(socket) => sockets.push(NewSocket {
                    kind,
                    configured,
                    socket,
                }),
                Err(error) => problems.push(listen_problem(snapshot, configured, &error)),
            }
        }
        if problems.has_errors() {
            return Err(StartError::System(problems));
        }
        Ok(sockets)
    }

    /// Says which inherited sockets no listener uses: their clients wait for ever.
    pub(super) fn warn_of_unused_sockets(&self, snapshot: &Snapshot) {
        let configured: Vec<_> = configured_listeners(snapshot)
            .into_iter()
            .map(|(_, address)| address)
            .collect();
        let listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for address in listeners.inherited.unused(&configured) {
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
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let running = RunningListener { bound, stop };
        listeners.by_key.insert((kind, configured), running);
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
                let (config, gateway, drain) =
                    (config.clone(), app.gateway.clone(), app.drain.clone());
                app.workers.serve(stream, peer, async move |io, peer| {
                    let _ = io.set_nodelay(true);
                    let accepted = AcceptedConnection {
                        io,
                        peer,
                        listener,
                        at: Instant::now(),
                        open: permit.connection.clone(),
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
                };
                let snapshot = own.snapshot();
                let drain = own.drain.clone();
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
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.by_key.retain(|key, listener| {
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
