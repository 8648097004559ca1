//! Plain HTTP listeners: redirect to https, and answer http-01 challenges.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::host::requested_authority;
use super::site::{Site, Sites};
use crate::certs::challenge::Challenges;
use crate::registry::host::Authority;

/// The port of the socket of a configured listener: it differs for port 0.
pub(crate) type RealPort<'a> = &'a (dyn Fn(crate::config::vhost::ListenAddress) -> u16 + Sync);

const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The response to an open http-01 challenge (RFC 8555 §8.3), else a redirect.
pub(crate) async fn answer_plain<B>(
    sites: &Sites,
    challenges: &Challenges,
    request: &Request<B>,
    real_port: RealPort<'_>,
) -> Response<Full<Bytes>> {
    let token = request.uri().path().strip_prefix(CHALLENGES);
    let Some(token) = token.filter(|_| matches!(*request.method(), Method::GET | Method::HEAD))
    else {
        return redirect(sites, request, real_port);
    };
    let Some(content) = challenges.find_http(token).await else {
        return redirect(sites, request, real_port);
    };
    let mut found = answer(StatusCode::OK, "");
    *found.body_mut() = Full::from(content.as_bytes().to_vec());
    let bytes = HeaderValue::from_static("application/octet-stream");
    found.headers_mut().insert(header::CONTENT_TYPE, bytes);
    found
}

/// 308 to the https name and port of a virtual host, path and query unchanged; 404 for others.
fn redirect<B>(
    sites: &Sites,
    request: &Request<B>,
    real_port: RealPort<'_>,
) -> Response<Full<Bytes>> {
    let Ok(authority) = requested_authority(request) else {
        return answer(StatusCode::BAD_REQUEST, "the request needs one valid Host");
    };
    let Some(site) = sites.find_anywhere(&authority.host) else {
        return answer(
            StatusCode::NOT_FOUND,
            "no registry of this name is served here",
        );
    };
    let Some(port) = https_port(site, &authority, real_port) else {
        return answer(
            StatusCode::NOT_FOUND,
            "no registry of this name is served here",
        );
    };
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let location = format!("https://{}{target}", authority.host.authority(port, 443));
    let Ok(location) = HeaderValue::try_from(location) else {
        return answer(StatusCode::BAD_REQUEST, "the request target is not valid");
    };
    let mut response = answer(
        StatusCode::PERMANENT_REDIRECT,
        "this is served over https only",
    );
    response.headers_mut().insert(header::LOCATION, location);
    response
}

fn https_port(site: &Arc<Site>, authority: &Authority, real_port: RealPort<'_>) -> Option<u16> {
    let listeners = site.host.listen.iter().copied();
    let mut naming = listeners.filter(|&listener| {
        site.host
            .names_on(listener)
            .any(|name| *name == authority.host)
    });
    naming.next().map(real_port)
}

fn answer(status: StatusCode, message: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{message}\n")));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
