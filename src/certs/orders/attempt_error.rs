//! What stops an attempt, and what follows from it: whose fault it was, and when to try again.

use std::time::{Duration, SystemTime};

use super::domain_state::DomainState;
use super::local_error::LocalError;
use crate::certs::acme::AcmeError;
use crate::certs::state::ledger::{BlockReason, Failure, FailureKind, RateLimitScope, RetryAt};

/// Why there is no certificate from a CA in this attempt.
pub(super) enum AttemptError {
    /// It is not time yet.
    Wait(SystemTime, String),
    /// The CA, or the way to it.
    Failed(AcmeError),
    /// The disk: another CA would not help.
    Local(LocalError),
}

impl From<AcmeError> for AttemptError {
    fn from(error: AcmeError) -> Self {
        Self::Failed(error)
    }
}

/// What the ledger says. An order that is in flight has been counted, so that no limit holds it up.
pub(super) fn allowed(answer: Result<(), RetryAt>, resumes: bool) -> Result<(), AttemptError> {
    match answer {
        Ok(()) => Ok(()),
        Err(RetryAt {
            why: BlockReason::Limit { .. } | BlockReason::Full,
            ..
        }) if resumes => Ok(()),
        Err(RetryAt { at, why }) => Err(AttemptError::Wait(at, why.to_string())),
    }
}

/// As the ledger wants to know it.
pub(super) fn failure(error: &AcmeError) -> Failure {
    // The transport has dated it by the system's clock, which need not be the issuer's.
    let retry_after = error
        .retry_at()
        .and_then(|until| until.duration_since(SystemTime::now()).ok());
    Failure {
        kind: failure_kind(error),
        retry_after,
        message: error.to_string(),
    }
}

fn failure_kind(error: &AcmeError) -> FailureKind {
    match error {
        AcmeError::OrderFailed(why) => failure_kind(why),
        AcmeError::RateLimited { text, .. } => FailureKind::RateLimited(scope(text)),
        AcmeError::Unreachable(_) | AcmeError::Unavailable { .. } => FailureKind::Unavailable,
        AcmeError::NotFinished { .. } => FailureKind::Slow,
        AcmeError::NotAuthorized(_) => FailureKind::Validation,
        AcmeError::Roots(_)
        | AcmeError::AccountKey
        | AcmeError::NoProfile { .. }
        | AcmeError::NoChallenge { .. }
        | AcmeError::Unanswerable(_) => FailureKind::Ours,
        AcmeError::AccountGone(_)
        | AcmeError::OrderGone(_)
        | AcmeError::ReplacesRefused(_)
        | AcmeError::Refused(_)
        | AcmeError::InvalidResponse(_) => FailureKind::Refused,
    }
}

/// Whom a limit concerns, by the words that Boulder, Let's Encrypt's server, uses.
fn scope(text: &str) -> RateLimitScope {
    let scopes = [
        ("too many new orders", RateLimitScope::Account),
        ("too many new registrations", RateLimitScope::Ca),
        ("too many certificates", RateLimitScope::Names),
        ("too many failed authorizations", RateLimitScope::Names),
        ("service busy", RateLimitScope::Ca),
    ];
    let text = text.to_ascii_lowercase();
    let found = scopes.into_iter().find(|(words, _)| text.contains(words));
    found.map_or(RateLimitScope::Unknown, |(_, scope)| scope)
}

/// The earliest of what was waited for.
pub(super) fn next_wait(waits: Vec<(SystemTime, String)>, now: SystemTime) -> DomainState {
    let earliest = waits.into_iter().min_by_key(|(at, _)| *at);
    let (until, why) = earliest.unwrap_or_else(|| {
        (
            now + NO_AUTHORITY_RETRY_DELAY,
            "there is no CA to ask".to_owned(),
        )
    });
    DomainState::Waiting { until, why }
}

const NO_AUTHORITY_RETRY_DELAY: Duration = Duration::from_secs(3600);
