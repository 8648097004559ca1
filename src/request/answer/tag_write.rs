//! Writes to tags that some users may only create or only overwrite. At an upstream, one write at a
//! time for each tag, from the check whether it exists to the response; the store checks by itself.
//! The manifest is buffered, so that a slow client delays no others, and to compare it: writing the
//! same manifest again overwrites nothing.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::own_calls::ANY_MANIFEST;
use super::request_meta::RequestMeta;
use super::rewrite;
use super::{forward, manifest_body, product_refusals, redirects, store, upstream_login};
use crate::keyed_lock::KeyGuard;
use crate::registry::call::Call;
use crate::registry::digest::Digest;
use crate::registry::reference::Tag;
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::obligations::{TagObligation, TagWrite};
use crate::request::public_origin::{PublicOrigin, received_host};
use crate::request::rejection::Rejection;
use crate::request::respond;
use crate::request::route::{Destination, Route, UpstreamRoute};
use crate::store::is_digest_of;
use crate::upstream::client_body::ClientBody;
use crate::upstream::login::scope::TokenScope;
use crate::upstream::request_body::RequestBody;

/// Writes a manifest to an upstream, if its tags may be written as they are there.
///
/// Errors: the rejection of the tag that may not be written; 503 when the lock of a tag is not
/// released in time; 502 when the upstream does not say whether a tag exists.
pub(super) async fn to_upstream(
    cx: &mut RequestContext<'_>,
    mut route: Route,
    incoming: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    let manifest = manifest_body::read(cx, &route, incoming).await?;
    let obligations = route.take_tag_writes();
    let Destination::Upstream(to) = route.destination() else {
        return Err(Rejection::bad_target());
    };
    // Other domains may know the repository by another name.
    let Some(repository) = to.registry_call().and_then(Call::repository) else {
        return Err(Rejection::bad_target());
    };
    let registry = cx.site.host.registry.to_string();
    let tags = obligations.iter().map(|obligation| &obligation.tag);
    let guards = cx.gateway.tag_locks.lock(&registry, repository, tags).await;
    let guards = guards.map_err(|_| Rejection::tag_locked())?;
    let own_tag = obligations.first().map(|obligation| obligation.tag.clone());
    check_preconditions(cx, to, obligations, &manifest).await?;
    let meta = RequestMeta::from_parts(to, &cx.parts);
    let request = forward::buffered_request(cx, to, RequestBody::buffered(manifest.clone()))?;
    let backend = to.backend.clone();
    let limits = route.transfer_limits();
    let call = to.registry_call().cloned();
    let write = async move {
        let scope = call.as_ref().map(TokenScope::from_call);
        let scope = scope.unwrap_or(TokenScope::Registry);
        backend.send(request, None, limits, scope).await
    };
    let response = run_detached(guards, write).await;
    cx.record.answered();
    let response = response.map_err(|error| Rejection::upstream(error, route.body_limit()))?;
    let response = rewrite::rewrite(cx, to, &meta, response).await?;
    if !product_refusals::may_be_refusal(to, response.status()) {
        return Ok(response);
    }
    product_refusals::know_product(to).await;
    let (refusal, response) = product_refusals::read(response).await;
    if refusal.is_immutable()
        && let Some(tag) = own_tag
        && let Some(existing) = head_manifest(cx, to, &tag).await?
        && let Some(digest) = existing.digest_of(&manifest)
    {
        return Ok(already_written(cx, to, digest));
    }
    product_refusals::translated_by(to, &refusal, response)
}

/// The response to a manifest that its tag has already. Some products refuse to write it to a tag
/// that nobody may move, although nothing would move.
fn already_written(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    digest: &Digest,
) -> Response<ResponseBody> {
    let mut response = respond::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    let host = received_host(&cx.parts.headers, &cx.parts.uri);
    let origin = PublicOrigin::new(cx.site.host.locations, host);
    let repository = to.route.call().and_then(Call::repository);
    let location = repository.map(|name| format!("{origin}/v2/{name}/manifests/{digest}"));
    if let Some(location) = location.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(header::LOCATION, location);
    }
    if let Ok(digest) = HeaderValue::try_from(digest.as_str()) {
        headers.insert(CONTENT_DIGEST, digest);
    }
    response
}

/// Writes a manifest to moorgate's own registry, which checks the tags as it writes.
pub(super) async fn to_store(
    cx: &mut RequestContext<'_>,
    mut route: Route,
    incoming: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    let obligations = route.take_tag_writes();
    match route.destination() {
        Destination::Store(to) => store::write_manifest(cx, to, obligations, incoming).await,
        Destination::Upstream(_) => Err(Rejection::bad_target()),
    }
}

/// Runs a write to its end even if its client leaves: it may still take effect, and the tag must
/// stay locked until the result is known.
#[expect(
    clippy::disallowed_methods,
    reason = "a write goes on when its client leaves; ends by the timeouts of the transfer"
)]
pub(super) async fn run_detached<T: Send + 'static>(
    guards: Vec<KeyGuard>,
    write: impl Future<Output = T> + Send + 'static,
) -> T {
    let task = tokio::spawn(async move {
        let done = write.await;
        drop(guards);
        done
    });
    match task.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Checks the tags at the upstream whose existence matters. The caller has locked them.
async fn check_preconditions(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    obligations: Vec<TagObligation>,
    manifest: &Bytes,
) -> Result<(), Rejection> {
    for TagObligation { tag, allowed } in obligations {
        match allowed {
            TagWrite::Any => {}
            TagWrite::CreateOnly(rejection) => {
                if let Some(existing) = head_manifest(cx, to, &tag).await?
                    && !existing.is_digest_of(manifest)
                {
                    return Err(rejection);
                }
            }
            TagWrite::OverwriteOnly(rejection) => {
                if head_manifest(cx, to, &tag).await?.is_none() {
                    return Err(rejection);
                }
            }
        }
    }
    Ok(())
}

/// The manifest of an existing tag, with its digest if the registry gives it.
struct ExistingManifest {
    digest: Option<Digest>,
}

impl ExistingManifest {
    fn is_digest_of(&self, manifest: &[u8]) -> bool {
        self.digest_of(manifest).is_some()
    }

    /// Its digest, if it is that of these bytes as well.
    fn digest_of(&self, manifest: &[u8]) -> Option<&Digest> {
        let digest = self.digest.as_ref();
        digest.filter(|digest| is_digest_of(digest, manifest))
    }
}

async fn head_manifest(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    tag: &Tag,
) -> Result<Option<ExistingManifest>, Rejection> {
    let Some(repository) = to.registry_call().and_then(Call::repository) else {
        return Err(Rejection::bad_target());
    };
    let path = format!("/v2/{repository}/manifests/{tag}");
    let mut request = forward::own_request(cx, to, Method::HEAD, &path)?;
    request
        .headers_mut()
        .insert(header::ACCEPT, HeaderValue::from_static(ANY_MANIFEST));
    let response = redirects::send(cx, to, request).await?;
    upstream_login::check(to, response.status(), response.headers())?;
    match response.status() {
        StatusCode::OK => Ok(Some(ExistingManifest {
            digest: content_digest(response.headers()),
        })),
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(Rejection::upstream_inconclusive()),
    }
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get(CONTENT_DIGEST)?.to_str().ok()?).ok()
}
