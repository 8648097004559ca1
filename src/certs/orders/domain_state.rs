//! The states of a domain between two steps. Each says when the next step is due.

use std::fmt;
use std::time::SystemTime;

/// Where a domain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DomainState {
    /// Not looked at since it appeared, or since something about it changed.
    New,
    /// What is held is good.
    Good {
        /// When it is to be renewed.
        renewal: SystemTime,
        /// When to look before that: the CA may change its advice.
        recheck: SystemTime,
        /// Whose choice the renewal is.
        why: String,
    },
    /// An order is wanted and has to wait.
    Waiting {
        /// When it may be made.
        until: SystemTime,
        /// What stands against it.
        why: String,
    },
    /// Another process on this state directory has the domain in hand.
    Elsewhere {
        /// When to look what became of it.
        until: SystemTime,
    },
    /// An order is possible, but would perhaps be a mistake.
    AwaitingConfirmation {
        /// When to look again.
        until: SystemTime,
        /// Why, and what to do.
        why: String,
    },
}

/// How a step ended that wanted an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    /// With a certificate.
    Issued,
    /// Without one.
    Failed,
    /// Before anything was asked of a CA, or while it was still at it.
    Postponed,
}

impl DomainState {
    /// When the next step is due.
    pub(super) fn due(&self) -> SystemTime {
        match self {
            Self::New => SystemTime::UNIX_EPOCH,
            Self::Good {
                renewal, recheck, ..
            } => *renewal.min(recheck),
            Self::Waiting { until, .. }
            | Self::Elsewhere { until }
            | Self::AwaitingConfirmation { until, .. } => *until,
        }
    }

    /// When an order will be tried next.
    pub(super) fn next(&self) -> Option<SystemTime> {
        match self {
            Self::Good { renewal, .. } => Some(*renewal),
            Self::Waiting { until, .. } | Self::Elsewhere { until } => Some(*until),
            Self::New | Self::AwaitingConfirmation { .. } => None,
        }
    }
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("not checked yet"),
            Self::Good { why, .. } => write!(f, "good ({why})"),
            Self::Waiting { why, .. } => write!(f, "waiting: {why}"),
            Self::Elsewhere { .. } => f.write_str("another process is ordering"),
            Self::AwaitingConfirmation { why, .. } => {
                write!(f, "waiting for the administrator: {why}")
            }
        }
    }
}
