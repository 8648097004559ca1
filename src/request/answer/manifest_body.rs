//! Reads the body of a manifest: one of the few bodies that are buffered.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::time::Instant;

use super::forward;
use super::manifest_budget::MemoryPermit;
use crate::config::vhost::Timeouts;
use crate::request::body::drain_short_body;
use crate::request::context::RequestContext;
use crate::request::rejection::Rejection;
use crate::request::route::Route;
use crate::store::StoreError;
use crate::upstream::client_body::ClientBody;
use crate::upstream::request_body::RequestBody;

/// The whole body, within the manifest budget.
///
/// Errors: 503 without memory for it, 413 for one that is too large, 408 for one that stops or takes
/// longer than [`MANIFEST_TIMEOUT`], 400 for one that ends early.
pub(super) async fn read(
    cx: &mut RequestContext<'_>,
    route: &Route,
    incoming: ClientBody,
) -> Result<Bytes, Rejection> {
    let limit = route.body_limit();
    let user = format!(
        "{} {}",
        cx.site.host.domain,
        route.principal().user.unwrap_or_default()
    );
    if incoming.size_hint().lower() > limit {
        drain_short_body(cx.conn, &cx.parts.headers, incoming).await;
        return Err(Rejection::body_too_large(limit));
    }
    let (body, upload) = forward::limited(incoming, limit)?;
    cx.record.forwarded(upload.clone());
    let manifest = IncomingManifest {
        body,
        permit: cx.gateway.manifest_budget.permit(user),
        time_left: MANIFEST_TIMEOUT,
    };
    let failed = |error| {
        let failure = upload.and_then(|upload| upload.failure());
        Rejection::store(error, limit, failure)
    };
    manifest.collect(&cx.site.host.timeouts, failed).await
}

/// From the first byte of a manifest to its last: 4 MiB at 140 kB/s.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A manifest that is arriving.
struct IncomingManifest {
    body: RequestBody,
    permit: MemoryPermit,
    /// The time that the client may still take for its bytes.
    time_left: Duration,
}

impl IncomingManifest {
    async fn collect(
        mut self,
        timeouts: &Timeouts,
        failed: impl FnOnce(StoreError) -> Rejection,
    ) -> Result<Bytes, Rejection> {
        let mut all = BytesMut::new();
        let mut timeout = timeouts.first_body_byte;
        loop {
            let begun = Instant::now();
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            let data = match tokio::time::timeout(timeout, frame).await {
                Ok(None) => return Ok(self.permit.attach(all.freeze())),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(_))) => return Err(failed(StoreError::BodyCut)),
                Err(_) if !all.is_empty() && timeout == self.time_left => {
                    return Err(Rejection::manifest_too_slow(MANIFEST_TIMEOUT));
                }
                Err(_) => return Err(failed(StoreError::BodyStalled)),
            };
            if !all.is_empty() {
                self.time_left = self.time_left.saturating_sub(begun.elapsed());
            }
            // The bytes wait here, and those behind them at the client.
            self.permit.grow(data.len()).await?;
            all.extend_from_slice(&data);
            timeout = timeouts.stall.min(self.time_left);
        }
    }
}
