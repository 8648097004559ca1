//! Sends a granted request to its upstream: the target byte for byte, filtered headers, and the
//! body as a stream.

use std::borrow::Cow;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Body;

use super::names::{self, without_mount};
use super::{page_size, tag_pages};
use crate::registry::call::Call;
use crate::registry::upload_id::UploadId;
use crate::request::conn_info::ConnInfo;
use crate::request::context::RequestContext;
use crate::request::headers;
use crate::request::obligations::Obligations;
use crate::request::rejection::Rejection;
use crate::request::route::{Route, UpstreamRoute};
use crate::upstream::client_body::ClientBody;
use crate::upstream::request_body::{RequestBody, Upload};
use crate::upstream::response_body::UpstreamBody;

/// Forwards the request and returns the response as the upstream gave it. The headers are moved out
/// of the context.
pub(super) async fn forward(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
    incoming: ClientBody,
) -> Result<Response<UpstreamBody>, Rejection> {
    let limit = to.route.body_limit();
    let (body, upload) = limited(incoming, limit)?;
    let head = UpstreamHead {
        method: cx.parts.method.clone(),
        uri: &cx.parts.uri,
        headers: std::mem::take(&mut cx.parts.headers),
    };
    let request = upstream_request(to, cx.conn, head, body)?;
    cx.record.forwarded(upload.clone());
    let response = to
        .backend
        .send(
            request,
            upload,
            to.route.transfer_limits(),
            to.token_scope(),
        )
        .await;
    cx.record.answered();
    response.map_err(|error| Rejection::upstream_call(error, limit, to.route.call()))
}

/// The client's body, of at most `limit` bytes, and its progress; `None` for an empty one.
///
/// Errors: 413 for a body that announces more.
pub(super) fn limited(
    incoming: ClientBody,
    limit: u64,
) -> Result<(RequestBody, Option<Arc<Upload>>), Rejection> {
    if incoming.size_hint().lower() > limit {
        return Err(Rejection::body_too_large(limit));
    }
    if incoming.is_end_stream() {
        return Ok((RequestBody::empty(), None));
    }
    let upload = Arc::<Upload>::default();
    let body = RequestBody::streamed(incoming, upload.clone(), limit);
    Ok((body, Some(upload)))
}

/// The client's request with a buffered body.
pub(super) fn buffered_request(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    body: RequestBody,
) -> Result<Request<RequestBody>, Rejection> {
    let head = UpstreamHead {
        method: cx.parts.method.clone(),
        uri: &cx.parts.uri,
        headers: cx.parts.headers.clone(),
    };
    upstream_request(to, cx.conn, head, body)
}

/// The client's request for a smaller page of a list; `None` if its page is small already.
pub(super) fn smaller_page(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
) -> Result<Option<Request<RequestBody>>, Rejection> {
    let uri = &cx.parts.uri;
    let query = to.route.call();
    let Some(query) = query.and_then(|call| page_size::smaller(call, uri.query())) else {
        return Ok(None);
    };
    let target = with_query(uri.path(), Some(&query));
    let smaller = Uri::try_from(target).map_err(|_| Rejection::bad_target())?;
    let head = UpstreamHead {
        method: cx.parts.method.clone(),
        uri: &smaller,
        headers: with_host(cx.parts.headers.clone(), uri)?,
    };
    upstream_request(to, cx.conn, head, RequestBody::empty()).map(Some)
}

/// Sends such a request in place of the first one.
pub(super) async fn send_again(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
    request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, Rejection> {
    let limits = to.route.transfer_limits();
    let scope = to.token_scope();
    let response = to.backend.send(request, None, limits, scope).await;
    cx.record.answered();
    response.map_err(|error| Rejection::upstream(error, 0))
}

/// A request of moorgate itself to the same upstream with the same credentials.
pub(super) fn own_request(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    method: Method,
    path: &str,
) -> Result<Request<RequestBody>, Rejection> {
    let parts = &cx.parts;
    let kept = [
        header::HOST,
        header::AUTHORIZATION,
        header::USER_AGENT,
        header::VIA,
    ];
    let kept = kept.iter().flat_map(|name| {
        let lines = parts.headers.get_all(name).iter();
        lines.map(|line| (name.clone(), line.clone()))
    });
    let uri = Uri::try_from(path).map_err(|_| Rejection::bad_target())?;
    let head = UpstreamHead {
        method,
        uri: &uri,
        headers: with_host(kept.collect(), &parts.uri)?,
    };
    upstream_request(to, cx.conn, head, RequestBody::empty())
}

/// The headers with the host that the client named, for a target of another form.
fn with_host(mut headers: HeaderMap, uri: &Uri) -> Result<HeaderMap, Rejection> {
    if let (None, Some(authority)) = (headers.get(header::HOST), uri.authority()) {
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| Rejection::bad_target())?;
        headers.insert(header::HOST, host);
    }
    Ok(headers)
}

/// Head of a request before it is adapted to the upstream.
struct UpstreamHead<'a> {
    method: Method,
    uri: &'a Uri,
    headers: HeaderMap,
}

fn upstream_request(
    to: UpstreamRoute<'_>,
    conn: &ConnInfo,
    head: UpstreamHead<'_>,
    body: RequestBody,
) -> Result<Request<RequestBody>, Rejection> {
    let UpstreamHead {
        method,
        uri,
        mut headers,
    } = head;
    let UpstreamRoute { route, backend } = to;
    if backend.via.is_in(&headers) {
        return Err(Rejection::loop_detected());
    }
    let public_host = public_host(&headers, uri)?;
    let mut request = Request::new(body);
    *request.uri_mut() = target_uri(uri, base_path(to))?;
    *request.version_mut() = Version::HTTP_11;
    *request.method_mut() = method;
    // Page servers often build URLs from Host, registries from X-Forwarded-Host.
    let host = if route.call().is_some() {
        backend.authority.clone()
    } else {
        public_host.clone()
    };
    headers::to_upstream(&mut headers, conn, public_host);
    if let Some(call) = route.call() {
        // Registries need none of the cookies that a page of the same host has set.
        headers.remove(header::COOKIE);
        if call.is_upload() {
            headers::correct_upload_type(&mut headers);
        }
        if route.mapped_call().is_some() || tag_pages::is_paged(call) {
            // Names are replaced in errors and lists, and lists are cut into pages.
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            );
        }
    }
    backend.via.append(&mut headers, conn.protocol);
    headers.insert(header::HOST, host);
    *request.headers_mut() = headers;
    if let Some(replica) = route.replica() {
        request.extensions_mut().insert(replica);
    }
    Ok(request)
}

/// The path before the target of a request. An address of the upstream is the whole path.
pub(super) fn base_path<'a>(to: UpstreamRoute<'a>) -> &'a str {
    let session = to.route.call().and_then(Call::session);
    if session.is_some_and(is_at_address) {
        return "";
    }
    &to.backend.upstream.target().base_path
}

/// Whether an upload session is at an address of the upstream.
fn is_at_address(session: &UploadId) -> bool {
    match session.as_spooled() {
        Some((_, session)) => session.is_address(),
        None => session.is_address(),
    }
}

/// The host as the client wrote it, which [`locate`](super::locate::locate) has checked.
fn public_host(headers: &HeaderMap, uri: &Uri) -> Result<HeaderValue, Rejection> {
    if let Some(host) = headers.get(header::HOST) {
        return Ok(host.clone());
    }
    let authority = uri
        .authority()
        .map(|authority| authority.as_str())
        .unwrap_or_default();
    HeaderValue::from_str(authority).map_err(|_| Rejection::bad_target())
}

/// Path and query as the client sent them, below the upstream's base path.
fn target_uri(uri: &Uri, base_path: &str) -> Result<Uri, Rejection> {
    let target = uri.path_and_query().ok_or_else(Rejection::bad_target)?;
    // An absolute target without a path, or a fragment alone, says `/` and would be written as
    // nothing.
    if base_path.is_empty() && target == "/" {
        return Ok(Uri::from(PathAndQuery::from_static("/")));
    }
    if base_path.is_empty() {
        return Ok(Uri::from(target.clone()));
    }
    let target = PathAndQuery::try_from(format!("{base_path}{target}"))
        .map_err(|_| Rejection::bad_target())?;
    Ok(Uri::from(target))
}

/// Replaces the target if the granted call is not the requested one: by the path of the granted
/// call or the address of its session, by the names of the registry, or by a query without the mount
/// or for a smaller page. Otherwise path and query stay byte for byte.
pub(crate) fn rewrite_target(route: &Route, uri: &mut Uri) -> Result<(), Rejection> {
    let Some(call) = route.registry_call() else {
        return Ok(());
    };
    let bounded = page_size::bounded(call, uri.query());
    let query = bounded.as_deref().or(uri.query());
    let mapped = route.mapped_call();
    let target = match (route.obligations(), mapped) {
        (Obligations::Hidden(_), _) => with_query(&call_path(call), query),
        (Obligations::Unmounted, _) => {
            let path = mapped.map_or(Cow::from(uri.path()), |mapped| {
                names::registry_path(mapped, uri.path())
            });
            let query = without_mount(uri.query().unwrap_or_default());
            with_query(&path, query.as_deref())
        }
        (Obligations::Plain, _) if route.session_owner().is_some() && call.session().is_some() => {
            match call.session().and_then(UploadId::address) {
                Some(address) => with_further_query(address, uri.query()),
                None => with_query(&call_path(call), uri.query()),
            }
        }
        (
            Obligations::Plain | Obligations::TagWrites(_) | Obligations::TagDeletion(..),
            Some(mapped),
        ) => {
            let query = query.and_then(|query| names::registry_query(mapped, query));
            with_query(&names::registry_path(mapped, uri.path()), query.as_deref())
        }
        (Obligations::Plain, None) if bounded.is_some() => with_query(uri.path(), query),
        (
            Obligations::Plain
            | Obligations::Filtered
            | Obligations::TagWrites(_)
            | Obligations::TagDeletion(..),
            _,
        ) => {
            return Ok(());
        }
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Rejection::bad_target())?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    *uri = Uri::from_parts(parts).map_err(|_| Rejection::bad_target())?;
    Ok(())
}

fn call_path(call: &Call) -> String {
    let (_, target) = call.print();
    target
        .split_once('?')
        .map_or(target.clone(), |(path, _)| path.to_owned())
}

fn with_query(path: &str, query: Option<&str>) -> String {
    query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

/// An address of the upstream with what the client adds to its query.
pub(super) fn with_further_query(mut address: String, further: Option<&str>) -> String {
    if let Some(further) = further {
        address.push(if address.contains('?') { '&' } else { '?' });
        address.push_str(further);
    }
    address
}
