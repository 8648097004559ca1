//! The body of an answer: a few bytes of our own, or the upstream's stream, counted on its way.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::conn_info::{ConnInfo, Protocol};
use super::record::{RequestEnd, RequestRecord};
use crate::store::file_body::FileBody as Stored;
use crate::upstream::response_body::UpstreamBody;

/// The body of an answer, with the record of its request: when this is dropped, it is over.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    content: Content,
    record: Option<Box<RequestRecord>>,
}

#[derive(Debug)]
enum Content {
    /// Our own words, and their length for a HEAD that does not send them.
    Own {
        text: Bytes,
        length: usize,
    },
    Streamed(Box<UpstreamBody>),
    Stored(Stored),
}

impl ResponseBody {
    /// A text of our own.
    pub(crate) fn own(text: impl Into<Bytes>, head_only: bool) -> Self {
        let text = text.into();
        let length = text.len();
        let text = if head_only { Bytes::new() } else { text };
        Self {
            content: Content::Own { text, length },
            record: None,
        }
    }

    /// The upstream's answer.
    pub(crate) fn streamed(answer: UpstreamBody) -> Self {
        Self {
            content: Content::Streamed(Box::new(answer)),
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

    /// The length of our own text, sent or not.
    pub(crate) fn own_length(&self) -> usize {
        match &self.content {
            Content::Own { length, .. } => *length,
            Content::Streamed(_) | Content::Stored(_) => 0,
        }
    }

    /// Gives it the record to keep until its end.
    pub(super) fn recorded(mut self, mut record: Box<RequestRecord>) -> Self {
        if self.is_end_stream() {
            // hyper asks no body for frames that says there are none.
            record.end(RequestEnd::Complete);
        }
        self.record = Some(record);
        self
    }
}

/// What ends a connection in mid-body, so that what is cut looks cut.
#[derive(Debug, thiserror::Error)]
#[error("the answer ended early")]
pub(crate) struct AnswerCut(#[source] Box<dyn Error + Send + Sync>);

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = AnswerCut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerCut>>> {
        let this = &mut *self;
        let next = match &mut this.content {
            Content::Own { text, .. } if text.is_empty() => None,
            Content::Own { text, .. } => Some(Ok(Frame::data(std::mem::take(text)))),
            Content::Streamed(answer) => match Pin::new(&mut **answer).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => {
                    next.map(|frame| frame.map_err(|error| AnswerCut(error.into())))
                }
            },
            Content::Stored(stored) => match Pin::new(stored).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => {
                    next.map(|frame| frame.map_err(|error| AnswerCut(error.into())))
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
            Content::Stored(stored) => stored.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own { text, .. } => SizeHint::with_exact(text.len() as u64),
            Content::Streamed(answer) => answer.size_hint(),
            Content::Stored(stored) => stored.size_hint(),
        }
    }
}

/// The body of a request that is refused. A long one is left where it is: the answer comes at once.
/// A short one is taken first, as servers in Go do, whose clients are used to it: containerd's
/// pusher waits for ever when a manifest is refused before it has been taken. The connection ends
/// in either case.
pub(crate) async fn drain_short_body(conn: &ConnInfo, headers: &HeaderMap, mut body: Incoming) {
    let length = body.size_hint().exact().unwrap_or(u64::MAX);
    // HTTP/2 ends a stream alone; who waits for a word before the body is told no with the answer.
    if conn.protocol == Protocol::Http2
        || length > MAX_DRAINED_BYTES
        || headers.contains_key(header::EXPECT)
    {
        return;
    }
    let taking = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever does not send it gets the answer all the same.
    let _: Result<(), _> = tokio::time::timeout(DRAIN_TIMEOUT, taking).await;
}

/// Manifests are shorter, layers seldom.
const MAX_DRAINED_BYTES: u64 = 64 << 10;
/// A client that has sent the head has usually sent this much too.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(250);
