//! Response bodies: a few bytes of moorgate's own, a stream of the upstream, or a file of the
//! store. Sent bytes are counted.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::answer::{MultipartBody, RenamedBody};
use super::conn_info::{ConnInfo, Protocol};
use super::record::{RequestEnd, RequestRecord};
use crate::state_file::FileBody as Stored;
use crate::upstream::client_body::ClientBody;
use crate::upstream::response_body::UpstreamBody;

/// A response body with the record of its request, which is written when this is dropped.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    content: Content,
    record: Option<Box<RequestRecord>>,
}

#[derive(Debug)]
enum Content {
    /// A text of moorgate's own, and its length, also for HEAD, which does not send it.
    Own {
        text: Bytes,
        length: usize,
    },
    Streamed(Box<UpstreamBody>),
    Renamed(Box<RenamedBody>),
    Stored(Stored),
    StoredParts(Box<MultipartBody>),
}

impl ResponseBody {
    /// A text of moorgate's own.
    pub(crate) fn own(text: impl Into<Bytes>, head_only: bool) -> Self {
        let text = text.into();
        let length = text.len();
        let text = if head_only { Bytes::new() } else { text };
        Self {
            content: Content::Own { text, length },
            record: None,
        }
    }

    /// The response body of an upstream.
    pub(crate) fn streamed(answer: UpstreamBody) -> Self {
        Self {
            content: Content::Streamed(Box::new(answer)),
            record: None,
        }
    }

    /// The response body of an upstream with other names of repositories.
    pub(crate) fn renamed(answer: RenamedBody) -> Self {
        Self {
            content: Content::Renamed(Box::new(answer)),
            record: None,
        }
    }

    /// Content of moorgate's own registry.
    pub(crate) fn stored(content: Stored) -> Self {
        Self {
            content: Content::Stored(content),
            record: None,
        }
    }

    /// Several ranges of content of moorgate's own registry.
    pub(crate) fn stored_parts(content: MultipartBody) -> Self {
        Self {
            content: Content::StoredParts(Box::new(content)),
            record: None,
        }
    }

    /// The length of moorgate's own text, whether or not it is sent.
    pub(crate) fn own_length(&self) -> usize {
        match &self.content {
            Content::Own { length, .. } => *length,
            Content::Streamed(_)
            | Content::Renamed(_)
            | Content::Stored(_)
            | Content::StoredParts(_) => 0,
        }
    }

    /// Whether it is a text of moorgate's own that no client delays that reads responses.
    pub(crate) fn is_short(&self) -> bool {
        matches!(&self.content, Content::Own { text, .. } if text.len() <= INITIAL_WINDOW)
    }

    /// Attaches the record of the request.
    pub(super) fn recorded(mut self, mut record: Box<RequestRecord>) -> Self {
        if self.is_end_stream() {
            // hyper does not poll a body that says it is at its end.
            record.end(RequestEnd::Complete);
        }
        self.record = Some(record);
        self
    }
}

/// Ends the connection in mid-body, so that the client sees that the response is incomplete.
#[derive(Debug, thiserror::Error)]
#[error("the response ended early")]
pub(crate) struct ResponseCut(#[source] Box<dyn Error + Send + Sync>);

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseCut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseCut>>> {
        let this = &mut *self;
        let next = match &mut this.content {
            Content::Own { text, .. } if text.is_empty() => None,
            Content::Own { text, .. } => Some(Ok(Frame::data(std::mem::take(text)))),
            Content::Streamed(answer) => match Pin::new(&mut **answer).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => {
                    next.map(|frame| frame.map_err(|error| ResponseCut(error.into())))
                }
            },
            Content::Renamed(answer) => match Pin::new(&mut **answer).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => {
                    next.map(|frame| frame.map_err(|error| ResponseCut(error.into())))
                }
            },
            Content::Stored(stored) => match Pin::new(stored).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => {
                    next.map(|frame| frame.map_err(|error| ResponseCut(error.into())))
                }
            },
            Content::StoredParts(parts) => match Pin::new(&mut **parts).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => {
                    next.map(|frame| frame.map_err(|error| ResponseCut(error.into())))
                }
            },
        };
        let ended = this.is_end_stream();
        if let Some(record) = &mut this.record {
            match &next {
                Some(Ok(frame)) => {
                    record.sent(frame.data_ref().map_or(0, Bytes::len) as u64);
                    if ended {
                        record.end(RequestEnd::Complete);
                    }
                }
                Some(Err(_)) => record.end(RequestEnd::UpstreamCut),
                None => record.end(RequestEnd::Complete),
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own { text, .. } => text.is_empty(),
            Content::Streamed(answer) => answer.is_end_stream(),
            Content::Renamed(answer) => answer.is_end_stream(),
            Content::Stored(stored) => stored.is_end_stream(),
            Content::StoredParts(parts) => parts.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own { text, .. } => SizeHint::with_exact(text.len() as u64),
            Content::Streamed(answer) => answer.size_hint(),
            Content::Renamed(answer) => answer.size_hint(),
            Content::Stored(stored) => stored.size_hint(),
            Content::StoredParts(parts) => parts.size_hint(),
        }
    }
}

/// Reads the short body of a rejected request, as servers written in Go do: the pusher of
/// containerd waits forever if a manifest is rejected before it was read. A long body is left
/// unread. The connection is closed in both cases.
pub(crate) async fn drain_short_body(conn: &ConnInfo, headers: &HeaderMap, mut body: ClientBody) {
    let length = body.size_hint().exact().unwrap_or(u64::MAX);
    // Over HTTP/2 the rest is read behind the response, by the drop of the body; a client that
    // waits for 100 Continue sends none.
    if conn.protocol == Protocol::Http2
        || length > MAX_DRAINED_BYTES
        || headers.contains_key(header::EXPECT)
    {
        return;
    }
    let taking = async { while let Some(Ok(_)) = body.frame().await {} };
    // A client that does not send it gets the response all the same.
    let _: Result<(), _> = tokio::time::timeout(DRAIN_TIMEOUT, taking).await;
}

/// What an HTTP/2 client takes of a response without reading it (RFC 9113 §6.9.2).
const INITIAL_WINDOW: usize = 65_535;
/// Manifests are shorter, layers usually longer.
const MAX_DRAINED_BYTES: u64 = 64 << 10;
/// Clients usually send a short body together with the head.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(250);
