//! The state of a domain between two steps, which says when the next step is due.

use std::fmt;
use std::time::SystemTime;

/// The state of a domain between two steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DomainState {
    /// Not checked since it was added or changed.
    New,
    /// The certificate needs no renewal yet.
    Good {
        renewal: SystemTime,
        /// When to fetch the CA's renewal information again.
        recheck: SystemTime,
        /// How the time of renewal was chosen.
        why: String,
    },
    /// An order is needed and has to wait.
    Waiting { until: SystemTime, why: String },
    /// Another process on this state directory orders for the domain.
    Elsewhere {
        /// When to check for its result.
        until: SystemTime,
    },
    /// An order is possible, but may be a mistake that the administrator has to rule out.
    AwaitingConfirmation {
        /// When to check again.
        until: SystemTime,
        /// Why, and what to do.
        why: String,
    },
}

/// How a step ended that needed an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    Issued,
    Failed,
    /// Nothing was ordered yet, or the CA has not finished the order.
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

    /// When an order is tried next, if that is known.
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
