//! What goes wrong between us and a CA, told apart by what to do about it.

use std::fmt;
use std::time::SystemTime;

use super::transport::{Transport, TransportError};
use crate::certs::roots::RootsError;
use crate::config::acme::ChallengeKind;

/// Why a CA has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub(in crate::certs) enum AcmeError {
    /// Whose certificate to believe cannot be told.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The network, or its server.
    #[error("{0}")]
    Unreachable(String),
    /// One of its limits is reached.
    #[error("the CA's limit is reached: {text}")]
    RateLimited {
        text: String,
        until: Option<SystemTime>,
    },
    /// It is out of order.
    #[error("the CA is out of order: {text}")]
    Unavailable {
        text: String,
        until: Option<SystemTime>,
    },
    /// The account is not there, or no longer valid.
    #[error("the CA does not know the account: {0}")]
    AccountGone(String),
    /// The stored key of the account cannot be read.
    #[error("the key of the account is damaged")]
    AccountKey,
    /// The order is not there.
    #[error("the CA does not know the order: {0}")]
    OrderGone(String),
    /// The order may be made, but not as a replacement.
    #[error("the CA does not accept a replacement: {0}")]
    ReplacesRefused(String),
    /// It does not have what the configuration asks for.
    #[error("the CA has no profile \"{wanted}\"; it has {}", quoted(.offered))]
    NoProfile {
        wanted: String,
        offered: Vec<String>,
    },
    /// It was not convinced that the names are ours.
    #[error("{}", join_failures(.0))]
    NotAuthorized(Vec<FailedAuthorization>),
    /// No challenge that it offers can be met here.
    #[error("the CA offers no challenge for {name} that can be met: it offers {}", quoted(.offered))]
    NoChallenge { name: String, offered: Vec<String> },
    /// What answers the challenge cannot be put in place.
    #[error("the challenge cannot be answered: {0}")]
    Unanswerable(String),
    /// Anything else that it says no to.
    #[error("the CA refuses: {0}")]
    Refused(String),
    /// The order is over, and the CA has issued nothing for it. This is why.
    #[error("{0}")]
    OrderFailed(Box<AcmeError>),
    /// It has not come to an end in time. The order stays.
    #[error("the CA has not finished the order yet")]
    NotFinished { until: Option<SystemTime> },
    /// It does not keep to the protocol, or the certificate is not the one that was asked for.
    #[error("the CA's answer cannot be used: {0}")]
    InvalidResponse(String),
}

/// A name that was not proved, and why not, in the CA's words.
#[derive(Clone, Debug)]
pub(in crate::certs) struct FailedAuthorization {
    pub(in crate::certs) name: String,
    pub(in crate::certs) kind: Option<ChallengeKind>,
    pub(in crate::certs) text: String,
}

impl fmt::Display for FailedAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, text } = self;
        match kind {
            Some(kind) => write!(f, "{name} was not proved by {kind}: {text}"),
            None => write!(f, "{name} was not proved: {text}"),
        }
    }
}

impl AcmeError {
    /// When the CA wants to be asked again, if it says so.
    pub(in crate::certs) fn retry_at(&self) -> Option<SystemTime> {
        match self {
            Self::RateLimited { until, .. }
            | Self::Unavailable { until, .. }
            | Self::NotFinished { until } => *until,
            Self::OrderFailed(why) => why.retry_at(),
            Self::Roots(_)
            | Self::Unreachable(_)
            | Self::AccountGone(_)
            | Self::AccountKey
            | Self::OrderGone(_)
            | Self::ReplacesRefused(_)
            | Self::NoProfile { .. }
            | Self::NotAuthorized(_)
            | Self::NoChallenge { .. }
            | Self::Unanswerable(_)
            | Self::Refused(_)
            | Self::InvalidResponse(_) => None,
        }
    }

    /// Whether the order goes on without us and is to be looked at again. One that is over does
    /// not, whatever its reason, and be it that the CA was out of order for a moment.
    pub(in crate::certs) fn is_order_resumable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Unavailable { .. }
                | Self::NotFinished { .. }
                | Self::RateLimited { .. }
        )
    }

    pub(super) fn from_library(error: instant_acme::Error, transport: &Transport) -> Self {
        let seen = transport.last_response();
        match error {
            instant_acme::Error::Api(problem) => Self::from_problem(&problem, seen.retry_after),
            instant_acme::Error::Other(error) => match error.downcast::<TransportError>() {
                Ok(error) => Self::Unreachable(with_sources(&error)),
                Err(error) => Self::InvalidResponse(error.to_string()),
            },
            // What was refused without a word that the library understands.
            error => match seen
                .status
                .filter(|status| status.is_server_error() || status.as_u16() == 429)
            {
                Some(status) => Self::Unavailable {
                    text: format!("HTTP {status}"),
                    until: seen.retry_after,
                },
                None => Self::InvalidResponse(error.to_string()),
            },
        }
    }

    /// By the type of the problem (RFC 8555 §6.7), then by the status.
    pub(super) fn from_problem(problem: &instant_acme::Problem, until: Option<SystemTime>) -> Self {
        let kind = problem
            .r#type
            .as_deref()
            .and_then(|kind| kind.strip_prefix(ERROR_NAMESPACE))
            .unwrap_or_default();
        let text = problem_text(problem);
        match (kind, problem.status) {
            ("rateLimited", _) | (_, Some(429)) => Self::RateLimited { text, until },
            ("accountDoesNotExist", _) => Self::AccountGone(text),
            ("alreadyReplaced", _) => Self::ReplacesRefused(text),
            ("serverInternal", _) | (_, Some(500..=599)) => Self::Unavailable { text, until },
            ("badNonce", _) => Self::Unavailable { text, until },
            _ => Self::Refused(text),
        }
    }

    /// A refused order that named a certificate to be replaced may have been refused for that.
    pub(super) fn into_refused_replacement(self, replaces: bool) -> Self {
        match self {
            Self::Refused(text) if replaces => Self::ReplacesRefused(text),
            other => other,
        }
    }

    /// What makes an order invalid makes it so for good. A refusal to finalize one ends it, too,
    /// for us: the same would be refused again.
    pub(super) fn ending_order(self) -> Self {
        Self::OrderFailed(Box::new(self))
    }

    /// A refusal to show an order means that it is not there, or not ours.
    pub(super) fn into_missing_order(self) -> Self {
        match self {
            Self::Refused(text) => Self::OrderGone(text),
            other => other,
        }
    }
}

/// Whether only the nonce was refused: nothing has been done, and the same may be asked again (RFC
/// 8555 §6.5).
pub(super) fn is_bad_nonce(error: &instant_acme::Error) -> bool {
    is_of_type(error, "badNonce")
}

/// Whether the order is at another stage than one at which it can be finalized (RFC 8555 §7.4).
pub(super) fn is_not_ready(error: &instant_acme::Error) -> bool {
    is_of_type(error, "orderNotReady")
}

fn is_of_type(error: &instant_acme::Error, kind: &str) -> bool {
    let instant_acme::Error::Api(problem) = error else {
        return false;
    };
    problem
        .r#type
        .as_deref()
        .and_then(|kind| kind.strip_prefix(ERROR_NAMESPACE))
        == Some(kind)
}

/// The CA's words, those about single names included.
pub(super) fn problem_text(problem: &instant_acme::Problem) -> String {
    let kind = problem
        .r#type
        .as_deref()
        .and_then(|kind| kind.strip_prefix(ERROR_NAMESPACE));
    let mut text = problem
        .detail
        .clone()
        .unwrap_or_else(|| "no reason given".to_owned());
    for sub in &problem.subproblems {
        text.push_str(&format!("; {sub}"));
    }
    match kind {
        Some(kind) => format!("{text} ({kind})"),
        None => text,
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn quoted(words: &[String]) -> String {
    match words {
        [] => "none".to_owned(),
        words => words
            .iter()
            .map(|word| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn join_failures(failures: &[FailedAuthorization]) -> String {
    failures
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

const ERROR_NAMESPACE: &str = "urn:ietf:params:acme:error:";
