//! Answers calls to a repository that the user may not see with the response for one that does not
//! exist, with the requested name in place of the placeholder.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, header};
use http_body_util::{BodyExt, Limited};

use super::request_meta::RequestMeta;
use super::rewrite;
use super::{forward, redirects};
use crate::registry::call::{Call, Read, RepositoryCall};
use crate::registry::name::RepositoryName;
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::rejection::Rejection;
use crate::request::route::UpstreamRoute;
use crate::upstream::client_body::ClientBody;

/// The maximum size of a response about something that does not exist.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Headers that could make the response partial, conditional or encoded.
const CONDITIONAL: [header::HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// Asks the upstream about the placeholder of the granted call, and answers with the name of
/// `requested`.
pub(super) async fn answer(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
    requested: &RepositoryName,
    body: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    force_identity_get(&mut cx.parts);
    let meta = RequestMeta::from_parts(to, &cx.parts);
    let response = forward::forward(cx, to, body).await?;
    let response = redirects::followed(cx, to, &meta, response).await?;
    let response = rewrite::rewrite(cx, to, &meta, response)?;
    match to.route.call() {
        Some(call) => substitute_name(call, requested, response).await,
        None => Err(Rejection::bad_target()),
    }
}

/// Makes the request a GET for unencoded text, in which the name can be replaced. HEAD too, since
/// its response has the length of the replaced text.
fn force_identity_get(parts: &mut Parts) {
    if parts.method == Method::HEAD {
        parts.method = Method::GET;
    }
    for name in CONDITIONAL {
        parts.headers.remove(name);
    }
    parts.headers.insert(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
}

/// Replaces the placeholder by the name that the client requested.
async fn substitute_name(
    call: &Call,
    requested: &RepositoryName,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    let Some(placeholder) = call.repository() else {
        return Err(Rejection::bad_target());
    };
    let (placeholder, requested) = (placeholder.as_str(), requested.as_str());
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Rejection::upstream_inconclusive());
    }
    let (mut parts, body) = response.into_parts();
    let collected = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = collected
        .map_err(|_| Rejection::upstream_inconclusive())?
        .to_bytes();
    let body = match std::str::from_utf8(&body) {
        Ok(text) => Bytes::from(text.replace(placeholder, requested)),
        Err(_) => body,
    };
    for value in parts.headers.values_mut() {
        let Some(text) = value
            .to_str()
            .ok()
            .filter(|text| text.contains(placeholder))
        else {
            continue;
        };
        if let Ok(restored) = HeaderValue::try_from(text.replace(placeholder, requested)) {
            *value = restored;
        }
    }
    let read = call.operation().and_then(RepositoryCall::content_read);
    let is_head = read == Some(Read::Head);
    let body = ResponseBody::own(body, is_head);
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.own_length()));
    Ok(Response::from_parts(parts, body))
}
