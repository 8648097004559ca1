//! The upstream's response body on its way to the client. It streams and reports each frame to the
//! progress of its connection, so that timeouts measure silence only.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::Lease;

/// A response body on its way to the client. Its connection returns to the pool when the body is
/// complete, and is closed when this is dropped before.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
        };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                if let Some(lease) = &self.lease {
                    lease.progress().response_pending();
                }
                return Poll::Pending;
            };
            match next {
                None => {
                    self.release();
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.lease = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if self.incoming.is_end_stream() {
                        self.release();
                    } else if let Some(lease) = &self.lease {
                        lease.progress().response_data();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
