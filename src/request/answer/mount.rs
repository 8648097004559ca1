//! Begins uploads at an upstream with moorgate's own login, also by a mount. A mount that the
//! registry refuses, for its source is missing or closed to that login, becomes an ordinary upload,
//! as it does where nothing is mounted: clients take a refusal for the end of a push.

use http::{Request, Response, StatusCode, Uri};

use super::names::without_mount;
use super::request_meta::RequestMeta;
use super::{forward, product_refusals, rewrite};
use crate::registry::call::{Call, RepositoryCall};
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::rejection::Rejection;
use crate::request::route::UpstreamRoute;
use crate::upstream::credential::Credential;
use crate::upstream::error::UpstreamError;
use crate::upstream::login::error::LoginError;
use crate::upstream::login::scope::TokenScope;
use crate::upstream::product::TokenNeed;
use crate::upstream::request_body::RequestBody;
use crate::upstream::response_body::UpstreamBody;

/// Whether the call mounts a blob with moorgate's own login. Without a body it can be sent again.
pub(super) fn may_be_refused(to: UpstreamRoute<'_>, has_body: bool) -> bool {
    mounts(to) && !has_body && matches!(to.backend.credential, Credential::Own(_))
}

fn mounts(to: UpstreamRoute<'_>) -> bool {
    let operation = to.route.call().and_then(Call::operation);
    matches!(operation, Some(RepositoryCall::Mount { .. }))
}

/// Mounts the blob, or begins an upload.
pub(super) async fn to_upstream(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
) -> Result<Response<ResponseBody>, Rejection> {
    let meta = RequestMeta::from_parts(to, &cx.parts);
    let response = start(cx, to).await?;
    let response = response.map_err(|error| Rejection::upstream(error, 0))?;
    let method = meta.method.clone();
    let response = rewrite::rewrite(cx, to, &meta, response).await?;
    product_refusals::translated(to, &method, response).await
}

/// Sends the call, and after a refused mount the beginning of an upload.
///
/// Outer errors: the request cannot be sent.
pub(super) async fn start(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
) -> Result<Result<Response<UpstreamBody>, UpstreamError>, Rejection> {
    let request = forward::buffered_request(cx, to, RequestBody::empty())?;
    let limits = to.route.transfer_limits();
    cx.record.forwarded(None);
    let first = to.backend.send(request, None, limits, to.token_scope());
    let mut sent = first.await;
    if may_be_refused(to, false) && is_refused(&sent) {
        let request = unmounted(forward::buffered_request(cx, to, RequestBody::empty())?)?;
        let name = to.registry_call().and_then(Call::repository);
        let scope = TokenScope::Repository {
            name: name.ok_or_else(Rejection::bad_target)?.as_str(),
            need: TokenNeed::Write,
            from: None,
        };
        sent = to.backend.send(request, None, limits, scope).await;
    }
    cx.record.answered();
    Ok(sent)
}

/// Whether the source may be what is refused. A registry does not say whether it is.
fn is_refused(sent: &Result<Response<UpstreamBody>, UpstreamError>) -> bool {
    match sent {
        Ok(response) => [
            StatusCode::BAD_REQUEST,
            StatusCode::FORBIDDEN,
            StatusCode::NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED,
        ]
        .contains(&response.status()),
        Err(UpstreamError::Login(error)) => matches!(
            **error,
            LoginError::NoRight { .. } | LoginError::NoRepository { .. }
        ),
        Err(_) => false,
    }
}

fn unmounted(mut request: Request<RequestBody>) -> Result<Request<RequestBody>, Rejection> {
    let uri = request.uri();
    let query = uri.query().and_then(without_mount);
    let target = match query {
        Some(query) => format!("{}?{query}", uri.path()),
        None => uri.path().to_owned(),
    };
    *request.uri_mut() = Uri::try_from(target).map_err(|_| Rejection::bad_target())?;
    Ok(request)
}
