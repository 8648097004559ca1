//! The bodies that pass through: a client's towards the upstream, and the upstream's answer. Both
//! stream; both tell the exchange what moves, so that only silence is timed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::pool::Lease;

/// What is known of a request's body while it goes up, shared with whoever answers and records.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    bytes: AtomicU64,
    finished: AtomicBool,
    held: AtomicBool,
    failure: AtomicU8,
}

/// Why a request's body did not reach the upstream whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadFailure {
    /// The client went away or broke its framing.
    Cut,
    /// It is larger than the virtual host allows.
    TooLarge,
}

impl Upload {
    /// Bytes that came from the client so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the whole body was read.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Reads no more of the body: the answer is there already and the rest is not wanted.
    /// The connection to the upstream ends with the answer.
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Why the body ended early, if it did.
    pub(crate) fn failure(&self) -> Option<UploadFailure> {
        match self.failure.load(Ordering::Acquire) {
            0 => None,
            1 => Some(UploadFailure::Cut),
            _ => Some(UploadFailure::TooLarge),
        }
    }

    fn fail(&self, failure: UploadFailure) -> UploadError {
        let code = match failure {
            UploadFailure::Cut => 1,
            UploadFailure::TooLarge => 2,
        };
        self.failure.store(code, Ordering::Release);
        UploadError
    }
}

/// The request's body cannot be completed; the connection that carries it must end.
#[derive(Debug, thiserror::Error)]
#[error("the request body ended early")]
pub(crate) struct UploadError;

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Nothing,
    Held(Held),
    Streamed(Streamed),
}

/// A small body that is here already.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    exchange: Option<Arc<Exchange>>,
}

#[derive(Debug)]
struct Streamed {
    incoming: Incoming,
    upload: Arc<Upload>,
    exchange: Option<Arc<Exchange>>,
    most: u64,
}

impl RequestBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self {
            source: Source::Nothing,
        }
    }

    /// A small body that is here already.
    pub(crate) fn held(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        Self {
            source: Source::Held(Held {
                bytes,
                exchange: None,
            }),
        }
    }

    /// The client's body, of at most `most` bytes.
    pub(crate) fn streamed(incoming: Incoming, upload: Arc<Upload>, most: u64) -> Self {
        if incoming.is_end_stream() {
            upload.finished.store(true, Ordering::Release);
            return Self::empty();
        }
        Self {
            source: Source::Streamed(Streamed {
                incoming,
                upload,
                exchange: None,
                most,
            }),
        }
    }

    /// Whether there is nothing to send, and so nothing that a second try would miss.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.source, Source::Nothing)
    }

    /// Tells which exchange is to hear of progress.
    pub(super) fn attach(&mut self, exchange: &Arc<Exchange>) {
        match &mut self.source {
            Source::Nothing => {}
            Source::Held(held) => held.exchange = Some(exchange.clone()),
            Source::Streamed(source) => source.exchange = Some(exchange.clone()),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let source = match &mut self.source {
            Source::Nothing => return Poll::Ready(None),
            Source::Held(held) => return Poll::Ready(held.take().map(Ok)),
            Source::Streamed(source) => source,
        };
        if source.upload.held.load(Ordering::Acquire) {
            // Whoever held it drops the whole connection when the answer is through.
            return Poll::Pending;
        }
        source.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Held(held) => held.bytes.is_empty(),
            Source::Streamed(source) => source.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Held(held) => SizeHint::with_exact(held.bytes.len() as u64),
            Source::Streamed(source) => source.incoming.size_hint(),
        }
    }
}

impl Held {
    fn take(&mut self) -> Option<Frame<Bytes>> {
        if self.bytes.is_empty() {
            return None;
        }
        if let Some(exchange) = &self.exchange {
            exchange.sent_part();
            exchange.sent_all();
        }
        Some(Frame::data(std::mem::take(&mut self.bytes)))
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => {
                    if let Some(exchange) = &self.exchange {
                        exchange.waits_for_body();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Some(Err(self.upload.fail(UploadFailure::Cut))));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers could carry framing or credentials past the header rules: no
                    // registry client sends any, so they end here (RFC 9110 §6.5.1).
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    return Poll::Ready(Some(self.pass(data)));
                }
            }
        }
    }

    fn pass(&mut self, data: Bytes) -> Result<Frame<Bytes>, UploadError> {
        let length = data.len() as u64;
        let so_far = self.upload.bytes.fetch_add(length, Ordering::Relaxed) + length;
        if so_far > self.most {
            return Err(self.upload.fail(UploadFailure::TooLarge));
        }
        if let Some(exchange) = &self.exchange {
            exchange.sent_part();
        }
        if self.incoming.is_end_stream() {
            self.finish();
        }
        Ok(Frame::data(data))
    }

    fn finish(&mut self) {
        self.upload.finished.store(true, Ordering::Release);
        if let Some(exchange) = &self.exchange {
            exchange.sent_all();
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if !self.upload.is_finished() && self.upload.failure().is_none() {
            tracing::trace!(
                bytes = self.upload.bytes(),
                "request body dropped before its end"
            );
        }
    }
}

/// The upstream's answer on its way to the client. The connection goes back to its pool when the
/// body is complete, and ends when this is dropped before.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl AnswerBody {
    pub(super) fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
        };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                if let Some(lease) = &self.lease {
                    lease.exchange().waits_for_answer();
                }
                return Poll::Pending;
            };
            match next {
                None => {
                    self.release();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.lease = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if self.incoming.is_end_stream() {
                        self.release();
                    } else if let Some(lease) = &self.lease {
                        lease.exchange().took_part();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
