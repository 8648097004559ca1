//! Requests of moorgate itself to the registry of a domain: in the course of a client's, which go on
//! when the client has left, and on its own account. They own what they need.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Limited};

use super::forward;
use super::pace::Pace;
use super::redirects::FollowedRequest;
use super::request_meta::{RequestMeta, origin};
use super::upstream_login::AnsweredLogin;
use crate::registry::call::Call;
use crate::registry::host::HostName;
use crate::registry::link::{Link, links};
use crate::registry::location::{ResponseKind, Rewriter, Rewritten};
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::ReplicaId;
use crate::request::conn_info::Protocol;
use crate::request::context::RequestContext;
use crate::request::gateway::Gateway;
use crate::request::rejection::{Rejection, UpstreamRefusal, product};
use crate::request::route::UpstreamRoute;
use crate::request::site::{Backend, Site};
use crate::upstream::login::scope::TokenScope;
use crate::upstream::product::TokenNeed;
use crate::upstream::request_body::RequestBody;
use crate::upstream::response_body::UpstreamBody;
use crate::upstream::transfer::TransferLimits;

/// Makes requests to the registry of a domain, for one of its repositories or for the list of them.
#[derive(Clone)]
pub(in crate::request) struct OwnCalls {
    site: Arc<Site>,
    backend: Backend,
    /// By its name at the registry; `None`: for the list of all.
    repository: Option<RepositoryName>,
    /// Those of every such request.
    headers: HeaderMap,
    /// Whether the client for which they are made has logged in.
    has_user: bool,
    limits: TransferLimits,
    /// `None`: a client waits for them.
    pace: Option<Arc<Pace>>,
    /// The one replica to which they go.
    replica: Option<ReplicaId>,
}

/// A body and its media type.
#[derive(Clone)]
pub(in crate::request) struct OwnBody {
    pub(in crate::request) media_type: HeaderValue,
    pub(in crate::request) content: Bytes,
}

impl OwnCalls {
    /// Needs the headers of the client's request, which forwarding it moves out.
    pub(super) fn headers(
        cx: &RequestContext<'_>,
        to: UpstreamRoute<'_>,
    ) -> Result<HeaderMap, Rejection> {
        let request = forward::own_request(cx, to, Method::GET, "/v2/")?;
        Ok(request.into_parts().0.headers)
    }

    /// With the credentials of a client's request, for the repository that it is for.
    pub(super) fn of_client(to: UpstreamRoute<'_>, headers: HeaderMap) -> Self {
        let repository = to.registry_call().and_then(Call::repository);
        Self {
            site: to.route.site().clone(),
            backend: to.backend.clone(),
            repository: repository.cloned(),
            headers,
            has_user: to.route.principal().user.is_some(),
            limits: TransferLimits::new(&to.route.site().host.timeouts, true),
            pace: None,
            replica: None,
        }
    }

    /// With moorgate's own credentials, and nobody else's.
    pub(in crate::request) fn of_domain(
        site: &Arc<Site>,
        backend: &Backend,
        pace: &Arc<Pace>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, backend.authority.clone());
        headers.insert(header::USER_AGENT, HeaderValue::from_static("moorgate"));
        // A registry that is a domain of this process again would lead here for ever.
        backend.via.append(&mut headers, Protocol::Http1);
        Self {
            site: site.clone(),
            backend: backend.clone(),
            repository: None,
            headers,
            has_user: false,
            limits: TransferLimits::new(&site.host.timeouts, true),
            pace: Some(pace.clone()),
            replica: None,
        }
    }

    /// The same for a repository.
    pub(in crate::request) fn within(&self, repository: &RepositoryName) -> Self {
        Self {
            repository: Some(repository.clone()),
            ..self.clone()
        }
    }

    /// The same to the replica that has responded, if there are several.
    pub(in crate::request) fn continuing(&self, response: &Response<UpstreamBody>) -> Self {
        Self {
            replica: response.extensions().get().copied(),
            ..self.clone()
        }
    }

    pub(in crate::request) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Sends a request for a path below the upstream's base path.
    ///
    /// Errors: none came back, or one that says that moorgate's own credentials are not accepted;
    /// the registry throttles them, also after the waits for which there is time.
    pub(in crate::request) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<OwnBody>,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        let base_path = &self.backend.upstream.target().base_path;
        self.send_to(method, &format!("{base_path}{path}"), body)
            .await
    }

    /// Sends a request for a whole path.
    pub(in crate::request) async fn send_to(
        &self,
        method: Method,
        target: &str,
        body: Option<OwnBody>,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        let Some(pace) = &self.pace else {
            return self.exchange(method, target, body).await;
        };
        loop {
            pace.permit().await;
            let response = self.exchange(method.clone(), target, body.clone()).await?;
            if !is_throttled(response.status()) {
                pace.answered();
                return Ok(response);
            }
            let seconds = response.headers().get(header::RETRY_AFTER);
            let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
            let waits = pace.throttled(seconds);
            waits.map_err(|_| product::throttled(seconds))?;
        }
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Option<OwnBody>,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        let mut headers = self.headers.clone();
        let mut sent = RequestBody::empty();
        let scope = self.scope(&method);
        if let Some(OwnBody {
            media_type,
            content,
        }) = body
        {
            headers.insert(header::CONTENT_TYPE, media_type);
            sent = RequestBody::buffered(content);
        } else if matches!(method, Method::HEAD | Method::GET) {
            headers.insert(header::ACCEPT, HeaderValue::from_static(ANY_MANIFEST));
        }
        let mut request = Request::new(sent);
        *request.uri_mut() = Uri::try_from(target).map_err(|_| Rejection::bad_target())?;
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        if let Some(replica) = self.replica {
            request.extensions_mut().insert(replica);
        }
        let response = self.backend.send(request, None, self.limits, scope).await;
        let response = response.map_err(|error| Rejection::upstream(error, 0))?;
        let (site, backend) = (&self.site, &self.backend);
        let has_user = self.has_user;
        let login = AnsweredLogin {
            site,
            backend,
            has_user,
        };
        login.check(response.status(), response.headers())?;
        Ok(response)
    }

    fn scope(&self, method: &Method) -> TokenScope<'_> {
        let Some(name) = &self.repository else {
            return TokenScope::Catalog;
        };
        TokenScope::Repository {
            name: name.as_str(),
            need: match *method {
                Method::HEAD | Method::GET => TokenNeed::Read,
                Method::DELETE => TokenNeed::Delete,
                _ => TokenNeed::Write,
            },
            from: None,
        }
    }

    /// Downloads from a path. Redirects within the registry are followed, and those to its storage
    /// where the domain says so: any other response is the redirect itself.
    pub(in crate::request) async fn download(
        &self,
        gateway: &Gateway,
        path: &str,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        let response = self.send(Method::GET, path, None).await?;
        let base_path = &self.backend.upstream.target().base_path;
        let followed = FollowedRequest {
            site: &self.site,
            backend: &self.backend,
            meta: &RequestMeta::of_download(format!("{base_path}{path}")),
            public_host: "",
            listeners: &gateway.listeners,
            limits: self.limits,
            scope: self.scope(&Method::GET),
        };
        followed.follow(response).await
    }

    /// The path to which the response to a request for `request_path` leads. Never another host's:
    /// the next request has credentials.
    pub(in crate::request) fn location(
        &self,
        request_path: &str,
        response: &Response<UpstreamBody>,
    ) -> Result<String, Rejection> {
        let base_path = &self.backend.upstream.target().base_path;
        let location = response.headers().get(header::LOCATION);
        let text = location.and_then(|location| location.to_str().ok());
        let is_public = |name: &HostName| self.site.host.is_named(name);
        let request_path = format!("{base_path}{request_path}");
        let rewriter = Rewriter {
            upstream: origin(self.backend.upstream.target()),
            is_public: &is_public,
            public_host: "",
            request_path: &request_path,
        };
        match text.map(|text| rewriter.location(text, ResponseKind::Other)) {
            Some(Rewritten::Path(path)) => Ok(format!("{base_path}{path}")),
            Some(Rewritten::Beside(path)) => Ok(path),
            Some(Rewritten::Foreign | Rewritten::Refused) | None => {
                Err(Rejection::upstream_bad_location())
            }
        }
    }

    /// The query of the next page of a list, as the registry wrote it: `last` may be a token of its
    /// own. `path`: that of the list.
    pub(in crate::request) fn next_query(
        &self,
        path: &str,
        response: &Response<UpstreamBody>,
    ) -> Option<String> {
        next_query(&self.site, &self.backend, path, response.headers())
    }
}

/// Whether a registry takes no more requests for now.
fn is_throttled(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// The query of the next page of the list at a path below the base path of the upstream.
pub(super) fn next_query(
    site: &Site,
    backend: &Backend,
    path: &str,
    headers: &HeaderMap,
) -> Option<String> {
    let upstream = origin(backend.upstream.target());
    let is_public = |name: &HostName| site.host.is_named(name);
    let request_path = format!("{}{path}", upstream.base_path);
    let rewriter = Rewriter {
        upstream,
        is_public: &is_public,
        public_host: "",
        request_path: &request_path,
    };
    let values = headers.get_all(header::LINK).iter();
    let links: Vec<Link<'_>> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(links)
        .flatten()
        .collect();
    // As other clients of registries, accept a link without a relation type.
    let next = links.iter().find(|link| link.has_relation("next"));
    let next = next.or_else(|| links.iter().find(|link| link.relations().is_none()))?;
    let Rewritten::Path(found) = rewriter.location(next.target, ResponseKind::Other) else {
        return None;
    };
    let query = found.strip_prefix(path)?.strip_prefix('?')?;
    Some(query.to_owned())
}

/// What the upstream says in a response that refuses something.
pub(in crate::request) async fn refusal(response: Response<UpstreamBody>) -> UpstreamRefusal {
    let (parts, body) = response.into_parts();
    // A body that ends early or is too long says nothing, and the status still does.
    let text = short_text(body).await.unwrap_or_default();
    UpstreamRefusal::new(parts.status, &parts.headers, &text)
}

/// A short body; `None` if it is longer, or ends early.
pub(super) async fn short_text(
    body: impl Body<Data = Bytes, Error: Into<BoxError>>,
) -> Option<Bytes> {
    let collected = Limited::new(body, MAX_TEXT_BYTES).collect().await;
    Some(collected.ok()?.to_bytes())
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Far more than registries say about one error.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Registries convert manifests of types that are not accepted, or respond 404.
pub(in crate::request) const ANY_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json, \
     */*";
