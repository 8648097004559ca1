//! Deletes tags and manifests at an upstream of any product: by the registry API where it can, by
//! the product's own where only that can, and a tag by a [swap](Swap) where neither can.

use http::{Method, Response, StatusCode};

use super::detached::run_detached;
use super::own_calls::OwnCalls;
use super::own_deletion::OwnDeletion;
use super::product_api::ProductApi;
use super::product_deletion::{self, NativeUntag, RegistryAnswer};
use super::request_meta::RequestMeta;
use super::swap::Swap;
use super::{forward, product_refusals, rewrite, upstream_login};
use crate::config::upstream::Untag;
use crate::registry::call::{Call, RepositoryCall};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::rejection::{Rejection, UpstreamRefusal};
use crate::request::respond;
use crate::request::route::{Destination, Route, UpstreamRoute};
use crate::upstream::client_body::ClientBody;
use crate::upstream::product::{Deletion, TaggedImage};

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
            let settings = route.site().host.registry.upstream();
            let deletion = TagDeletion {
                repository,
                tag,
                api: ProductApi::of(to.backend),
                setting: settings.and_then(|settings| settings.untag),
            };
            // Boxed to keep this large future out of its caller's.
            Box::pin(deletion.run(cx, route, body)).await
        }
        Reference::Digest(digest) => delete_manifest(cx, to, body, &repository, digest).await,
    }
}

/// The deletion of a tag alone.
struct TagDeletion {
    /// The name at the registry.
    repository: RepositoryName,
    tag: Tag,
    api: ProductApi,
    setting: Option<Untag>,
}

impl TagDeletion {
    async fn run(
        self,
        cx: &mut RequestContext<'_>,
        route: Route,
        body: ClientBody,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let Destination::Upstream(to) = route.destination() else {
            return Err(Rejection::bad_target());
        };
        let headers = OwnCalls::headers(cx, to)?;
        let calls = OwnCalls::of_client(to, headers);
        match self.native(cx, to, body).await? {
            NativeUntag::Done => return Ok(deleted()),
            NativeUntag::Answered(response) => return Ok(response),
            NativeUntag::Impossible => {}
        }
        let registry = cx.site.host.registry.to_string();
        let locks = &cx.gateway.tag_locks;
        let tags = [&self.tag].into_iter();
        let guards = locks.lock(&registry, &self.repository, tags).await;
        let guards = guards.map_err(|_| Rejection::tag_locked())?;
        cx.record.forwarded(None);
        let swap = Swap {
            deletion: OwnDeletion {
                calls,
                api: self.api,
                repository: self.repository,
            },
            tag: self.tag,
        };
        let swapped = Box::pin(run_detached(guards, swap.run())).await;
        cx.record.answered();
        swapped.map(|()| deleted())
    }

    async fn native(
        &self,
        cx: &mut RequestContext<'_>,
        to: UpstreamRoute<'_>,
        body: ClientBody,
    ) -> Result<NativeUntag<Response<ResponseBody>>, Rejection> {
        let Self {
            repository,
            tag,
            api,
            setting,
        } = self;
        let by_api = api.dialect.capabilities().tag_deletion == Deletion::Api
            && matches!(setting, Some(Untag::Native) | None);
        if by_api {
            cx.record.forwarded(None);
        }
        let image = TaggedImage { repository, tag };
        let by_registry = self.by_registry(cx, to, body);
        let native = product_deletion::untag(api, *setting, image, by_registry).await;
        if by_api && !matches!(native, Ok(NativeUntag::Answered(_))) {
            cx.record.answered();
        }
        native
    }

    async fn by_registry(
        &self,
        cx: &mut RequestContext<'_>,
        to: UpstreamRoute<'_>,
        body: ClientBody,
    ) -> Result<NativeUntag<Response<ResponseBody>>, Rejection> {
        let meta = RequestMeta::from_parts(to, &cx.parts);
        let response = forward::forward(cx, to, body).await?;
        let response = rewrite::rewrite(cx, to, &meta, response).await?;
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED => Ok(NativeUntag::Impossible),
            StatusCode::BAD_REQUEST => {
                let (refusal, response) = product_refusals::read(response).await;
                if refusal.deletes_no_tags() {
                    return Ok(NativeUntag::Impossible);
                }
                let response = product_refusals::translated_by(to, &refusal, response);
                response.map(NativeUntag::Answered)
            }
            _ => {
                let response = product_refusals::translated(to, &Method::DELETE, response).await?;
                Ok(NativeUntag::Answered(response))
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
    let api = ProductApi::of(to.backend);
    let by_api = api.dialect.capabilities().digest_deletion == Deletion::Api;
    if by_api {
        cx.record.forwarded(None);
    }
    let by_registry = manifest_by_registry(cx, to, body);
    let done = product_deletion::delete_manifest(&api, repository, digest, by_registry).await;
    if by_api && !matches!(done, Ok(Some(_))) {
        cx.record.answered();
    }
    match done {
        Ok(Some((None, response))) => Ok(response),
        Ok(Some((Some(refusal), response))) => {
            product_refusals::translated_by(to, &refusal, response)
        }
        Ok(None) => Ok(deleted()),
        Err(rejection) => Err(rejection),
    }
}

/// A response, and what it says if it refuses something and has not been translated.
type ReadResponse = (Option<UpstreamRefusal>, Response<ResponseBody>);

async fn manifest_by_registry(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
    body: ClientBody,
) -> Result<RegistryAnswer<ReadResponse>, Rejection> {
    let meta = RequestMeta::from_parts(to, &cx.parts);
    let response = forward::forward(cx, to, body).await?;
    let response = rewrite::rewrite(cx, to, &meta, response).await?;
    let status = response.status();
    if !matches!(
        status,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND
    ) {
        let response = product_refusals::translated(to, &Method::DELETE, response).await?;
        return Ok(RegistryAnswer::Known((None, response)));
    }
    let (refusal, response) = product_refusals::read(response).await;
    let is_unknown = status == StatusCode::METHOD_NOT_ALLOWED || !refusal.is_of_registry();
    let read = (Some(refusal), response);
    Ok(match is_unknown {
        true => RegistryAnswer::NoSuchCall(read),
        false => RegistryAnswer::Known(read),
    })
}

fn deleted() -> Response<ResponseBody> {
    respond::empty(StatusCode::ACCEPTED)
}
