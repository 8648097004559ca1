//! Why moorgate has no valid credentials for a registry, with what remedies it. No text holds a
//! secret.

use http::StatusCode;

use crate::config::secret::SecretError;
use crate::upstream::health::FailureReason;

/// Why there are no credentials that the registry accepts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// The registry refuses them, or a token that was just exchanged for them.
    #[error(
        "the upstream registry refused {credential}: its administrator has to correct them, \
         or the rights that they have there"
    )]
    Refused { credential: String },
    /// The registry knows them, but they lack the right (RFC 6750 §3.1, `insufficient_scope`). Some
    /// registries say so of repositories that do not exist.
    #[error(
        "the upstream registry gives {credential} no right to this repository, or has none of this \
         name"
    )]
    NoRight { credential: String },
    /// The same, of a product that says so of every repository that it does not have.
    #[error(
        "the upstream registry has no repository of this name, or gives {credential} no right to it"
    )]
    NoRepository { credential: String },
    /// The service that exchanges them does.
    #[error(
        "{service} refused {credential} ({answer}): its administrator has to correct them, \
         or the rights that they have there"
    )]
    ExchangeRefused {
        service: String,
        credential: String,
        /// The status, and what more may be shown.
        answer: String,
    },
    /// The registry names a service that must not get them.
    #[error(
        "the upstream registry wants a token of {service}, {why}, for {credential}: if it belongs to \
         the registry, its administrator has to {remedy}"
    )]
    ServiceNotAllowed {
        service: String,
        credential: String,
        why: &'static str,
        remedy: String,
    },
    /// The registry wants a login that moorgate does not know.
    #[error("the upstream registry wants a login that moorgate does not know: {0}")]
    UnknownScheme(&'static str),
    /// The service gave no answer.
    #[error("{service}, which exchanges moorgate's credentials, gave no answer: {cause}")]
    Unanswered {
        service: String,
        /// With all its sources, and the remedy.
        cause: String,
        reason: FailureReason,
    },
    /// The service is overloaded or broken.
    #[error("{service}, which exchanges moorgate's credentials, answered {status}")]
    Unavailable { service: String, status: StatusCode },
    /// Its answer is none that can be used.
    #[error("{service}, which exchanges moorgate's credentials, gave an unusable answer: {why}")]
    Unusable { service: String, why: &'static str },
    /// The registry does not tell how it takes credentials, and with that which product it is.
    #[error("the upstream registry does not tell which product it is: of /v2/, {cause}")]
    NoChallenge {
        cause: String,
        reason: FailureReason,
    },
    /// The credentials themselves cannot be read.
    #[error("{credential} cannot be read: the secret {cause}")]
    Secret {
        credential: String,
        cause: SecretError,
    },
    /// The registry refused a token that it had accepted before.
    #[error(
        "the upstream registry no longer accepts the token of this request, whose body cannot be \
         sent again: the next request gets another token"
    )]
    Ended,
    /// The same, of those that are no single secret.
    #[error("{credential} cannot be read: {why}")]
    Unreadable { credential: String, why: String },
    /// The exchange ended without a result, for moorgate ends.
    #[error("the exchange of credentials was interrupted")]
    Interrupted,
}

impl LoginError {
    /// What of the upstream fails.
    pub(crate) fn reason(&self) -> FailureReason {
        match self {
            Self::Refused { .. }
            | Self::NoRight { .. }
            | Self::NoRepository { .. }
            | Self::ExchangeRefused { .. }
            | Self::ServiceNotAllowed { .. }
            | Self::UnknownScheme(_)
            | Self::Secret { .. }
            | Self::Unreadable { .. } => FailureReason::Credentials,
            Self::Unanswered { reason, .. } | Self::NoChallenge { reason, .. } => *reason,
            Self::Unavailable { .. } => FailureReason::Status,
            Self::Unusable { .. } => FailureReason::Protocol,
            Self::Ended | Self::Interrupted => FailureReason::Closed,
        }
    }

    /// Whether the same request may succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unanswered { .. }
                | Self::NoChallenge { .. }
                | Self::Unavailable { .. }
                | Self::Ended
                | Self::Interrupted
        )
    }
}
