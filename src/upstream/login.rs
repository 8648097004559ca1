//! moorgate's own login at a registry: gives each request the `Authorization` that the registry
//! wants, and where it is refused, gets another once and tries once more.

mod api_login;
mod aws;
mod bearer;
mod credential_kind;
mod entra;
pub(crate) mod error;
mod google;
mod hosts;
pub(crate) mod inspection;
mod password;
mod ping;
mod refusal;
pub(crate) mod scope;
mod secret_files;
mod service;
mod single_exchange;
mod token;
mod tokens;

use std::sync::Arc;

use http::{Request, Response, StatusCode, header};

use super::Upstream;
use super::error::UpstreamError;
use super::known_product::KnownProduct;
use super::replica::copy_without_body;
use super::request_body::{RequestBody, Upload};
use super::response_body::UpstreamBody;
use super::transfer::TransferLimits;
use crate::config::upstream::{LoginSettings, Scheme, UpstreamSettings, UpstreamUrl};
use crate::config::vhost::Timeouts;
use crate::registry::challenge;
pub(crate) use credential_kind::LoginSetupError;
use credential_kind::{CredentialKind, files};
use error::LoginError;
use hosts::CredentialHosts;
use password::PasswordLogin;
use ping::RegistryPing;
use refusal::{RefusedRequest, again, bearer};
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
    ping: Arc<RegistryPing>,
    tokens: UpstreamTokens,
}

/// A request to an upstream, which gets its `Authorization` last.
pub(crate) struct UpstreamRequest {
    pub(crate) request: Request<RequestBody>,
    pub(crate) upload: Option<Arc<Upload>>,
    pub(crate) limits: TransferLimits,
}

impl RegistryLogin {
    /// Reads the secret.
    pub(crate) fn new(
        login: &LoginSettings,
        settings: &UpstreamSettings,
        timeouts: &Timeouts,
        product: Arc<KnownProduct>,
    ) -> Result<Arc<Self>, LoginSetupError> {
        let endpoint = &login.endpoint;
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
        let (kind, credential) = CredentialKind::new(login, settings)?;
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
            ping: RegistryPing::new(product.clone()),
            product,
            tokens: UpstreamTokens::default(),
        }))
    }

    /// Sends a request with what the registry wants for this scope. Where that is refused, it is
    /// exchanged once, and the request is sent once more unless its body is gone. An answer is
    /// never 401.
    pub(crate) async fn send(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        sending: UpstreamRequest,
        scope: TokenScope<'_>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        if self.awaits_product() {
            self.ping.begin(upstream, sending.limits);
        }
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
        upstream: &Arc<Upstream>,
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
            Box::pin(self.learn_scheme(login, upstream, sending.limits)).await?;
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

    /// Learns from what the registry answers without credentials how it takes them.
    async fn learn_scheme(
        &self,
        login: &PasswordLogin,
        upstream: &Arc<Upstream>,
        limits: TransferLimits,
    ) -> Result<(), Arc<LoginError>> {
        // An upstream that does not answer will not answer the request either, which then says so.
        let Ok(answer) = self.ping.answer(upstream, limits).await else {
            return Ok(());
        };
        if login.wants_tokens().is_some() {
            return Ok(());
        }
        let found = challenge::of_response(&answer.headers);
        match bearer(&found) {
            Some(challenge) if answer.status == StatusCode::UNAUTHORIZED => {
                self.learn_service(login, upstream, challenge)
            }
            _ => {
                login.learn_basic();
                Ok(())
            }
        }
    }

    /// Whether the registry has to be asked for its product, which it has not told yet.
    pub(super) fn awaits_product(&self) -> bool {
        self.product.given().is_none() && !self.ping.is_answered()
    }

    /// Waits until the product is known for certain.
    ///
    /// Errors: the registry did not answer.
    pub(super) async fn know_product(
        &self,
        upstream: &Arc<Upstream>,
        limits: TransferLimits,
    ) -> Result<(), UpstreamError> {
        if self.awaits_product() {
            let answer = self.ping.answer(upstream, limits).await;
            answer.map_err(UpstreamError::Login)?;
        }
        Ok(())
    }

    /// Whether its secrets are as they were when they were read last.
    pub(super) fn is_current(&self) -> bool {
        self.files.are_unchanged()
    }
}

/// Counts a failed login as one of the upstream.
fn failed(upstream: &Upstream, error: Arc<LoginError>) -> UpstreamError {
    for health in upstream.healths() {
        match &*error {
            // It works, for other repositories.
            LoginError::NoRight { .. } | LoginError::NoRepository { .. } => health.succeeded(),
            error => health.failed(error.reason(), error.to_string()),
        }
    }
    UpstreamError::Login(error)
}

const EXPOSED: &str =
    "`api` and `endpoint` get credentials: write https://, unless the host is private";
