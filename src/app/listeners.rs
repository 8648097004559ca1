//! The listeners of a running process: bound before a configuration is in force, stopped after it
//! is not.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{App, StartError};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::ListenAddress;
use crate::connection::{AcceptedConnection, serve_plain, serve_tls};
use crate::listen::accept::accept;
use crate::listen::socket;
use crate::request::plain::answer_plain;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerKind {
    /// Virtual hosts over TLS.
    Https,
    /// Redirects to https.
    Http,
    /// Health and status.
    Admin,
}

impl ListenerKind {
    /// As it stands in `/status` and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Admin => "admin",
        }
    }
}

/// A listener and where it really is.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// What it is for.
    pub kind: ListenerKind,
    /// As the configuration says it.
    pub configured: ListenAddress,
    /// As the system gave it.
    pub bound: SocketAddr,
}

/// The listeners, each with what stops it.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    running: HashMap<(ListenerKind, ListenAddress), (SocketAddr, CancellationToken)>,
}

impl Listeners {
    pub(super) fn bound(&self) -> Vec<Bound> {
        let each = |(&(kind, configured), &(bound, _)): (&_, &_)| Bound {
            kind,
            configured,
            bound,
        };
        let mut all: Vec<Bound> = self.running.iter().map(each).collect();
        all.sort_by_key(|bound| (bound.kind, bound.configured));
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

/// Listeners that are bound and not yet served.
pub(super) type NewlyBound = Vec<(ListenerKind, ListenAddress, std::net::TcpListener)>;

fn wanted(snapshot: &Snapshot) -> Vec<(ListenerKind, ListenAddress)> {
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
    /// Binds what a configuration wants and is not there. All or none.
    pub(super) fn bind_missing(&self, snapshot: &Snapshot) -> Result<NewlyBound, StartError> {
        let listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let missing = wanted(snapshot)
            .into_iter()
            .filter(|key| !listeners.running.contains_key(key));
        missing
            .map(|(kind, address)| match socket::bind(address) {
                Ok(socket) => Ok((kind, address, socket)),
                Err(source) => Err(StartError::Listen { address, source }),
            })
            .collect()
    }

    /// Serves newly bound listeners.
    pub(super) fn listen(self: &Arc<Self>, bound: NewlyBound) {
        for (kind, address, socket) in bound {
            if let Err(error) = self.listen_on(kind, address, socket) {
                tracing::error!(%address, %error, "a listener could not be served");
            }
        }
    }

    fn listen_on(
        self: &Arc<Self>,
        kind: ListenerKind,
        address: ListenAddress,
        socket: std::net::TcpListener,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let socket = TcpListener::from_std(socket)?;
        let bound = socket.local_addr()?;
        let stop = self.drain.child_token();
        let listener = BoundListener {
            socket,
            configured: address,
            stop: stop.clone(),
        };
        match kind {
            ListenerKind::Https => self.serve_https(listener)?,
            ListenerKind::Http => {
                self.serve_plain(listener, self.connections.clone(), Self::answer_http);
            }
            // Nobody serves it in a test that does without.
            ListenerKind::Admin => drop(self.admin_listeners.sender.send(listener)),
        }
        tracing::info!(kind = kind.as_str(), address = %bound, "listening");
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.running.insert((kind, address), (bound, stop));
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
        self.tasks.spawn(accept(
            socket,
            self.connections.clone(),
            stop,
            move |stream, peer, permit| {
                let (config, gate, drain) = (config.clone(), app.gate.clone(), app.drain.clone());
                app.workers.serve(stream, peer, async move |io, peer| {
                    let _ = io.set_nodelay(true);
                    let accepted = AcceptedConnection {
                        io,
                        peer,
                        listener,
                        at: Instant::now(),
                    };
                    serve_tls(accepted, config, gate, drain).await;
                    drop(permit);
                });
            },
        ));
        Ok(())
    }

    /// Serves plain HTTP on a listener until it stops, with at most as many connections as
    /// `connections` has permits.
    pub(crate) fn serve_plain<F, R, B>(
        self: &Arc<Self>,
        listener: BoundListener,
        connections: Arc<Semaphore>,
        answer: F,
    ) where
        F: Fn(Arc<Self>, Request<Incoming>) -> R + Copy + Send + Sync + 'static,
        R: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let BoundListener {
            socket,
            configured: listener,
            stop,
        } = listener;
        let app = self.clone();
        let serve = move |stream, peer, permit| {
            let own = app.clone();
            app.workers.serve(stream, peer, async move |io, peer| {
                let accepted = AcceptedConnection {
                    io,
                    peer,
                    listener,
                    at: Instant::now(),
                };
                let (snapshot, drain) = (own.snapshot(), own.drain.clone());
                let answer = move |request| answer(own.clone(), request);
                serve_plain(accepted, &snapshot, drain, answer).await;
                drop(permit);
            });
        };
        self.tasks.spawn(accept(socket, connections, stop, serve));
    }

    async fn answer_http(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let port = |configured: ListenAddress| {
            self.address(ListenerKind::Https, configured)
                .map_or(configured.0.port(), |real| real.port())
        };
        let sites = self.gate.sites.load_full();
        let challenges = self.certificates.table().challenges();
        answer_plain(&sites, challenges, &request, &port).await
    }

    /// Stops the listeners that a configuration no longer wants. Their connections go on.
    pub(super) fn stop_unwanted(&self, snapshot: &Snapshot) {
        let wanted = wanted(snapshot);
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.running.retain(|key, (bound, stop)| {
            let keep = wanted.contains(key);
            if !keep {
                tracing::info!(kind = key.0.as_str(), address = %bound, "no longer listening");
                stop.cancel();
            }
            keep
        });
    }
}
