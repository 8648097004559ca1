//! A file, or a range of it, as the body of a request or a response.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::JoinHandle;

/// A range of a file. Bytes in the page cache are copied at once; a blocking thread reads the
/// others from the disk.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    waiting: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

/// The maximum size of a read: 8 TLS records.
const MAX_READ_BYTES: usize = 128 * 1024;

impl FileBody {
    pub(crate) fn new(file: impl Into<Arc<File>>, begin: u64, end: u64) -> Self {
        Self {
            file: file.into(),
            at: begin,
            end,
            waiting: None,
        }
    }

    fn part(&self) -> usize {
        usize::try_from(self.end - self.at)
            .unwrap_or(MAX_READ_BYTES)
            .min(MAX_READ_BYTES)
    }

    /// Reads from the page cache. `None`: the bytes are not cached, or the file system cannot tell.
    fn read_cached(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; self.part()];
        match preadv2(
            &*self.file,
            &mut [IoSliceMut::new(&mut bytes)],
            self.at,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(count) if count > 0 => {
                bytes.truncate(count);
                Ok(Some(bytes))
            }
            // The file was truncated: the blocking read reports it.
            Ok(_)
            | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "one read of a file; ends with it"
    )]
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        if self.waiting.is_none() {
            if let Some(bytes) = self.read_cached()? {
                return Poll::Ready(Ok(bytes));
            }
            let (file, at, count) = (self.file.clone(), self.at, self.part());
            self.waiting = Some(tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; count];
                file.read_exact_at(&mut bytes, at).map(|()| bytes)
            }));
        }
        let Some(waiting) = &mut self.waiting else {
            return Poll::Pending;
        };
        let read = ready!(Pin::new(waiting).poll(cx));
        self.waiting = None;
        Poll::Ready(read.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let bytes = ready!(self.poll_read(cx))?;
        self.at += bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.at))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn any_range_of_a_file_comes_whole() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..400_000_u32)
            .map(|n| n.to_le_bytes()[n as usize % 2])
            .collect();
        file.write_all(&bytes).unwrap();
        for (begin, end) in [
            (0, 400_000),
            (0, 0),
            (1, 2),
            (131_071, 262_145),
            (399_999, 400_000),
        ] {
            let content = FileBody::new(file.try_clone().unwrap(), begin, end);
            assert_eq!(content.size_hint().exact(), Some(end - begin));
            let read = content.collect().await.unwrap().to_bytes();
            assert_eq!(
                read,
                bytes[usize::try_from(begin).unwrap()..usize::try_from(end).unwrap()]
            );
        }
    }

    #[tokio::test]
    async fn a_file_that_is_cut_short_breaks_the_answer() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let content = FileBody::new(file, 0, 10);
        assert!(content.collect().await.is_err());
    }
}
