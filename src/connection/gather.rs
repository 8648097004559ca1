//! Gathers the frames of an HTTP/2 connection into full TLS records.
//!
//! h2 writes each DATA frame by itself. Below it that is a record and a system call for every small
//! answer, and for a large one two records a frame: 16 KiB, and the nine bytes that are left over.
//! Copying the frames together costs less than either.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pieces::{self, PIECE};

/// Plaintext that may wait: four records, which become one write to the socket.
const MOST: usize = 4 * 16 * 1024;

/// The room that a connection keeps between small writes. One that streams keeps all of it.
const KEPT: usize = 4 * 1024;

/// A stream whose writes wait for a flush, or until there are enough of them.
#[derive(Debug)]
pub(super) struct Gather<IO> {
    io: IO,
    waiting: Vec<u8>,
    written: usize,
    /// Whether a large frame is among what waits: then more of them are on their way.
    streams: bool,
}

impl<IO> Gather<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, waiting: Vec::new(), written: 0, streams: false }
    }

    fn take(&mut self, bytes: &[u8]) -> usize {
        let room = MOST.saturating_sub(self.waiting.len()).min(bytes.len());
        for piece in bytes.split_at(room).0.chunks(PIECE) {
            self.waiting.extend_from_slice(piece);
        }
        room
    }
}

impl<IO: AsyncWrite + Unpin> Gather<IO> {
    /// Hands everything that waits on to TLS.
    fn poll_hand_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.written..).filter(|rest| !rest.is_empty()) {
            let count = ready!(pieces::poll_write(&mut self.io, cx, &[IoSlice::new(rest)]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        self.waiting.clear();
        if !std::mem::take(&mut self.streams) {
            self.waiting.shrink_to(KEPT);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() == MOST {
            ready!(self.poll_hand_on(cx))?;
        }
        if !self.streams && bufs.iter().any(|buf| buf.len() > PIECE) {
            self.streams = true;
            let room = MOST - self.waiting.len();
            self.waiting.reserve_exact(room);
        }
        let mut taken = 0;
        for buf in bufs {
            let count = self.take(buf);
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_on(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_on(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn frames_wait_for_the_flush_and_come_out_in_order() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut gather = Gather::new(near);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.map(|_| got)
        });
        for piece in sent.chunks(777) {
            gather.write_all(piece).await.expect("written");
        }
        assert!(!gather.waiting.is_empty());
        gather.flush().await.expect("flushed");
        assert!(gather.waiting.is_empty());
        drop(gather);
        assert_eq!(reader.await.expect("no panic").expect("read"), expected);
    }
}
