//! Deletes tags and manifests at an upstream of any product: by the registry API where it can, by
//! the product's own where only that can, and a tag by a [swap](Swap) where neither can.

use http::{Method, Response, StatusCode};

use super::own_calls::OwnCalls;
use super::product_api::ProductApi;
use super::request_meta::RequestMeta;
use super::swap::{ManifestDeletion, Swap};
use super::{forward, product_refusals, rewrite, tag_write, upstream_login};
use crate::config::upstream::Untag;
use crate::registry::call::{Call, RepositoryCall};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::rejection::{Rejection, product};
use crate::request::respond;
use crate::request::route::{Destination, Route, UpstreamRoute};
use crate::upstream::client_body::ClientBody;
use crate::upstream::product::api::ApiError;
use crate::upstream::product::{Deletion, TaggedImage, Untagged};

/// Whether a call deletes a manifest or a tag.
pub(super) fn is_deletion(call: Option<&Call>) -> bool {
    matches!(
        call.and_then(Call::operation),
        Some(RepositoryCall::ManifestDelete { .. })
    )
}

/// Deletes what the call names. The client's request has no body that means anything.
pub(super) async fn to_upstream(
    cx: &mut RequestContext<'_>,
    route: Route,
    body: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    let Destination::Upstream(to) = route.destination() else {
        return Err(Rejection::bad_target());
    };
    let Some(Call::Repository {
        name,
        operation: RepositoryCall::ManifestDelete { reference },
    }) = to.registry_call()
    else {
        return Err(Rejection::bad_target());
    };
    upstream_login::know_product(to).await?;
    let repository = name.clone();
    match reference {
        Reference::Tag(tag) => {
            let tag = tag.clone();
            let deletion = TagDeletion { repository, tag };
            deletion.run(cx, route, body).await
        }
        Reference::Digest(digest) => delete_manifest(cx, to, body, &repository, digest).await,
    }
}

/// The deletion of a tag alone.
struct TagDeletion {
    /// The name at the registry.
    repository: RepositoryName,
    tag: Tag,
}

/// What the registry API or the product's own came to.
enum Native {
    Answered(Response<ResponseBody>),
    /// Neither can do it.
    Impossible,
}

impl TagDeletion {
    async fn run(
        self,
        cx: &mut RequestContext<'_>,
        route: Route,
        body: ClientBody,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let settings = route.site().host.registry.upstream();
        let untag = settings.and_then(|settings| settings.untag);
        let Destination::Upstream(to) = route.destination() else {
            return Err(Rejection::bad_target());
        };
        let headers = OwnCalls::headers(cx, to)?;
        if untag == Some(Untag::Off) {
            return Err(product::tag_deletion_off());
        }
        if untag != Some(Untag::Swap)
            && let Native::Answered(response) = self.native(cx, to, body).await?
        {
            return Ok(response);
        }
        if untag == Some(Untag::Native) {
            return Err(product::no_tag_deletion());
        }
        let api = ProductApi::of(to);
        let deletion = match api.dialect.capabilities().digest_deletion {
            Deletion::Registry => ManifestDeletion::Registry,
            Deletion::Api => ManifestDeletion::Api(api),
        };
        let registry = cx.site.host.registry.to_string();
        let locks = &cx.gateway.tag_locks;
        let tags = [&self.tag].into_iter();
        let guards = locks.lock(&registry, &self.repository, tags).await;
        let guards = guards.map_err(|_| Rejection::tag_locked())?;
        cx.record.forwarded(None);
        let swap = Swap {
            calls: OwnCalls::new(route, headers),
            deletion,
            repository: self.repository,
            tag: self.tag,
        };
        let swapped = tag_write::run_detached(guards, swap.run()).await;
        cx.record.answered();
        swapped.map(|()| deleted())
    }

    async fn native(
        &self,
        cx: &mut RequestContext<'_>,
        to: UpstreamRoute<'_>,
        body: ClientBody,
    ) -> Result<Native, Rejection> {
        let api = ProductApi::of(to);
        match api.dialect.capabilities().tag_deletion {
            Deletion::Registry => self.by_registry(cx, to, body).await,
            Deletion::Api => {
                cx.record.forwarded(None);
                let (repository, tag) = (&self.repository, &self.tag);
                let untagged = api.untag(TaggedImage { repository, tag }).await;
                cx.record.answered();
                match untagged {
                    Ok(Untagged::Done) => Ok(Native::Answered(deleted())),
                    Ok(Untagged::HasOtherTags) => Ok(Native::Impossible),
                    Err(ApiError::Unsupported) => self.by_registry(cx, to, body).await,
                    Err(error) => Err(product::api_failed(error)),
                }
            }
        }
    }

    async fn by_registry(
        &self,
        cx: &mut RequestContext<'_>,
        to: UpstreamRoute<'_>,
        body: ClientBody,
    ) -> Result<Native, Rejection> {
        let meta = RequestMeta::from_parts(to, &cx.parts);
        let response = forward::forward(cx, to, body).await?;
        let response = rewrite::rewrite(cx, to, &meta, response).await?;
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED => Ok(Native::Impossible),
            StatusCode::BAD_REQUEST => {
                let (refusal, response) = product_refusals::read(response).await;
                if refusal.is_unsupported() {
                    return Ok(Native::Impossible);
                }
                product_refusals::translated_by(to, &refusal, response).map(Native::Answered)
            }
            _ => {
                let response = product_refusals::translated(to, &Method::DELETE, response).await?;
                Ok(Native::Answered(response))
            }
        }
    }
}

/// Deletes a manifest with its tags.
async fn delete_manifest(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
    body: ClientBody,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Response<ResponseBody>, Rejection> {
    let api = ProductApi::of(to);
    let by_api = || api.delete_manifest(repository, digest);
    if api.dialect.capabilities().digest_deletion == Deletion::Api {
        cx.record.forwarded(None);
        let done = by_api().await;
        cx.record.answered();
        match done {
            Ok(()) => return Ok(deleted()),
            Err(ApiError::Unsupported) => {}
            Err(error) => return Err(product::api_failed(error)),
        }
    }
    let meta = RequestMeta::from_parts(to, &cx.parts);
    let response = forward::forward(cx, to, body).await?;
    let response = rewrite::rewrite(cx, to, &meta, response).await?;
    let status = response.status();
    if !matches!(
        status,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND
    ) {
        return product_refusals::translated(to, &Method::DELETE, response).await;
    }
    let (refusal, response) = product_refusals::read(response).await;
    if status == StatusCode::METHOD_NOT_ALLOWED || !refusal.is_of_registry() {
        match by_api().await {
            Ok(()) => return Ok(deleted()),
            Err(ApiError::Unsupported) => {}
            Err(error) => return Err(product::api_failed(error)),
        }
    }
    product_refusals::translated_by(to, &refusal, response)
}

fn deleted() -> Response<ResponseBody> {
    respond::empty(StatusCode::ACCEPTED)
}
