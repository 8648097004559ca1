//! The body of a client's request. What a request over HTTP/2 leaves unread is read and dropped for
//! a bounded time after the response, before the stream is reset.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The body of a client's request.
#[derive(Debug)]
pub(crate) struct ClientBody {
    /// `None` only while it is dropped.
    incoming: Option<Incoming>,
    unread: Option<UnreadBody>,
}

/// How an HTTP/2 stream ends whose body is left unread.
#[derive(Debug)]
struct UnreadBody {
    /// Cancelled when the response has ended, or will never come.
    answered: CancellationToken,
    streams: Arc<Semaphore>,
}

/// The streams of an HTTP/2 connection whose unread bodies are being dropped.
#[derive(Clone, Debug)]
pub(crate) struct UnreadStreams(Arc<Semaphore>);

impl UnreadStreams {
    /// For one connection.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_UNREAD_STREAMS)))
    }
}

impl ClientBody {
    /// A body that is left as it is when this is dropped.
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self {
            incoming: Some(incoming),
            unread: None,
        }
    }

    /// The body of an HTTP/2 stream. The caller drops the guard when the response has ended.
    pub(crate) fn of_stream(incoming: Incoming, streams: &UnreadStreams) -> (Self, DropGuard) {
        let answered = CancellationToken::new();
        let guard = answered.clone().drop_guard();
        let unread = UnreadBody {
            answered,
            streams: streams.0.clone(),
        };
        let body = Self {
            incoming: Some(incoming),
            unread: Some(unread),
        };
        (body, guard)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded in time, and ends with its connection"
    )]
    fn drop(&mut self) {
        let (Some(incoming), Some(unread)) = (self.incoming.take(), self.unread.take()) else {
            return;
        };
        if incoming.is_end_stream() {
            return;
        }
        if Handle::try_current().is_err() {
            return;
        }
        // Beyond the bound, the stream is reset together with the end of its response.
        let Ok(permit) = unread.streams.try_acquire_owned() else {
            return;
        };
        drop(tokio::spawn(async move {
            unread.answered.cancelled().await;
            // The time is the bound for a client that neither ends nor resets its stream.
            let _ = tokio::time::timeout(LINGER_TIMEOUT, discard(incoming)).await;
            drop(permit);
        }));
    }
}

/// Reads and drops the rest of a body, until it ends or the bound is reached. Dropping it then
/// resets the stream by NO_ERROR (RFC 9113 §8.1), if it has not ended.
///
/// A reset directly behind the end of the response costs clients the response: curl before 8.0,
/// which looks at the state of the stream before it sends on, reports a framing error.
async fn discard(mut incoming: Incoming) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = incoming.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > MAX_DISCARDED {
            return;
        }
    }
}

/// As long as an HTTP/1.1 connection is read after its last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// Four initial windows: a client that sends as much has read the frames behind its response, since
/// updates of the window are among them.
const MAX_DISCARDED: usize = 256 * 1024;
/// A stranger makes one connection read 4 MiB in five seconds at most.
const MAX_UNREAD_STREAMS: usize = 16;
