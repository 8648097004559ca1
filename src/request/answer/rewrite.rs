//! Rewrites the response of an upstream for the client: filtered headers, and references as seen
//! from outside.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::request_meta::RequestMeta;
use super::{references, upstream_login};
use crate::request::body::ResponseBody;
use crate::request::conn_info::Protocol;
use crate::request::context::RequestContext;
use crate::request::headers;
use crate::request::rejection::Rejection;
use crate::request::route::UpstreamRoute;
use crate::upstream::response_body::UpstreamBody;

/// Rewrites a response of the upstream.
pub(super) fn rewrite(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    meta: &RequestMeta,
    answer: Response<UpstreamBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    let (mut parts, body) = answer.into_parts();
    if to.route.call().is_some() {
        upstream_login::check(to, parts.status, &parts.headers)?;
        headers::from_registry(&mut parts.headers);
        if parts.status == StatusCode::UNAUTHORIZED {
            parts
                .headers
                .insert(header::WWW_AUTHENTICATE, cx.site.challenge.clone());
        }
    } else {
        headers::from_page(&mut parts.headers);
    }
    if parts.headers.contains_key(header::LOCATION) || parts.headers.contains_key(header::LINK) {
        references::rewrite(cx, to, meta, parts.status, &mut parts.headers)?;
    }
    close_if_unread(cx, &mut parts.headers);
    parts.version = http::Version::default();
    parts.extensions.clear();
    Ok(Response::from_parts(parts, ResponseBody::streamed(body)))
}

/// Closes an HTTP/1.1 connection whose request body was not read: the start of the next request is
/// unknown.
pub(super) fn close_if_unread(cx: &RequestContext<'_>, headers: &mut HeaderMap) {
    if cx.conn.protocol == Protocol::Http1 && cx.record.is_body_unread() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
