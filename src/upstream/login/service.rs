//! Requests to the services that exchange credentials: one connection each, no redirect is
//! followed, and the answer is small.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use super::error::LoginError;
use super::hosts::ServiceUrl;
use crate::certs::library_error::with_sources;
use crate::config::upstream::Scheme;
use crate::state_file::run_blocking;
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, Trust};
use crate::upstream::error::UpstreamError;
use crate::upstream::health::FailureReason;
use crate::upstream::request_body::RequestBody;
use crate::upstream::transfer::TransferLimits;

/// Makes the requests.
pub(super) struct ServiceClient {
    /// The only trust anchors, if they are configured.
    roots: Option<PathBuf>,
    connect_timeout: Duration,
}

/// A request to a service.
pub(super) struct ServiceRequest {
    pub(super) method: Method,
    pub(super) url: ServiceUrl,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Its answer.
pub(super) struct ServiceAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl ServiceRequest {
    /// A request without further headers and body.
    pub(super) fn get(url: ServiceUrl) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// A form.
    pub(super) fn form(url: ServiceUrl, fields: &[(&str, &str)]) -> Self {
        let mut headers = HeaderMap::new();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        Self {
            method: Method::POST,
            url,
            headers,
            body: pairs(fields).into(),
        }
    }
}

/// Names and values as a query or a form has them.
pub(super) fn pairs(fields: &[(&str, &str)]) -> String {
    use crate::registry::call::encode_value;
    let pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", encode_value(value)))
        .collect();
    pairs.join("&")
}

impl ServiceClient {
    pub(super) fn new(roots: Option<PathBuf>, connect_timeout: Duration) -> Self {
        Self {
            roots,
            connect_timeout,
        }
    }

    /// The answer, with any status but those of redirects and of a service that is down.
    pub(super) async fn send(&self, request: ServiceRequest) -> Result<ServiceAnswer, LoginError> {
        let service = request.url.origin.to_string();
        let answer = timeout(ANSWER_TIMEOUT, self.exchange(request)).await;
        answer.unwrap_or_else(|_| {
            Err(LoginError::Unanswered {
                service,
                cause: "it did not answer in time".to_owned(),
                reason: FailureReason::Timeout,
            })
        })
    }

    async fn exchange(&self, request: ServiceRequest) -> Result<ServiceAnswer, LoginError> {
        let service = request.url.origin.to_string();
        let unanswered = |error: UpstreamError| unanswered(&service, &error);
        let trust = match request.url.origin.scheme {
            Scheme::Https => {
                let roots = self.roots.clone();
                run_blocking(move || Trust::new(roots.as_ref())).await.ok()
            }
            Scheme::Http => None,
        };
        let unusable = |why| LoginError::Unusable {
            service: service.clone(),
            why,
        };
        let connector = Connector::new(request.url.origin.clone(), trust.as_ref())
            .map_err(|_| unusable("its certificate cannot be verified without roots"))?;
        let upstream = Upstream::new(connector, 1, self.connect_timeout, None);
        let limits = TransferLimits {
            first_body_byte: ANSWER_TIMEOUT,
            stall: ANSWER_TIMEOUT,
            head: ANSWER_TIMEOUT,
            idle: ANSWER_TIMEOUT,
        };
        let answer = upstream.send(head(request), None, limits);
        let (parts, body) = answer.await.map_err(unanswered)?.into_parts();
        let status = parts.status;
        if status.is_redirection() {
            return Err(unusable(
                "a redirect, and none is followed with credentials",
            ));
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(LoginError::Unavailable {
                service: service.clone(),
                status,
            });
        }
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|_| unusable("it is cut off or larger than 128 KiB"))?;
        Ok(ServiceAnswer {
            status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
}

fn unanswered(service: &str, error: &UpstreamError) -> LoginError {
    let cause = with_sources(error);
    LoginError::Unanswered {
        service: service.to_owned(),
        cause: match error.remedy() {
            Some(remedy) => format!("{cause}: {remedy}"),
            None => cause,
        },
        reason: error.reason().unwrap_or(FailureReason::Unreachable),
    }
}

fn head(request: ServiceRequest) -> Request<RequestBody> {
    let ServiceRequest {
        method,
        url: ServiceUrl { origin, target },
        headers,
        body,
    } = request;
    let length = body.len();
    let has_body = method == Method::POST || method == Method::PUT;
    let mut request = Request::new(RequestBody::buffered(body));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers;
    let authority = origin
        .host
        .authority(origin.port, origin.scheme.default_port());
    let authority = HeaderValue::try_from(authority).expect("a host name is visible ASCII");
    let headers = request.headers_mut();
    headers.insert(header::HOST, authority);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("moorgate"));
    headers
        .entry(header::ACCEPT)
        .or_insert(HeaderValue::from_static("application/json"));
    if has_body {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    request
}

impl ServiceUrl {
    /// The same with further parameters in its query.
    pub(super) fn with_query(&self, query: &str) -> Option<Self> {
        if query.is_empty() {
            return Some(self.clone());
        }
        let separator = if self.target.query().is_some() {
            '&'
        } else {
            '?'
        };
        let target = format!("{}{separator}{query}", self.target);
        Some(Self {
            origin: self.origin.clone(),
            target: PathAndQuery::try_from(target).ok()?,
        })
    }
}

/// The largest known tokens have some kilobytes.
const MAX_ANSWER_BYTES: usize = 128 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
