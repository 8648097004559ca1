//! Requests of moorgate itself in the course of a client's, which go on when the client has left:
//! they own what they need.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Limited};

use super::request_meta::origin;
use super::{forward, upstream_login};
use crate::registry::call::Call;
use crate::registry::location::{ResponseKind, Rewriter, Rewritten};
use crate::request::context::RequestContext;
use crate::request::rejection::{Rejection, UpstreamRefusal};
use crate::request::route::{Destination, Route, UpstreamRoute};
use crate::upstream::login::scope::TokenScope;
use crate::upstream::product::TokenNeed;
use crate::upstream::request_body::RequestBody;
use crate::upstream::response_body::UpstreamBody;
use crate::upstream::transfer::TransferLimits;

/// Makes requests to the upstream of a route, with its credentials.
pub(super) struct OwnCalls {
    route: Route,
    /// Those of every such request.
    headers: HeaderMap,
    limits: TransferLimits,
}

/// A body and its media type.
pub(super) struct OwnBody {
    pub(super) media_type: HeaderValue,
    pub(super) content: Bytes,
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

    pub(super) fn new(route: Route, headers: HeaderMap) -> Self {
        let limits = TransferLimits::new(&route.site().host.timeouts, true);
        Self {
            route,
            headers,
            limits,
        }
    }

    fn to(&self) -> Result<UpstreamRoute<'_>, Rejection> {
        match self.route.destination() {
            Destination::Upstream(to) => Ok(to),
            Destination::Store(_) => Err(Rejection::bad_target()),
        }
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// Sends a request for a path below the upstream's base path.
    ///
    /// Errors: none came back, or one that says that moorgate's own credentials are not accepted.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<OwnBody>,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        let to = self.to()?;
        let base_path = &to.backend.upstream.target().base_path;
        self.send_to(method, &format!("{base_path}{path}"), body)
            .await
    }

    /// Sends a request for a whole path.
    pub(super) async fn send_to(
        &self,
        method: Method,
        target: &str,
        body: Option<OwnBody>,
    ) -> Result<Response<UpstreamBody>, Rejection> {
        let to = self.to()?;
        let name = to.registry_call().and_then(Call::repository);
        let scope = TokenScope::Repository {
            name: name.ok_or_else(Rejection::bad_target)?.as_str(),
            need: match method {
                Method::HEAD | Method::GET => TokenNeed::Read,
                Method::DELETE => TokenNeed::Delete,
                _ => TokenNeed::Write,
            },
            from: None,
        };
        let mut headers = self.headers.clone();
        let mut sent = RequestBody::empty();
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
        let response = to.backend.send(request, None, self.limits, scope).await;
        let response = response.map_err(|error| Rejection::upstream(error, 0))?;
        upstream_login::check(to, response.status(), response.headers())?;
        Ok(response)
    }

    /// The path to which the response to a request for `request_path` leads. Never another host's:
    /// the next request has credentials.
    pub(super) fn location(
        &self,
        request_path: &str,
        response: &Response<UpstreamBody>,
    ) -> Result<String, Rejection> {
        let to = self.to()?;
        let upstream = origin(to.backend.upstream.target());
        let rewriter = Rewriter {
            upstream,
            is_public: &|name| self.route.site().host.is_named(name),
            public_host: "",
            request_path: &format!("{}{request_path}", upstream.base_path),
        };
        let location = response.headers().get(header::LOCATION);
        let text = location.and_then(|location| location.to_str().ok());
        match text.map(|text| rewriter.location(text, ResponseKind::Other)) {
            Some(Rewritten::Path(path)) => Ok(format!("{}{path}", upstream.base_path)),
            Some(Rewritten::Beside(path)) => Ok(path),
            Some(Rewritten::Foreign | Rewritten::Refused) | None => {
                Err(Rejection::upstream_bad_location())
            }
        }
    }
}

/// What the upstream says in a response that refuses something.
pub(super) async fn refusal(response: Response<UpstreamBody>) -> UpstreamRefusal {
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
pub(super) const ANY_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json, \
     */*";
