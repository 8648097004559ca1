//! Turns what a registry product refuses in words of its own into what clients understand. What a
//! plain registry says passes as it is.

use http::{Method, Response, StatusCode};

use super::own_calls::short_text;
use crate::request::body::ResponseBody;
use crate::request::rejection::{Rejection, UpstreamRefusal};
use crate::request::route::UpstreamRoute;

/// The response to a request with this method, as clients understand it.
pub(super) async fn translated(
    to: UpstreamRoute<'_>,
    method: &Method,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    if !may_be_refusal(to, response.status()) {
        return Ok(response);
    }
    know_product(to).await;
    // The response to HEAD has nothing to read, and its length is that of the response to GET.
    if *method == Method::HEAD {
        let refusal = UpstreamRefusal::new(response.status(), response.headers(), b"");
        return translated_by(to, &refusal, response);
    }
    let (refusal, response) = read(response).await;
    translated_by(to, &refusal, response)
}

/// The same of a refusal that has been read.
pub(super) fn translated_by(
    to: UpstreamRoute<'_>,
    refusal: &UpstreamRefusal,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    if !has_own_refusals(to) {
        return Ok(response);
    }
    match refusal.misunderstood(to.route.call()) {
        Some(rejection) => Err(rejection),
        None => Ok(response),
    }
}

/// Whether a response with this status may refuse something in a product's own words.
pub(super) fn may_be_refusal(to: UpstreamRoute<'_>, status: StatusCode) -> bool {
    let may_have_own = || has_own_refusals(to) || to.backend.credential.awaits_product();
    status.is_client_error()
        && status != StatusCode::UNAUTHORIZED
        && to.route.call().is_some()
        && may_have_own()
}

/// Waits until it is known whose words they are. Without an answer they pass as they are.
pub(super) async fn know_product(to: UpstreamRoute<'_>) {
    let known = to.backend.know_product(to.route.transfer_limits()).await;
    if let Err(error) = known {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "product of the upstream is not known");
    }
}

/// Whether the upstream is a product that refuses in its own words.
fn has_own_refusals(to: UpstreamRoute<'_>) -> bool {
    to.route.call().is_some() && to.backend.product.dialect().capabilities().own_refusals
}

/// Reads what a response says. It can still be passed on.
pub(super) async fn read(
    response: Response<ResponseBody>,
) -> (UpstreamRefusal, Response<ResponseBody>) {
    let (parts, body) = response.into_parts();
    // Without its body it has another length, which is set where it is sent.
    let text = short_text(body).await.unwrap_or_default();
    let refusal = UpstreamRefusal::new(parts.status, &parts.headers, &text);
    let mut response = Response::from_parts(parts, ResponseBody::own(text, false));
    let length = response.body().own_length();
    let headers = response.headers_mut();
    headers.remove(http::header::TRANSFER_ENCODING);
    headers.insert(http::header::CONTENT_LENGTH, length.into());
    (refusal, response)
}
