//! The body of an answer: a few bytes of our own, or the upstream's stream, counted on its way.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::record::{End, Record};
use crate::store::content::Content as Stored;
use crate::upstream::body::AnswerBody;

/// The body of an answer, with the record of its request: when this is dropped, it is over.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    content: Content,
    record: Option<Box<Record>>,
}

#[derive(Debug)]
enum Content {
    /// Our own words, and their length for a HEAD that does not send them.
    Own {
        text: Bytes,
        length: usize,
    },
    Streamed(Box<AnswerBody>),
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
    pub(crate) fn streamed(answer: AnswerBody) -> Self {
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
    pub(super) fn recorded(mut self, mut record: Box<Record>) -> Self {
        if self.is_end_stream() {
            // hyper asks no body for frames that says there are none.
            record.end(End::Complete);
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
                        record.end(End::Complete);
                    }
                }
                Some(Err(_)) => record.end(End::UpstreamCut),
                None => record.end(End::Complete),
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
