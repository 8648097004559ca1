//! Why a CA has not done what was requested, by what follows from it.

use std::fmt;
use std::time::SystemTime;

use http::StatusCode;

use super::problem::problem_type;
use super::transport::{Transport, TransportError};
use crate::certs::roots::RootsError;
use crate::config::acme::ChallengeKind;

/// Why a CA has not done what was requested.
#[derive(Debug, thiserror::Error)]
pub(in crate::certs) enum AcmeError {
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The network, or the server of the CA.
    #[error("{}", with_sources(.0))]
    Unreachable(#[source] TransportError),
    #[error("the CA's limit is reached: {problem}")]
    RateLimited {
        #[source]
        problem: CaProblem,
        until: Option<SystemTime>,
    },
    #[error("the CA is unavailable: {problem}")]
    Unavailable {
        #[source]
        problem: CaProblem,
        until: Option<SystemTime>,
    },
    #[error("the CA does not know the account: {0}")]
    AccountGone(#[source] CaProblem),
    /// The stored key of the account cannot be read.
    #[error("the key of the account is damaged")]
    AccountKey,
    #[error("the CA does not know the order: {0}")]
    OrderGone(#[source] CaProblem),
    /// The order may be made, but not as a replacement.
    #[error("the CA does not accept a replacement: {0}")]
    ReplacesRefused(#[source] CaProblem),
    #[error("the CA does not accept a replacement: the CA knows no renewal information")]
    ReplacesUnsupported,
    #[error("the CA has no profile \"{wanted}\"; it has {}", Quoted(.offered))]
    NoProfile {
        wanted: String,
        offered: Vec<String>,
    },
    /// The CA has found challenges not to be met.
    #[error("{}", join(.0, "; "))]
    NotAuthorized(Vec<FailedAuthorization>),
    /// Any other refusal.
    #[error("the CA refuses: {0}")]
    Refused(#[source] CaProblem),
    /// Neither the order nor its authorizations say why.
    #[error("the CA refuses: the order has become invalid")]
    OrderInvalid,
    /// The order has ended without a certificate, and this is why.
    #[error("{0}")]
    OrderFailed(#[source] Box<AcmeError>),
    /// The CA has not finished the order in time. The order stays.
    #[error("the CA has not finished the order yet")]
    NotFinished { until: Option<SystemTime> },
    /// The CA does not keep to the protocol.
    #[error("the CA's answer cannot be used: {0}")]
    InvalidResponse(#[source] instant_acme::Error),
    #[error("the CA's answer cannot be used: an order without a URL")]
    NoOrderUrl,
    #[error("the CA's answer cannot be used: no {kind} for {name}")]
    ChallengeGone { kind: ChallengeKind, name: String },
}

/// A request that counts towards a limit of the CA, and has failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(in crate::certs) struct CountedRequestError {
    #[source]
    pub(in crate::certs) error: AcmeError,
    /// Whether the CA may have counted it nevertheless.
    pub(in crate::certs) may_count: bool,
}

impl CountedRequestError {
    /// The request was not sent.
    pub(super) fn unsent(error: AcmeError) -> Self {
        Self {
            error,
            may_count: false,
        }
    }
}

/// A problem document of a CA (RFC 8555 §6.7), or the status of an answer without one. It is
/// displayed with its type, and with what it says of single names (RFC 8555 §6.7.1).
#[derive(Clone, Debug)]
pub(in crate::certs) struct CaProblem(instant_acme::Problem);

/// A name that the CA could not validate, and why.
#[derive(Clone, Debug)]
pub(in crate::certs) struct FailedAuthorization {
    pub(in crate::certs) name: String,
    /// `None`: a challenge of a kind that is not known here.
    pub(in crate::certs) kind: Option<ChallengeKind>,
    pub(in crate::certs) problem: CaProblem,
}

/// Words in quotation marks, with commas between them.
pub(in crate::certs) struct Quoted<'a>(pub(in crate::certs) &'a [String]);

impl CaProblem {
    fn from_status(status: StatusCode) -> Self {
        Self(instant_acme::Problem {
            r#type: None,
            detail: Some(format!("HTTP {status}")),
            status: Some(status.as_u16()),
            subproblems: Vec::new(),
        })
    }

    /// The type without the namespace of ACME; empty where it has none.
    fn kind(&self) -> &str {
        problem_type(&self.0).unwrap_or_default()
    }
}

impl From<&instant_acme::Problem> for CaProblem {
    fn from(problem: &instant_acme::Problem) -> Self {
        Self(problem.clone())
    }
}

impl std::error::Error for CaProblem {}

impl fmt::Display for CaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(problem) = self;
        f.write_str(problem.detail.as_deref().unwrap_or("no reason given"))?;
        for sub in &problem.subproblems {
            write!(f, "; {sub}")?;
        }
        match problem_type(problem) {
            Some(kind) => write!(f, " ({kind})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FailedAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            kind,
            problem,
        } = self;
        match kind {
            Some(kind) => write!(f, "{name} was not validated by {kind}: {problem}"),
            None => write!(f, "{name} was not validated: {problem}"),
        }
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<_> = self.0.iter().map(|word| format!("\"{word}\"")).collect();
        if quoted.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&quoted.join(", "))
    }
}

impl AcmeError {
    /// The Retry-After of the CA.
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
            | Self::ReplacesUnsupported
            | Self::NoProfile { .. }
            | Self::NotAuthorized(_)
            | Self::Refused(_)
            | Self::OrderInvalid
            | Self::InvalidResponse(_)
            | Self::NoOrderUrl
            | Self::ChallengeGone { .. } => None,
        }
    }

    /// Whether the order may still come to a certificate and is resumed later. One that has ended
    /// may not, whatever ended it: not even an outage of the CA.
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
        let response = transport.last_response();
        match error {
            instant_acme::Error::Api(problem) => Self::from_problem(&problem, response.retry_after),
            instant_acme::Error::Other(error) => match error.downcast::<TransportError>() {
                Ok(error) => Self::Unreachable(*error),
                Err(error) => Self::InvalidResponse(instant_acme::Error::Other(error)),
            },
            // The library makes other errors of a refusal that it cannot read.
            error => match response.status {
                Some(status) if status.is_server_error() || status.as_u16() == 429 => {
                    Self::Unavailable {
                        problem: CaProblem::from_status(status),
                        until: response.retry_after,
                    }
                }
                _ => Self::InvalidResponse(error),
            },
        }
    }

    /// By the type of the problem (RFC 8555 §6.7), then by the status.
    pub(super) fn from_problem(problem: &instant_acme::Problem, until: Option<SystemTime>) -> Self {
        let status = problem.status;
        let problem = CaProblem::from(problem);
        match (problem.kind(), status) {
            ("rateLimited", _) | (_, Some(429)) => Self::RateLimited { problem, until },
            ("accountDoesNotExist", _) => Self::AccountGone(problem),
            ("alreadyReplaced", _) => Self::ReplacesRefused(problem),
            ("serverInternal" | "badNonce", _) | (_, Some(500..=599)) => {
                Self::Unavailable { problem, until }
            }
            _ => Self::Refused(problem),
        }
    }

    /// A refused order that names a certificate to be replaced may have been refused for that.
    pub(super) fn into_refused_replacement(self, replaces: bool) -> Self {
        match self {
            Self::Refused(problem) if replaces => Self::ReplacesRefused(problem),
            other => other,
        }
    }

    /// An invalid order stays invalid (RFC 8555 §7.1.6). A refusal to finalize ends an order for us
    /// as well: the same request would be refused again.
    pub(super) fn ending_order(self) -> Self {
        Self::OrderFailed(Box::new(self))
    }

    /// A refusal to show an order means that it is not there, or not ours.
    pub(super) fn into_missing_order(self) -> Self {
        match self {
            Self::Refused(problem) => Self::OrderGone(problem),
            other => other,
        }
    }
}

/// Whether only the nonce was refused: the CA has done nothing, and the same request may be repeated
/// (RFC 8555 §6.5).
pub(super) fn is_bad_nonce(error: &instant_acme::Error) -> bool {
    is_of_kind(error, "badNonce")
}

/// Whether the order cannot be finalized in its present status (RFC 8555 §7.4).
pub(super) fn is_not_ready(error: &instant_acme::Error) -> bool {
    is_of_kind(error, "orderNotReady")
}

fn is_of_kind(error: &instant_acme::Error, wanted: &str) -> bool {
    matches!(error, instant_acme::Error::Api(problem) if problem_type(problem) == Some(wanted))
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

pub(in crate::certs) fn join(all: &[impl fmt::Display], separator: &str) -> String {
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    texts.join(separator)
}
