//! Follows redirects of downloads: to other addresses of the registry, which clients cannot request
//! from moorgate, always; to the storage, with `redirects = "follow"`, without any credentials, so
//! that clients need neither reach nor trust the storage.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};

use super::request_meta::{RequestMeta, origin};
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::call::Call;
use crate::registry::host::{Authority, HostName};
use crate::registry::location::{ResponseKind, Rewriter, Rewritten};
use crate::request::context::RequestContext;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::rejection::Rejection;
use crate::request::route::UpstreamRoute;
use crate::request::site::{Backend, Site};
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, Trust};
use crate::upstream::destination::RedirectPolicy;
use crate::upstream::login::scope::TokenScope;
use crate::upstream::replica::SentHead;
use crate::upstream::request_body::RequestBody;
use crate::upstream::response_body::UpstreamBody;
use crate::upstream::transfer::TransferLimits;

/// The number of redirects that are followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Whether a response with this status leads its request elsewhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    redirects.contains(&status)
}

/// Whether a path is a call, other than a step of an upload session, with a method.
pub(super) fn is_call(path: &str, method: &Method) -> bool {
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    Call::parse(method, path, query).is_ok_and(|call| call.session().is_none())
}

/// Sends a request of moorgate itself, and follows its redirects within the registry.
pub(super) async fn send(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, Rejection> {
    let meta = RequestMeta::of_own(&cx.parts, &request);
    let response = to
        .backend
        .send(request, None, to.route.transfer_limits(), to.token_scope())
        .await
        .map_err(|error| Rejection::upstream_call(error, 0, to.route.call()))?;
    followed(cx, to, &meta, response).await
}

/// The response to which the redirects of a download lead; any other response unchanged.
pub(super) async fn followed(
    cx: &RequestContext<'_>,
    to: UpstreamRoute<'_>,
    meta: &RequestMeta,
    response: Response<UpstreamBody>,
) -> Result<Response<UpstreamBody>, Rejection> {
    let is_download =
        to.route.call().is_some() && matches!(meta.method, Method::GET | Method::HEAD);
    if !is_download || !is_redirect(response.status()) {
        return Ok(response);
    }
    let followed = FollowedRequest {
        site: cx.site,
        backend: to.backend,
        meta,
        public_host: meta.host(&cx.parts.uri),
        listeners: &cx.gateway.listeners,
        limits: to.route.transfer_limits(),
        scope: to.token_scope(),
    };
    // Boxed to keep this rare, large future out of every request's future.
    Box::pin(followed.follow(response)).await
}

/// A download whose redirects are followed.
pub(super) struct FollowedRequest<'a> {
    pub(super) site: &'a Site,
    pub(super) backend: &'a Backend,
    pub(super) meta: &'a RequestMeta,
    /// The host that the client named.
    pub(super) public_host: &'a str,
    /// The sockets on which moorgate listens.
    pub(super) listeners: &'a ArcSwap<Vec<SocketAddr>>,
    pub(super) limits: TransferLimits,
    pub(super) scope: TokenScope<'a>,
}

impl FollowedRequest<'_> {
    /// The response to which a response leads.
    pub(super) async fn follow(
        &self,
        mut response: Response<UpstreamBody>,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        let digest = response.headers().get(CONTENT_DIGEST).cloned();
        let mut path = self.meta.path.clone();
        for followed in 0..MAX_REDIRECTS {
            let address = match self.redirect(&path, &response)? {
                None => return Ok(with_digest(response, digest)),
                // To the client, which has credentials and rights for it.
                Some(RedirectTarget::Own(call)) if is_call(&call, &Method::GET) => {
                    return located(response, call);
                }
                Some(RedirectTarget::Own(path)) => {
                    format!("{}{path}", self.backend.upstream.target().base_path)
                }
                Some(RedirectTarget::Beside(path)) => path,
                Some(RedirectTarget::Elsewhere(url)) => {
                    let Some(trust) = self.site.storage.as_ref() else {
                        return located(response, url);
                    };
                    let storage = RedirectedStorage {
                        request: self,
                        trust,
                        listeners: self.listeners.load_full(),
                    };
                    let response = storage.fetched(url, MAX_REDIRECTS - followed).await?;
                    return Ok(with_digest(response, digest));
                }
            };
            let uri = Uri::try_from(address).map_err(|_| Rejection::upstream_bad_location())?;
            path = uri.path().to_owned();
            let sent = response.extensions_mut().remove::<SentHead>();
            let SentHead { headers, .. } = sent.ok_or_else(Rejection::upstream_bad_location)?;
            let request = request(&self.meta.method, uri, headers);
            let sent = self.backend.send(request, None, self.limits, self.scope);
            response = sent.await.map_err(|error| Rejection::upstream(error, 0))?;
        }
        if is_redirect(response.status()) {
            return Err(Rejection::too_many_redirects());
        }
        Ok(with_digest(response, digest))
    }

    /// Where the registry redirects a request for this path.
    fn redirect(
        &self,
        path: &str,
        response: &Response<UpstreamBody>,
    ) -> Result<Option<RedirectTarget>, Rejection> {
        let is_public = |name: &HostName| self.site.host.is_named(name);
        let rewriter = Rewriter {
            upstream: origin(self.backend.upstream.target()),
            is_public: &is_public,
            public_host: self.public_host,
            request_path: path,
        };
        redirect(response, &rewriter)
    }
}

/// A redirect for the client to this target, which was relative to another request than its own.
fn located(
    mut response: Response<UpstreamBody>,
    target: String,
) -> Result<Response<UpstreamBody>, Rejection> {
    let target = HeaderValue::try_from(target).map_err(|_| Rejection::upstream_bad_location())?;
    response.headers_mut().insert(header::LOCATION, target);
    Ok(response)
}

/// The response with the digest that the registry gave with its redirect.
fn with_digest(
    mut response: Response<UpstreamBody>,
    digest: Option<HeaderValue>,
) -> Response<UpstreamBody> {
    if let Some(digest) = digest {
        response
            .headers_mut()
            .entry(CONTENT_DIGEST)
            .or_insert(digest);
    }
    response
}

fn request(method: &Method, target: Uri, headers: HeaderMap) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::empty());
    *request.method_mut() = method.clone();
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    request
}

/// Where a redirect leads.
enum RedirectTarget {
    /// To a path of the host that redirects, below its base path.
    Own(String),
    /// To a path of the host that redirects, beside its base path.
    Beside(String),
    /// To an absolute URL.
    Elsewhere(String),
}

/// The target of a redirect; `None` for other responses.
fn redirect(
    response: &Response<UpstreamBody>,
    rewriter: &Rewriter<'_>,
) -> Result<Option<RedirectTarget>, Rejection> {
    let location = response.headers().get(header::LOCATION);
    let Some(location) = location.filter(|_| is_redirect(response.status())) else {
        return Ok(None);
    };
    let text = location
        .to_str()
        .map_err(|_| Rejection::upstream_bad_location())?;
    match rewriter.location(text, ResponseKind::Redirect) {
        Rewritten::Foreign if text.starts_with("//") => {
            let scheme = if rewriter.upstream.https {
                "https"
            } else {
                "http"
            };
            let url = format!("{scheme}:{text}");
            Ok(Some(RedirectTarget::Elsewhere(url)))
        }
        Rewritten::Foreign => Ok(Some(RedirectTarget::Elsewhere(text.to_owned()))),
        Rewritten::Path(path) => Ok(Some(RedirectTarget::Own(path))),
        Rewritten::Beside(path) => Ok(Some(RedirectTarget::Beside(path))),
        Rewritten::Refused => Err(Rejection::upstream_bad_location()),
    }
}

/// The storage of a registry, which moorgate requests in the client's place.
struct RedirectedStorage<'a> {
    request: &'a FollowedRequest<'a>,
    trust: &'a Trust,
    /// The sockets on which moorgate listens.
    listeners: Arc<Vec<SocketAddr>>,
}

impl RedirectedStorage<'_> {
    /// The response of the storage after at most so many redirects.
    async fn fetched(
        &self,
        mut next: String,
        redirects: usize,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        for _ in 0..redirects {
            let (url, target) = parse(&next)?;
            let response = self.fetch(&url, target.clone()).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                return Err(Rejection::storage_unauthorized());
            }
            let rewriter = Rewriter {
                upstream: origin(&url),
                is_public: &|_| false,
                public_host: "",
                request_path: target.path(),
            };
            // A redirect of the storage is not passed on: the client could not reach its target.
            next = match redirect(&response, &rewriter)? {
                Some(RedirectTarget::Own(path) | RedirectTarget::Beside(path)) => {
                    format!("{url}{path}")
                }
                Some(RedirectTarget::Elsewhere(location)) => location,
                None => return Ok(response),
            };
        }
        Err(Rejection::too_many_redirects())
    }

    async fn fetch(
        &self,
        url: &UpstreamUrl,
        target: Uri,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        let unusable = |_| Rejection::upstream_bad_location();
        let connector = Connector::new(url.clone(), Some(self.trust)).map_err(unusable)?;
        let connector = connector.restricted(self.policy(url));
        let FollowedRequest {
            site, meta, limits, ..
        } = *self.request;
        let timeouts = &site.host.timeouts;
        // Signed URLs lead to many hosts, each rarely: every download opens a connection.
        let upstream = Upstream::new(connector, 1, timeouts.upstream_connect, None);
        let mut headers = meta.headers.clone().unwrap_or_default();
        let default_port = url.scheme.default_port();
        let host = HeaderValue::try_from(url.host.authority(url.port, default_port))
            .expect("a host name is visible ASCII");
        headers.insert(header::HOST, host);
        let request = request(&meta.method, target, headers);
        upstream
            .send(request, None, limits)
            .await
            .map_err(Rejection::storage)
    }

    /// Where the storage may be.
    fn policy(&self, url: &UpstreamUrl) -> RedirectPolicy {
        let FollowedRequest { site, backend, .. } = *self.request;
        let settings = site.host.registry.upstream();
        let named = settings.map_or(&[][..], |settings| &settings.follow_hosts);
        let is_named = |named: &Authority| {
            named.host == url.host && named.port.is_none_or(|port| port == url.port)
        };
        RedirectPolicy {
            listeners: self.listeners.clone(),
            is_named: named.iter().any(is_named),
            from_private: !backend.upstream.is_public(),
        }
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
