//! Whose credentials requests to an upstream carry.

use std::sync::Arc;

use http::{Response, header};

use super::Upstream;
use super::error::UpstreamError;
use super::known_product::KnownProduct;
use super::login::scope::TokenScope;
use super::login::{LoginSetupError, RegistryLogin, UpstreamRequest};
use super::product::api::ApiLogin;
use super::response_body::UpstreamBody;
use super::transfer::TransferLimits;
use crate::config::upstream::{UpstreamAuthorization, UpstreamSettings};
use crate::config::vhost::Timeouts;

/// Whose credentials requests to an upstream carry.
#[derive(Clone)]
pub(crate) enum Credential {
    /// Nobody's: the header is removed.
    None,
    /// The client's header is passed on.
    Client,
    /// moorgate's own.
    Own(Arc<RegistryLogin>),
}

impl Credential {
    pub(crate) fn new(
        settings: &UpstreamSettings,
        timeouts: &Timeouts,
        product: &Arc<KnownProduct>,
    ) -> Result<Self, LoginSetupError> {
        Ok(match &settings.authorization {
            UpstreamAuthorization::Strip => Self::None,
            UpstreamAuthorization::Pass => Self::Client,
            UpstreamAuthorization::Login(login) => {
                let product = product.clone();
                Self::Own(RegistryLogin::new(login, settings, timeouts, product)?)
            }
        })
    }

    /// Whether the product of the registry decides more than is known of it.
    pub(crate) fn awaits_product(&self) -> bool {
        match self {
            Self::Own(login) => login.awaits_product(),
            Self::None | Self::Client => false,
        }
    }

    /// Waits until the product is known as far as the registry tells it: before something is decided
    /// by what the product can.
    ///
    /// Errors: the registry did not answer.
    pub(crate) async fn know_product(
        &self,
        upstream: &Arc<Upstream>,
        limits: TransferLimits,
    ) -> Result<(), UpstreamError> {
        match self {
            Self::Own(login) => login.know_product(upstream, limits).await,
            Self::None | Self::Client => Ok(()),
        }
    }

    /// Whether it is what a new one would be of the same settings: secrets in files may change.
    pub(crate) fn is_current(&self) -> bool {
        match self {
            Self::Own(login) => login.is_current(),
            Self::None | Self::Client => true,
        }
    }

    /// The login, as far as the product's own API takes it as well.
    pub(crate) fn for_api(&self) -> Option<Arc<dyn ApiLogin>> {
        match self {
            Self::Own(login) => login.for_api(),
            Self::None | Self::Client => None,
        }
    }

    /// Sends a request with them.
    pub(crate) async fn send(
        &self,
        upstream: &Arc<Upstream>,
        mut sending: UpstreamRequest,
        scope: TokenScope<'_>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        match self {
            Self::Own(login) => return login.send(upstream, sending, scope).await,
            Self::None => {
                let headers = sending.request.headers_mut();
                headers.remove(header::AUTHORIZATION);
            }
            Self::Client => {}
        }
        let UpstreamRequest {
            request,
            upload,
            limits,
        } = sending;
        upstream.send(request, upload, limits).await
    }
}
