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
use crate::request::route::{Route, UpstreamRoute};
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
    let response = rewrite::rewrite(cx, to, &meta, response).await?;
    substitute_name(to.route, requested, response).await
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
    route: &Route,
    requested: &RepositoryName,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    let placeholder = Placeholder::new(route).ok_or_else(Rejection::bad_target)?;
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Rejection::upstream_inconclusive());
    }
    let (mut parts, body) = response.into_parts();
    let collected = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = collected
        .map_err(|_| Rejection::upstream_inconclusive())?
        .to_bytes();
    let replaced = std::str::from_utf8(&body).ok();
    let replaced = replaced.and_then(|text| placeholder.replaced_in(text, requested));
    let body = replaced.map_or(body, Bytes::from);
    for value in parts.headers.values_mut() {
        let replaced = value.to_str().ok();
        let replaced = replaced.and_then(|text| placeholder.replaced_in(text, requested));
        if let Some(Ok(replaced)) = replaced.map(HeaderValue::try_from) {
            *value = replaced;
        }
    }
    let read = route.call().and_then(Call::operation);
    let is_head = read.and_then(RepositoryCall::content_read) == Some(Read::Head);
    let body = ResponseBody::own(body, is_head);
    if is_head && route.mapped_call().is_some() {
        // As for a repository that does not exist.
        parts.headers.remove(header::CONTENT_LENGTH);
    } else {
        let length = HeaderValue::from(body.own_length());
        parts.headers.insert(header::CONTENT_LENGTH, length);
    }
    Ok(Response::from_parts(parts, body))
}

/// The name of a repository that does not exist, on both sides.
struct Placeholder<'a> {
    longer: &'a str,
    shorter: &'a str,
}

impl<'a> Placeholder<'a> {
    fn new(route: &'a Route) -> Option<Self> {
        let client = route.call()?.repository()?.as_str();
        let registry = route.registry_call()?.repository()?.as_str();
        // One may be a part of the other.
        let (longer, shorter) = if registry.len() > client.len() {
            (registry, client)
        } else {
            (client, registry)
        };
        Some(Self { longer, shorter })
    }

    /// `None` if the text has neither.
    fn replaced_in(&self, text: &str, requested: &RepositoryName) -> Option<String> {
        let Self { longer, shorter } = *self;
        let has_one = text.contains(longer) || text.contains(shorter);
        let requested = requested.as_str();
        has_one.then(|| text.replace(longer, requested).replace(shorter, requested))
    }
}
