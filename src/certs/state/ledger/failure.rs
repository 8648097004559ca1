//! Why an attempt failed, and which orders have to wait for how long.

use std::time::{Duration, SystemTime};

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub kind: FailureKind,
    /// The `Retry-After` of the CA, counted from the time of the failure.
    pub retry_after: Option<Duration>,
    /// One sentence without a full stop, for people. Must not contain a key or a token.
    pub message: String,
    /// The names of the order whose authorizations are known not to have failed: the CA was not
    /// told to validate them, or has validated them. Others count as failed where the order ends.
    pub not_failed: Vec<String>,
}

/// The kind of a failure, by who caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The CA could not validate at least one of the names.
    Validation,
    /// The CA reported that a rate limit is exceeded.
    RateLimited(RateLimitScope),
    /// The CA rejected the order before validation: a name that it may not certify, a CAA record,
    /// a bad request.
    Refused,
    /// The CA could not be reached, timed out, or is unavailable. Its `Retry-After` applies to all
    /// orders. An order in flight stays in flight.
    Unavailable,
    /// The CA has not finished the order, which stays in flight. Its `Retry-After` applies to this
    /// order; some CAs send a day for what takes minutes.
    Slow,
    /// Something on this machine: a full disk, a command that failed, a check before the order.
    Ours,
}

/// What a `rateLimited` error of the CA applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateLimitScope {
    /// This set of names.
    Names,
    /// All orders of the account.
    Account,
    /// All orders at the CA.
    Ca,
    /// The error does not name the limit. Other orders of the account wait for ten minutes instead
    /// of failing one after the other.
    Unknown,
}

impl Failure {
    /// When the CA accepts the next order for these names.
    pub(super) fn names_retry_at(&self, now: SystemTime) -> Option<SystemTime> {
        let wait = self.retry_after?;
        match self.kind {
            FailureKind::RateLimited(RateLimitScope::Account | RateLimitScope::Ca) => None,
            FailureKind::Slow => Some(now + wait.min(MAX_UNFINISHED_WAIT)),
            FailureKind::RateLimited(RateLimitScope::Names | RateLimitScope::Unknown)
            | FailureKind::Validation
            | FailureKind::Refused
            | FailureKind::Unavailable
            | FailureKind::Ours => Some(now + wait.min(MAX_RETRY_AFTER)),
        }
    }

    /// Which other orders have to wait, and for how long.
    pub(super) fn pause(&self) -> Option<(RateLimitScope, Duration)> {
        let wait = self.retry_after.unwrap_or(Duration::from_mins(1));
        match self.kind {
            FailureKind::RateLimited(RateLimitScope::Unknown) => {
                Some((RateLimitScope::Account, wait.min(Duration::from_mins(10))))
            }
            FailureKind::RateLimited(scope @ (RateLimitScope::Account | RateLimitScope::Ca)) => {
                Some((scope, wait.min(Duration::from_hours(24))))
            }
            FailureKind::Unavailable if self.retry_after.is_some() => {
                Some((RateLimitScope::Ca, wait.min(Duration::from_hours(6))))
            }
            FailureKind::RateLimited(RateLimitScope::Names)
            | FailureKind::Validation
            | FailureKind::Refused
            | FailureKind::Unavailable
            | FailureKind::Slow
            | FailureKind::Ours => None,
        }
    }
}

/// The longest window of any published limit, and a day. A longer `Retry-After` is a mistake.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_hours(8 * 24);
/// An order that the CA is processing is polled at least this often.
pub(super) const MAX_UNFINISHED_WAIT: Duration = Duration::from_hours(1);
