//! HTTP to a CA for the ACME library: bounded in time and size, with the configured roots. It
//! records what the library drops (Retry-After, alternate chains, the directory) and makes problem
//! documents of other refusals.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{DATE, HOST, LINK, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connection::{ExchangeError, HttpConnection};
use super::counting::LastPost;
use super::dial::dial;
use super::problem::{no_reason, problem_type};
use crate::certs::library_error::described;
use crate::certs::roots::{self, RootsError};
use crate::registry::link::links;

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub(in crate::certs) enum TransportError {
    /// DNS, TCP or TLS.
    #[error("{host} cannot be reached: {source}")]
    Connect { host: String, source: io::Error },
    /// No connection within 15 seconds, or no response within 60.
    #[error("{0} does not answer")]
    TimedOut(String),
    /// The connection broke, or the response is not HTTP or too large.
    #[error("no valid response from {host}: {source}")]
    Broken { host: String, source: ExchangeError },
    /// A URL that is not an absolute one with `https`.
    #[error("the CA names the URL {0:?}, which is not one of https")]
    Address(String),
}

/// What the last responses said besides their bodies.
#[derive(Clone, Debug, Default)]
pub(super) struct ResponseInfo {
    pub(super) status: Option<StatusCode>,
    /// The Retry-After of the last response.
    pub(super) retry_after: Option<SystemTime>,
    /// The Date of the last response.
    pub(super) date: Option<SystemTime>,
    /// The Location of the last response.
    pub(super) location: Option<String>,
    /// The last chain that was downloaded, in PEM.
    pub(super) chain: Option<Bytes>,
    /// The URLs of the alternates of that chain.
    pub(super) alternates: Vec<String>,
    /// The directory object (RFC 8555 §7.1.1).
    pub(super) directory: Option<Bytes>,
    pub(super) last_post: LastPost,
}

/// A client with at most one idle connection, for one session with one CA.
pub(super) struct Transport {
    tls: TlsConnector,
    idle: Mutex<Option<(String, TlsConnection)>>,
    last_response: Mutex<ResponseInfo>,
    /// The nonce of the last response, if that refused a nonce: the next request has to use it
    /// (RFC 8555 §6.5), and the library would fetch another one for its next call.
    next_nonce: Mutex<Option<HeaderValue>>,
}

type TlsConnection = HttpConnection<TlsStream<TcpStream>>;

/// The transport as the ACME library calls it.
pub(super) struct AcmeHttpClient(pub(super) Arc<Transport>);

impl HttpClient for AcmeHttpClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let transport = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            // The library sends HEAD for a nonce, and for nothing else.
            if parts.method == Method::HEAD
                && let Some(nonce) = transport.lock_next_nonce().take()
            {
                let mut response = Response::new(Full::<Bytes>::default());
                response.headers_mut().insert(REPLAY_NONCE, nonce);
                return Ok(BytesResponse::from(response));
            }
            let is_get = parts.method == Method::GET;
            let response = transport.exchange(Request::from_parts(parts, body)).await;
            let response = response.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            Ok(BytesResponse::from(
                adapt_response(response, is_get).map(Full::new),
            ))
        })
    }
}

impl Transport {
    /// Trusts the roots of a file, or else the system's. Reads files.
    pub(super) fn new(file: Option<&Path>) -> Result<Self, RootsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has what the default versions need")
            .with_root_certificates(roots::roots(file)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            idle: Mutex::default(),
            last_response: Mutex::default(),
            next_nonce: Mutex::default(),
        })
    }

    /// What the last responses said.
    pub(super) fn last_response(&self) -> ResponseInfo {
        self.lock_last_response().clone()
    }

    /// Forgets the POST requests so far: none of them is [`last_post`](ResponseInfo::last_post).
    pub(super) fn forget_last_post(&self) {
        self.lock_last_response().last_post = LastPost::None;
    }

    fn lock_last_response(&self) -> MutexGuard<'_, ResponseInfo> {
        self.last_response
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_next_nonce(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        self.next_nonce
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let address = || TransportError::Address(request.uri().to_string());
        let host = request
            .uri()
            .authority()
            .map(|host| host.as_str().to_owned())
            .ok_or_else(address)?;
        if request.uri().scheme_str() != Some("https") {
            return Err(address());
        }
        let prepared = build_request(&request, &host).ok_or_else(address)?;
        let mut connection = match self.idle_connection(&host).await {
            Some(connection) => connection,
            None => self.connect(&host).await?,
        };
        if request.method() == Method::POST {
            self.lock_last_response().last_post = LastPost::Unanswered;
        }
        let response = timeout(
            RESPONSE_TIMEOUT,
            connection.exchange(prepared, MAX_RESPONSE_SIZE),
        )
        .await
        .map_err(|_| TransportError::TimedOut(host.clone()))?
        .map_err(|source| TransportError::Broken {
            host: host.clone(),
            source,
        })?;
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some((host, connection));
        self.record_response(request.method(), &response);
        Ok(response)
    }

    async fn idle_connection(&self, host: &str) -> Option<TlsConnection> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let (_, mut connection) = idle.filter(|(other, _)| other == host)?;
        connection.is_alive().await.then_some(connection)
    }

    async fn connect(&self, host: &str) -> Result<TlsConnection, TransportError> {
        let connecting = async {
            let uri: Uri = format!("https://{host}/")
                .parse()
                .map_err(io::Error::other)?;
            let name = uri
                .host()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned();
            let port = uri.port_u16().unwrap_or(443);
            // HTTP_PROXY and the like are ignored.
            let tcp = dial(&name, port).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            let stream = self.tls.connect(name, tcp).await.map_err(described)?;
            TlsConnection::new(stream).await.map_err(io::Error::other)
        };
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connection) => connection.map_err(|source| TransportError::Connect {
                host: host.to_owned(),
                source,
            }),
            Err(_) => Err(TransportError::TimedOut(host.to_owned())),
        }
    }

    fn record_response(&self, method: &Method, response: &Response<Bytes>) {
        let headers = response.headers();
        let nonce = headers.get(REPLAY_NONCE).cloned();
        *self.lock_next_nonce() = nonce.filter(|_| has_bad_nonce(response));
        let mut last_response = self.lock_last_response();
        last_response.status = Some(response.status());
        if method == Method::POST {
            last_response.last_post = LastPost::of_response(response);
        }
        last_response.retry_after = retry_after(headers, SystemTime::now());
        last_response.date = date(headers);
        last_response.location = headers
            .get(LOCATION)
            .and_then(|url| url.to_str().ok())
            .map(str::to_owned);
        if last_response.directory.is_none()
            && method == Method::GET
            && response.status().is_success()
        {
            last_response.directory = Some(response.body().clone());
        }
        let kind = headers
            .get(http::header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("application/pem-certificate-chain")) {
            last_response.chain = Some(response.body().clone());
            last_response.alternates = alternates(headers);
        }
    }
}

/// The request in origin form, with Host and our User-Agent (RFC 8555 §6.1).
fn build_request(request: &Request<Bytes>, host: &str) -> Option<Request<Full<Bytes>>> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut prepared = Request::builder().method(request.method()).uri(target);
    for (name, value) in request.headers() {
        prepared = prepared.header(name, value);
    }
    let mut prepared = prepared.body(Full::new(request.body().clone())).ok()?;
    prepared
        .headers_mut()
        .insert(HOST, HeaderValue::from_str(host).ok()?);
    let agent = concat!("moorgate/", env!("CARGO_PKG_VERSION"));
    prepared
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(agent));
    Some(prepared)
}

/// Adds what the ACME library requires: a problem document in every refusal, and Retry-After in
/// renewal information, whose body it does not read otherwise.
fn adapt_response(mut response: Response<Bytes>, is_get: bool) -> Response<Bytes> {
    if is_get && !response.headers().contains_key(RETRY_AFTER) {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static(DEFAULT_RETRY_AFTER));
    }
    let refused = response.status().is_client_error() || response.status().is_server_error();
    if refused {
        let problem = complete_problem(response.status(), response.body());
        *response.body_mut() = Bytes::from(problem.to_string());
    }
    response
}

/// The problem document of a refusal (RFC 7807) with its status and a detail. Of a body that is none
/// what can be read, and else that the CA has sent no reason.
fn complete_problem(status: StatusCode, body: &[u8]) -> Value {
    let is_problem = serde_json::from_slice::<instant_acme::Problem>(body).is_ok();
    let given: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| {
        let text = given.get(key).and_then(Value::as_str);
        text.filter(|text| !text.trim().is_empty())
    };
    let detail = text("detail")
        .or_else(|| text("title"))
        .map_or_else(|| no_reason(status), str::to_owned);
    let mut problem = if is_problem {
        given.clone()
    } else {
        json!({ "type": text("type") })
    };
    problem["detail"] = json!(detail);
    problem["status"] = json!(status.as_u16());
    problem
}

/// RFC 9110 §10.2.3: seconds, or a date in one of the three forms of §5.6.7. A date is by the clock of
/// the CA, which the Date of the response says.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return now.checked_add(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let left = until.duration_since(date(headers).unwrap_or(now));
    now.checked_add(left.unwrap_or_default())
}

/// Whether a response refuses the nonce of its request.
fn has_bad_nonce(response: &Response<Bytes>) -> bool {
    response.status().is_client_error()
        && serde_json::from_slice(response.body())
            .is_ok_and(|problem| problem_type(&problem) == Some("badNonce"))
}

/// RFC 9110 §6.6.1.
fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()
}

/// The URLs of the other chains (RFC 8555 §7.4.2).
fn alternates(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(LINK).iter();
    let links = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(links)
        .flatten();
    links
        .filter(|link| link.has_relation("alternate"))
        .map(|link| link.target.to_owned())
        .take(MAX_ALTERNATES)
        .collect()
}

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// For DNS, TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From a request to the end of its response. Let's Encrypt finalizes within seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(1);
/// A chain has some 10 KiB, an order for 100 names as much.
const MAX_RESPONSE_SIZE: usize = 1024 * 1024;
const MAX_ALTERNATES: usize = 8;
/// In seconds: four times a day, where a CA does not say.
const DEFAULT_RETRY_AFTER: &str = "21600";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_in_html_becomes_a_problem() {
        let html = Response::builder()
            .status(503)
            .body(Bytes::from_static(b"<html>busy</html>"));
        let amended = adapt_response(html.expect("a response"), false);
        let problem: instant_acme::Problem =
            serde_json::from_slice(amended.body()).expect("a problem");
        assert_eq!(
            problem.detail.as_deref(),
            Some("HTTP 503 Service Unavailable without a reason")
        );
        assert_eq!(problem.status, Some(503));
    }

    #[test]
    fn a_reason_is_found_in_what_is_almost_a_problem() {
        let detail = |body: &str| {
            let problem = complete_problem(StatusCode::BAD_REQUEST, body.as_bytes());
            let read: instant_acme::Problem = serde_json::from_value(problem).expect("a problem");
            assert_eq!(read.status, Some(400));
            read.detail.expect("a detail")
        };
        assert_eq!(detail(r#"{"detail": "no", "status": "400"}"#), "no");
        assert_eq!(detail(r#"{"detail": "no", "subproblems": null}"#), "no");
        assert_eq!(detail(r#"{"title": "no"}"#), "no");
        for none in ["", "{}", "[]", r#"{"detail": ""}"#, "<html>"] {
            assert_eq!(
                detail(none),
                "HTTP 400 Bad Request without a reason",
                "{none}"
            );
        }
    }

    #[test]
    fn retry_after_is_in_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let at = |value: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            let at = retry_after(&headers, now)?;
            at.duration_since(now).ok().map(|left| left.as_secs())
        };
        assert_eq!(at("120"), Some(120));
        for date in [
            "Sun, 09 Sep 2001 01:47:40 GMT",
            "Sunday, 09-Sep-01 01:47:40 GMT",
            "Sun Sep  9 01:47:40 2001",
        ] {
            assert_eq!(at(date), Some(60), "{date}");
        }
        let by_their_clock = [
            (RETRY_AFTER, "Sun, 09 Sep 2001 01:50:40 GMT"),
            (DATE, "Sun, 09 Sep 2001 01:50:00 GMT"),
        ];
        let headers = by_their_clock.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let until = retry_after(&HeaderMap::from_iter(headers), now);
        assert_eq!(until, Some(now + Duration::from_secs(40)));
        for nonsense in ["", "soon", "-1"] {
            assert_eq!(at(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn alternate_chains_are_found_among_links() {
        let mut headers = HeaderMap::new();
        headers.append(
            LINK,
            HeaderValue::from_static("<https://ca/dir>;rel=\"index\""),
        );
        headers.append(
            LINK,
            HeaderValue::from_static(
                "<https://ca/1,2>;rel=\"alternate\", <https://ca/3>; rel=alternate",
            ),
        );
        assert_eq!(alternates(&headers), ["https://ca/1,2", "https://ca/3"]);
    }
}
