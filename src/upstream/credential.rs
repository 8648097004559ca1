//! The `Authorization` header of requests to an upstream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use secrecy::ExposeSecret;

use crate::config::secret::SecretError;
use crate::config::upstream::{LoginKind, LoginSettings, UpstreamAuthorization};

/// The header value that [`UpstreamAuthorization`] leads to.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// The header is removed.
    None,
    /// The client's header is passed on.
    Client,
    /// The configured header, marked sensitive.
    Own(HeaderValue),
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("a secret of [upstream] {0}")]
    Secret(SecretError),
    #[error("credentials of this kind cannot be used yet")]
    Unsupported,
}

impl Credential {
    pub(crate) fn new(authorization: &UpstreamAuthorization) -> Result<Self, CredentialError> {
        let kind = match authorization {
            UpstreamAuthorization::Strip => return Ok(Self::None),
            UpstreamAuthorization::Pass => return Ok(Self::Client),
            UpstreamAuthorization::Login(LoginSettings { kind, endpoint: _ }) => kind,
        };
        match kind {
            LoginKind::Password { username, password } => {
                let password = password.read().map_err(CredentialError::Secret)?;
                let pair = format!("{username}:{}", password.expose_secret());
                let text = format!("Basic {}", STANDARD.encode(pair));
                let mut value = HeaderValue::from_str(&text).expect("base64 is visible ASCII");
                value.set_sensitive(true);
                Ok(Self::Own(value))
            }
            LoginKind::Aws { .. }
            | LoginKind::Entra { .. }
            | LoginKind::ServiceAccount { .. }
            | LoginKind::MetadataServer => Err(CredentialError::Unsupported),
        }
    }

    /// Replaces, removes or keeps the client's header.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::None => {
                headers.remove(header::AUTHORIZATION);
            }
            Self::Client => {}
            Self::Own(value) => {
                headers.insert(header::AUTHORIZATION, value.clone());
            }
        }
    }
}
