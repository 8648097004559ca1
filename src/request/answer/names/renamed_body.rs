//! The body of a response with the names that clients know. It streams.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::registry::json_strings::StringReplacer;
use crate::upstream::response_body::UpstreamBody;

/// What gives a string of a body its name for clients.
pub(super) type Renamed = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A JSON document of an upstream with other strings. Its length is known at its end.
pub(crate) struct RenamedBody {
    upstream: UpstreamBody,
    replacer: StringReplacer<Renamed>,
}

impl RenamedBody {
    pub(super) fn new(upstream: UpstreamBody, replacer: StringReplacer<Renamed>) -> Self {
        Self { upstream, replacer }
    }
}

impl fmt::Debug for RenamedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenamedBody").finish_non_exhaustive()
    }
}

impl Body for RenamedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let piece = match ready!(Pin::new(&mut self.upstream).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let rest = self.replacer.end();
                    let rest = (!rest.is_empty()).then(|| Ok(Frame::data(rest.into())));
                    return Poll::Ready(rest);
                }
            };
            let mut out = self.replacer.next(&piece);
            if self.upstream.is_end_stream() {
                out.append(&mut self.replacer.end());
            }
            if !out.is_empty() || self.upstream.is_end_stream() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.upstream.is_end_stream() && !self.replacer.is_within_string()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
