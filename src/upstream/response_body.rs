//! The upstream's response body on its way to the client. It streams and reports each frame to the
//! progress of its connection, so that timeouts measure silence only.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::Lease;
use super::replica_service::CountedRequest;

/// A response body on its way to the client. Its connection returns to the pool when the body is
/// complete, and is closed when this is dropped before.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    /// Counts the request at one of several replicas.
    in_flight: Option<CountedRequest>,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
            in_flight: None,
        };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    /// Counts the request at a replica until the body ends.
    pub(super) fn count(&mut self, in_flight: CountedRequest) {
        if self.lease.is_some() {
            self.in_flight = Some(in_flight);
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
        self.in_flight = None;
    }

    #[cold]
    fn cut(&mut self) {
        let cut = self.lease.take().and_then(Lease::cut);
        if let (Some(in_flight), Some(cut)) = (self.in_flight.take(), cut) {
            in_flight.cut(cut);
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
                    self.cut();
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
