//! Begins uploads at a product that makes no repositories by itself: one that is missing is made,
//! and the upload begun again. Only what was granted comes here: who may not push makes nothing.

use http::{Response, StatusCode};
use tokio::time::Instant;

use super::own_calls::refusal;
use super::product_api::ProductApi;
use super::request_meta::RequestMeta;
use super::{mount, product_refusals, rewrite, upstream_login};
use crate::registry::call::{Call, RepositoryCall};
use crate::registry::name::RepositoryName;
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::rejection::{Rejection, product};
use crate::request::route::UpstreamRoute;
use crate::upstream::error::UpstreamError;
use crate::upstream::login::error::LoginError;
use crate::upstream::product::api::ApiError;
use crate::upstream::response_body::UpstreamBody;

/// Whether the call begins an upload at an upstream whose repositories moorgate makes. Without a
/// body it can be sent again.
pub(super) fn may_create(to: UpstreamRoute<'_>, has_body: bool) -> bool {
    let operation = to.route.call().and_then(Call::operation);
    let begins_upload = matches!(
        operation,
        Some(RepositoryCall::UploadStart { .. } | RepositoryCall::Mount { .. })
    );
    let settings = || to.route.site().host.registry.upstream();
    begins_upload && !has_body && settings().is_some_and(|settings| settings.create)
}

/// Begins the upload, in a new repository if need be.
pub(super) async fn upload_start(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
) -> Result<Response<ResponseBody>, Rejection> {
    let name = to.registry_call().and_then(Call::repository);
    let repository = name.ok_or_else(Rejection::bad_target)?.clone();
    let meta = RequestMeta::from_parts(to, &cx.parts);
    let begun = Instant::now();
    let sent = mount::start(cx, to).await?;
    let response = match started(to, sent).await? {
        Start::Answered(response) => *response,
        Start::RepositoryMissing => {
            create(cx, to, &repository, begun).await?;
            let sent = mount::start(cx, to).await?;
            sent.map_err(|error| Rejection::upstream(error, 0))?
        }
    };
    let method = meta.method.clone();
    let response = rewrite::rewrite(cx, to, &meta, response).await?;
    product_refusals::translated(to, &method, response).await
}

/// What came of the beginning of an upload.
enum Start {
    Answered(Box<Response<UpstreamBody>>),
    RepositoryMissing,
}

/// Tells a missing repository from any other answer.
async fn started(
    to: UpstreamRoute<'_>,
    sent: Result<Response<UpstreamBody>, UpstreamError>,
) -> Result<Start, Rejection> {
    let is_refused = match &sent {
        Ok(response) => !response.status().is_success(),
        Err(error) => matches!(error, UpstreamError::Login(_)),
    };
    if is_refused {
        upstream_login::know_product(to).await?;
    }
    let capabilities = to.backend.product.dialect().capabilities();
    let hides = capabilities.hides_missing_projects;
    let response = match sent {
        // The same credentials then make the project, or are refused once more.
        Err(UpstreamError::Login(error))
            if hides
                && matches!(
                    *error,
                    LoginError::Refused { .. } | LoginError::NoRepository { .. }
                ) =>
        {
            return Ok(Start::RepositoryMissing);
        }
        sent => sent.map_err(|error| Rejection::upstream(error, 0))?,
    };
    match response.status() {
        StatusCode::UNAUTHORIZED if hides => Ok(Start::RepositoryMissing),
        StatusCode::NOT_FOUND => {
            let refusal = refusal(response).await;
            if refusal.is_missing_repository() {
                return Ok(Start::RepositoryMissing);
            }
            Err(refusal.rejection())
        }
        _ => Ok(Start::Answered(Box::new(response))),
    }
}

async fn create(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    repository: &RepositoryName,
    begun: Instant,
) -> Result<(), Rejection> {
    let ProductApi {
        dialect, client, ..
    } = ProductApi::of(to.backend);
    let container = dialect.container_of(repository);
    let Some(client) = client else {
        return Err(product::no_creation(&container));
    };
    let creation = dialect.create(&client, repository);
    match client.create_once(&container, begun, creation).await {
        Ok(()) => {
            let domain = cx.site.host.domain.as_str();
            tracing::info!(
                domain,
                name = container,
                "repository created at the upstream"
            );
            Ok(())
        }
        Err(ApiError::Unsupported | ApiError::NotFound | ApiError::RepositoryUnknown) => {
            Err(product::no_creation(&container))
        }
        Err(error) => Err(product::api_failed(error)),
    }
}
