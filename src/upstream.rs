//! A registry (or a browser page's server) behind a virtual host: requests go in, answers come out.
//! HTTP/1.1 over a pool of connections; nothing here knows what a request means.

pub(crate) mod body;
pub(crate) mod connector;
pub(crate) mod credential;
pub(crate) mod exchange;
pub(crate) mod pool;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::clock::Watched;
use crate::config::vhost::UpstreamUrl;
use body::{AnswerBody, RequestBody, Upload, UploadFailure};
use connector::Connector;
use exchange::{Exchange, ExchangeLimits, Verdict};
use pool::{Connection, Lease, Pool};

/// One upstream and its connections.
pub(crate) struct Upstream {
    connector: Connector,
    pool: Arc<Pool>,
    connect_timeout: Duration,
}

/// Why there is no answer from an upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No connection could be made.
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] std::io::Error),
    /// No connection was made in time.
    #[error("the upstream did not accept a connection in time")]
    ConnectTimedOut,
    /// It said nothing for too long.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// It closed or broke the connection before its answer, or answered with something else than
    /// HTTP.
    #[error("the upstream broke off")]
    Broken(#[source] hyper::Error),
    /// It answered 101 though nothing was asked for.
    #[error("the upstream switched protocols unasked")]
    Switched,
    /// The client sent no more of its body for too long.
    #[error("the client stopped sending")]
    ClientStalled,
    /// The client's body did not come whole.
    #[error("the client's body ended early")]
    ClientCut,
    /// The client's body is too large.
    #[error("the client's body is too large")]
    TooLarge,
}

/// What bounds an upstream's answer head: registries send few and small headers.
const ANSWER_LINES: usize = 128;
const ANSWER_HEAD: usize = 64 * 1024;
/// What is read from an upstream at once, and handed on at once: a client is cut off when it takes
/// none of it for the time of a stall, so that at 2 min the slowest may take 550 bytes a second.
const READ_AT_ONCE: usize = 64 * 1024;

impl Upstream {
    pub(crate) fn new(
        connector: Connector,
        workers: usize,
        connect_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            connector,
            pool: Pool::new(workers),
            connect_timeout,
        })
    }

    /// Where it is.
    pub(crate) fn target(&self) -> &UpstreamUrl {
        self.connector.target()
    }

    /// How long a connection may take to be made.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Sends a request whose target is in origin form and returns the answer when its head is here.
    ///
    /// A request without a body is sent once more, on a fresh connection, when a pooled one turns
    /// out dead before any answer. One with a body is only sent again if nothing of it went out.
    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: ExchangeLimits,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        if let Some(lease) = self.pool.take() {
            let again = request.body().is_empty().then(|| copy(&request));
            match exchange(lease, request, upload.clone(), limits).await {
                Ok(answer) => return Ok(answer),
                Err(Failed {
                    unsent: Some(unsent),
                    ..
                }) => request = *unsent,
                Err(failed) => match again.filter(|_| failed.dead) {
                    Some(again) => {
                        let error = &failed.error as &dyn Error;
                        tracing::debug!(error, "a kept connection was dead, trying a fresh one");
                        request = again;
                    }
                    None => return Err(failed.error),
                },
            }
        }
        // Seldom, and large: every request would carry its room otherwise.
        let lease = Box::pin(self.connect(limits.idle)).await?;
        exchange(lease, request, upload, limits)
            .await
            .map_err(|failed| failed.error)
    }

    async fn connect(&self, idle: Duration) -> Result<Lease, UpstreamError> {
        let exchange = Arc::new(Exchange::new(idle));
        let connecting = async {
            let io = self
                .connector
                .connect(exchange.clone())
                .await
                .map_err(UpstreamError::Unreachable)?;
            http1::Builder::new()
                .max_headers(ANSWER_LINES)
                .max_header_size(ANSWER_HEAD)
                .max_buf_size(READ_AT_ONCE)
                .handshake::<_, RequestBody>(TokioIo::new(io))
                .await
                .map_err(UpstreamError::Broken)
        };
        let (send, connection) = tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| UpstreamError::ConnectTimedOut)??;
        let watched = Watched::new(connection, exchange.clone());
        let progress = exchange.clone();
        // Ends with its connection: aborted by the lease's drop, by silence, or by the peer. It
        // lives on the worker that asked, so that the two halves of a request share a thread.
        let driver = tokio::spawn(async move {
            match watched.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(error = &error as &dyn Error, "upstream connection ended")
                }
                Err(_) => progress.expire(),
            }
        });
        Ok(self.pool.adopt(Connection {
            send,
            exchange,
            driver: driver.abort_handle(),
        }))
    }
}

/// What came of a request that got no answer.
struct Failed {
    error: UpstreamError,
    /// The request, if nothing of it was written.
    unsent: Option<Box<Request<RequestBody>>>,
    /// Whether the connection ended without a byte of an answer.
    dead: bool,
}

async fn exchange(
    mut lease: Lease,
    mut request: Request<RequestBody>,
    upload: Option<Arc<Upload>>,
    limits: ExchangeLimits,
) -> Result<Response<AnswerBody>, Failed> {
    let has_body = !request.body().is_empty();
    lease.exchange().begin(limits, has_body);
    let progress = lease.exchange().clone();
    request.body_mut().attach(&progress);
    lease.carries(upload.clone().filter(|_| has_body));
    let reused = lease.is_reused();
    let answer = match lease.connection().send.try_send_request(request).await {
        Ok(answer) => answer,
        Err(mut failed) => {
            let unsent = if reused {
                failed.take_message().map(Box::new)
            } else {
                None
            };
            let error = blame(failed.into_error(), &progress, upload.as_deref());
            let ended = matches!(&error, UpstreamError::Broken(error) if is_dead(error));
            return Err(Failed {
                error,
                unsent,
                dead: ended && !progress.has_heard(),
            });
        }
    };
    progress.answered();
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failed {
            error: UpstreamError::Switched,
            unsent: None,
            dead: false,
        });
    }
    // An error that comes while the body is still going up is the answer: the rest is not wanted.
    if let Some(upload) = upload.filter(|upload| has_body && !upload.is_finished())
        && (answer.status().is_client_error() || answer.status().is_server_error())
    {
        upload.hold();
    }
    let (parts, incoming) = answer.into_parts();
    Ok(Response::from_parts(
        parts,
        AnswerBody::new(incoming, lease),
    ))
}

/// Finds out whose fault a broken exchange is.
fn blame(error: hyper::Error, exchange: &Exchange, upload: Option<&Upload>) -> UpstreamError {
    match upload.and_then(Upload::failure) {
        Some(UploadFailure::Cut) => return UpstreamError::ClientCut,
        Some(UploadFailure::TooLarge) => return UpstreamError::TooLarge,
        None => {}
    }
    match exchange.verdict() {
        Some(Verdict::Client) => UpstreamError::ClientStalled,
        Some(Verdict::Upstream) => UpstreamError::TimedOut,
        None => UpstreamError::Broken(error),
    }
}

/// Whether the connection ended as one does that the upstream closed while it lay in the pool.
fn is_dead(error: &hyper::Error) -> bool {
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

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut again = Request::new(RequestBody::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    again
}
