//! The client of a product's own API, beside the registry API: JSON requests to the one host that
//! the settings or the dialect name, with the credential for it. Follows no redirects.

mod call;
mod creations;
mod credential;
mod error;
mod response;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Limited};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout};

use super::Dialect;
use crate::config::upstream::{Scheme, UpstreamAuthorization, UpstreamSettings, UpstreamUrl};
use crate::config::vhost::Timeouts;
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, Trust};
use crate::upstream::request_body::RequestBody;
use crate::upstream::transfer::TransferLimits;
pub(crate) use call::{ApiAuthorization, ApiCall, ApiScope, path_segment};
use creations::Creations;
use credential::{ApiCredential, sensitive};
pub(crate) use credential::{ApiHeaders, ApiLogin, ApiRequest};
pub(crate) use error::{ApiClientError, ApiError};
pub(crate) use response::{ApiResponse, readable};

/// A product's own API, as one domain uses it.
pub(crate) struct ApiClient {
    upstream: Arc<Upstream>,
    authority: HeaderValue,
    credential: ApiCredential,
    limits: TransferLimits,
    registry: UpstreamUrl,
    /// Where the registry is, if its host does not tell.
    region: Option<String>,
    place: ApiPlace,
    /// Of products that want one beside the credential, with the moment at which it is renewed.
    session: Mutex<Option<(HeaderValue, Instant)>>,
    exchange: tokio::sync::Mutex<()>,
    creations: Creations,
}

/// How it is known where an API is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiPlace {
    /// The settings say it, or the product that is certain.
    Given,
    /// At the registry's own address, if the product turns out to be one that has it there.
    Beside,
}

impl ApiClient {
    /// `product`: if it is certain. `login`: that at the registry, if it is more than a user name
    /// with a password. `None` without an address or without a credential that the API would take.
    pub(crate) fn new(
        settings: &UpstreamSettings,
        product: Option<&dyn Dialect>,
        login: Option<Arc<dyn ApiLogin>>,
        timeouts: &Timeouts,
        workers: usize,
    ) -> Result<Option<Arc<Self>>, ApiClientError> {
        let Some(credential) = ApiCredential::from_settings(settings, login) else {
            return Ok(None);
        };
        let (place, url) = match (&settings.api, product) {
            (Some(url), _) => (ApiPlace::Given, Some(url.clone())),
            (None, Some(product)) => (ApiPlace::Given, product.api_url(&settings.url)),
            // What an answer says of the product leads to no other host.
            (None, None) => (ApiPlace::Beside, Some(settings.url.clone())),
        };
        let Some(url) = url else {
            return Ok(None);
        };
        let is_inside = !settings.url.host.is_public() && !url.host.is_public();
        if url.scheme == Scheme::Http && !(settings.url.scheme == Scheme::Http && is_inside) {
            if place == ApiPlace::Beside {
                return Ok(None);
            }
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
        let region = match &settings.authorization {
            UpstreamAuthorization::Login(login) => login.region.clone(),
            UpstreamAuthorization::Strip | UpstreamAuthorization::Pass => None,
        };
        Ok(Some(Arc::new(Self {
            upstream: Upstream::new(connector, workers, timeouts.upstream_connect, None),
            authority,
            credential,
            limits: TransferLimits::new(timeouts, false),
            registry: settings.url.clone(),
            region,
            place,
            session: Mutex::new(None),
            exchange: tokio::sync::Mutex::default(),
            creations: Creations::new(),
        })))
    }

    /// Whether this is the API of a product, which may have been learned since.
    pub(crate) fn is_of(&self, product: &dyn Dialect) -> bool {
        match self.place {
            ApiPlace::Given => true,
            ApiPlace::Beside => product.api_url(&self.registry).as_ref() == Some(&self.registry),
        }
    }

    /// The registry beside it.
    pub(crate) fn registry(&self) -> &UpstreamUrl {
        &self.registry
    }

    /// Where the registry is, if its host does not tell.
    pub(crate) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Sends a request and reads the response. Credentials of the login that are refused are
    /// exchanged once. Throttling, refused credentials and redirects are errors; what other
    /// statuses mean says the dialect.
    pub(crate) async fn send(&self, call: ApiCall<'_>) -> Result<ApiResponse, ApiError> {
        let text = call.body.as_ref().map(|body| Bytes::from(body.to_string()));
        let sent = self.authorize(&call, text.as_ref()).await?;
        let mut response = self.exchange(&call, text.clone(), &sent).await?;
        if response.refuses_credentials() && self.credential.refused(call.scope, &sent).await? {
            let sent = self.authorize(&call, text.as_ref()).await?;
            response = self.exchange(&call, text, &sent).await?;
        }
        if let Some(retry_after) = response.throttled() {
            return Err(ApiError::Throttled(retry_after));
        }
        if !response.refuses_credentials() {
            return Ok(response);
        }
        let name = self.credential.name();
        if response.lacks_right() {
            return Err(ApiError::Denied(format!(
                "the registry gives {name} no right to it"
            )));
        }
        Err(ApiError::Unauthorized(name))
    }

    /// The path of a call below the base path of the API.
    fn path(&self, call: &ApiCall<'_>) -> String {
        format!("{}{}", self.upstream.target().base_path, call.path)
    }

    async fn authorize(
        &self,
        call: &ApiCall<'_>,
        body: Option<&Bytes>,
    ) -> Result<ApiHeaders, ApiError> {
        let path = self.path(call);
        let request = ApiRequest {
            method: &call.method,
            authority: self.authority.to_str().unwrap_or_default(),
            path: path.split('?').next().unwrap_or_default(),
            headers: call.headers,
            body: body.map_or(&[], |body| &body[..]),
            scope: call.scope,
        };
        let authorized = self.credential.authorize(&call.authorization, request);
        let authorized = timeout(CALL_TIMEOUT, authorized).await;
        authorized.map_err(|_| ApiError::TimedOut)?
    }

    async fn exchange(
        &self,
        call: &ApiCall<'_>,
        body: Option<Bytes>,
        authorized: &ApiHeaders,
    ) -> Result<ApiResponse, ApiError> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(self.path(call))
            .header(header::HOST, self.authority.clone())
            .header(header::USER_AGENT, "moorgate");
        for (name, value) in call.headers {
            request = request.header(name, *value);
        }
        let has_type = call
            .headers
            .iter()
            .any(|(name, _)| name == header::CONTENT_TYPE);
        if body.is_some() && !has_type {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(RequestBody::empty, RequestBody::buffered);
        let mut request = request.body(body).map_err(|_| ApiError::Invalid)?;
        request.headers_mut().extend(authorized.headers.clone());
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
        let response = timeout(CALL_TIMEOUT, exchange).await;
        response.map_err(|_| ApiError::TimedOut)?
    }

    /// The user name of the credential.
    pub(crate) fn username(&self) -> Option<&str> {
        self.credential.secret()?.username()
    }

    /// The secret of the credential, as it is now.
    pub(crate) async fn secret(&self) -> Result<SecretString, ApiError> {
        let secret = self.credential.secret().ok_or(ApiError::Unsupported)?;
        secret.read().await
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
        let guard = timeout(CALL_TIMEOUT, self.exchange.lock()).await;
        let _guard = guard.map_err(|_| ApiError::TimedOut)?;
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
        self.creations.once(name, since, create).await
    }
}

/// A page of a list with a hundred entries is the longest that is read.
const MAX_BODY_BYTES: usize = 4 << 20;
/// From the request to the last byte of the response, and for what authorizes it.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
