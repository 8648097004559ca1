//! The decrypted stream of a client connection, which reports its progress to [`Activity`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::chunked_write::poll_write_chunked;
use super::frames::FrameTracker;

/// The size in bytes of a PING or SETTINGS acknowledgement or a WINDOW_UPDATE, which an HTTP/2
/// connection sends by itself.
const MAX_CONTROL_FRAME: usize = 17;

/// Between TLS and hyper.
#[derive(Debug)]
pub(super) struct WatchedIo<IO> {
    io: IO,
    activity: Arc<Activity>,
    frames: Option<FrameTracker>,
    /// Whether our side is shut down.
    shut: bool,
}

impl<IO> WatchedIo<IO> {
    pub(super) fn http1(io: IO, activity: Arc<Activity>) -> Self {
        Self {
            io,
            activity,
            frames: None,
            shut: false,
        }
    }

    pub(super) fn http2(io: IO, activity: Arc<Activity>) -> Self {
        Self {
            io,
            activity,
            frames: Some(FrameTracker::new()),
            shut: false,
        }
    }

    /// Whether our side is shut down.
    pub(super) fn is_shut(&self) -> bool {
        self.shut
    }

    /// HTTP/1.1 writes nothing but responses, directly to the socket. HTTP/2 writes to the
    /// [`super::coalescing_writer`], which reports itself what the socket takes.
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match (result, self.frames.is_some()) {
            (Poll::Ready(Ok(bytes)), true) if *bytes <= MAX_CONTROL_FRAME => {}
            (Poll::Ready(Ok(_)), true) => self.activity.record_progress(),
            (Poll::Ready(Ok(bytes)), false) => {
                self.activity.record_progress();
                self.activity.record_write(*bytes);
            }
            (Poll::Pending, false) => self.activity.record_blocked(),
            (Poll::Pending, true) | (Poll::Ready(Err(_)), _) => {}
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for WatchedIo<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        let (_, new) = buf.filled().split_at(before);
        if !new.is_empty() {
            match &mut this.frames {
                None => this.activity.read_http1(),
                Some(frames) => {
                    let events = frames.feed(new);
                    this.activity.read_http2(events, frames.is_head_open());
                }
            }
        }
        result
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for WatchedIo<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = poll_write_chunked(&mut self.io, cx, &[io::IoSlice::new(buf)]);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = poll_write_chunked(&mut self.io, cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        match (&result, self.frames.is_some()) {
            (_, true) => {}
            (Poll::Pending, false) => self.activity.record_blocked(),
            (Poll::Ready(_), false) => self.activity.record_flush(),
        }
        result
    }

    /// What the client still sends is read by [`super::closing`].
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.begin_closing();
        if !self.shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}
