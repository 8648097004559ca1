//! Why an attempt failed, whose fault that is, and who has to wait for it, and for how long.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::backoff::{MAX_RETRY_AFTER, MAX_UNFINISHED_WAIT};

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose fault it is.
    pub fault: Fault,
    /// What the CA said about the next attempt, from now on.
    pub retry_after: Option<Duration>,
    /// For people: one sentence without a full stop. Never a key or a token.
    pub words: String,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The CA could not validate at least one of the names.
    Validation,
    /// The CA said that a limit is used up.
    RateLimited(Scope),
    /// The CA refused without validating: a name it may not certify, a CAA record, a bad request.
    Refused,
    /// The CA could not be reached, took too long, or is out of order. `Retry-After` is for all its
    /// users, and an order that is in flight stays so.
    Unavailable,
    /// The CA has not finished the order, which stays in flight. `Retry-After` is about that one,
    /// and some say a day of what takes minutes.
    Slow,
    /// Something on this machine: a full disk, a command that failed, a check before the order.
    Ours,
}

/// Whom a limit concerns that the CA has said to be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// This set of names.
    Names,
    /// All orders of the account.
    Account,
    /// Everybody here.
    Ca,
    /// The CA did not say. Others with the account wait for ten minutes, so that not each finds
    /// out.
    Unknown,
}

impl Failure {
    /// RetryAt when the CA wants no order for these names.
    pub(super) fn names_retry_at(&self, now: SystemTime) -> Option<SystemTime> {
        let wait = self.retry_after?;
        match self.fault {
            Fault::RateLimited(Scope::Account | Scope::Ca) => None,
            Fault::Slow => Some(now + wait.min(MAX_UNFINISHED_WAIT)),
            Fault::RateLimited(Scope::Names | Scope::Unknown)
            | Fault::Validation
            | Fault::Refused
            | Fault::Unavailable
            | Fault::Ours => Some(now + wait.min(MAX_RETRY_AFTER)),
        }
    }

    /// For whom else, and how long.
    pub(super) fn pause(&self) -> Option<(Scope, Duration)> {
        let wait = self.retry_after.unwrap_or(MINUTE);
        match self.fault {
            Fault::RateLimited(Scope::Unknown) => Some((Scope::Account, wait.min(10 * MINUTE))),
            Fault::RateLimited(scope @ (Scope::Account | Scope::Ca)) => {
                Some((scope, wait.min(DAY)))
            }
            Fault::Unavailable if self.retry_after.is_some() => {
                Some((Scope::Ca, wait.min(DAY / 4)))
            }
            Fault::RateLimited(Scope::Names)
            | Fault::Validation
            | Fault::Refused
            | Fault::Unavailable
            | Fault::Slow
            | Fault::Ours => None,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
