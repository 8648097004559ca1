//! Coalesces the frames of an HTTP/2 connection into full TLS records.
//!
//! h2 writes and flushes each DATA frame by itself: a record and a system call for every small
//! response, and two records per frame for a large one (16 KiB, and the nine bytes that are left
//! over). Copying the frames of one poll of the connection together costs less than either.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::chunked_write::{CHUNK_SIZE, poll_write_chunked};

/// Plaintext that may be pending: four records, which become one write to the socket.
const MAX_PENDING: usize = 4 * 16 * 1024;

/// The capacity that a connection retains after small writes. One that streams retains all of it.
const RETAINED_CAPACITY: usize = 4 * 1024;

/// A stream that buffers writes until there are enough of them, or until
/// [`CoalescingWriter::poll_flush_pending`]. Its own flush returns at once: the driver of the
/// connection flushes after each poll. Clones share one stream: h2 owns one, the driver another,
/// and both run in one task.
#[derive(Debug)]
pub(super) struct CoalescingWriter<IO>(Arc<Mutex<CoalescedStream<IO>>>);

impl<IO> Clone for CoalescingWriter<IO> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct CoalescedStream<IO> {
    io: IO,
    activity: Arc<Activity>,
    pending: Vec<u8>,
    written: usize,
    /// Whether a large frame is pending, so that more of them are to be expected.
    has_large_frame: bool,
    /// Whether TLS may still buffer some of what was written.
    unflushed: bool,
}

impl<IO> CoalescingWriter<IO> {
    pub(super) fn new(io: IO, activity: Arc<Activity>) -> Self {
        let pending = Vec::new();
        let stream = CoalescedStream {
            io,
            activity,
            pending,
            written: 0,
            has_large_frame: false,
            unflushed: false,
        };
        Self(Arc::new(Mutex::new(stream)))
    }

    fn stream(&self) -> MutexGuard<'_, CoalescedStream<IO>> {
        // A panic while it is locked ends the connection, which is its only user.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: AsyncWrite + Unpin> CoalescingWriter<IO> {
    /// Flushes everything that is pending to the socket. `Poll::Pending`: the task is woken when
    /// the socket takes more.
    pub(super) fn poll_flush_pending(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }
}

impl<IO> CoalescedStream<IO> {
    fn take(&mut self, bytes: &[u8]) -> usize {
        let capacity = MAX_PENDING
            .saturating_sub(self.pending.len())
            .min(bytes.len());
        for chunk in bytes.split_at(capacity).0.chunks(CHUNK_SIZE) {
            self.pending.extend_from_slice(chunk);
        }
        capacity
    }
}

impl<IO: AsyncWrite + Unpin> CoalescedStream<IO> {
    /// Writes everything that is pending to TLS.
    fn poll_write_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .pending
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            let Poll::Ready(count) = poll_write_chunked(&mut self.io, cx, &[IoSlice::new(rest)])?
            else {
                self.activity.record_blocked();
                return Poll::Pending;
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.activity.record_write(count);
        }
        self.written = 0;
        self.pending.clear();
        if !std::mem::take(&mut self.has_large_frame) {
            self.pending.shrink_to(RETAINED_CAPACITY);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_write_pending(cx))?;
        let Poll::Ready(flushed) = Pin::new(&mut self.io).poll_flush(cx) else {
            self.activity.record_blocked();
            return Poll::Pending;
        };
        self.unflushed = false;
        self.activity.record_flush();
        Poll::Ready(flushed)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for CoalescingWriter<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for CoalescingWriter<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut this = self.stream();
        if this.pending.len() == MAX_PENDING {
            ready!(this.poll_write_pending(cx))?;
        }
        if !this.has_large_frame && bufs.iter().any(|buf| buf.len() > CHUNK_SIZE) {
            this.has_large_frame = true;
            let capacity = MAX_PENDING - this.pending.len();
            this.pending.reserve_exact(capacity);
        }
        this.unflushed = true;
        let mut taken = 0;
        for buf in bufs {
            let count = this.take(buf);
            taken += count;
            if count < buf.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.stream();
        ready!(this.poll_write_pending(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::super::activity::ActivityLimits;
    use super::super::drain::ConnectionDrain;
    use super::*;
    use crate::clock::Deadline;
    use crate::listen::open_connections::tests::connection;

    const STALL_TIMEOUT: Duration = Duration::from_secs(1);

    fn coalescing<IO>(io: IO) -> (CoalescingWriter<IO>, Arc<Activity>) {
        let long = Duration::from_secs(1000);
        let limits = ActivityLimits {
            first_head: long,
            head: long,
            idle: long,
            idle_unauthenticated: long,
            stall: STALL_TIMEOUT,
            busy: long,
        };
        let activity = Arc::new(Activity::new(
            Instant::now(),
            limits,
            connection(),
            ConnectionDrain::new(CancellationToken::new()),
        ));
        (CoalescingWriter::new(io, activity.clone()), activity)
    }

    #[tokio::test]
    async fn frames_are_pending_until_the_flush_and_come_out_in_order() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut writer, _) = coalescing(near);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.map(|_| got)
        });
        for chunk in sent.chunks(777) {
            writer.write_all(chunk).await.expect("written");
            writer.flush().await.expect("flushed");
        }
        assert!(!writer.stream().pending.is_empty());
        poll_fn(|cx| writer.poll_flush_pending(cx))
            .await
            .expect("flushed");
        assert!(writer.stream().pending.is_empty());
        drop(writer);
        assert_eq!(reader.await.expect("no panic").expect("read"), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn small_frames_do_not_hide_that_the_client_takes_nothing() {
        let (near, _far) = tokio::io::duplex(16);
        let (mut writer, activity) = coalescing(near);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut write_and_flush = async |writer: &mut CoalescingWriter<_>| {
            writer.write_all(&[7; 17]).await.expect("buffered");
            assert!(writer.poll_flush_pending(&mut cx).is_pending());
        };
        write_and_flush(&mut writer).await;
        let due = activity.deadline();
        assert_eq!(due, Some(Instant::now() + STALL_TIMEOUT));
        tokio::time::advance(STALL_TIMEOUT / 2).await;
        write_and_flush(&mut writer).await;
        assert_eq!(activity.deadline(), due);
    }
}
