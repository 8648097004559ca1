//! Gathers the frames of an HTTP/2 connection into full TLS records.
//!
//! h2 writes and flushes each DATA frame by itself. Below it that is a record and a system call for
//! every small answer, and for a large one two records a frame: 16 KiB, and the nine bytes that are
//! left over. Copying together what one turn of the connection has to say costs less than either.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::pieces::{self, PIECE};

/// Plaintext that may wait: four records, which become one write to the socket.
const MOST: usize = 4 * 16 * 1024;

/// The room that a connection keeps between small writes. One that streams keeps all of it.
const KEPT: usize = 4 * 1024;

/// A stream whose writes wait until there are enough of them, or until [`Gather::poll_hand_on`].
/// A flush returns at once: whoever drives the connection hands on at the end of each of its turns.
/// Its clones are one stream: h2 owns one, the driver another, and both run in one task.
#[derive(Debug)]
pub(super) struct Gather<IO>(Arc<Mutex<Gathered<IO>>>);

impl<IO> Clone for Gather<IO> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Gathered<IO> {
    io: IO,
    activity: Arc<Activity>,
    waiting: Vec<u8>,
    written: usize,
    /// Whether a large frame is among what waits: then more of them are on their way.
    streams: bool,
    /// Whether TLS may still hold some of what was written.
    unflushed: bool,
}

impl<IO> Gather<IO> {
    pub(super) fn new(io: IO, activity: Arc<Activity>) -> Self {
        let waiting = Vec::new();
        let gathered = Gathered {
            io,
            activity,
            waiting,
            written: 0,
            streams: false,
            unflushed: false,
        };
        Self(Arc::new(Mutex::new(gathered)))
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered<IO>> {
        // A panic below it ends the connection, which is all that ever looks here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: AsyncWrite + Unpin> Gather<IO> {
    /// Hands everything that waits on to the socket. Pending: the task is woken when it takes more.
    pub(super) fn poll_hand_on(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gathered().poll_flush(cx)
    }
}

impl<IO> Gathered<IO> {
    fn take(&mut self, bytes: &[u8]) -> usize {
        let room = MOST.saturating_sub(self.waiting.len()).min(bytes.len());
        for piece in bytes.split_at(room).0.chunks(PIECE) {
            self.waiting.extend_from_slice(piece);
        }
        room
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    /// Hands everything that waits on to TLS.
    fn poll_hand_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .waiting
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            let Poll::Ready(count) = pieces::poll_write(&mut self.io, cx, &[IoSlice::new(rest)])?
            else {
                self.activity.blocked();
                return Poll::Pending;
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.activity.socket_took();
        }
        self.written = 0;
        self.waiting.clear();
        if !std::mem::take(&mut self.streams) {
            self.waiting.shrink_to(KEPT);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_hand_on(cx))?;
        let Poll::Ready(flushed) = Pin::new(&mut self.io).poll_flush(cx) else {
            self.activity.blocked();
            return Poll::Pending;
        };
        self.unflushed = false;
        self.activity.socket_took();
        Poll::Ready(flushed)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.gathered().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
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
        let mut this = self.gathered();
        if this.waiting.len() == MOST {
            ready!(this.poll_hand_on(cx))?;
        }
        if !this.streams && bufs.iter().any(|buf| buf.len() > PIECE) {
            this.streams = true;
            let room = MOST - this.waiting.len();
            this.waiting.reserve_exact(room);
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
        let mut this = self.gathered();
        ready!(this.poll_hand_on(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::super::activity::ActivityLimits;
    use super::*;
    use crate::clock::Deadline;

    const STALL: Duration = Duration::from_secs(1);

    fn gather<IO>(io: IO) -> (Gather<IO>, Arc<Activity>) {
        let long = Duration::from_secs(1000);
        let limits = ActivityLimits {
            first_head: long,
            head: long,
            idle: long,
            stall: STALL,
            busy: long,
        };
        let activity = Arc::new(Activity::new(Instant::now(), limits));
        (Gather::new(io, activity.clone()), activity)
    }

    #[tokio::test]
    async fn frames_wait_for_the_end_of_the_turn_and_come_out_in_order() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut gather, _) = gather(near);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.map(|_| got)
        });
        for piece in sent.chunks(777) {
            gather.write_all(piece).await.expect("written");
            gather.flush().await.expect("flushed");
        }
        assert!(!gather.gathered().waiting.is_empty());
        poll_fn(|cx| gather.poll_hand_on(cx))
            .await
            .expect("handed on");
        assert!(gather.gathered().waiting.is_empty());
        drop(gather);
        assert_eq!(reader.await.expect("no panic").expect("read"), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn small_frames_do_not_hide_that_the_client_takes_nothing() {
        let (near, _far) = tokio::io::duplex(16);
        let (mut gather, activity) = gather(near);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut hand_on = async |gather: &mut Gather<_>| {
            gather.write_all(&[7; 17]).await.expect("there is room");
            assert!(gather.poll_hand_on(&mut cx).is_pending());
        };
        hand_on(&mut gather).await;
        let due = activity.deadline();
        assert_eq!(due, Some(Instant::now() + STALL));
        tokio::time::advance(STALL / 2).await;
        hand_on(&mut gather).await;
        assert_eq!(activity.deadline(), due);
    }
}
