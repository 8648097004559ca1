//! Answers routed requests, from an upstream or from moorgate's own registry.

mod aged_deletion;
mod catalog;
mod creation;
mod deletion;
pub(super) mod detached;
pub(crate) mod failed_uploads;
pub(crate) mod forward;
mod hidden;
mod manifest_body;
pub(crate) mod manifest_budget;
mod mount;
mod moved_tags;
mod names;
pub(super) mod own_calls;
pub(super) mod own_deletion;
pub(super) mod pace;
pub(super) mod page_size;
mod paging;
pub(super) mod product_api;
mod product_deletion;
pub(super) mod product_lists;
mod product_refusals;
mod recorded_use;
mod redirects;
mod references;
mod request_meta;
mod rewrite;
mod spooled;
mod store;
pub(super) mod swap;
mod tag_conditions;
pub(crate) mod tag_locks;
mod tag_pages;
mod tag_write;
mod upstream_login;
mod watched_upload;

use http::Response;
use hyper::body::Body;

use super::body::ResponseBody;
use super::context::RequestContext;
use super::obligations::Obligations;
use super::rejection::Rejection;
use super::route::{Destination, Route, UpstreamRoute};
use crate::upstream::client_body::ClientBody;
use recorded_use::RecordedUse;
use request_meta::RequestMeta;
use watched_upload::WatchedUpload;

pub(super) use names::RenamedBody;
pub(super) use store::MultipartBody;

/// Answers a routed request, and counts it in the journal of the domain.
pub(super) async fn answer(
    cx: &mut RequestContext<'_>,
    route: Route,
    body: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    let recorded = RecordedUse::of(&route);
    let answer = watched(cx, route, body).await;
    if let Some(recorded) = recorded {
        recorded.answered(&answer);
    }
    answer
}

async fn watched(
    cx: &mut RequestContext<'_>,
    route: Route,
    body: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    if let Some(upload) = WatchedUpload::of(&route) {
        // Boxed to keep it out of every request's future.
        return Box::pin(async move {
            let answer = by_destination(cx, route, body).await;
            upload.answer(&cx.gateway.failed_uploads, answer)
        })
        .await;
    }
    by_destination(cx, route, body).await
}

/// Answers by destination and obligations. The match has no wildcard: a new obligation does not
/// compile until it is handled for both destinations.
async fn by_destination(
    cx: &mut RequestContext<'_>,
    route: Route,
    body: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    // Boxed to keep the rare, large futures out of every request's future.
    match (route.destination(), route.obligations()) {
        (Destination::Upstream(to), Obligations::Plain | Obligations::Filtered)
            if product_lists::is_listed_by_api(to) =>
        {
            Box::pin(product_lists::catalog(cx, to)).await
        }
        (Destination::Upstream(to), Obligations::Plain) if names::is_mapped_catalog(to) => {
            Box::pin(catalog::from_upstream(cx, to)).await
        }
        (Destination::Upstream(to), Obligations::Plain)
            if deletion::is_deletion(to.route.call()) =>
        {
            Box::pin(deletion::to_upstream(cx, route, body)).await
        }
        (Destination::Upstream(to), Obligations::Plain | Obligations::Unmounted)
            if creation::may_create(to, !body.is_end_stream()) =>
        {
            Box::pin(creation::upload_start(cx, to)).await
        }
        (Destination::Upstream(to), Obligations::Plain)
            if mount::may_be_refused(to, !body.is_end_stream()) =>
        {
            Box::pin(mount::to_upstream(cx, to)).await
        }
        (Destination::Upstream(to), Obligations::Plain | Obligations::Unmounted) => {
            pass(cx, to, body).await
        }
        (Destination::Upstream(to), Obligations::Hidden(requested)) => {
            Box::pin(hidden::answer(cx, to, requested, body)).await
        }
        (Destination::Upstream(to), Obligations::Filtered) => {
            Box::pin(catalog::from_upstream(cx, to)).await
        }
        (Destination::Upstream(_), Obligations::TagWrites(_)) => {
            Box::pin(tag_write::to_upstream(cx, route, body)).await
        }
        (_, Obligations::TagDeletion(..)) => Box::pin(aged_deletion::run(cx, route, body)).await,
        (
            Destination::Store(to),
            Obligations::Plain
            | Obligations::Hidden(_)
            | Obligations::Unmounted
            | Obligations::Filtered,
        ) => Box::pin(store::answer(cx, to, body)).await,
        (Destination::Store(_), Obligations::TagWrites(_)) => {
            Box::pin(tag_write::to_store(cx, route, body)).await
        }
    }
}

/// Passes the request to its upstream, and the response back.
async fn pass(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
    body: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    if spooled::may_be_spooled(to, &cx.parts.headers)
        && Box::pin(spooled::is_spooled(to, &cx.parts.headers)).await?
    {
        return Box::pin(spooled::answer(cx, to, body)).await;
    }
    let meta = RequestMeta::from_parts(to, &cx.parts);
    let smaller_page = forward::smaller_page(cx, to)?;
    let mut response = forward::forward(cx, to, body).await?;
    if let Some(request) = smaller_page.filter(|_| page_size::is_refused(response.status())) {
        response = Box::pin(forward::send_again(cx, to, request)).await?;
    }
    let response = redirects::followed(cx, to, &meta, response).await?;
    let response = rewrite::rewrite(cx, to, &meta, response).await?;
    // Boxed to keep this rare, large future out of every request's future.
    if product_refusals::may_be_refusal(to, response.status()) {
        return Box::pin(product_refusals::translated(to, &meta.method, response)).await;
    }
    if tag_pages::may_be_whole(to, &response) {
        return Box::pin(tag_pages::paged(to, response)).await;
    }
    Ok(response)
}
