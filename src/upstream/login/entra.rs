//! An application of Microsoft Entra at an Azure registry: its secret gives a token of Entra, that a
//! refresh token of the registry, and that a token for each scope.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::bearer;
use super::error::LoginError;
use super::hosts::ServiceUrl;
use super::service::{ServiceAnswer, ServiceClient, ServiceRequest};
use super::token::UpstreamToken;
use crate::config::secret::SecretSource;
use crate::config::upstream::{Scheme, UpstreamSettings, UpstreamUrl};
use crate::registry::challenge::challenges;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// A login at one Azure registry.
pub(super) struct EntraLogin {
    tenant: String,
    client_id: String,
    client_secret: SecretSource,
    /// Of Entra.
    entra: ServiceUrl,
    /// Of the registry: `/v2/`, and its two exchanges.
    ping: ServiceUrl,
    exchange: ServiceUrl,
    token: ServiceUrl,
    /// As the registry calls itself.
    service: OnceLock<String>,
    refresh: Mutex<Option<RefreshToken>>,
    credential: String,
}

struct RefreshToken {
    token: SecretString,
    end: Instant,
}

/// The application, as the configuration says it.
pub(super) struct EntraApplication<'a> {
    pub(super) tenant: &'a str,
    pub(super) client_id: &'a str,
    pub(super) client_secret: &'a SecretSource,
}

#[derive(Deserialize)]
struct AccessDocument {
    access_token: String,
}

#[derive(Deserialize)]
struct RefreshDocument {
    refresh_token: String,
}

impl EntraLogin {
    pub(super) fn new(
        settings: &UpstreamSettings,
        application: &EntraApplication<'_>,
        endpoint: Option<&UpstreamUrl>,
    ) -> Result<Self, &'static str> {
        let EntraApplication {
            tenant,
            client_id,
            client_secret,
        } = application;
        client_secret
            .read()
            .map_err(|_| "`client_secret` in [upstream.login] cannot be read")?;
        let usual = UpstreamUrl {
            scheme: Scheme::Https,
            host: HostName::parse("login.microsoftonline.com").map_err(|_| NO_URL)?,
            port: Scheme::Https.default_port(),
            base_path: String::new(),
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if tenant.is_empty() || !tenant.bytes().all(is_plain) {
            return Err("`tenant` is an id or a domain of Entra");
        }
        let entra = format!("/{tenant}/oauth2/v2.0/token");
        let entra = ServiceUrl::new(endpoint.unwrap_or(&usual), &entra);
        let own = |path| ServiceUrl::new(&settings.url, path).ok_or(NO_URL);
        let api = settings.api.as_ref().unwrap_or(&settings.url);
        Ok(Self {
            tenant: (*tenant).to_owned(),
            client_id: (*client_id).to_owned(),
            client_secret: (*client_secret).clone(),
            entra: entra.ok_or(NO_URL)?,
            ping: own("/v2/")?,
            exchange: ServiceUrl::new(api, "/oauth2/exchange").ok_or(NO_URL)?,
            token: own("/oauth2/token")?,
            service: OnceLock::new(),
            refresh: Mutex::new(None),
            credential: format!("the Entra application `{client_id}`"),
        })
    }

    pub(super) fn credential(&self) -> &str {
        &self.credential
    }

    /// A token for these scopes.
    pub(super) async fn exchange(
        &self,
        client: &ServiceClient,
        scopes: &[String],
    ) -> Result<UpstreamToken, LoginError> {
        let service = self.service(client).await?;
        let (refresh, is_new) = self.refresh(client, &service).await?;
        let result = self.scoped(client, &service, scopes, &refresh).await;
        match result {
            // One that was kept may have ended, or been revoked.
            Err(LoginError::ExchangeRefused { .. }) if !is_new => {
                self.refresh.lock().await.take();
                let (refresh, _) = self.refresh(client, &service).await?;
                self.scoped(client, &service, scopes, &refresh).await
            }
            result => result,
        }
    }

    async fn scoped(
        &self,
        client: &ServiceClient,
        service: &str,
        scopes: &[String],
        refresh: &SecretString,
    ) -> Result<UpstreamToken, LoginError> {
        let begun = Instant::now();
        let scope = scopes.join(" ");
        let mut fields = vec![
            ("grant_type", "refresh_token"),
            ("service", service),
            ("refresh_token", refresh.expose_secret()),
        ];
        fields.extend((!scope.is_empty()).then_some(("scope", scope.as_str())));
        let body = self.post(client, &self.token, &fields).await?;
        bearer::token(&body, begun).map_err(|why| unusable(&self.token, why))
    }

    /// How the registry calls itself, as its challenge says.
    async fn service(&self, client: &ServiceClient) -> Result<String, LoginError> {
        if let Some(service) = self.service.get() {
            return Ok(service.clone());
        }
        let answer = client.send(ServiceRequest::get(self.ping.clone())).await?;
        let values = answer.headers.get_all(header::WWW_AUTHENTICATE).iter();
        let service = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenges)
            .find_map(|challenge| Some(challenge.parameter("service")?.to_owned()));
        let service = service.unwrap_or_else(|| self.ping.origin.host.to_string());
        Ok(self.service.get_or_init(|| service).clone())
    }

    /// A refresh token, and whether it was exchanged now. Others wait for it.
    async fn refresh(
        &self,
        client: &ServiceClient,
        service: &str,
    ) -> Result<(SecretString, bool), LoginError> {
        let mut kept = self.refresh.lock().await;
        let begun = Instant::now();
        if let Some(kept) = kept.as_ref().filter(|kept| begun < kept.end) {
            return Ok((kept.token.clone(), false));
        }
        let secret = self.client_secret.clone();
        let secret = run_blocking(move || secret.read()).await;
        let secret = secret.map_err(|cause| LoginError::Secret {
            credential: self.credential.clone(),
            cause,
        })?;
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("client_secret", secret.expose_secret()),
            ("scope", "https://containerregistry.azure.net/.default"),
        ];
        let body = self.post(client, &self.entra, &fields).await?;
        let AccessDocument { access_token } = document(&body, &self.entra)?;
        let fields = [
            ("grant_type", "access_token"),
            ("service", service),
            ("tenant", self.tenant.as_str()),
            ("access_token", access_token.as_str()),
        ];
        let body = self.post(client, &self.exchange, &fields).await?;
        let RefreshDocument { refresh_token } = document(&body, &self.exchange)?;
        let token = SecretString::from(refresh_token);
        *kept = Some(RefreshToken {
            token: token.clone(),
            end: begun + REFRESH_LIFE,
        });
        Ok((token, true))
    }

    async fn post(
        &self,
        client: &ServiceClient,
        url: &ServiceUrl,
        fields: &[(&str, &str)],
    ) -> Result<Bytes, LoginError> {
        let request = ServiceRequest::form(url.clone(), fields);
        let ServiceAnswer { status, body, .. } = client.send(request).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(LoginError::ExchangeRefused {
            service: url.origin.to_string(),
            credential: self.credential.clone(),
            answer: status.to_string(),
        })
    }
}

fn document<'a, T: Deserialize<'a>>(body: &'a Bytes, url: &ServiceUrl) -> Result<T, LoginError> {
    serde_json::from_slice(body).map_err(|_| unusable(url, "it is no JSON with a token"))
}

fn unusable(url: &ServiceUrl, why: &'static str) -> LoginError {
    LoginError::Unusable {
        service: url.origin.to_string(),
        why,
    }
}

const NO_URL: &str = "the addresses of Entra and the registry make no URL";
/// Well below the life of refresh tokens, which their documentation does not promise.
const REFRESH_LIFE: Duration = Duration::from_mins(30);
