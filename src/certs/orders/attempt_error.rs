//! What ends an attempt at a CA without a certificate, whose fault it is, and when the next attempt
//! may be made.

use std::time::{Duration, SystemTime};

use super::domain_state::DomainState;
use super::local_error::LocalError;
use super::order_error::OrderError;
use crate::certs::acme::AcmeError;
use crate::certs::state::ledger::{BlockReason, Failure, FailureKind, RateLimitScope, RetryAt};

/// A time before which nothing may be requested of a CA, and why.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) until: SystemTime,
    pub(super) why: String,
}

/// Why there is no certificate from a CA in this attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error("{}", .0.why)]
    Wait(Wait),
    /// The CA, the way to it, or its challenges.
    #[error(transparent)]
    Failed(#[from] OrderError),
    /// This machine: another CA would not help.
    #[error(transparent)]
    Local(#[from] LocalError),
}

impl From<AcmeError> for AttemptError {
    fn from(error: AcmeError) -> Self {
        Self::Failed(error.into())
    }
}

/// The ledger's answer as an error. A pending order has been counted already, so that no limit
/// delays it.
pub(super) fn allowed(answer: Result<(), RetryAt>, resumes: bool) -> Result<(), AttemptError> {
    match answer {
        Ok(()) => Ok(()),
        Err(RetryAt {
            why: BlockReason::Limit { .. } | BlockReason::Full,
            ..
        }) if resumes => Ok(()),
        Err(RetryAt { at, why }) => Err(AttemptError::Wait(Wait {
            until: at,
            why: why.to_string(),
        })),
    }
}

/// The failure as the ledger records it. `not_failed`: the names whose authorizations are known not
/// to have failed.
pub(super) fn failure(error: &OrderError, not_failed: Vec<String>) -> Failure {
    // The transport dates it by the system's clock, which need not be the issuer's.
    let retry_after = error
        .retry_at()
        .and_then(|until| until.duration_since(SystemTime::now()).ok());
    Failure {
        kind: failure_kind(error),
        retry_after,
        message: error.to_string(),
        not_failed,
    }
}

fn failure_kind(error: &OrderError) -> FailureKind {
    match error {
        OrderError::Acme(error) => acme_failure_kind(error),
        OrderError::Registration(error) => acme_failure_kind(error),
        OrderError::NoChallenge { .. } | OrderError::Unanswerable(_) => FailureKind::Ours,
        OrderError::UnknownName(_) | OrderError::UnusableChain(_) | OrderError::Defective(_) => {
            FailureKind::Refused
        }
    }
}

fn acme_failure_kind(error: &AcmeError) -> FailureKind {
    match error {
        AcmeError::OrderFailed(why) => acme_failure_kind(why),
        AcmeError::RateLimited { problem, .. } => {
            FailureKind::RateLimited(scope(&problem.to_string()))
        }
        AcmeError::Unreachable(_) | AcmeError::Unavailable { .. } => FailureKind::Unavailable,
        AcmeError::NotFinished { .. } => FailureKind::Slow,
        AcmeError::NotAuthorized(_) => FailureKind::Validation,
        AcmeError::Roots(_) | AcmeError::AccountKey | AcmeError::NoProfile { .. } => {
            FailureKind::Ours
        }
        AcmeError::AccountGone(_)
        | AcmeError::OrderGone(_)
        | AcmeError::ReplacesRefused(_)
        | AcmeError::ReplacesUnsupported
        | AcmeError::Refused(_)
        | AcmeError::OrderInvalid
        | AcmeError::InvalidResponse(_)
        | AcmeError::NoOrderUrl
        | AcmeError::ChallengeGone { .. } => FailureKind::Refused,
    }
}

/// What a limit applies to, by the error messages of Boulder, the server of Let's Encrypt.
fn scope(text: &str) -> RateLimitScope {
    let scopes = [
        ("too many new orders", RateLimitScope::Account),
        ("too many new registrations", RateLimitScope::Ca),
        ("too many certificates", RateLimitScope::Names),
        ("too many failed authorizations", RateLimitScope::Names),
        ("service busy", RateLimitScope::Ca),
    ];
    let text = text.to_ascii_lowercase();
    let found = scopes.into_iter().find(|(phrase, _)| text.contains(phrase));
    found.map_or(RateLimitScope::Unknown, |(_, scope)| scope)
}

/// The state until the earliest of these times.
pub(super) fn earliest_wait(waits: Vec<Wait>, now: SystemTime) -> DomainState {
    let earliest = waits.into_iter().min_by_key(|wait| wait.until);
    let Wait { until, why } = earliest.unwrap_or_else(|| Wait {
        until: now + NO_AUTHORITY_RETRY_DELAY,
        why: "there is no CA to ask".to_owned(),
    });
    DomainState::Waiting { until, why }
}

const NO_AUTHORITY_RETRY_DELAY: Duration = Duration::from_hours(1);
