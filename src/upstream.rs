//! The client of a registry (or of a browser page's server) behind a virtual host: sends requests
//! and returns responses, over a pool of HTTP/1.1 connections. Knows nothing of a request's
//! meaning.

pub(crate) mod client_body;
pub(crate) mod connector;
pub(crate) mod credential;
pub(crate) mod destination;
pub(crate) mod error;
mod first_bytes;
pub(crate) mod health;
pub(crate) mod known_product;
pub(crate) mod login;
pub(crate) mod message_length;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod request_body;
pub(crate) mod response_body;
pub(crate) mod transfer;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::clock::Watched;
use crate::config::upstream::{Scheme, UpstreamUrl};
use connector::Connector;
use error::UpstreamError;
use first_bytes::OtherProtocol;
use health::UpstreamHealth;
use pool::{Lease, Pool, PooledConnection};
use request_body::{RequestBody, Upload, UploadFailure};
use response_body::UpstreamBody;
use transfer::{StalledSide, TransferLimits, TransferProgress};

/// One upstream and its connections.
pub(crate) struct Upstream {
    connector: Connector,
    pool: Arc<Pool>,
    connect_timeout: Duration,
    /// `None` where nothing is told of it: the storage of a registry.
    health: Option<Arc<UpstreamHealth>>,
}

/// The head of a request without a body, which comes with a redirect or a refusal in response to it,
/// so that it can be sent again.
#[derive(Clone)]
pub(crate) struct SentHead {
    method: Method,
    uri: Uri,
    pub(crate) headers: HeaderMap,
}

impl SentHead {
    pub(crate) fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Registries send few and small headers.
const MAX_RESPONSE_HEADERS: usize = 128;
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// The most that one read takes from an upstream, and one write passes on. A client that takes none
/// of it within `stall` is disconnected: at 2 min the slowest client may read 550 bytes per second.
const READ_BUFFER_SIZE: usize = 64 * 1024;

impl Upstream {
    pub(crate) fn new(
        connector: Connector,
        workers: usize,
        connect_timeout: Duration,
        health: Option<Arc<UpstreamHealth>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connector,
            pool: Pool::new(workers),
            connect_timeout,
            health,
        })
    }

    pub(crate) fn target(&self) -> &UpstreamUrl {
        self.connector.target()
    }

    /// Whether its last connection led to a public address.
    pub(crate) fn is_public(&self) -> bool {
        self.connector.is_public()
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) fn health(&self) -> Option<&Arc<UpstreamHealth>> {
        self.health.as_ref()
    }

    /// Sends a request, whose target is in origin form, and returns when the response head is here.
    /// A redirect or refusal of a request without a body has its [`SentHead`] among its extensions.
    ///
    /// Retries once on a fresh connection when a pooled one turns out to be closed: a request
    /// without a body if no byte of a response came, a request with a body only if no byte of it
    /// was written.
    ///
    /// What comes of it is the upstream's health. A client that leaves drops this future, which
    /// shows nothing.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let result = self.exchange(request, upload, limits).await;
        if let Some(health) = &self.health {
            match &result {
                Ok(response) => health.answered(response.status()),
                Err(error) => {
                    if let Some(reason) = error.reason() {
                        health.failed(reason, error.explained());
                    }
                }
            }
        }
        result
    }

    /// Asks whether it is a registry, as clients do first, without credentials. No request of a
    /// client: what comes of it is not the upstream's health.
    pub(crate) async fn ping(
        &self,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        self.exchange(self.ping_request(), None, limits).await
    }

    /// Asks whether it is a registry that lets these credentials in.
    pub(crate) async fn ping_with(
        &self,
        authorization: HeaderValue,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let mut request = self.ping_request();
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, authorization);
        self.exchange(request, None, limits).await
    }

    fn ping_request(&self) -> Request<RequestBody> {
        let target = self.target();
        let authority = target
            .host
            .authority(target.port, target.scheme.default_port());
        Request::get(format!("{}/v2/", target.base_path))
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "moorgate")
            .body(RequestBody::empty())
            .expect("the parts of a checked URL")
    }

    async fn exchange(
        &self,
        mut request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let again = request
            .body()
            .is_empty()
            .then(|| copy_without_body(&request));
        if let Some(lease) = self.pool.checkout() {
            match self.send_on(lease, request, upload.clone(), limits).await {
                Ok(answer) => return Ok(with_sent_head(answer, again)),
                Err(SendFailure {
                    unsent: Some(unsent),
                    ..
                }) => request = *unsent,
                Err(failed) => match again.as_ref().filter(|_| failed.connection_closed) {
                    Some(again) => {
                        let error = &failed.error as &dyn Error;
                        tracing::debug!(
                            error,
                            "pooled connection was closed, retrying on a new one"
                        );
                        request = copy_without_body(again);
                    }
                    None => return Err(failed.error),
                },
            }
        }
        // Boxed to keep this rare, large future out of every request's future.
        let lease = Box::pin(self.connect(limits.idle)).await?;
        self.send_on(lease, request, upload, limits)
            .await
            .map(|answer| with_sent_head(answer, again))
            .map_err(|failed| failed.error)
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
        let reused = lease.is_reused();
        let answer = match lease.connection().send.try_send_request(request).await {
            Ok(answer) => answer,
            Err(mut failed) => {
                let unsent = if reused {
                    failed.take_message().map(Box::new)
                } else {
                    None
                };
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

    #[expect(
        clippy::disallowed_methods,
        reason = "drives a connection; ends with its lease"
    )]
    async fn connect(&self, idle: Duration) -> Result<Lease, UpstreamError> {
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
        Ok(self.pool.lease(PooledConnection {
            send,
            progress,
            driver: driver.abort_handle(),
        }))
    }
}

/// A request that got no response.
struct SendFailure {
    error: UpstreamError,
    /// The request, if no byte of it was written.
    unsent: Option<Box<Request<RequestBody>>>,
    /// Whether the connection was closed before the first byte of a response.
    connection_closed: bool,
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
        });
    }
    answer
}

fn copy_without_body(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut again = Request::new(RequestBody::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    again
}
