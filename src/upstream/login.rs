//! moorgate's own login at a registry: gives each request the `Authorization` that the registry
//! wants, and where it is refused, gets another once and tries once more.

mod aws;
mod bearer;
mod entra;
pub(crate) mod error;
mod google;
mod hosts;
mod password;
pub(crate) mod scope;
mod secret_files;
mod service;
mod token;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};

use super::Upstream;
use super::error::UpstreamError;
use super::known_product::KnownProduct;
use super::request_body::{RequestBody, Upload};
use super::response_body::UpstreamBody;
use super::transfer::TransferLimits;
use super::{SentHead, copy_without_body};
use crate::config::secret::{SecretError, SecretSource};
use crate::config::upstream::{
    AwsKeys, LoginKind, LoginSettings, Scheme, UpstreamSettings, UpstreamUrl,
};
use crate::config::vhost::Timeouts;
use crate::registry::challenge::{AuthChallenge, challenges};
use aws::AwsLogin;
use entra::{EntraApplication, EntraLogin};
use error::LoginError;
use google::GoogleLogin;
use hosts::CredentialHosts;
use password::PasswordLogin;
use scope::TokenScope;
use secret_files::SecretFiles;
use service::ServiceClient;
use token::{AuthorizationValue, TokenSlot, UpstreamToken};
use tokens::UpstreamTokens;

/// moorgate's own login at one registry.
pub(crate) struct RegistryLogin {
    kind: CredentialKind,
    /// The credential in words, for errors: which user or key, never the secret.
    credential: String,
    files: SecretFiles,
    hosts: CredentialHosts,
    client: ServiceClient,
    product: Arc<KnownProduct>,
    tokens: UpstreamTokens,
}

/// The kinds of credentials, each with its own exchange.
enum CredentialKind {
    Password(PasswordLogin),
    Aws(AwsLogin),
    Entra(Box<EntraLogin>),
    Google(GoogleLogin),
}

impl CredentialKind {
    /// With the credential in words.
    fn new(
        kind: &LoginKind,
        settings: &UpstreamSettings,
        endpoint: Option<&UpstreamUrl>,
    ) -> Result<(Self, String), LoginSetupError> {
        let google = |login: Result<GoogleLogin, _>| {
            let login = login.map_err(LoginSetupError::Address)?;
            let credential = login.credential().to_owned();
            Ok((Self::Google(login), credential))
        };
        match kind {
            LoginKind::Password { username, password } => {
                let login = PasswordLogin::new(username, password);
                let login = login.map_err(LoginSetupError::Secret)?;
                let credential =
                    format!("user `{username}`, the username and password in [upstream]");
                Ok((Self::Password(login), credential))
            }
            LoginKind::Aws { keys, region } => {
                let login = AwsLogin::new(settings, keys, region.as_deref(), endpoint);
                let login = login.map_err(LoginSetupError::Address)?;
                let credential = login.credential().to_owned();
                Ok((Self::Aws(login), credential))
            }
            LoginKind::ServiceAccount { key } => google(GoogleLogin::of_key(key, endpoint)),
            LoginKind::MetadataServer => google(GoogleLogin::of_machine(endpoint)),
            LoginKind::Entra {
                tenant,
                client_id,
                client_secret,
            } => {
                let application = EntraApplication {
                    tenant,
                    client_id,
                    client_secret,
                };
                let login = EntraLogin::new(settings, &application, endpoint);
                let login = login.map_err(LoginSetupError::Address)?;
                let credential = login.credential().to_owned();
                Ok((Self::Entra(Box::new(login)), credential))
            }
        }
    }
}

/// Why a login cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginSetupError {
    #[error("a secret of [upstream] {0}")]
    Secret(SecretError),
    #[error("{0}")]
    Address(&'static str),
}

/// A request to an upstream, which gets its `Authorization` last.
pub(crate) struct UpstreamRequest {
    pub(crate) request: Request<RequestBody>,
    pub(crate) upload: Option<Arc<Upload>>,
    pub(crate) limits: TransferLimits,
}

/// A request that the registry has refused.
struct RefusedRequest {
    sent: AuthorizationValue,
    /// To be sent once more; `None` if its body is gone.
    again: Option<Request<RequestBody>>,
    limits: TransferLimits,
}

impl RegistryLogin {
    /// Reads the secret.
    pub(crate) fn new(
        login: &LoginSettings,
        settings: &UpstreamSettings,
        timeouts: &Timeouts,
        product: Arc<KnownProduct>,
    ) -> Result<Arc<Self>, LoginSetupError> {
        let LoginSettings { kind, endpoint } = login;
        let endpoint = endpoint.as_ref();
        let is_exposed = |url: &&UpstreamUrl| url.scheme == Scheme::Http && url.host.is_public();
        if settings
            .api
            .iter()
            .chain(endpoint)
            .any(|url| is_exposed(&url))
        {
            return Err(LoginSetupError::Address(EXPOSED));
        }
        let (kind, credential) = CredentialKind::new(kind, settings, endpoint)?;
        // What an answer says of the product adds no hosts: a registry could claim to be another.
        let services = product
            .given()
            .map(|ways| ways.credential_hosts(&settings.url.host));
        Ok(Arc::new(Self {
            kind,
            credential,
            files: SecretFiles::new(files(&login.kind)),
            hosts: CredentialHosts::new(settings, endpoint, services.unwrap_or_default()),
            client: ServiceClient::new(settings.roots.clone(), timeouts.upstream_connect),
            product,
            tokens: UpstreamTokens::default(),
        }))
    }

    /// Sends a request with what the registry wants for this scope. Where that is refused, it is
    /// exchanged once, and the request is sent once more unless its body is gone. An answer is
    /// never 401.
    pub(crate) async fn send(
        self: &Arc<Self>,
        upstream: &Upstream,
        sending: UpstreamRequest,
        scope: TokenScope<'_>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let sent = match self.authorization(upstream, &sending, scope).await {
            Ok(sent) => sent,
            Err(error) => return Err(failed(upstream, error)),
        };
        let UpstreamRequest {
            mut request,
            upload,
            limits,
        } = sending;
        let value = sent.value.clone();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        let buffered = request.body().buffered_bytes();
        let buffered = buffered.map(|bytes| (copy_without_body(&request), bytes));
        let mut response = upstream.send(request, upload, limits).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            if let CredentialKind::Password(login) = &self.kind
                && login.wants_tokens().is_none()
            {
                login.learn_basic();
            }
            return Ok(response);
        }
        let refused = RefusedRequest {
            again: again(&mut response, buffered),
            sent,
            limits,
        };
        let (parts, _) = response.into_parts();
        // Boxed to keep this rare, large future out of every request's future.
        Box::pin(self.repeat(upstream, refused, &parts.headers, scope)).await
    }

    /// What the registry wants for a scope. A body that streams can be sent only once: with it,
    /// nothing is tried, but the registry is asked before.
    async fn authorization(
        self: &Arc<Self>,
        upstream: &Upstream,
        sending: &UpstreamRequest,
        scope: TokenScope<'_>,
    ) -> Result<AuthorizationValue, Arc<LoginError>> {
        let CredentialKind::Password(login) = &self.kind else {
            return self.token(scope).await;
        };
        let mut wants_tokens = login.wants_tokens();
        if wants_tokens.is_none()
            && (sending.upload.is_some() || self.product.dialect().wants_tokens())
        {
            Box::pin(self.probe(login, upstream, sending.limits)).await?;
            wants_tokens = login.wants_tokens();
        }
        match wants_tokens {
            Some(true) => self.token(scope).await,
            Some(false) | None => Ok(login.basic()),
        }
    }

    /// The slot of a scope; passwords of services have none.
    fn slot(&self, scope: TokenScope<'_>) -> Arc<TokenSlot> {
        self.tokens.slot(match &self.kind {
            CredentialKind::Password(_) | CredentialKind::Entra(_) => scope,
            CredentialKind::Aws(_) | CredentialKind::Google(_) => TokenScope::Registry,
        })
    }

    async fn token(
        self: &Arc<Self>,
        scope: TokenScope<'_>,
    ) -> Result<AuthorizationValue, Arc<LoginError>> {
        let slot = self.slot(scope);
        let exchange = || {
            let login = self.clone();
            let scopes = scope.texts(self.product.dialect());
            async move { login.exchange(&scopes).await }
        };
        match slot.token(exchange).await {
            Err(_) if self.files.changed().await => {
                self.tokens.forget_failures();
                slot.token(exchange).await
            }
            result => result,
        }
    }

    async fn exchange(&self, scopes: &[String]) -> Result<UpstreamToken, LoginError> {
        let Self {
            client, credential, ..
        } = self;
        match &self.kind {
            CredentialKind::Password(login) => login.exchange(client, scopes, credential).await,
            CredentialKind::Aws(login) => login.exchange(client).await,
            CredentialKind::Entra(login) => login.exchange(client, scopes).await,
            CredentialKind::Google(login) => login.exchange(client).await,
        }
    }

    /// Asks the registry without credentials how it takes them.
    async fn probe(
        &self,
        login: &PasswordLogin,
        upstream: &Upstream,
        limits: TransferLimits,
    ) -> Result<(), Arc<LoginError>> {
        let _learning = login.learning.lock().await;
        if login.wants_tokens().is_some() {
            return Ok(());
        }
        // An upstream that does not answer will not answer the request either, which then says so.
        let Ok(response) = upstream.ping(limits).await else {
            return Ok(());
        };
        let headers = response.headers();
        self.product.learn(headers);
        let found = found(headers);
        match bearer(&found) {
            Some(challenge) if response.status() == StatusCode::UNAUTHORIZED => {
                self.learn_service(login, upstream, challenge)
            }
            _ => {
                login.learn_basic();
                Ok(())
            }
        }
    }

    /// Learns from a refusal, and sends the request once more.
    async fn repeat(
        self: &Arc<Self>,
        upstream: &Upstream,
        refused: RefusedRequest,
        headers: &HeaderMap,
        scope: TokenScope<'_>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let RefusedRequest {
            sent,
            again,
            limits,
        } = refused;
        self.product.learn(headers);
        let learned = self.learn(upstream, &sent, &found(headers)).await;
        if let Err(error) = learned {
            if sent.is_exchanged {
                self.slot(scope).refuse(&sent.value, error.clone());
            }
            return Err(failed(upstream, error));
        }
        if sent.is_exchanged {
            self.slot(scope).invalidate(&sent.value);
        }
        let Some(request) = again else {
            // A fault of nobody: the next request gets another token.
            return Err(UpstreamError::Login(Arc::new(LoginError::Ended)));
        };
        let mut sending = UpstreamRequest {
            request,
            upload: None,
            limits,
        };
        let next = self.authorization(upstream, &sending, scope).await;
        let next = next.map_err(|error| failed(upstream, error))?;
        let value = next.value.clone();
        let headers = sending.request.headers_mut();
        headers.insert(header::AUTHORIZATION, value);
        let response = upstream.send(sending.request, None, limits).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        if !next.is_exchanged {
            return Err(failed(upstream, Arc::new(self.refusal())));
        }
        let error = Arc::new(self.refusal_of_token(&found(response.headers())));
        self.slot(scope).refuse(&next.value, error.clone());
        Err(failed(upstream, error))
    }

    /// Learns why the registry has refused what it was sent. Errors: nothing else can be sent.
    async fn learn(
        &self,
        upstream: &Upstream,
        sent: &AuthorizationValue,
        found: &[AuthChallenge<'_>],
    ) -> Result<(), Arc<LoginError>> {
        let CredentialKind::Password(login) = &self.kind else {
            return self.unless_new(sent, found);
        };
        if sent.is_exchanged {
            if let Some(challenge) = bearer(found) {
                self.learn_service(login, upstream, challenge)?;
            } else if found.iter().any(|challenge| challenge.is("basic")) {
                login.learn_basic();
                return Ok(());
            }
            return self.unless_new(sent, found);
        }
        if let Some(challenge) = bearer(found) {
            return self.learn_service(login, upstream, challenge);
        }
        if sent.value != login.basic().value {
            // Another request has read the password again.
            return Ok(());
        }
        match login.refresh(&self.credential).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Arc::new(self.refusal())),
            Err(error) => Err(Arc::new(error)),
        }
    }

    /// Another token may be better, unless this one was obtained for the very request.
    fn unless_new(
        &self,
        sent: &AuthorizationValue,
        found: &[AuthChallenge<'_>],
    ) -> Result<(), Arc<LoginError>> {
        if sent.is_new {
            return Err(Arc::new(self.refusal_of_token(found)));
        }
        Ok(())
    }

    fn learn_service(
        &self,
        login: &PasswordLogin,
        upstream: &Upstream,
        challenge: &AuthChallenge<'_>,
    ) -> Result<(), Arc<LoginError>> {
        let realm = challenge.parameter("realm").unwrap_or_default();
        let url = self
            .hosts
            .service(realm, !upstream.is_public(), &self.credential)?;
        login.learn_service(url, challenge.parameter("service"));
        Ok(())
    }

    fn refusal(&self) -> LoginError {
        LoginError::Refused {
            credential: self.credential.clone(),
        }
    }

    /// Why the registry refuses a token that it has just issued.
    fn refusal_of_token(&self, found: &[AuthChallenge<'_>]) -> LoginError {
        let error = bearer(found).and_then(|challenge| challenge.parameter("error"));
        if error == Some("insufficient_scope") {
            return LoginError::NoRight {
                credential: self.credential.clone(),
            };
        }
        self.refusal()
    }
}

/// Counts a failed login as one of the upstream.
fn failed(upstream: &Upstream, error: Arc<LoginError>) -> UpstreamError {
    if let Some(health) = upstream.health() {
        match &*error {
            // It works, for other repositories.
            LoginError::NoRight { .. } => health.succeeded(),
            error => health.failed(error.reason(), error.to_string()),
        }
    }
    UpstreamError::Login(error)
}

/// The refused request, to be sent once more.
fn again(
    response: &mut Response<UpstreamBody>,
    buffered: Option<(Request<RequestBody>, Bytes)>,
) -> Option<Request<RequestBody>> {
    if let Some((head, bytes)) = buffered {
        return Some(head.map(|_| RequestBody::buffered(bytes)));
    }
    let sent = response.extensions_mut().remove::<SentHead>()?;
    Some(sent.into_request())
}

fn found(headers: &HeaderMap) -> Vec<AuthChallenge<'_>> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(challenges).collect()
}

/// The challenge of a registry that wants tokens and takes no passwords.
fn bearer<'a, 'b>(found: &'a [AuthChallenge<'b>]) -> Option<&'a AuthChallenge<'b>> {
    if found.iter().any(|challenge| challenge.is("basic")) {
        return None;
    }
    found.iter().find(|challenge| challenge.is("bearer"))
}

/// The files that hold the secrets of a login.
fn files(kind: &LoginKind) -> Vec<PathBuf> {
    let of = |secrets: &[Option<&SecretSource>]| {
        let files = secrets.iter().flatten().filter_map(|secret| secret.file());
        files.map(Path::to_owned).collect()
    };
    match kind {
        LoginKind::Password { password, .. } => of(&[Some(password)]),
        LoginKind::Aws { keys, .. } => match keys {
            AwsKeys::Static {
                access_key_id,
                secret_access_key,
                session_token,
            } => of(&[
                Some(access_key_id),
                Some(secret_access_key),
                session_token.as_ref(),
            ]),
            AwsKeys::Profile { file, .. } => file
                .clone()
                .or_else(aws::keys::usual_file)
                .into_iter()
                .collect(),
            AwsKeys::WebIdentity { token_file, .. } => vec![token_file.clone()],
            AwsKeys::InstanceRole => Vec::new(),
        },
        LoginKind::Entra { client_secret, .. } => of(&[Some(client_secret)]),
        LoginKind::ServiceAccount { key } => of(&[Some(key)]),
        LoginKind::MetadataServer => Vec::new(),
    }
}

const EXPOSED: &str =
    "`api` and `endpoint` get credentials: write https://, unless the host is private";
