//! The backoff after failures: 1, 10, 100 minutes, then a day, with jitter of 10 %, and shorter
//! where the served certificate ends soon.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::display::{BlockReason, RetryAt};
use super::failure::{Failure, FailureKind, MAX_RETRY_AFTER, MAX_UNFINISHED_WAIT};
use crate::certs::renewal::{Seed, Validity};
use crate::certs::timestamps;

/// The kind of upper bound of a wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackoffBound {
    #[default]
    Usual,
    /// The CA could not be reached or was unavailable: a retry uses up no limit.
    Unavailable,
    /// An order is in flight. It is abandoned when it has not ended within a day.
    Unfinished,
}

impl BackoffBound {
    /// Without a valid certificate, an unavailable CA is retried more often than one that rejects
    /// the order.
    fn longest_wait(self, has_valid_certificate: bool) -> Duration {
        match self {
            Self::Unfinished => MAX_UNFINISHED_WAIT,
            Self::Unavailable if !has_valid_certificate => Duration::from_mins(100),
            Self::Unavailable | Self::Usual => Duration::from_hours(24),
        }
    }
}

/// Consecutive failures of one set of names at one CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backoff {
    pub(super) times: u32,
    /// When the last failure happened.
    #[serde(with = "timestamps")]
    pub(super) at: SystemTime,
    /// The message of the last failure.
    pub(super) last: String,
    #[serde(default)]
    bound: BackoffBound,
    /// The position of the wait within the range of the jitter, from 0 to 999.
    jitter: u16,
    /// When the CA accepts the next order.
    #[serde(with = "timestamps::option", default)]
    pub(super) retry_at: Option<SystemTime>,
}

impl Backoff {
    /// Adds a failure to `before`.
    pub(super) fn after(
        before: Option<&Self>,
        failure: &Failure,
        seed: Seed,
        now: SystemTime,
    ) -> Self {
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Self {
            times: before.map_or(0, |before| before.times).saturating_add(1),
            at: now,
            last: failure.message.chars().take(MAX_MESSAGE_CHARS).collect(),
            bound: match failure.kind {
                FailureKind::Unavailable => BackoffBound::Unavailable,
                FailureKind::Slow => BackoffBound::Unfinished,
                FailureKind::Validation
                | FailureKind::RateLimited(_)
                | FailureKind::Refused
                | FailureKind::Ours => BackoffBound::Usual,
            },
            jitter: seed.with(seconds).below(1000),
            retry_at: failure.names_retry_at(now),
        }
    }

    /// When the next order may follow, by our own backoff and by the CA's `Retry-After`. An
    /// expiring certificate shortens only the first, as the CA would reject an order before the
    /// second, unless an order is in flight: that is only polled. `pace`: the interval of failed
    /// validations that never use up the CA's limit.
    pub(super) fn retry_times(
        &self,
        held: Option<Validity>,
        pace: Duration,
        now: SystemTime,
    ) -> [Option<RetryAt>; 2] {
        let failed = self.at.min(now);
        let by_life = held.map(|held| longest_wait(held, pace, failed));
        let is_valid = held.is_some_and(|held| !held.left(failed).is_zero());
        let most = self.bound.longest_wait(is_valid);
        let at = failed + self.wait(by_life.map_or(most, |by_life| by_life.min(most)));
        let last = || self.last.clone();
        let ours = RetryAt {
            at,
            why: BlockReason::BackingOff {
                times: self.times,
                last: last(),
            },
        };
        // None once the administrator has ended the backoff.
        let ours = Some(ours).filter(|_| self.times > 0);
        let in_flight = by_life.filter(|_| self.is_for_an_order());
        let longest = in_flight.map_or(now + MAX_RETRY_AFTER, |wait| failed + wait);
        let theirs = self.retry_at.map(|at| RetryAt {
            at: at.min(longest),
            why: BlockReason::RetryAfter { last: last() },
        });
        [ours, theirs]
    }

    fn wait(&self, most: Duration) -> Duration {
        let step = match self.times {
            0 | 1 => Duration::from_mins(1),
            2 => Duration::from_mins(10),
            3 => Duration::from_mins(100),
            _ => Duration::from_hours(24),
        };
        // From 9/10 to 11/10.
        step.min(most) * (9000 + 2 * u32::from(self.jitter)) / 10_000
    }

    /// Whether an order is in flight.
    pub(super) fn is_for_an_order(&self) -> bool {
        self.bound == BackoffBound::Unfinished
    }

    /// Whether the failure is too old to matter.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.at + BACKOFF_RETENTION < now && self.retry_at.is_none_or(|at| at < now)
    }

    /// Moves times in the future to `now`, after the clock was set back. The `Retry-After` of the
    /// CA stays, up to [`MAX_RETRY_AFTER`].
    pub(super) fn settle(&mut self, now: SystemTime) {
        self.at = self.at.min(now);
        self.retry_at = self.retry_at.map(|at| at.min(now + MAX_RETRY_AFTER));
    }

    pub(super) fn shift(&mut self, by: Duration) {
        self.at += by;
        self.retry_at = self.retry_at.map(|at| at + by);
    }
}

/// The longest wait after a failure at `failed`, by what is left of the served certificate.
///
/// An eighth of it leaves ten attempts or more. At the CA's pace of failed validations they leave
/// some of its limit for the administrator who solves the problem; where that is longer than half
/// of what is left, the limit itself is all that bounds them. After the end of the certificate, its
/// length takes the place of what is left: a certificate of ten minutes is not retried daily.
fn longest_wait(held: Validity, pace: Duration, failed: SystemTime) -> Duration {
    let left = held.left(failed);
    if left.is_zero() {
        return (held.length() / 8).max(pace);
    }
    (left / 8).max(pace).min((left / 2).max(MIN_WAIT))
}

/// The certificate has no more than twice as long.
const MIN_WAIT: Duration = Duration::from_secs(10);
const BACKOFF_RETENTION: Duration = Duration::from_hours(30 * 24);
/// The error of a CA may be a whole page.
const MAX_MESSAGE_CHARS: usize = 300;
