//! Writes to tags that some users may only create or only overwrite. At an upstream, one write at a
//! time for each tag, from the check whether it exists to the response; the store checks by itself.
//! The manifest is buffered, so that a slow client delays no others, and to compare it: writing the
//! same manifest again overwrites nothing.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::detached::run_detached;
use super::moved_tags::MovedTags;
use super::own_calls::ANY_MANIFEST;
use super::request_meta::RequestMeta;
use super::rewrite;
use super::{
    forward, manifest_body, product_refusals, redirects, store, tag_conditions, upstream_login,
};
use crate::registry::call::Call;
use crate::registry::digest::Digest;
use crate::registry::reference::Tag;
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::obligations::{AllowedWrite, TagWrite};
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
    let allowed = tag_conditions::allowed_writes(cx, &route, obligations, &manifest).await?;
    let moved = check_preconditions(cx, to, allowed, &manifest).await?;
    let (moves, digest) = (
        MovedTags::new(&route),
        tag_conditions::digest(&route, &manifest),
    );
    let meta = RequestMeta::from_parts(to, &cx.parts);
    let request = forward::buffered_request(cx, to, RequestBody::buffered(manifest.clone()))?;
    let backend = to.backend.clone();
    let limits = route.transfer_limits();
    let call = to.registry_call().cloned();
    let write = async move {
        let scope = call.as_ref().map(TokenScope::from_call);
        let scope = scope.unwrap_or(TokenScope::Registry);
        let response = backend.send(request, None, limits, scope).await;
        let is_done = |response: &Response<_>| response.status().is_success();
        if let (Some(digest), true) = (digest, response.as_ref().is_ok_and(is_done)) {
            moves.record(&moved, &digest);
        }
        response
    };
    let response = run_detached(guards, write).await;
    cx.record.answered();
    let response = response.map_err(|error| Rejection::upstream(error, route.body_limit()))?;
    let response = rewrite::rewrite(cx, to, &meta, response).await?;
    if !product_refusals::may_be_refusal(to, response.status()) {
        return Ok(response);
    }
    let written = ManifestOfTag {
        tag: own_tag,
        manifest,
    };
    refused(cx, to, written, response).await
}

/// What was to be written.
struct ManifestOfTag {
    tag: Option<Tag>,
    manifest: Bytes,
}

/// The response to a write that the registry has refused.
async fn refused(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    ManifestOfTag { tag, manifest }: ManifestOfTag,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    product_refusals::know_product(to).await;
    let (refusal, response) = product_refusals::read(response).await;
    if refusal.is_immutable()
        && let Some(tag) = tag
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

/// Checks the tags at the upstream whose existence matters. The caller has locked them. Returns the
/// tags that the write moves, where their ages matter.
async fn check_preconditions(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    writes: Vec<AllowedWrite>,
    manifest: &Bytes,
) -> Result<Vec<Tag>, Rejection> {
    let ages_matter = cx.site.policy.limits_ages();
    let mut moved = Vec::new();
    for AllowedWrite { tag, allowed } in writes {
        if matches!(allowed, TagWrite::Any) && !ages_matter {
            continue;
        }
        let existing = head_manifest(cx, to, &tag).await?;
        let is_same = existing
            .as_ref()
            .is_some_and(|existing| existing.is_digest_of(manifest));
        match allowed {
            TagWrite::Any => {}
            TagWrite::CreateOnly(_) if existing.is_none() || is_same => {}
            TagWrite::OverwriteOnly(_) if existing.is_some() => {}
            TagWrite::SameOnly(_) if is_same => {}
            TagWrite::CreateOnly(rejection)
            | TagWrite::OverwriteOnly(rejection)
            | TagWrite::SameOnly(rejection) => return Err(rejection),
        }
        if !is_same {
            moved.push(tag);
        }
    }
    Ok(moved)
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
