//! A user name and a password: sent as they are where the registry takes that, exchanged for tokens
//! where it wants those. Which of the two is learned from its answers, once.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::bearer::{BearerService, PasswordPair};
use super::error::LoginError;
use super::hosts::ServiceUrl;
use super::service::ServiceClient;
use super::token::{AuthorizationValue, UpstreamToken};
use crate::config::secret::{SecretError, SecretSource};
use crate::state_file::run_blocking;

/// A user name, its password, and how the registry takes them.
pub(super) struct PasswordLogin {
    username: String,
    password: SecretSource,
    /// The header of the password that was read last.
    basic: ArcSwap<HeaderValue>,
    /// `None` until an answer of the registry has shown it.
    scheme: ArcSwapOption<LoginScheme>,
}

/// What a token is exchanged for, and where.
pub(super) struct ServiceExchange<'a> {
    pub(super) service: &'a BearerService,
    pub(super) scopes: &'a [String],
    /// In words, for errors.
    pub(super) credential: &'a str,
}

/// How a registry takes a user name and a password.
#[derive(Debug)]
enum LoginScheme {
    Basic,
    Bearer(BearerService),
}

impl PasswordLogin {
    /// Reads the password.
    pub(super) fn new(username: &str, password: &SecretSource) -> Result<Self, SecretError> {
        let basic = basic(username, &password.read()?);
        Ok(Self {
            username: username.to_owned(),
            password: password.clone(),
            basic: ArcSwap::from_pointee(basic),
            scheme: ArcSwapOption::empty(),
        })
    }

    /// Whether the registry wants tokens, as far as is known.
    pub(super) fn wants_tokens(&self) -> Option<bool> {
        let scheme = self.scheme.load();
        scheme.as_deref().map(|scheme| match scheme {
            LoginScheme::Basic => false,
            LoginScheme::Bearer(_) => true,
        })
    }

    /// The registry takes the password itself.
    pub(super) fn learn_basic(&self) {
        self.scheme.store(Some(Arc::new(LoginScheme::Basic)));
    }

    /// The registry wants tokens of this service.
    pub(super) fn learn_service(&self, url: ServiceUrl, service: Option<&str>) {
        let known = self.scheme.load();
        if let Some(LoginScheme::Bearer(known)) = known.as_deref()
            && known.is(&url, service)
        {
            return;
        }
        let learned = BearerService::new(url, service.map(str::to_owned));
        let learned = Arc::new(LoginScheme::Bearer(learned));
        self.scheme.store(Some(learned));
    }

    /// The password as it was read last.
    pub(super) fn basic(&self) -> AuthorizationValue {
        AuthorizationValue {
            value: HeaderValue::clone(&self.basic.load()),
            is_new: false,
            is_exchanged: false,
        }
    }

    /// Reads the password again. Returns whether it is another one.
    pub(super) async fn refresh(&self, credential: &str) -> Result<bool, LoginError> {
        let basic = basic(&self.username, &self.read(credential).await?);
        if **self.basic.load() == basic {
            return Ok(false);
        }
        self.basic.store(Arc::new(basic));
        Ok(true)
    }

    async fn read(&self, credential: &str) -> Result<SecretString, LoginError> {
        let source = self.password.clone();
        let read = run_blocking(move || source.read()).await;
        read.map_err(|cause| LoginError::Secret {
            credential: credential.to_owned(),
            cause,
        })
    }

    /// A token for the password as it is now.
    pub(super) async fn exchange(
        &self,
        client: &ServiceClient,
        scopes: &[String],
        credential: &str,
    ) -> Result<UpstreamToken, LoginError> {
        let scheme = self.scheme.load_full();
        let Some(LoginScheme::Bearer(service)) = scheme.as_deref() else {
            // It has changed since the exchange was begun.
            return Err(LoginError::Interrupted);
        };
        let exchange = ServiceExchange {
            service,
            scopes,
            credential,
        };
        self.exchange_at(client, exchange).await
    }

    /// A token of a service, also where the registry takes the password itself.
    pub(super) async fn exchange_at(
        &self,
        client: &ServiceClient,
        exchange: ServiceExchange<'_>,
    ) -> Result<UpstreamToken, LoginError> {
        let ServiceExchange {
            service,
            scopes,
            credential,
        } = exchange;
        let password = self.read(credential).await?;
        let pair = PasswordPair {
            username: &self.username,
            password: password.expose_secret(),
            basic: basic(&self.username, &password),
            credential,
        };
        service.exchange(client, &pair, scopes).await
    }
}

/// The header of a user name and a password.
fn basic(username: &str, password: &SecretString) -> HeaderValue {
    let pair = format!("{username}:{}", password.expose_secret());
    let text = format!("Basic {}", STANDARD.encode(pair));
    let mut value = HeaderValue::from_str(&text).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}
