//! `redirects = "follow"`: moorgate follows a redirect of a download to the storage itself, without
//! any credentials, so that clients need neither reach nor trust the storage.

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};

use super::rewrite::{RequestMeta, origin};
use crate::config::vhost::{Redirects, Scheme, UpstreamUrl};
use crate::registry::host::{Authority, HostName};
use crate::registry::location::{ResponseKind, Rewriter, Rewritten};
use crate::request::headers::CONTENT_DIGEST;
use crate::request::rejection::Rejection;
use crate::request::route::{Route, UpstreamRoute};
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, Trust};
use crate::upstream::request_body::RequestBody;
use crate::upstream::response_body::UpstreamBody;

/// The number of redirects of the storage that are followed.
const MAX_REDIRECTS: usize = 5;

/// Whether redirects of this request are followed.
pub(super) fn are_followed(route: &Route, meta: &RequestMeta) -> bool {
    route.site().redirects() == Redirects::Follow
        && route.call().is_some()
        && matches!(meta.method, Method::GET | Method::HEAD)
}

/// The response of the storage in place of the redirect to it; any other response unchanged.
pub(super) async fn follow(
    to: UpstreamRoute<'_>,
    meta: &RequestMeta,
    mut answer: Response<UpstreamBody>,
) -> Result<Response<UpstreamBody>, Rejection> {
    let UpstreamRoute { route, backend } = to;
    let Some(trust) = route.site().storage.as_ref() else {
        return Ok(answer);
    };
    let registry = backend.upstream.target();
    let is_public = |name: &HostName| route.site().host.is_named(name);
    // Redirects within the registry are left to the client, which has credentials for it.
    let Some(RedirectTarget::Elsewhere(mut next)) =
        redirect(&answer, registry, &meta.path, &is_public)?
    else {
        return Ok(answer);
    };
    let digest = answer.headers().get(CONTENT_DIGEST).cloned();
    for _ in 0..MAX_REDIRECTS {
        let (url, target) = parse(&next)?;
        answer = fetch(route, meta, &url, target.clone(), trust).await?;
        // A redirect of the storage is not passed on: the client could not reach its target.
        next = match redirect(&answer, &url, target.path(), &|_| false)? {
            Some(RedirectTarget::Within(path)) => format!("{url}{path}"),
            Some(RedirectTarget::Elsewhere(location)) => location,
            None => {
                if let Some(digest) = digest {
                    answer.headers_mut().entry(CONTENT_DIGEST).or_insert(digest);
                }
                return Ok(answer);
            }
        };
    }
    Err(Rejection::too_many_redirects())
}

/// Where a redirect leads.
enum RedirectTarget {
    /// To a path of the host that redirects.
    Within(String),
    /// To an absolute URL.
    Elsewhere(String),
}

/// The target of a redirect in a response of `from`; `None` for other responses.
fn redirect(
    answer: &Response<UpstreamBody>,
    from: &UpstreamUrl,
    request_path: &str,
    is_public: &dyn Fn(&HostName) -> bool,
) -> Result<Option<RedirectTarget>, Rejection> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    let Some(location) = answer
        .headers()
        .get(header::LOCATION)
        .filter(|_| redirects.contains(&answer.status()))
    else {
        return Ok(None);
    };
    let text = location
        .to_str()
        .map_err(|_| Rejection::upstream_bad_location())?;
    let rewriter = Rewriter {
        upstream: origin(from),
        is_public,
        request_path,
    };
    match rewriter.location(text, ResponseKind::Redirect) {
        Rewritten::Foreign if text.starts_with("//") => {
            let scheme = if from.scheme == Scheme::Https {
                "https"
            } else {
                "http"
            };
            Ok(Some(RedirectTarget::Elsewhere(format!("{scheme}:{text}"))))
        }
        Rewritten::Foreign => Ok(Some(RedirectTarget::Elsewhere(text.to_owned()))),
        Rewritten::Unchanged => Ok(Some(RedirectTarget::Within(text.to_owned()))),
        Rewritten::Path(path) => Ok(Some(RedirectTarget::Within(path))),
        Rewritten::Refused => Err(Rejection::upstream_bad_location()),
    }
}

/// The origin and the target of an absolute URL, the query byte for byte: it holds the signature.
fn parse(url: &str) -> Result<(UpstreamUrl, Uri), Rejection> {
    let uri: Uri = url
        .parse()
        .map_err(|_| Rejection::upstream_bad_location())?;
    let (scheme, default_port) = match uri.scheme_str() {
        Some("http") => (Scheme::Http, 80),
        Some("https") => (Scheme::Https, 443),
        _ => return Err(Rejection::upstream_bad_location()),
    };
    let authority = uri
        .authority()
        .map(|authority| authority.as_str())
        .unwrap_or_default();
    let Authority { host, port } =
        Authority::parse(authority).map_err(|_| Rejection::upstream_bad_location())?;
    let target = uri
        .path_and_query()
        .cloned()
        .ok_or_else(Rejection::upstream_bad_location)?;
    let origin = UpstreamUrl {
        scheme,
        host,
        port: port.unwrap_or(default_port),
        base_path: String::new(),
    };
    Ok((origin, Uri::from(target)))
}

async fn fetch(
    route: &Route,
    meta: &RequestMeta,
    url: &UpstreamUrl,
    target: Uri,
    trust: &Trust,
) -> Result<Response<UpstreamBody>, Rejection> {
    let unusable = |_| Rejection::upstream_bad_location();
    let connector = Connector::new(url.clone(), Some(trust)).map_err(unusable)?;
    let timeouts = &route.site().host.timeouts;
    // Signed URLs lead to many hosts, each rarely: every download opens a connection.
    let upstream = Upstream::new(connector, 1, timeouts.upstream_connect);
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = meta.method.clone();
    *request.uri_mut() = target;
    *request.headers_mut() = meta.headers.clone().unwrap_or_default();
    let default_port = if url.scheme == Scheme::Https { 443 } else { 80 };
    let host = HeaderValue::try_from(url.host.authority(url.port, default_port))
        .expect("a host name is visible ASCII");
    request.headers_mut().insert(header::HOST, host);
    upstream
        .send(request, None, route.transfer_limits())
        .await
        .map_err(|error| Rejection::upstream(error, 0))
}
