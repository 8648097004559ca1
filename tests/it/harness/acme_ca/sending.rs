//! The bodies of the played CA's answers: as they should be, far too long, or far too slow.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc::UnboundedReceiver;

/// A body on its way.
pub enum Sending {
    Whole(Option<Bytes>),
    /// A byte over and over, so many times.
    Endless(u64),
    /// A byte each time that the other end is told to.
    Trickling(UnboundedReceiver<()>),
}

impl Default for Sending {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl<T: Into<Bytes>> From<T> for Sending {
    fn from(text: T) -> Self {
        Self::Whole(Some(text.into()))
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(whole) => whole.take(),
            Self::Endless(0) => None,
            Self::Endless(left) => {
                let length = (*left).min(PIECE.len() as u64);
                *left -= length;
                Some(Bytes::from_static(
                    &PIECE[..usize::try_from(length).unwrap()],
                ))
            }
            Self::Trickling(slow_bodies) => {
                std::task::ready!(slow_bodies.poll_recv(context)).map(|()| Bytes::from_static(b" "))
            }
        };
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }
}

static PIECE: [u8; 64 * 1024] = [b' '; 64 * 1024];
