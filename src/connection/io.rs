//! The decrypted stream of a client's connection, telling its activity what moves.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::frames::Frames;
use super::pieces;

/// A PING or SETTINGS acknowledgement or a WINDOW_UPDATE: what an HTTP/2 connection sends by
/// itself.
const LITTLE: usize = 17;

/// Between TLS and hyper.
#[derive(Debug)]
pub(super) struct WatchedIo<IO> {
    io: IO,
    activity: Arc<Activity>,
    frames: Option<Frames>,
    /// Whether our side has said its last word.
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
            frames: Some(Frames::new()),
            shut: false,
        }
    }

    /// HTTP/1.1 writes nothing but answers, and to the socket. HTTP/2 writes to what gathers its
    /// frames, which itself knows what the socket takes.
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match (result, self.frames.is_some()) {
            (Poll::Ready(Ok(bytes)), true) if *bytes <= LITTLE => {}
            (Poll::Ready(Ok(_)), true) => self.activity.moved(),
            (Poll::Ready(Ok(_)), false) => {
                self.activity.moved();
                self.activity.socket_took();
            }
            (Poll::Pending, false) => self.activity.blocked(),
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
                    let fed = frames.feed(new);
                    this.activity.read_http2(fed, frames.is_head_open());
                }
            }
        }
        result
    }
}

impl<IO: AsyncRead + Unpin> WatchedIo<IO> {
    /// Takes off the socket what the client still sends, until it ends; the activity bounds the
    /// time.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [MaybeUninit::uninit(); 8 * 1024];
        loop {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                // However the client ends is its own affair now.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WatchedIo<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = pieces::poll_write(&mut self.io, cx, &[io::IoSlice::new(buf)]);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = pieces::poll_write(&mut self.io, cx, bufs);
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
            (Poll::Pending, false) => self.activity.blocked(),
            (Poll::Ready(_), false) => self.activity.socket_took(),
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let unread = self.activity.closing() && self.frames.is_none();
        if !self.shut {
            match Pin::new(&mut self.io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => self.shut = true,
                other => return other,
            }
        }
        if unread {
            self.poll_drain(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}
