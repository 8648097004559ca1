//! Rejections of token mode: of registry calls, with the error of the token (RFC 6750), and of the
//! token endpoint, with OAuth error codes beside those of the registry.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode};

use super::{Extra, RefusalReason, Rejection};
use crate::auth::token::InvalidToken;
use crate::registry::error_code::ErrorCode;

/// What OAuth calls a refusal (RFC 6749 §5.2; the last is of §4.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OauthError {
    InvalidRequest,
    InvalidScope,
    InvalidGrant,
    UnsupportedGrantType,
    TemporarilyUnavailable,
}

impl OauthError {
    pub(in crate::request) fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidGrant => "invalid_grant",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }
}

impl Rejection {
    /// The token is invalid, expired or of another domain (RFC 6750 §3.1).
    pub(crate) fn invalid_token(error: InvalidToken) -> Self {
        let message = format!("{error}: get a new one, or log in again");
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
            .with(Extra::BearerError("invalid_token"))
            .because(RefusalReason::from(&error))
    }

    /// The token is valid, and its scope does not include this call; the user may get one that
    /// does.
    pub(crate) fn insufficient_scope() -> Self {
        let message = "the token was not given for this: get one with the scope of the challenge";
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Denied, message)
            .with(Extra::BearerError("insufficient_scope"))
            .because(RefusalReason::InsufficientScope)
    }

    /// Whether credentials might help, so that a challenge belongs to it.
    pub(crate) fn needs_challenge(&self) -> bool {
        matches!(self.extra, Extra::Challenge(_) | Extra::BearerError(_))
    }

    /// The OAuth error code of the challenge.
    pub(crate) fn bearer_error(&self) -> Option<&'static str> {
        match self.extra {
            Extra::BearerError(error) => Some(error),
            _ => None,
        }
    }

    /// Adds a challenge.
    pub(crate) fn with_challenge(self, challenge: HeaderValue) -> Self {
        self.with(Extra::Challenge(challenge))
    }

    /// The token request is malformed (RFC 6749 §5.2).
    pub(crate) fn oauth(error: OauthError, message: impl Into<Cow<'static, str>>) -> Self {
        let mut rejection = Self::new(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message);
        rejection.oauth = Some(error);
        rejection
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let message = "this path does not support this method";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Unsupported,
            message,
        )
        .with(Extra::Allow(allow))
    }

    pub(crate) fn form_stalled() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::SizeInvalid,
            "the form stopped coming",
        )
    }

    /// The token could not be signed. The log says why.
    pub(crate) fn token_unavailable() -> Self {
        let message = "no token could be issued: the log of the server says why";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            message,
        )
        .with(Extra::RetryAfter(30))
    }

    /// Adds the OAuth error code, for clients of the token endpoint.
    pub(crate) fn at_token_endpoint(mut self) -> Self {
        self.oauth.get_or_insert(match self.status.0 {
            StatusCode::UNAUTHORIZED => OauthError::InvalidGrant,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                OauthError::TemporarilyUnavailable
            }
            _ => OauthError::InvalidRequest,
        });
        self
    }
}
