//! Whose credentials requests to an upstream carry.

use std::sync::Arc;

use http::{Response, header};

use super::Upstream;
use super::error::UpstreamError;
use super::known_product::KnownProduct;
use super::login::scope::TokenScope;
use super::login::{LoginSetupError, RegistryLogin, UpstreamRequest};
use super::response_body::UpstreamBody;
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

    /// Sends a request with them.
    pub(crate) async fn send(
        &self,
        upstream: &Upstream,
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
