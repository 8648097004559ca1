//! Rewrites the response of an upstream for the client: filtered headers, and references and names
//! as seen from outside.

use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::request_meta::RequestMeta;
use super::{names, references, upstream_login};
use crate::request::body::ResponseBody;
use crate::request::conn_info::Protocol;
use crate::request::context::RequestContext;
use crate::request::headers;
use crate::request::rejection::Rejection;
use crate::request::route::UpstreamRoute;
use crate::upstream::response_body::UpstreamBody;

/// Rewrites a response of the upstream. Waits only for a short body in which names are replaced.
pub(super) async fn rewrite(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    meta: &RequestMeta,
    answer: Response<UpstreamBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    let (mut parts, body) = answer.into_parts();
    rewrite_head(cx, to, meta, &mut parts)?;
    let body = match to.route.mapped_call() {
        Some(mapped) => {
            let is_head = meta.method == Method::HEAD;
            Box::pin(names::response_body(mapped, &mut parts, body, is_head)).await?
        }
        None => ResponseBody::streamed(body),
    };
    Ok(Response::from_parts(parts, body))
}

fn rewrite_head(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    meta: &RequestMeta,
    parts: &mut Parts,
) -> Result<(), Rejection> {
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
        references::rewrite(cx, to, meta, parts)?;
    }
    close_if_unread(cx, &mut parts.headers);
    parts.version = http::Version::default();
    parts.extensions.clear();
    Ok(())
}

/// Closes an HTTP/1.1 connection whose request body was not read: the start of the next request is
/// unknown.
pub(super) fn close_if_unread(cx: &RequestContext<'_>, headers: &mut HeaderMap) {
    if cx.conn.protocol == Protocol::Http1 && cx.record.is_body_unread() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
