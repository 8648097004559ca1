//! One client connection from its handshake to its end: HTTP/1.1 or HTTP/2 as negotiated by ALPN,
//! with its timeouts, and a graceful shutdown when the process drains.

pub(crate) mod activity;
mod chunked_write;
mod closing;
mod coalescing_writer;
pub(crate) mod drain;
mod driver;
mod frames;
mod io;
mod securing;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
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
use tokio_util::sync::DropGuard;

use crate::config::snapshot::{ConnectionSettings, Snapshot};
use crate::config::vhost::ListenAddress;
use crate::listen::limits::ConnectionLimits;
use crate::listen::open_connections::OpenConnection;
use crate::registry::host::HostName;
use crate::request;
use crate::request::conn_info::{ConnInfo, HandshakeName, Protocol};
use crate::request::gateway::Gateway;
use crate::tls::handshake::{Alpn, Secured};
use crate::tls::resolver::TlsClient;
use crate::tls::server_config::ListenerConfig;
use crate::upstream::client_body::{ClientBody, UnreadStreams};
use activity::{Activity, ActivityLimits, RequestGuard};
use closing::close;
use coalescing_writer::CoalescingWriter;
use drain::ConnectionDrain;
use driver::ConnectionDriver;
use io::WatchedIo;
use securing::{SecureError, SecuredClient, refuse, secure};

/// A connection as the listener accepted it.
pub(crate) struct AcceptedConnection<IO> {
    pub(crate) io: IO,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: ListenAddress,
    pub(crate) at: Instant,
    pub(crate) open: Arc<OpenConnection>,
    /// Bounds the clients that trusted proxies name.
    pub(crate) limits: Arc<ConnectionLimits>,
}

/// Serves an https connection: secures it, then answers its requests until it ends.
pub(crate) async fn serve_tls<IO>(
    accepted: AcceptedConnection<IO>,
    config: Arc<ListenerConfig>,
    gateway: Arc<Gateway>,
    drain: ConnectionDrain,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let AcceptedConnection {
        io,
        peer,
        listener,
        at,
        open,
        limits,
    } = accepted;
    let snapshot = gateway.sites.load().snapshot.clone();
    let settings = snapshot.connection;
    let securing = secure(io, peer, &snapshot.trusted_proxies, &limits, config);
    let secured = tokio::select! {
        biased;
        // Nothing that could be cut short has been sent.
        () = open.evicted() => return,
        secured = tokio::time::timeout(settings.handshake, securing) => secured,
    };
    let secured = secured.unwrap_or(Err(SecureError::TimedOut));
    let SecuredClient {
        secured: Secured { io, sni, alpn },
        address,
        client,
        permit: _permit,
    } = match secured {
        Ok(secured) => secured,
        Err(error) => return refuse(error, peer, listener, &gateway).await,
    };
    let name = handshake_name(sni, client);
    let protocol = match alpn {
        Alpn::Http1 => Protocol::Http1,
        Alpn::H2 => Protocol::Http2,
    };
    let activity = activity(&snapshot, address.ip(), at, open, &drain);
    let conn = Arc::new(ConnInfo::new(listener, address, name, protocol, &settings));
    let driver = ConnectionDriver {
        activity: activity.clone(),
        drain: drain.token(protocol),
        conn: &conn,
    };
    let service = ConnectionService {
        gateway,
        conn: conn.clone(),
        activity,
        unread: UnreadStreams::new(),
    };
    serve_requests(io, service, driver, &settings).await;
}

fn handshake_name(sni: Option<HostName>, client: TlsClient) -> HandshakeName {
    match (sni, client) {
        (Some(name), _) => HandshakeName::Sni(name),
        (None, TlsClient::Any) => HandshakeName::Address,
        (None, TlsClient::TrustedProxy) => HandshakeName::TrustedProxy,
    }
}

/// Answers the requests of a TLS stream in the protocol that was negotiated.
async fn serve_requests<IO>(
    io: IO,
    service: ConnectionService,
    driver: ConnectionDriver<'_>,
    settings: &ConnectionSettings,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = service.activity.clone();
    match service.conn.protocol {
        Protocol::Http1 => {
            let service = service_fn(move |request| service.clone().answer(request));
            let io = TokioIo::new(WatchedIo::http1(io, activity));
            let connection = http1_settings(settings).serve_connection(io, service);
            driver.drive_http1(connection).await;
        }
        Protocol::Http2 => {
            let writer = CoalescingWriter::new(io, activity.clone());
            let io = TokioIo::new(WatchedIo::http2(writer.clone(), activity.clone()));
            // h2 keeps the future of a stream until its response is read: 8 KiB for each of a
            // hundred streams. Boxed, the memory is freed when the response is made.
            let service = service_fn(move |request| Box::pin(service.clone().answer(request)));
            let connection = http2_settings(settings).serve_connection(io, service);
            let end = http2::Connection::graceful_shutdown;
            let (connection, _) = driver
                .drive(connection, end, |cx| writer.poll_flush_pending(cx))
                .await;
            // With all streams. An answer that is complete may still be under way.
            drop(connection);
            Box::pin(close(writer, activity)).await;
        }
    }
}

/// A plain HTTP/1.1 connection with a service of its own: redirects and the admin listener.
pub(crate) async fn serve_plain<IO, F, R, B>(
    accepted: AcceptedConnection<IO>,
    snapshot: &Snapshot,
    drain: ConnectionDrain,
    answer: F,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + Unpin + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let AcceptedConnection {
        io,
        peer,
        listener,
        at,
        open,
        limits: _,
    } = accepted;
    let settings = snapshot.connection;
    let activity = activity(snapshot, peer.ip(), at, open, &drain);
    let (name, protocol) = (HandshakeName::Address, Protocol::Http1);
    let conn = ConnInfo::new(listener, peer, name, protocol, &settings);
    let watch = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut guard = watch.request();
        let version = request.version();
        let answer = answer(request);
        let watch = watch.clone();
        async move {
            let mut response = answer.await;
            watch
                .drain()
                .mark_last_answer(version, response.headers_mut());
            guard.answered();
            Ok::<_, Infallible>(response.map(|body| GuardedBody {
                body,
                _guard: guard,
                _answered: None,
            }))
        }
    });
    let io = TokioIo::new(WatchedIo::http1(io, activity.clone()));
    let connection = http1_settings(&settings).serve_connection(io, service);
    let driver = ConnectionDriver {
        activity,
        drain: drain.token(protocol),
        conn: &conn,
    };
    driver.drive_http1(connection).await;
}

/// The activity of a connection that was accepted at `at`. A trusted client needs no login.
fn activity(
    snapshot: &Snapshot,
    client: IpAddr,
    at: Instant,
    open: Arc<OpenConnection>,
    drain: &ConnectionDrain,
) -> Arc<Activity> {
    if snapshot.trusted_proxies.contain(client) {
        open.authenticate();
    }
    Arc::new(Activity::new(at, limits(snapshot), open, drain.clone()))
}

/// The maximum of each timeout over all virtual hosts, since a connection may serve any of them.
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
    // `Activity` times heads and idle connections: hyper's own timeout counts from the end of the
    // last response, which does not tell the two apart.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(settings.head_lines)
        .max_header_size(settings.head_bytes)
        .max_buf_size(READ_BUFFER_SIZE.max(settings.head_bytes));
    builder
}

fn http2_settings(settings: &ConnectionSettings) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor);
    builder
        .timer(TokioTimer::new())
        // Starts at 64 KiB and grows with the bandwidth-delay product, only by bodies that are
        // read: those of authenticated users.
        .adaptive_window(true)
        .max_concurrent_streams(settings.h2_streams)
        .max_header_list_size(u32::try_from(settings.head_bytes).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(256)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(settings.h2_ping)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// What HTTP/1.1 reads ahead of the upstream (two records), and what it buffers of responses that a
/// client does not read. With 32 KiB read from the socket, 64 KiB of records to be sent and 34 KiB
/// in rustls, an unauthenticated client occupies 220 KiB at most.
const READ_BUFFER_SIZE: usize = 32 * 1024;
/// What an HTTP/2 stream buffers for a client that is slower than its upstream.
const MAX_SEND_BUFFER: usize = 128 * 1024;
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The HTTP service of one connection.
#[derive(Clone)]
struct ConnectionService {
    gateway: Arc<Gateway>,
    conn: Arc<ConnInfo>,
    activity: Arc<Activity>,
    unread: UnreadStreams,
}

impl ConnectionService {
    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<GuardedBody<request::body::ResponseBody>>, Infallible> {
        let has_body = !request.body().is_end_stream();
        let mut guard = self.activity.request();
        let (parts, body) = request.into_parts();
        let (body, answered) = match self.conn.protocol {
            Protocol::Http2 if has_body => {
                let (body, answered) = ClientBody::of_stream(body, &self.unread);
                (body, Some(answered))
            }
            Protocol::Http1 | Protocol::Http2 => (ClientBody::new(body), None),
        };
        let request = Request::from_parts(parts, body);
        let version = request.version();
        let mut response = request::handle(&self.gateway, &self.conn, request, guard.open).await;
        let drain = self.activity.drain();
        drain.mark_last_answer(version, response.headers_mut());
        if self.conn.has_login() {
            self.activity.authenticate();
        }
        if response.body().is_short() {
            guard.answered();
        }
        Ok(response.map(|body| GuardedBody {
            body,
            _guard: guard,
            _answered: answered,
        }))
    }
}

/// A response body whose drop ends its request.
struct GuardedBody<B> {
    body: B,
    _guard: RequestGuard,
    /// Tells when the response has ended to what is left of the request.
    _answered: Option<DropGuard>,
}

impl<B: Body + Unpin> Body for GuardedBody<B> {
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

/// Runs the streams of an HTTP/2 connection on the worker of the connection.
#[derive(Clone, Copy)]
struct StreamExecutor;

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "a stream of HTTP/2; ends with its connection"
    )]
    fn execute(&self, stream: F) {
        // Streams end with their connection, which is tracked: hyper drops what they await.
        drop(tokio::spawn(stream));
    }
}
