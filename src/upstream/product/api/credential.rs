//! What authorizes requests to a product's own API: a secret of the configuration, or the login at
//! the registry with its keys and tokens.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use secrecy::{ExposeSecret, SecretString};

use super::call::{ApiAuthorization, ApiScope};
use super::error::ApiError;
use crate::config::secret::SecretSource;
use crate::config::upstream::{AdminLogin, LoginKind, UpstreamAuthorization, UpstreamSettings};
use crate::state_file::run_blocking;
use crate::upstream::product::ApiFuture;

/// The login at a registry, as far as the product's own API takes it as well. A trait, because a
/// login uses the dialects, which use the API.
pub(crate) trait ApiLogin: Send + Sync {
    /// The headers that authorize a request.
    fn authorize<'a>(&'a self, request: ApiRequest<'a>) -> ApiFuture<'a, ApiHeaders>;

    /// Takes note that the API has refused headers: the next ones are others.
    fn refused<'a>(&'a self, scope: ApiScope<'a>, headers: &'a HeaderMap) -> ApiFuture<'a, ()>;

    /// The credential in words, never the secret.
    fn name(&self) -> &str;
}

/// What a login has to know of a request that it authorizes.
pub(crate) struct ApiRequest<'a> {
    pub(crate) method: &'a Method,
    /// The value of `Host`.
    pub(crate) authority: &'a str,
    /// The whole path, without a query.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(HeaderName, &'static str)],
    pub(crate) body: &'a [u8],
    pub(crate) scope: ApiScope<'a>,
}

/// Headers that authorize a request.
pub(crate) struct ApiHeaders {
    pub(crate) headers: HeaderMap,
    /// Whether they come of what was obtained for this request: others would be no better.
    pub(crate) is_new: bool,
}

/// What authorizes requests to an API.
pub(super) enum ApiCredential {
    Secret(ApiSecret),
    Login(Arc<dyn ApiLogin>),
}

/// What is sent to the API.
pub(super) struct ApiSecret {
    /// The user name, where there is one.
    username: Option<String>,
    secret: SecretSource,
    /// Where it is written, for messages.
    place: &'static str,
}

impl ApiCredential {
    /// That of `[upstream.admin]`, or else the login's. `login`: the login, if it is more than a
    /// user name with a password.
    pub(super) fn from_settings(
        settings: &UpstreamSettings,
        login: Option<Arc<dyn ApiLogin>>,
    ) -> Option<Self> {
        let kind = match &settings.authorization {
            UpstreamAuthorization::Login(login) => Some(&login.kind),
            UpstreamAuthorization::Strip | UpstreamAuthorization::Pass => None,
        };
        let password = match kind {
            Some(LoginKind::Password { username, password }) => Some((username, password)),
            _ => None,
        };
        let (username, secret, place) = match (&settings.admin, password) {
            (Some(AdminLogin::Password { username, password }), _) => {
                (Some(username), password, "[upstream.admin]")
            }
            (Some(AdminLogin::Token(token)), _) => (None, token, "[upstream.admin]"),
            (None, Some((username, password))) => (Some(username), password, "[upstream]"),
            (None, None) => return login.map(Self::Login),
        };
        Some(Self::Secret(ApiSecret {
            username: username.cloned(),
            secret: secret.clone(),
            place,
        }))
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Secret(secret) => secret.name(),
            Self::Login(login) => login.name().to_owned(),
        }
    }

    pub(super) fn secret(&self) -> Option<&ApiSecret> {
        match self {
            Self::Secret(secret) => Some(secret),
            Self::Login(_) => None,
        }
    }

    /// The headers that authorize a request.
    pub(super) async fn authorize(
        &self,
        wanted: &ApiAuthorization,
        request: ApiRequest<'_>,
    ) -> Result<ApiHeaders, ApiError> {
        let value = match (wanted, self) {
            (ApiAuthorization::None, _) => None,
            (ApiAuthorization::Session(value), _) => Some(value.clone()),
            (ApiAuthorization::Usual, Self::Login(login)) => return login.authorize(request).await,
            (ApiAuthorization::Bearer, Self::Login(_)) => return Err(ApiError::Unsupported),
            (ApiAuthorization::Usual, Self::Secret(secret)) => Some(secret.usual().await?),
            (ApiAuthorization::Bearer, Self::Secret(secret)) => Some(secret.bearer().await?),
        };
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(ApiHeaders {
            headers,
            is_new: true,
        })
    }

    /// Takes note that the API has refused headers. Returns whether others may be better.
    pub(super) async fn refused(
        &self,
        scope: ApiScope<'_>,
        sent: &ApiHeaders,
    ) -> Result<bool, ApiError> {
        let Self::Login(login) = self else {
            return Ok(false);
        };
        login.refused(scope, &sent.headers).await?;
        Ok(!sent.is_new)
    }
}

impl ApiSecret {
    fn name(&self) -> String {
        let place = self.place;
        match &self.username {
            Some(username) => format!("user {username} in {place}"),
            None => format!("the token in {place}"),
        }
    }

    pub(super) fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The secret as it is now.
    pub(super) async fn read(&self) -> Result<SecretString, ApiError> {
        let source = self.secret.clone();
        if source.file().is_none() {
            return source.read().map_err(ApiError::Secret);
        }
        let read = run_blocking(move || source.read()).await;
        read.map_err(ApiError::Secret)
    }

    async fn usual(&self) -> Result<HeaderValue, ApiError> {
        let Some(username) = &self.username else {
            return self.bearer().await;
        };
        let secret = self.read().await?;
        let pair = format!("{username}:{}", secret.expose_secret());
        sensitive(&format!("Basic {}", STANDARD.encode(pair)))
    }

    async fn bearer(&self) -> Result<HeaderValue, ApiError> {
        sensitive(&format!("Bearer {}", self.read().await?.expose_secret()))
    }
}

/// A value that is not shown.
pub(super) fn sensitive(text: &str) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ApiError::Invalid)?;
    value.set_sensitive(true);
    Ok(value)
}
