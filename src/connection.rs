//! One client connection from its handshake to its end: HTTP/1.1 or HTTP/2 by what TLS agreed on,
//! with its time limits, and a graceful end when the process stops.

pub(crate) mod activity;
mod frames;
mod gather;
mod io;
mod pieces;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Watched;
use crate::config::network::Networks;
use crate::config::snapshot::{ConnectionSettings, Snapshot};
use crate::config::vhost::ListenAddress;
use crate::listen::proxy_protocol::{self, Preface, ProxyProtocolError};
use crate::request::conn_info::{ConnInfo, Protocol};
use crate::request::{self, Gate};
use crate::tls::handshake::{Alpn, HandshakeError, Secured, handshake};
use crate::tls::plain_http::refuse_plain_http;
use crate::tls::server_config::ListenerConfig;
use activity::{Activity, ActivityLimits, RequestGuard};
use gather::Gather;
use io::WatchedIo;

/// A connection as the listener accepted it.
pub(crate) struct Accepted<IO> {
    pub(crate) io: IO,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: ListenAddress,
    pub(crate) at: Instant,
}

/// An https connection, from its first byte to its last.
pub(crate) async fn serve_tls<IO>(
    accepted: Accepted<IO>,
    config: Arc<ListenerConfig>,
    gate: Arc<Gate>,
    drain: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Accepted {
        io,
        peer,
        listener,
        at,
    } = accepted;
    let snapshot = gate.sites.load().snapshot.clone();
    let settings = snapshot.connection;
    let securing = secure(io, peer, &snapshot.trusted_proxies, config);
    let (secured, peer) = match tokio::time::timeout(settings.handshake, securing).await {
        Ok(Ok(secured)) => secured,
        Ok(Err(Unsecured::Handshake(HandshakeError::PlainHttp(io)))) => {
            tracing::debug!(%peer, %listener, "plain HTTP on a TLS port");
            let _ = refuse_plain_http(io).await;
            return;
        }
        Ok(Err(Unsecured::Handshake(error))) => {
            tracing::debug!(%peer, %listener, reason = error.reason(), %error, "handshake failed");
            return;
        }
        Ok(Err(Unsecured::Proxy(error))) => {
            tracing::debug!(%peer, %listener, reason = "proxy_protocol", %error, "handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%peer, %listener, reason = "timeout", "handshake failed");
            return;
        }
    };
    let activity = Arc::new(Activity::new(at, limits(&snapshot)));
    let protocol = match secured.alpn {
        Alpn::Http1 => Protocol::Http1,
        Alpn::H2 => Protocol::Http2,
    };
    let conn = Arc::new(ConnInfo::new(
        listener,
        peer,
        secured.sni,
        protocol,
        &settings,
    ));
    let service = Answering {
        gate,
        conn: conn.clone(),
        activity: activity.clone(),
    };
    match protocol {
        Protocol::Http1 => {
            let service = service_fn(move |request| service.clone().answer(request));
            let io = TokioIo::new(WatchedIo::http1(secured.io, activity.clone()));
            let connection = http1_settings(&settings).serve_connection(io, service);
            let end = http1::Connection::graceful_shutdown;
            drive(connection, activity, drain, end, nothing_waits, &conn).await;
        }
        Protocol::Http2 => {
            let gather = Gather::new(secured.io, activity.clone());
            let io = TokioIo::new(WatchedIo::http2(gather.clone(), activity.clone()));
            // A stream keeps the room of its future for as long as its answer is unread: 8 KiB for
            // the line, a hundred times. Boxed, that is given back when the answer is made.
            let service = service_fn(move |request| Box::pin(service.clone().answer(request)));
            let connection = http2_settings(&settings).serve_connection(io, service);
            let end = http2::Connection::graceful_shutdown;
            drive(
                connection,
                activity,
                drain,
                end,
                |cx| gather.poll_hand_on(cx),
                &conn,
            )
            .await;
        }
    }
}

/// Why a connection has no TLS.
enum Unsecured<IO> {
    Proxy(ProxyProtocolError),
    Handshake(HandshakeError<IO>),
}

/// What a trusted proxy says first, and the handshake. Also who is at the other end, as far as that
/// is believed.
async fn secure<IO>(
    mut io: IO,
    peer: SocketAddr,
    trusted: &Networks,
    config: Arc<ListenerConfig>,
) -> Result<(Secured<IO>, SocketAddr), Unsecured<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let Preface { source, rest } = match trusted.contain(peer.ip()) {
        true => proxy_protocol::read(&mut io)
            .await
            .map_err(Unsecured::Proxy)?,
        false => Preface::none(),
    };
    let secured = handshake(io, rest, config)
        .await
        .map_err(Unsecured::Handshake)?;
    Ok((secured, source.unwrap_or(peer)))
}

/// A plain HTTP/1.1 connection with a service of its own: redirects and the admin listener.
pub(crate) async fn serve_plain<IO, F, R, B>(
    accepted: Accepted<IO>,
    snapshot: &Snapshot,
    drain: CancellationToken,
    answer: F,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let Accepted {
        io,
        peer,
        listener,
        at,
    } = accepted;
    let settings = snapshot.connection;
    let activity = Arc::new(Activity::new(at, limits(snapshot)));
    let protocol = Protocol::Http1;
    let conn = ConnInfo::new(listener, peer, None, protocol, &settings);
    let watch = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = watch.request(!request.body().is_end_stream());
        let answer = answer(request);
        async move {
            Ok::<_, Infallible>(answer.await.map(|body| Guarded {
                body,
                _guard: guard,
            }))
        }
    });
    let io = TokioIo::new(WatchedIo::http1(io, activity.clone()));
    let connection = http1_settings(&settings).serve_connection(io, service);
    let end = http1::Connection::graceful_shutdown;
    drive(connection, activity, drain, end, nothing_waits, &conn).await;
}

/// The longest silences that any virtual host allows, since a connection may serve each of them.
fn limits(snapshot: &Snapshot) -> ActivityLimits {
    let all = || snapshot.domains.iter().map(|domain| domain.timeouts);
    let stall = all()
        .map(|t| t.stall)
        .max()
        .unwrap_or(Duration::from_secs(120));
    let wait = all()
        .map(|t| {
            t.upstream_commit
                .max(t.upstream_head)
                .max(t.first_body_byte)
        })
        .max();
    ActivityLimits::new(
        &snapshot.connection,
        stall,
        wait.unwrap_or_default() + 2 * stall,
    )
}

fn http1_settings(settings: &ConnectionSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Heads and idle connections are timed by `Activity`: hyper's own limit counts from the end of
    // the last answer and so could not tell the two apart.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(settings.head_lines)
        .max_header_size(settings.head_bytes)
        .max_buf_size(READ_AT_ONCE.max(settings.head_bytes));
    builder
}

fn http2_settings(settings: &ConnectionSettings) -> http2::Builder<Spawner> {
    let mut builder = http2::Builder::new(Spawner);
    builder
        .timer(TokioTimer::new())
        // 64 KiB to begin with, more as the bandwidth-delay product shows: only bodies that are
        // read, those of users, make it grow.
        .adaptive_window(true)
        .max_concurrent_streams(settings.h2_streams)
        .max_header_list_size(u32::try_from(settings.head_bytes).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(256)
        .max_send_buf_size(SEND_AHEAD)
        .keep_alive_interval(settings.h2_ping)
        .keep_alive_timeout(PING_PATIENCE);
    builder
}

/// What HTTP/1.1 reads ahead of the upstream, two records, and what it keeps of answers that a
/// client does not read. With 32 KiB read from the socket, 64 KiB of records to be sent and 34 KiB
/// in rustls, a stranger holds 220 KiB at most.
const READ_AT_ONCE: usize = 32 * 1024;
/// What an HTTP/2 stream keeps for a client that is slower than its upstream.
const SEND_AHEAD: usize = 128 * 1024;
/// How long an HTTP/2 client may take to answer a PING.
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// HTTP/1.1 writes to its socket.
fn nothing_waits(_: &mut Context<'_>) -> Poll<std::io::Result<()>> {
    Poll::Ready(Ok(()))
}

type EndedBy = Box<dyn std::error::Error + Send + Sync>;

/// Runs a connection to its end: its own, its deadline's, or the drain's. After each turn `hand_on`
/// takes to the socket what the turn has written.
async fn drive<C, E>(
    connection: C,
    activity: Arc<Activity>,
    drain: CancellationToken,
    graceful: fn(Pin<&mut C>),
    hand_on: impl Fn(&mut Context<'_>) -> Poll<std::io::Result<()>>,
    conn: &ConnInfo,
) where
    C: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut watched = Watched::new(Box::pin(connection), activity);
    let mut stop = std::pin::pin!(drain.cancelled());
    let mut stopping = false;
    let ended = poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            graceful(watched.get_mut().as_mut());
        }
        watched.poll_with(cx, |connection, cx| {
            let turn = connection
                .as_mut()
                .poll(cx)
                .map_err(|error| Box::new(error) as EndedBy);
            match hand_on(cx) {
                Poll::Ready(Err(error)) if turn.is_pending() => Poll::Ready(Err(error.into())),
                _ => turn,
            }
        })
    });
    match ended.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = &*error as &dyn std::error::Error;
            tracing::debug!(peer = %conn.peer, listener = %conn.listener, error, "connection ended");
        }
        Err(_) => {
            tracing::debug!(peer = %conn.peer, listener = %conn.listener, "connection timed out")
        }
    }
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct Answering {
    gate: Arc<Gate>,
    conn: Arc<ConnInfo>,
    activity: Arc<Activity>,
}

impl Answering {
    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Guarded<request::body::ResponseBody>>, Infallible> {
        let guard = self.activity.request(!request.body().is_end_stream());
        let response = request::handle(&self.gate, &self.conn, request, guard.open).await;
        Ok(response.map(|body| Guarded {
            body,
            _guard: guard,
        }))
    }
}

/// A body that tells the connection when its request is over.
struct Guarded<B> {
    body: B,
    _guard: RequestGuard,
}

impl<B: Body + Unpin> Body for Guarded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Puts the streams of an HTTP/2 connection on the worker of their connection.
#[derive(Clone, Copy)]
struct Spawner;

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Streams end with their connection, which is tracked: hyper drops what they wait for.
        drop(tokio::spawn(stream));
    }
}
