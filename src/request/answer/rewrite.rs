//! Rewrites the response of an upstream for the client: filtered headers, and references as seen
//! from outside.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::auth::upload_session::SessionOwner;
use crate::config::vhost::{Redirects, Scheme, UpstreamAuthorization, UpstreamUrl};
use crate::registry::host::HostName;
use crate::registry::location::{Origin, ResponseKind, Rewriter, Rewritten};
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::request::body::ResponseBody;
use crate::request::conn_info::Protocol;
use crate::request::context::RequestContext;
use crate::request::headers;
use crate::request::rejection::Rejection;
use crate::request::route::{Route, UpstreamRoute};
use crate::upstream::response_body::UpstreamBody;

/// The facts of a forwarded request that rewriting its response needs.
pub(crate) struct RequestMeta {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The host and port that the browser sent, if they were passed on to the page server.
    host: Option<String>,
    /// The headers for the storage, if moorgate follows redirects.
    pub(crate) headers: Option<HeaderMap>,
}

/// The headers that select the bytes of a download.
const DOWNLOAD: [header::HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::RANGE,
    header::IF_RANGE,
    header::IF_NONE_MATCH,
    header::USER_AGENT,
];

impl RequestMeta {
    pub(super) fn from_parts(route: &Route, parts: &Parts) -> Self {
        let headers = (route.site().redirects() == Redirects::Follow).then(|| {
            let kept = DOWNLOAD
                .iter()
                .filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone())));
            kept.collect()
        });
        let host = || {
            let header = parts
                .headers
                .get(header::HOST)
                .and_then(|host| host.to_str().ok());
            header.or_else(|| parts.uri.authority().map(|authority| authority.as_str()))
        };
        let host = if route.call().is_none() {
            host().map(str::to_owned)
        } else {
            None
        };
        Self {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            host,
            headers,
        }
    }
}

/// Rewrites a response of the upstream.
pub(super) fn rewrite(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    meta: &RequestMeta,
    answer: Response<UpstreamBody>,
) -> Result<Response<ResponseBody>, Rejection> {
    let (mut parts, body) = answer.into_parts();
    if to.route.call().is_some() {
        check_login(to.route, parts.status)?;
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
        references(to, meta, parts.status, &mut parts.headers)?;
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

/// A 401 of the upstream passes only if the credentials of the client went there.
fn check_login(route: &Route, status: StatusCode) -> Result<(), Rejection> {
    let authorization = route
        .site()
        .host
        .registry
        .upstream()
        .map(|upstream| &upstream.authorization);
    let own = match authorization {
        Some(UpstreamAuthorization::Pass) | None => false,
        Some(UpstreamAuthorization::Strip | UpstreamAuthorization::Basic { .. }) => true,
    };
    if status == StatusCode::UNAUTHORIZED && own {
        Err(Rejection::upstream_unauthorized())
    } else {
        Ok(())
    }
}

fn references(
    to: UpstreamRoute<'_>,
    meta: &RequestMeta,
    status: StatusCode,
    headers: &mut HeaderMap,
) -> Result<(), Rejection> {
    let UpstreamRoute { route, backend } = to;
    let is_public = |name: &HostName| route.site().host.is_named(name);
    let upstream = origin(backend.upstream.target());
    let rewriter = Rewriter {
        upstream,
        is_public: &is_public,
        request_path: &meta.path,
    };
    if let Some(location) = headers.get(header::LOCATION) {
        let text = location
            .to_str()
            .map_err(|_| Rejection::upstream_bad_location())?;
        let own = meta
            .host
            .as_deref()
            .and_then(|host| below_own_origin(text, host));
        let path = match rewriter.location(own.unwrap_or(text), ResponseKind::from_status(status)) {
            Rewritten::Unchanged | Rewritten::Foreign => own.map(str::to_owned),
            Rewritten::Path(path) => Some(path),
            Rewritten::Refused => return Err(Rejection::upstream_bad_location()),
        };
        let path = match route.session_owner() {
            Some(owner) => Some(bind_session(owner, path.as_deref().unwrap_or(text))?),
            None => path,
        };
        if let Some(path) = path {
            let value =
                HeaderValue::try_from(path).map_err(|_| Rejection::upstream_bad_location())?;
            headers.insert(header::LOCATION, value);
        }
    }
    let links: Vec<HeaderValue> = headers
        .get_all(header::LINK)
        .iter()
        .filter_map(|link| rewriter.link(link.to_str().ok()?))
        .filter_map(|link| HeaderValue::try_from(link).ok())
        .collect();
    headers.remove(header::LINK);
    for link in links {
        headers.append(header::LINK, link);
    }
    Ok(())
}

/// A reference to an upload session, with the name of the session bound to its owner; any other
/// unchanged.
fn bind_session(owner: &SessionOwner, reference: &str) -> Result<String, Rejection> {
    let end = reference.find(['?', '#']).unwrap_or(reference.len());
    let (path, rest) = reference.split_at(end);
    let below = path
        .strip_prefix("/v2/")
        // The last one: the name of a repository may contain it too, a session has no slash.
        .and_then(|path| path.rsplit_once("/blobs/uploads/"));
    let Some((repository, session)) = below.filter(|(_, session)| !session.is_empty()) else {
        return Ok(reference.to_owned());
    };
    // A session that cannot be bound could not be requested either.
    let bound = RepositoryName::parse(repository)
        .ok()
        .zip(UploadId::parse(session).ok());
    let bound = bound.and_then(|(repository, session)| owner.bind(&repository, &session));
    let session = bound.ok_or_else(Rejection::upstream_bad_location)?;
    Ok(format!("/v2/{repository}/blobs/uploads/{session}{rest}"))
}

/// The path of a URL that a page server has built from the Host of the request, with either scheme:
/// it does not know of TLS, and `http` would fail here.
fn below_own_origin<'a>(url: &'a str, host: &str) -> Option<&'a str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    rest.strip_prefix(host).filter(|path| path.starts_with('/'))
}

/// The address of an upstream, for the rewriter.
pub(crate) fn origin(target: &UpstreamUrl) -> Origin<'_> {
    let UpstreamUrl {
        scheme,
        host,
        port,
        base_path,
    } = target;
    Origin {
        https: *scheme == Scheme::Https,
        host,
        port: *port,
        base_path,
    }
}
