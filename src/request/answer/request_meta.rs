//! The facts of a forwarded request that its response is interpreted by.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

use super::forward;
use crate::config::upstream::{Redirects, Scheme, UpstreamUrl};
use crate::registry::host::HostName;
use crate::registry::location::{Origin, Rewriter};
use crate::request::route::UpstreamRoute;
use crate::upstream::request_body::RequestBody;

/// The facts of a forwarded request that rewriting its response needs.
pub(crate) struct RequestMeta {
    pub(crate) method: Method,
    /// The path of the request at the upstream.
    pub(crate) path: String,
    /// The `Host` of the client, if it sent one.
    host: Option<HeaderValue>,
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
    pub(super) fn from_parts(to: UpstreamRoute<'_>, parts: &Parts) -> Self {
        let headers = (to.route.site().redirects() == Redirects::Follow).then(|| {
            let kept = DOWNLOAD
                .iter()
                .filter_map(|name| Some((name.clone(), parts.headers.get(name)?.clone())));
            kept.collect()
        });
        Self {
            method: parts.method.clone(),
            path: format!("{}{}", forward::base_path(to), parts.uri.path()),
            host: parts.headers.get(header::HOST).cloned(),
            headers,
        }
    }

    /// The meta of a request that moorgate makes itself in the course of another.
    pub(super) fn of_own(parts: &Parts, request: &Request<RequestBody>) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            host: parts.headers.get(header::HOST).cloned(),
            headers: None,
        }
    }

    /// The meta of a download that moorgate makes on its own account.
    pub(super) fn of_download(path: String) -> Self {
        let agent = (header::USER_AGENT, HeaderValue::from_static("moorgate"));
        Self {
            method: Method::GET,
            path,
            host: None,
            headers: Some(HeaderMap::from_iter([agent])),
        }
    }

    /// The host and port that the client named; `uri` is its target.
    pub(super) fn host<'a>(&'a self, uri: &'a Uri) -> &'a str {
        let header = self.host.as_ref().and_then(|host| host.to_str().ok());
        header
            .or_else(|| uri.authority().map(|authority| authority.as_str()))
            .unwrap_or_default()
    }
}

/// Interprets the references in a response to a request that the client made at `host`.
pub(super) fn rewriter<'a>(
    to: UpstreamRoute<'a>,
    meta: &'a RequestMeta,
    host: &'a str,
    is_public: &'a dyn Fn(&HostName) -> bool,
) -> Rewriter<'a> {
    Rewriter {
        upstream: origin(to.backend.upstream.target()),
        is_public,
        public_host: host,
        request_path: &meta.path,
    }
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
