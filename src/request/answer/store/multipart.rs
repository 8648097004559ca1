//! Several ranges of a blob as one body, `multipart/byteranges` (RFC 9110 §14.6).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::state_file::FileBody;
use crate::store::OpenBlob;

/// Ranges of a blob, each after a head of its own. At most one read of one range is in memory.
#[derive(Debug)]
pub(crate) struct MultipartBody {
    format: PartFormat,
    file: Arc<File>,
    waiting: std::vec::IntoIter<Range<u64>>,
    current: Option<FileBody>,
    /// The bytes that are still to be sent, heads included.
    left: u64,
}

#[derive(Debug)]
struct PartFormat {
    boundary: String,
    /// The size of the blob.
    size: u64,
}

impl MultipartBody {
    /// `boundary` must be unpredictable, so that no blob contains it.
    pub(super) fn new(blob: OpenBlob, ranges: Vec<Range<u64>>, boundary: String) -> Self {
        let size = blob.size;
        let format = PartFormat { boundary, size };
        let parts = ranges
            .iter()
            .map(|range| format.head(range).len() as u64 + range.end - range.start);
        let left = parts.sum::<u64>() + format.end().len() as u64;
        Self {
            format,
            file: Arc::new(blob.file),
            waiting: ranges.into_iter(),
            current: None,
            left,
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.left
    }

    /// The value of `Content-Type`. containers/image reads the boundary only in this form.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.format.boundary)
    }

    fn frame(&mut self, bytes: Bytes) -> Frame<Bytes> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Frame::data(bytes)
    }
}

impl PartFormat {
    /// What precedes the bytes of a range. The line break before the first one is an empty preamble
    /// (RFC 2046 §5.1.1).
    fn head(&self, range: &Range<u64>) -> String {
        let Self { boundary, size } = self;
        let (first, last) = (range.start, range.end - 1);
        format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {first}-{last}/{size}\r\n\r\n"
        )
    }

    fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

impl Body for MultipartBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(current) = &mut this.current {
            if let Some(frame) = ready!(Pin::new(current).poll_frame(cx)) {
                let bytes = frame?.into_data().unwrap_or_default();
                return Poll::Ready(Some(Ok(this.frame(bytes))));
            }
            this.current = None;
        }
        let text = match this.waiting.next() {
            Some(range) => {
                let head = this.format.head(&range);
                this.current = Some(FileBody::new(this.file.clone(), range.start, range.end));
                head
            }
            None => this.format.end(),
        };
        Poll::Ready(Some(Ok(this.frame(Bytes::from(text)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
