//! The end of a connection: its write side is shut, and what the client still sends is read and
//! dropped until the client closes.

// Closing a socket with unread bytes resets it, and so does a byte that comes afterwards. The reset
// discards what the kernel has not delivered yet (RFC 9112 §9.6): megabytes of an answer, where the
// client reads slower than the line. Over HTTP/2 a client sends such bytes by reading, to update
// its window.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::activity::Activity;
use crate::clock::Watched;

/// Closes a stream of which nothing more is to be sent but what it has buffered. [`Activity`]
/// bounds the time.
pub(super) async fn close<IO>(mut io: IO, activity: Arc<Activity>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    activity.begin_closing();
    let closing = async {
        // It fails for a client that has gone.
        if io.shutdown().await.is_ok() {
            poll_fn(|cx| poll_discard(&mut io, cx)).await;
        }
    };
    // When the time is over, nothing is left to do either.
    let _ = Watched::new(Box::pin(closing), activity).await;
}

/// Reads and drops bytes until the stream ends or fails.
fn poll_discard<IO: AsyncRead + Unpin>(io: &mut IO, cx: &mut Context<'_>) -> Poll<()> {
    // Only while it is polled, so that a closing connection holds no buffer.
    let mut scratch = [MaybeUninit::uninit(); 8 * 1024];
    loop {
        let mut buf = ReadBuf::uninit(&mut scratch);
        let read: Poll<io::Result<()>> = Pin::new(&mut *io).poll_read(cx, &mut buf);
        match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
            Poll::Ready(_) => return Poll::Ready(()),
        }
    }
}
