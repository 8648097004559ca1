//! Why a product's own API did not do something. No text holds a secret.

use std::sync::Arc;

use http::StatusCode;

use crate::config::secret::SecretError;
use crate::upstream::connector::ConnectorError;
use crate::upstream::error::UpstreamError;
use crate::upstream::login::error::LoginError;

/// Why an API did not do something. Never contains a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The product has no such call.
    #[error("the product's API cannot do it")]
    Unsupported,
    #[error("the product's API knows no such thing")]
    NotFound,
    /// Not even the repository is there.
    #[error("the product's API knows no such repository")]
    RepositoryUnknown,
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
    /// The login at the registry gives nothing for its API.
    #[error(transparent)]
    Login(Arc<LoginError>),
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
