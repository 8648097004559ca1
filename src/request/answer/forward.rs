//! Sends a granted request to its upstream: target byte for byte, headers by our rules, body
//! streamed.

use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::{Body, Incoming};

use crate::registry::call::{Call, Parameter, without_parameters};
use crate::request::conn_info::ConnInfo;
use crate::request::headers;
use crate::request::obligations::Obligations;
use crate::request::record::Record;
use crate::request::rejection::Rejection;
use crate::request::route::Route;
use crate::request::site::Target;
use crate::upstream::body::{RequestBody, Upload, UpstreamBody};

/// Forwards and returns the answer as the upstream gave it.
pub(crate) async fn forward(
    (route, target): (&Route, &Target),
    conn: &ConnInfo,
    parts: Parts,
    incoming: Incoming,
    record: &mut Record,
) -> Result<Response<UpstreamBody>, Rejection> {
    let limit = route.body_limit();
    if incoming.size_hint().lower() > limit {
        return Err(Rejection::body_too_large(limit));
    }
    let upload = (!incoming.is_end_stream()).then(Arc::<Upload>::default);
    let body = match &upload {
        Some(upload) => RequestBody::streamed(incoming, upload.clone(), limit),
        None => RequestBody::empty(),
    };
    let Parts {
        method,
        uri,
        headers,
        ..
    } = parts;
    let request = to_upstream((route, target), conn, (method, &uri, headers), body)?;
    record.forwarded(upload.clone());
    let answer = target
        .upstream
        .send(request, upload, route.transfer_limits())
        .await;
    record.answered();
    answer.map_err(|error| Rejection::upstream(error, limit))
}

/// The client's request with a body that is here already.
pub(crate) fn whole(
    to: (&Route, &Target),
    conn: &ConnInfo,
    parts: &Parts,
    body: RequestBody,
) -> Result<Request<RequestBody>, Rejection> {
    to_upstream(
        to,
        conn,
        (parts.method.clone(), &parts.uri, parts.headers.clone()),
        body,
    )
}

/// A request of moorgate's own that goes where the client's would, with the same credentials.
pub(crate) fn own(
    to: (&Route, &Target),
    conn: &ConnInfo,
    parts: &Parts,
    (method, path): (Method, &str),
) -> Result<Request<RequestBody>, Rejection> {
    let kept = [header::HOST, header::AUTHORIZATION, header::USER_AGENT];
    let kept = kept
        .into_iter()
        .filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone())));
    let mut fields: HeaderMap = kept.collect();
    if let (None, Some(authority)) = (fields.get(header::HOST), parts.uri.authority()) {
        let host =
            HeaderValue::from_str(authority.as_str()).map_err(|_| Rejection::bad_base_path())?;
        fields.insert(header::HOST, host);
    }
    let uri = Uri::try_from(path).map_err(|_| Rejection::bad_base_path())?;
    to_upstream(to, conn, (method, &uri, fields), RequestBody::empty())
}

fn to_upstream(
    (route, target): (&Route, &Target),
    conn: &ConnInfo,
    (method, uri, mut fields): (Method, &Uri, HeaderMap),
    body: RequestBody,
) -> Result<Request<RequestBody>, Rejection> {
    let public_host = public_host(&fields, uri)?;
    let mut request = Request::new(body);
    *request.uri_mut() = target_uri(uri, &target.upstream.target().base_path)?;
    *request.version_mut() = Version::HTTP_11;
    *request.method_mut() = method;
    // Pages are often built from the Host that a browser shows, registries' from X-Forwarded-Host.
    let host = if route.call().is_some() {
        target.authority.clone()
    } else {
        public_host.clone()
    };
    headers::to_upstream(&mut fields, conn, public_host);
    if let Some(call) = route.call() {
        // A registry has no use for the cookies that a page of the same host has set.
        fields.remove(header::COOKIE);
        if call.is_upload() {
            headers::of_upload(&mut fields);
        }
    }
    fields.insert(header::HOST, host);
    target.credential.apply(&mut fields);
    *request.headers_mut() = fields;
    Ok(request)
}

/// The host as the client wrote it: [`locate`](super::locate::locate) has found it to be one.
fn public_host(headers: &HeaderMap, uri: &Uri) -> Result<HeaderValue, Rejection> {
    if let Some(host) = headers.get(header::HOST) {
        return Ok(host.clone());
    }
    let authority = uri
        .authority()
        .map(|authority| authority.as_str())
        .unwrap_or_default();
    HeaderValue::from_str(authority).map_err(|_| Rejection::bad_base_path())
}

/// Path and query as the client sent them, below the upstream's base path.
fn target_uri(uri: &Uri, base_path: &str) -> Result<Uri, Rejection> {
    let target = uri.path_and_query().ok_or_else(Rejection::bad_base_path)?;
    // An absolute target without a path, or a fragment alone, says `/` and would be written as
    // nothing.
    if base_path.is_empty() && target == "/" {
        return Ok(Uri::from(PathAndQuery::from_static("/")));
    }
    if base_path.is_empty() {
        return Ok(Uri::from(target.clone()));
    }
    let target = PathAndQuery::try_from(format!("{base_path}{target}"))
        .map_err(|_| Rejection::bad_base_path())?;
    Ok(Uri::from(target))
}

/// Replaces the client's target where what was granted is not what was requested: by the path of the
/// granted call, or by a query without the mount. Everywhere else path and query stay byte for byte.
pub(crate) fn rewrite_target(route: &Route, uri: &mut Uri) -> Result<(), Rejection> {
    let Some(call) = route.call() else {
        return Ok(());
    };
    let target = match route.obligations() {
        Obligations::Hidden(_) => with_query(&call_path(call), uri.query()),
        Obligations::Unmounted => {
            let query = without_parameters(
                uri.query().unwrap_or_default(),
                &[Parameter::Mount, Parameter::From],
            );
            with_query(
                uri.path(),
                Some(query.as_str()).filter(|query| !query.is_empty()),
            )
        }
        Obligations::Plain if route.sessions().is_some() && call.session().is_some() => {
            with_query(&call_path(call), uri.query())
        }
        Obligations::Plain | Obligations::Filtered | Obligations::TagWrites(_) => return Ok(()),
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Rejection::bad_base_path())?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    *uri = Uri::from_parts(parts).map_err(|_| Rejection::bad_base_path())?;
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
