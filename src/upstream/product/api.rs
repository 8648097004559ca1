//! The client of a product's own API, beside the registry API: JSON requests to the one host that
//! the settings or the dialect name, with the credential for it. Follows no redirects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::config::secret::{SecretError, SecretSource};
use crate::config::upstream::{
    AdminLogin, LoginKind, Scheme, UpstreamAuthorization, UpstreamSettings, UpstreamUrl,
};
use crate::config::vhost::Timeouts;
use crate::keyed_lock::{KeyGuard, KeyedLock};
use crate::registry::link::links;
use crate::state_file::run_blocking;
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, ConnectorError, Trust};
use crate::upstream::error::UpstreamError;
use crate::upstream::request_body::RequestBody;
use crate::upstream::transfer::TransferLimits;

/// A product's own API, as one domain uses it.
pub(crate) struct ApiClient {
    upstream: Arc<Upstream>,
    authority: HeaderValue,
    credential: ApiCredential,
    limits: TransferLimits,
    /// Of products that want one beside the credential, with the moment at which it is renewed.
    session: Mutex<Option<(HeaderValue, Instant)>>,
    /// One exchange at a time, and one creation of each name.
    locks: KeyedLock<String>,
    /// When names were created, so that who waited for it does not do it again.
    created: Mutex<HashMap<String, Instant>>,
}

/// Why an API did not do something. Never contains a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The product has no such call.
    #[error("the product's API cannot do it")]
    Unsupported,
    #[error("the product's API knows no such thing")]
    NotFound,
    /// In the product's words.
    #[error("the product's API refuses it: {0}")]
    Denied(String),
    /// With the seconds that it wants to be left alone for.
    #[error("the product's API takes no more requests for now")]
    Throttled(Option<u16>),
    /// Whose credentials.
    #[error(
        "the product's API refused the credentials of {0}: its administrator has to correct them"
    )]
    Unauthorized(String),
    #[error("the secret for the product's API {0}")]
    Secret(SecretError),
    #[error("the product's API cannot be reached: try again")]
    Unreachable(#[source] UpstreamError),
    #[error("the product's API did not answer in time: try again")]
    TimedOut,
    #[error("the product's API answered with status {status}: {message}")]
    Unexpected { status: StatusCode, message: String },
    #[error("the product's API sent a response that is not valid")]
    Invalid,
    #[error("a list of the product's API has more pages than moorgate reads")]
    TooManyPages,
}

/// What is sent to the API.
struct ApiCredential {
    /// The user name, where there is one.
    username: Option<String>,
    secret: SecretSource,
    /// Where it is written, for messages.
    place: &'static str,
}

/// A request to an API.
pub(crate) struct ApiCall<'a> {
    pub(crate) method: Method,
    /// Below the base path, with the query.
    pub(crate) path: String,
    pub(crate) headers: &'a [(HeaderName, &'static str)],
    pub(crate) body: Option<Value>,
    pub(crate) authorization: ApiAuthorization,
}

/// What a product wants in `Authorization`.
#[derive(Clone, Debug)]
pub(crate) enum ApiAuthorization {
    None,
    /// User name and password, or a token alone as `Bearer`.
    Basic,
    /// The secret itself.
    Bearer,
    /// What [`ApiClient::session`] gave.
    Session(HeaderValue),
}

/// A response of an API.
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no client for an API.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiClientError {
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    #[error(
        "credentials are sent to an http:// address only where the registry is one as well, and \
         both are in a private network"
    )]
    ClearText,
}

impl<'a> ApiCall<'a> {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: &[],
            body: None,
            authorization: ApiAuthorization::Basic,
        }
    }

    pub(crate) fn bearing(self, authorization: ApiAuthorization) -> Self {
        Self {
            authorization,
            ..self
        }
    }

    pub(crate) fn with_headers(self, headers: &'a [(HeaderName, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    pub(crate) fn with_body(self, body: Value) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }
}

impl ApiClient {
    /// `default`: where the API of the product is, unless `settings` say it. `None` without an
    /// address or without a credential that the API would take.
    pub(crate) fn new(
        settings: &UpstreamSettings,
        default: Option<UpstreamUrl>,
        timeouts: &Timeouts,
        workers: usize,
    ) -> Result<Option<Arc<Self>>, ApiClientError> {
        let Some(credential) = ApiCredential::from_settings(settings) else {
            return Ok(None);
        };
        let Some(url) = settings.api.clone().or(default) else {
            return Ok(None);
        };
        let is_inside = !settings.url.host.is_public() && !url.host.is_public();
        if url.scheme == Scheme::Http && !(settings.url.scheme == Scheme::Http && is_inside) {
            return Err(ApiClientError::ClearText);
        }
        // The roots are the registry's; another host has them only where it is named beside them.
        let is_own = settings.api.is_some() || url.host == settings.url.host;
        let roots = settings.roots.as_ref().filter(|_| is_own);
        let trust = match url.scheme {
            Scheme::Https => Some(Trust::new(roots)?),
            Scheme::Http => None,
        };
        let authority = url.host.authority(url.port, url.scheme.default_port());
        let authority = HeaderValue::try_from(authority).expect("a host name is visible ASCII");
        let connector = Connector::new(url, trust.as_ref())?;
        Ok(Some(Arc::new(Self {
            upstream: Upstream::new(connector, workers, timeouts.upstream_connect, None),
            authority,
            credential,
            limits: TransferLimits::new(timeouts, false),
            session: Mutex::new(None),
            locks: KeyedLock::new(),
            created: Mutex::default(),
        })))
    }

    /// Sends a request and reads the response. Throttling, refused credentials and redirects are
    /// errors; what other statuses mean says the dialect.
    pub(crate) async fn send(&self, call: ApiCall<'_>) -> Result<ApiResponse, ApiError> {
        let request = self.request(call).await?;
        let exchange = async {
            let response = self.upstream.send(request, None, self.limits).await;
            let (parts, body) = response.map_err(ApiError::Unreachable)?.into_parts();
            let collected = Limited::new(body, MAX_BODY_BYTES).collect().await;
            let body = collected.map_err(|_| ApiError::Invalid)?.to_bytes();
            Ok(ApiResponse {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        let response = tokio::time::timeout(CALL_TIMEOUT, exchange).await;
        let response = response.map_err(|_| ApiError::TimedOut)??;
        if let Some(retry_after) = response.throttled() {
            return Err(ApiError::Throttled(retry_after));
        }
        if response.status == StatusCode::UNAUTHORIZED {
            return Err(ApiError::Unauthorized(self.credential.name()));
        }
        Ok(response)
    }

    async fn request(&self, call: ApiCall<'_>) -> Result<Request<RequestBody>, ApiError> {
        let ApiCall {
            method,
            path,
            headers,
            body,
            authorization,
        } = call;
        let authorization = self.authorization(authorization).await?;
        let base_path = &self.upstream.target().base_path;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base_path}{path}"))
            .header(header::HOST, self.authority.clone())
            .header(header::USER_AGENT, "moorgate");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                RequestBody::buffered(body.to_string().into())
            }
            None => RequestBody::empty(),
        };
        request.body(body).map_err(|_| ApiError::Invalid)
    }

    async fn authorization(
        &self,
        wanted: ApiAuthorization,
    ) -> Result<Option<HeaderValue>, ApiError> {
        let username = self.credential.username.as_ref();
        let text = match (wanted, username) {
            (ApiAuthorization::None, _) => return Ok(None),
            (ApiAuthorization::Session(value), _) => return Ok(Some(value)),
            (ApiAuthorization::Basic, Some(username)) => {
                let secret = self.secret().await?;
                let pair = format!("{username}:{}", secret.expose_secret());
                format!("Basic {}", STANDARD.encode(pair))
            }
            (ApiAuthorization::Basic, None) | (ApiAuthorization::Bearer, _) => {
                format!("Bearer {}", self.secret().await?.expose_secret())
            }
        };
        sensitive(&text).map(Some)
    }

    /// The user name of the credential.
    pub(crate) fn username(&self) -> Option<&str> {
        self.credential.username.as_deref()
    }

    /// The secret of the credential, as it is now.
    pub(crate) async fn secret(&self) -> Result<SecretString, ApiError> {
        let source = self.credential.secret.clone();
        if source.file().is_none() {
            return source.read().map_err(ApiError::Secret);
        }
        let read = run_blocking(move || source.read()).await;
        read.map_err(ApiError::Secret)
    }

    /// The `Bearer` of a session that is good for a while, or else of a new one. One exchange at a
    /// time.
    pub(crate) async fn session(
        &self,
        exchange: impl Future<Output = Result<SecretString, ApiError>>,
        life: Duration,
    ) -> Result<ApiAuthorization, ApiError> {
        if let Some(session) = self.current_session() {
            return Ok(session);
        }
        let _guard = self.lock(String::new()).await?;
        if let Some(session) = self.current_session() {
            return Ok(session);
        }
        let token = exchange.await?;
        let value = sensitive(&format!("Bearer {}", token.expose_secret()))?;
        let renewed = Instant::now() + life;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        *session = Some((value.clone(), renewed));
        Ok(ApiAuthorization::Session(value))
    }

    fn current_session(&self) -> Option<ApiAuthorization> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, renewed) = session.as_ref()?;
        (Instant::now() < *renewed).then(|| ApiAuthorization::Session(value.clone()))
    }

    /// Forgets a session that the API has refused.
    pub(crate) fn end_session(&self) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Makes something once, however many callers find at the same time that it is missing. `since`:
    /// when the caller began to ask for it.
    pub(crate) async fn create_once(
        &self,
        name: &str,
        since: Instant,
        create: impl Future<Output = Result<(), ApiError>>,
    ) -> Result<(), ApiError> {
        let _guard = self.lock(name.to_owned()).await?;
        if self.was_created(name, since) {
            return Ok(());
        }
        create.await?;
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        if created.len() >= MAX_CREATED {
            created.clear();
        }
        created.insert(name.to_owned(), Instant::now());
        Ok(())
    }

    fn was_created(&self, name: &str, since: Instant) -> bool {
        let created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        created.get(name).is_some_and(|&when| when >= since)
    }

    async fn lock(&self, key: String) -> Result<KeyGuard, ApiError> {
        let guard = self.locks.write(key, CALL_TIMEOUT).await;
        guard.map_err(|_| ApiError::TimedOut)
    }
}

impl ApiCredential {
    /// That of `[upstream.admin]`, or else the login's.
    fn from_settings(settings: &UpstreamSettings) -> Option<Self> {
        let login = match &settings.authorization {
            UpstreamAuthorization::Login(login) => Some(&login.kind),
            UpstreamAuthorization::Strip | UpstreamAuthorization::Pass => None,
        };
        let login = login.and_then(|kind| match kind {
            LoginKind::Password { username, password } => Some((username, password)),
            LoginKind::Aws { .. }
            | LoginKind::Entra { .. }
            | LoginKind::ServiceAccount { .. }
            | LoginKind::MetadataServer => None,
        });
        let (username, secret, place) = match (&settings.admin, login) {
            (Some(AdminLogin::Password { username, password }), _) => {
                (Some(username), password, "[upstream.admin]")
            }
            (Some(AdminLogin::Token(token)), _) => (None, token, "[upstream.admin]"),
            (None, Some((username, password))) => (Some(username), password, "[upstream]"),
            (None, None) => return None,
        };
        Some(Self {
            username: username.cloned(),
            secret: secret.clone(),
            place,
        })
    }

    /// For messages.
    fn name(&self) -> String {
        let place = self.place;
        match &self.username {
            Some(username) => format!("user {username} in {place}"),
            None => format!("the token in {place}"),
        }
    }
}

impl ApiResponse {
    /// The seconds to wait, if the API takes no more requests for now; the inner value is `None`
    /// where it does not say how long.
    fn throttled(&self) -> Option<Option<u16>> {
        let number = |name: &str| {
            let value = self.headers.get(name)?.to_str().ok()?;
            value.parse::<u64>().ok()
        };
        let seconds = |seconds: u64| u16::try_from(seconds).unwrap_or(u16::MAX);
        let until = |moment: u64| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            seconds(moment.saturating_sub(now.unwrap_or_default().as_secs()))
        };
        let retry_after = number("retry-after").map(seconds);
        let is_spent = number("x-ratelimit-remaining") == Some(0);
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => {}
            // GitHub's limits, beside its refusals.
            StatusCode::FORBIDDEN if is_spent || retry_after.is_some() => {}
            _ => return None,
        }
        let reset = ["x-retry-after", "x-ratelimit-reset"];
        let reset = reset.iter().find_map(|name| number(name)).map(until);
        Some(retry_after.or(reset))
    }

    pub(crate) fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.body).map_err(|_| ApiError::Invalid)
    }

    /// Whether a `Link` leads to a next page.
    pub(crate) fn has_next(&self) -> bool {
        let values = self.headers.get_all(header::LINK).iter();
        let mut links = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(links)
            .flatten();
        links.any(|link| link.has_relation("next"))
    }

    /// The document of a list. Errors: the API refuses it.
    pub(crate) fn parsed<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        if self.status != StatusCode::OK {
            return Err(self.refusal());
        }
        serde_json::from_slice(&self.body).map_err(|_| ApiError::Invalid)
    }

    /// What the API says of a status that the dialect does not expect: not there, not allowed, or
    /// anything else.
    pub(crate) fn refusal(&self) -> ApiError {
        let message = self.message();
        match self.status {
            StatusCode::NOT_FOUND => ApiError::NotFound,
            StatusCode::FORBIDDEN
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::CONFLICT
            | StatusCode::PRECONDITION_FAILED => ApiError::Denied(message),
            status => ApiError::Unexpected { status, message },
        }
    }

    /// The message of its error, wherever the product puts it.
    pub(crate) fn message(&self) -> String {
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let places = [
            "/errors/0/message",
            "/message",
            "/detail",
            "/error/message",
            "/error",
        ];
        let text = places
            .iter()
            .find_map(|place| document.pointer(place)?.as_str())
            .unwrap_or("it does not say why");
        let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        plain.take(MAX_MESSAGE_LENGTH).collect()
    }
}

/// A name as one segment of a path.
pub(crate) fn path_segment(text: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, ENCODED).to_string()
}

fn sensitive(text: &str) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ApiError::Invalid)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A page of a list with a hundred entries is the longest that is read.
const MAX_BODY_BYTES: usize = 4 << 20;
/// From the request to the last byte of the response.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The names whose creation is remembered.
const MAX_CREATED: usize = 1024;
const MAX_MESSAGE_LENGTH: usize = 500;
