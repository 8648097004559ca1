//! Reads the body of a manifest: one of the few bodies that are buffered.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http_body::Body;

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
/// Errors: 503 without memory for it, 413 for one that is too large, 408 and 400 for one that stops
/// or ends early.
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
    let budget = &cx.gateway.manifest_budget;
    let permit = match budget.acquire(user, limit, &incoming).await {
        Ok(permit) => permit,
        Err(rejection) => {
            drain_short_body(cx.conn, &cx.parts.headers, incoming).await;
            return Err(rejection);
        }
    };
    let (body, upload) = forward::limited(incoming, limit)?;
    cx.record.forwarded(upload.clone());
    collect(&cx.site.host.timeouts, body, permit)
        .await
        .map_err(|error| {
            let failure = upload.and_then(|upload| upload.failure());
            Rejection::store(error, limit, failure)
        })
}

async fn collect(
    timeouts: &Timeouts,
    mut body: RequestBody,
    permit: MemoryPermit,
) -> Result<Bytes, StoreError> {
    let mut all = BytesMut::new();
    let mut timeout = timeouts.first_body_byte;
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        match tokio::time::timeout(timeout, frame).await {
            Ok(None) => return Ok(permit.attach(all.freeze())),
            Ok(Some(Ok(frame))) => all.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Ok(Some(Err(_))) => return Err(StoreError::BodyCut),
            Err(_) => return Err(StoreError::BodyStalled),
        }
        timeout = timeouts.stall;
    }
}
