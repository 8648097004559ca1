//! Why a login or a request of a user is refused, for the access log. The response does not tell a
//! wrong password from an unknown user.

use crate::auth::token::InvalidToken;

/// The field `reason` of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    NoCredentials,
    /// Another scheme, or not readable.
    UnusableCredentials,
    /// The user exists.
    WrongCredentials,
    UnknownUser,
    /// A token or refresh token that is not valid.
    InvalidToken,
    ExpiredToken,
    InsufficientScope,
    TooManyFailures,
    /// The user has as many requests in flight as one user may have.
    TooManyRequests,
    /// The same of requests with a body.
    TooManyUploads,
    /// The user may not do this.
    Denied,
    /// The push does not fit into an area of repositories that has a quota.
    OverQuota,
}

impl RefusalReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no-credentials",
            Self::UnusableCredentials => "unusable-credentials",
            Self::WrongCredentials => "wrong-credentials",
            Self::UnknownUser => "unknown-user",
            Self::InvalidToken => "invalid-token",
            Self::ExpiredToken => "expired-token",
            Self::InsufficientScope => "insufficient-scope",
            Self::TooManyFailures => "too-many-failures",
            Self::TooManyRequests => "too-many-requests",
            Self::TooManyUploads => "too-many-uploads",
            Self::Denied => "denied",
            Self::OverQuota => "over-quota",
        }
    }
}

/// What the access log says of a refusal, and the response does not.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    /// The access rule that refused it, or `none`.
    pub(crate) rule: Option<Box<str>>,
    pub(crate) reason: Option<RefusalReason>,
    /// The user name of a login that failed.
    pub(crate) tried: Option<Box<str>>,
}

impl From<&InvalidToken> for RefusalReason {
    fn from(error: &InvalidToken) -> Self {
        match error {
            InvalidToken::Expired => Self::ExpiredToken,
            InvalidToken::Foreign
            | InvalidToken::Early
            | InvalidToken::ListUnknown
            | InvalidToken::UserChanged => Self::InvalidToken,
        }
    }
}
