//! The client's request body on its way to the upstream. It streams and reports each frame to
//! [`TransferProgress`], so that timeouts measure silence only.

use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::client_body::ClientBody;
use super::transfer::TransferProgress;
use crate::state_file::FileBody;

/// The state of a request body that is being sent, shared with the response and the access log.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    bytes: AtomicU64,
    finished: AtomicBool,
    paused: AtomicBool,
    failure: AtomicU8,
}

/// Why a request body did not reach the upstream completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadFailure {
    /// The client left, or its framing is invalid.
    Cut,
    /// The body is larger than the virtual host allows.
    TooLarge,
}

impl Upload {
    /// Bytes received from the client so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the whole body was read.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Stops reading the body, because the upstream has already responded. The connection to the
    /// upstream ends with the response.
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Release);
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

/// The request body cannot be completed: the connection that carries it must end.
#[derive(Debug, thiserror::Error)]
#[error("the request body ended early")]
pub(crate) struct UploadError;

/// A request body on its way to the upstream.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: BodySource,
}

#[derive(Debug)]
enum BodySource {
    Empty,
    Buffered(BufferedBody),
    Streamed(StreamedBody),
    File(SentFile),
}

/// A file of moorgate's own.
#[derive(Debug)]
struct SentFile {
    content: FileBody,
    progress: Option<Arc<TransferProgress>>,
}

/// A small body that is in memory.
#[derive(Debug)]
struct BufferedBody {
    bytes: Bytes,
    progress: Option<Arc<TransferProgress>>,
}

#[derive(Debug)]
struct StreamedBody {
    incoming: ClientBody,
    upload: Arc<Upload>,
    progress: Option<Arc<TransferProgress>>,
    limit: u64,
}

impl RequestBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self {
            source: BodySource::Empty,
        }
    }

    /// A small body that is in memory.
    pub(crate) fn buffered(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        Self {
            source: BodySource::Buffered(BufferedBody {
                bytes,
                progress: None,
            }),
        }
    }

    /// The client's body, of at most `limit` bytes.
    pub(crate) fn streamed(incoming: ClientBody, upload: Arc<Upload>, limit: u64) -> Self {
        if incoming.is_end_stream() {
            upload.finished.store(true, Ordering::Release);
            return Self::empty();
        }
        Self {
            source: BodySource::Streamed(StreamedBody {
                incoming,
                upload,
                progress: None,
                limit,
            }),
        }
    }

    /// A whole file, of so many bytes.
    pub(crate) fn file(file: Arc<File>, length: u64) -> Self {
        if length == 0 {
            return Self::empty();
        }
        Self {
            source: BodySource::File(SentFile {
                content: FileBody::new(file, 0, length),
                progress: None,
            }),
        }
    }

    /// Whether there is nothing to send, so that a retry loses nothing.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.source, BodySource::Empty)
    }

    /// The bytes of one that is in memory.
    pub(crate) fn buffered_bytes(&self) -> Option<Bytes> {
        match &self.source {
            BodySource::Buffered(buffered) => Some(buffered.bytes.clone()),
            BodySource::Empty | BodySource::Streamed(_) | BodySource::File(_) => None,
        }
    }

    /// Sets where the body reports its progress.
    pub(super) fn attach(&mut self, progress: &Arc<TransferProgress>) {
        match &mut self.source {
            BodySource::Empty => {}
            BodySource::Buffered(buffered) => buffered.progress = Some(progress.clone()),
            BodySource::Streamed(source) => source.progress = Some(progress.clone()),
            BodySource::File(sent) => sent.progress = Some(progress.clone()),
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
            BodySource::Empty => return Poll::Ready(None),
            BodySource::Buffered(buffered) => return Poll::Ready(buffered.take().map(Ok)),
            BodySource::File(sent) => return sent.poll(cx),
            BodySource::Streamed(source) => source,
        };
        if source.upload.paused.load(Ordering::Acquire) {
            // The connection is dropped when the response is complete.
            return Poll::Pending;
        }
        source.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Empty => true,
            BodySource::Buffered(buffered) => buffered.bytes.is_empty(),
            BodySource::Streamed(source) => source.incoming.is_end_stream(),
            BodySource::File(sent) => sent.content.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Empty => SizeHint::with_exact(0),
            BodySource::Buffered(buffered) => SizeHint::with_exact(buffered.bytes.len() as u64),
            BodySource::Streamed(source) => source.incoming.size_hint(),
            BodySource::File(sent) => sent.content.size_hint(),
        }
    }
}

impl SentFile {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let read = ready!(Pin::new(&mut self.content).poll_frame(cx));
        let Some(read) = read else {
            return Poll::Ready(None);
        };
        let frame = read.map_err(|error| {
            tracing::error!(%error, "spooled upload cannot be read");
            UploadError
        });
        if let (Ok(_), Some(progress)) = (&frame, &self.progress) {
            progress.sent_data();
            if self.content.is_end_stream() {
                progress.body_complete();
            }
        }
        Poll::Ready(Some(frame))
    }
}

impl BufferedBody {
    fn take(&mut self) -> Option<Frame<Bytes>> {
        if self.bytes.is_empty() {
            return None;
        }
        if let Some(progress) = &self.progress {
            progress.sent_data();
            progress.body_complete();
        }
        Some(Frame::data(std::mem::take(&mut self.bytes)))
    }
}

impl StreamedBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => {
                    if let Some(progress) = &self.progress {
                        progress.body_pending();
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
                    // Trailers could carry framing or credentials past the header rules, and no
                    // registry client sends any: they are dropped (RFC 9110 §6.5.1).
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
        if so_far > self.limit {
            return Err(self.upload.fail(UploadFailure::TooLarge));
        }
        if let Some(progress) = &self.progress {
            progress.sent_data();
        }
        if self.incoming.is_end_stream() {
            self.finish();
        }
        Ok(Frame::data(data))
    }

    fn finish(&mut self) {
        self.upload.finished.store(true, Ordering::Release);
        if let Some(progress) = &self.progress {
            progress.body_complete();
        }
    }
}

impl Drop for StreamedBody {
    fn drop(&mut self) {
        if !self.upload.is_finished() && self.upload.failure().is_none() {
            tracing::trace!(
                bytes = self.upload.bytes(),
                "request body dropped before its end"
            );
        }
    }
}
