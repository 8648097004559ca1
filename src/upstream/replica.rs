//! One server of an upstream: sends requests and returns responses, over a pool of HTTP/1.1
//! connections.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::circuit::Circuit;
use super::connector::Connector;
use super::error::UpstreamError;
use super::first_bytes::OtherProtocol;
use super::health::UpstreamHealth;
use super::message_length;
use super::pool::{Admitted, Lease, NoneFree, Pool, PooledConnection, UpstreamPermit};
use super::replica_service::{ServiceReport, SharedService};
use super::request_body::{RequestBody, Upload, UploadFailure};
use super::response_body::UpstreamBody;
use super::transfer::{StalledSide, TransferLimits, TransferProgress};
use crate::clock::Watched;
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::observe::resource_use::ResourceUse;
use crate::registry::upload_id::ReplicaId;

/// One server and the connections to it.
pub(crate) struct Replica {
    pub(super) id: ReplicaId,
    connector: Connector,
    pool: Arc<Pool>,
    connect_timeout: Duration,
    circuit: Circuit,
    /// The Host header for it.
    pub(super) authority: HeaderValue,
    /// As one of several.
    pub(super) service: Arc<SharedService>,
}

/// The head of a request without a body, which comes with a redirect or a refusal in response to it,
/// so that it can be sent again.
#[derive(Clone)]
pub(crate) struct SentHead {
    method: Method,
    uri: Uri,
    pub(crate) headers: HeaderMap,
    /// The one replica to which it may go.
    pub(super) replica: Option<ReplicaId>,
}

impl SentHead {
    pub(crate) fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        if let Some(replica) = self.replica {
            request.extensions_mut().insert(replica);
        }
        request
    }
}

/// Registries send few and small headers.
const MAX_RESPONSE_HEADERS: usize = 128;
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// The most that one read takes from an upstream, and one write passes on. A client that takes none
/// of it within `stall` is disconnected: at 2 min the slowest client may read 550 bytes per second.
const READ_BUFFER_SIZE: usize = 64 * 1024;
/// Requests that got no connection, of the whole process: upstreams come and go with reloads.
static REFUSED_REQUESTS: AtomicU64 = AtomicU64::new(0);
/// How long a request waits for one of all connections, unless it waits for less for its response.
const MAX_CONNECTION_WAIT: Duration = Duration::from_secs(30);

impl Replica {
    /// `health`: `None` where nothing is told of it.
    pub(crate) fn new(
        id: ReplicaId,
        connector: Connector,
        workers: usize,
        connect_timeout: Duration,
        health: Option<Arc<UpstreamHealth>>,
    ) -> Arc<Self> {
        let target = connector.target();
        let authority = target
            .host
            .authority(target.port, target.scheme.default_port());
        let lifetime = (connector.target().host.ip().is_none()).then_some(MAX_CONNECTION_AGE);
        Arc::new(Self {
            id,
            connector,
            pool: Pool::new(workers, lifetime, health),
            connect_timeout,
            circuit: Circuit::default(),
            authority: HeaderValue::try_from(authority).expect("a host name is visible ASCII"),
            service: Arc::new(SharedService::new()),
        })
    }

    pub(crate) fn target(&self) -> &UpstreamUrl {
        self.connector.target()
    }

    /// Whether its last connection led to a public address.
    pub(super) fn is_public(&self) -> bool {
        self.connector.is_public()
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Bounds the connections, idle ones included.
    pub(crate) fn set_max_connections(&self, max: usize) {
        self.pool.set_max(max);
    }

    /// The use of its connections, and the requests to all upstreams that got none.
    pub(crate) fn connections(&self) -> ResourceUse {
        let (open, max) = self.pool.counts();
        let refused = REFUSED_REQUESTS.load(Ordering::Relaxed);
        ResourceUse::new("upstream_connections", open, max).refused(refused)
    }

    pub(crate) fn health(&self) -> Option<&Arc<UpstreamHealth>> {
        self.pool.health()
    }

    /// Its service as one of several.
    pub(crate) fn service_report(&self) -> ServiceReport {
        self.service.report()
    }

    /// Sends a request and returns when the response head is here. What comes of it is the health of
    /// the server.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        let result = self.exchange(request, upload, limits).await;
        if let Some(health) = self.health() {
            match &result {
                Ok(response) => health.answered(response.status()),
                Err(failed) => {
                    if let Some(reason) = failed.error.reason() {
                        health.failed(reason, failed.error.explained());
                    }
                }
            }
        }
        result
    }

    /// Asks on a new connection, whatever the last ones were like. Returns the status.
    pub(crate) async fn ask(
        &self,
        request: Request<RequestBody>,
        limits: TransferLimits,
    ) -> Result<StatusCode, UpstreamError> {
        let lease = self.open(limits.idle, UpstreamPermit::extra()).await?;
        let answer = self.send_on(lease, request, None, limits).await;
        answer
            .map(|answer| answer.status())
            .map_err(|failed| failed.error)
    }

    /// A request without a body to a path.
    pub(crate) fn request(&self, path: &str) -> Request<RequestBody> {
        let target = self.target();
        Request::get(format!("{}{path}", target.base_path))
            .header(header::HOST, self.authority.clone())
            .header(header::USER_AGENT, "moorgate")
            .body(RequestBody::empty())
            .expect("the parts of a checked URL")
    }

    /// Sends a request, whose target is in origin form, and returns when the response head is here.
    /// A redirect or refusal of a request without a body has its [`SentHead`] among its extensions.
    ///
    /// Retries on another connection when a pooled one turns out to be closed: a request without a
    /// body, once, if no byte of a response came, a request with a body only if no byte of it was
    /// written. Waits for a connection while there are as many as there may be.
    pub(super) async fn exchange(
        &self,
        mut request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        let again = request
            .body()
            .is_empty()
            .then(|| copy_without_body(&request));
        let mut may_repeat = true;
        let mut pooled = self.pool.checkout();
        loop {
            let (lease, is_reused) = match pooled.take() {
                Some(lease) => (lease, true),
                // Boxed to keep this rare, large future out of every request's future.
                None => match Box::pin(self.lease(limits)).await {
                    Ok(lease) => lease,
                    Err(error) => return Err(SendFailure::unsent(error, request)),
                },
            };
            match self.send_on(lease, request, upload.clone(), limits).await {
                Ok(answer) => return Ok(with_sent_head(answer, again)),
                Err(failed) if !is_reused => return Err(failed),
                Err(SendFailure {
                    unsent: Some(unsent),
                    ..
                }) => request = *unsent,
                Err(failed) => {
                    let repeated = again
                        .as_ref()
                        .filter(|_| may_repeat && failed.connection_closed);
                    let Some(repeated) = repeated else {
                        return Err(failed);
                    };
                    may_repeat = false;
                    let error = &failed.error as &dyn Error;
                    tracing::debug!(
                        error,
                        "pooled connection was closed, retrying on another one"
                    );
                    request = copy_without_body(repeated);
                }
            }
        }
    }

    async fn send_on(
        &self,
        mut lease: Lease,
        mut request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        let has_body = !request.body().is_empty();
        lease.progress().begin(limits, has_body);
        let progress = lease.progress().clone();
        request.body_mut().attach(&progress);
        lease.set_upload(upload.clone().filter(|_| has_body));
        let answer = match lease.connection().send.try_send_request(request).await {
            Ok(answer) => answer,
            Err(mut failed) => {
                let unsent = failed.take_message().map(Box::new);
                let error = failed.into_error();
                let connection_closed =
                    is_connection_closed(&error) && progress.first_bytes().is_empty();
                let error = self.classify_error(error, &progress, upload.as_deref());
                let connection_closed =
                    connection_closed && matches!(error, UpstreamError::Closed { .. });
                return Err(SendFailure {
                    error,
                    unsent,
                    connection_closed,
                });
            }
        };
        progress.head_received();
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::ProtocolSwitched.into());
        }
        if answer.status() == StatusCode::BAD_REQUEST
            && let Some(protocol) = self.other_protocol(&progress)
        {
            return Err(UpstreamError::OtherProtocol(protocol).into());
        }
        // An error response that comes before the end of the request body is final: the upstream does
        // not want the rest.
        if let Some(upload) = upload.filter(|upload| has_body && !upload.is_finished())
            && (answer.status().is_client_error() || answer.status().is_server_error())
        {
            upload.pause();
        }
        let (mut parts, incoming) = answer.into_parts();
        message_length::normalize_response(&mut parts).map_err(UpstreamError::InvalidLength)?;
        Ok(Response::from_parts(
            parts,
            UpstreamBody::new(incoming, lease),
        ))
    }

    /// Says which side made a transfer fail, and how.
    fn classify_error(
        &self,
        error: hyper::Error,
        progress: &TransferProgress,
        upload: Option<&Upload>,
    ) -> UpstreamError {
        match upload.and_then(Upload::failure) {
            Some(UploadFailure::Cut) => return UpstreamError::ClientCut,
            Some(UploadFailure::TooLarge) => return UpstreamError::TooLarge,
            None => {}
        }
        match progress.stalled_side() {
            Some(StalledSide::Client) => return UpstreamError::ClientStalled,
            Some(StalledSide::Upstream) => return UpstreamError::TimedOut,
            None => {}
        }
        match self.other_protocol(progress) {
            Some(protocol) => UpstreamError::OtherProtocol(protocol),
            None if progress.is_head_missing() => UpstreamError::HeadMissing,
            None if error.is_parse_too_large() => UpstreamError::HeadTooLarge,
            None if error.is_parse() => UpstreamError::Malformed(error),
            None => self.closed(progress),
        }
    }

    fn closed(&self, progress: &TransferProgress) -> UpstreamError {
        let is_plain = self.target().scheme == Scheme::Http;
        UpstreamError::Closed {
            may_expect_tls: is_plain && progress.first_bytes().is_empty(),
        }
    }

    /// What the upstream speaks instead of HTTP/1 with or without TLS, as it is configured.
    fn other_protocol(&self, progress: &TransferProgress) -> Option<OtherProtocol> {
        progress.first_bytes().protocol(self.target().scheme)
    }

    /// A connection: a new one, or at the bound one that another request has ended with. Returns
    /// whether it has carried a request before.
    async fn lease(&self, limits: TransferLimits) -> Result<(Lease, bool), UpstreamError> {
        match self.pool.admit(limits.head.min(MAX_CONNECTION_WAIT)).await {
            Ok(Admitted::ToConnect(permit)) => {
                let lease = self.connect(limits.idle, permit).await?;
                Ok((lease, false))
            }
            Ok(Admitted::Connected(lease)) => Ok((lease, true)),
            Err(NoneFree) => {
                let host = self.target().host.as_str();
                let (_, limit) = self.pool.counts();
                REFUSED_REQUESTS.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    host,
                    limit,
                    "upstream connection limit reached: requests are refused"
                );
                Err(UpstreamError::TooManyConnections)
            }
        }
    }

    /// Connects, unless the last connections failed and one is being tried just now.
    async fn connect(
        &self,
        idle: Duration,
        permit: UpstreamPermit,
    ) -> Result<Lease, UpstreamError> {
        let Some(_permit) = self.circuit.permit() else {
            return Err(UpstreamError::CircuitOpen);
        };
        self.open(idle, permit).await
    }

    async fn open(&self, idle: Duration, permit: UpstreamPermit) -> Result<Lease, UpstreamError> {
        let opened = self.dial(idle, permit).await;
        match &opened {
            Ok(_) => self.circuit.connected(),
            Err(error) if error.reason().is_some() => self.circuit.failed(),
            Err(_) => {}
        }
        opened
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "drives a connection; ends with its lease"
    )]
    async fn dial(&self, idle: Duration, permit: UpstreamPermit) -> Result<Lease, UpstreamError> {
        let progress = Arc::new(TransferProgress::new(idle));
        let connecting = async {
            let io = self.connector.connect(progress.clone()).await?;
            http1::Builder::new()
                .max_headers(MAX_RESPONSE_HEADERS)
                .max_header_size(MAX_RESPONSE_HEAD)
                .max_buf_size(READ_BUFFER_SIZE)
                .handshake::<_, RequestBody>(TokioIo::new(io))
                .await
                .map_err(|_| self.closed(&progress))
        };
        let (send, connection) = tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| UpstreamError::ConnectTimedOut)??;
        let watched = Watched::new(connection, progress.clone());
        let expiring = progress.clone();
        // Ends with its connection: aborted by the lease's drop, by a timeout, or by the peer. Runs
        // on the worker of the request, so that both halves of a request share a thread.
        let driver = tokio::spawn(async move {
            match watched.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(error = &error as &dyn Error, "upstream connection ended")
                }
                Err(_) => expiring.expire(),
            }
        });
        let driver = driver.abort_handle();
        let connection = PooledConnection::new(send, progress, driver, permit);
        Ok(self.pool.lease(connection))
    }
}

/// A request that got no response.
pub(super) struct SendFailure {
    pub(super) error: UpstreamError,
    /// The request, if no byte of it was written.
    pub(super) unsent: Option<Box<Request<RequestBody>>>,
    /// Whether the connection was closed before the first byte of a response.
    connection_closed: bool,
}

impl SendFailure {
    fn unsent(error: UpstreamError, request: Request<RequestBody>) -> Self {
        Self {
            error,
            unsent: Some(Box::new(request)),
            connection_closed: false,
        }
    }
}

impl From<UpstreamError> for SendFailure {
    fn from(error: UpstreamError) -> Self {
        Self {
            error,
            unsent: None,
            connection_closed: false,
        }
    }
}

/// Whether the error is that of a connection which the upstream closed while it was pooled.
fn is_connection_closed(error: &hyper::Error) -> bool {
    if error.is_parse() {
        return false;
    }
    let broken_pipe = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|io| {
            use std::io::ErrorKind::{
                BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
            };
            matches!(
                io.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
            )
        });
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || broken_pipe
}

fn with_sent_head(
    mut answer: Response<UpstreamBody>,
    sent: Option<Request<RequestBody>>,
) -> Response<UpstreamBody> {
    let status = answer.status();
    let is_repeated = status.is_redirection() || status == StatusCode::UNAUTHORIZED;
    if let Some(sent) = sent.filter(|_| is_repeated) {
        let head = sent.into_parts().0;
        answer.extensions_mut().insert(SentHead {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            replica: None,
        });
    }
    answer
}

pub(super) fn copy_without_body(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut again = Request::new(RequestBody::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    if let Some(&replica) = request.extensions().get::<ReplicaId>() {
        again.extensions_mut().insert(replica);
    }
    again
}

/// A connection by a name is not used for longer: the name may lead elsewhere by then.
const MAX_CONNECTION_AGE: Duration = Duration::from_mins(5);
