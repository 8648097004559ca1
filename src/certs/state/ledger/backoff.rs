//! How long to wait after failures: 1, 10, 100 minutes, then daily, with jitter. Never for ever.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::display::{BlockReason, RetryAt};
use super::failure::{Failure, Fault};
use crate::certs::renewal::Seed;
use crate::certs::timestamps;

/// How much there is to lose by waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackoffBound {
    #[default]
    Usual,
    /// The CA could not be reached or was out of order: that costs nobody anything.
    Unavailable,
    /// An order is in flight, and will be given up when it has not ended within a day.
    Unfinished,
}

/// The failures in a row of one set of names at one CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backoff {
    pub(super) times: u32,
    /// When the newest was.
    #[serde(with = "timestamps")]
    pub(super) at: SystemTime,
    /// What it said.
    pub(super) last: String,
    /// What bounds the wait.
    #[serde(default)]
    bound: BackoffBound,
    /// From 0 to 999: where in the spread of the wait this one lies.
    jitter: u16,
    /// What the CA demanded.
    #[serde(with = "timestamps::option", default)]
    pub(super) retry_at: Option<SystemTime>,
}

impl Backoff {
    /// After one more failure.
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
            last: failure.words.chars().take(MAX_MESSAGE_CHARS).collect(),
            bound: match failure.fault {
                Fault::Unavailable => BackoffBound::Unavailable,
                Fault::Slow => BackoffBound::Unfinished,
                Fault::Validation | Fault::RateLimited(_) | Fault::Refused | Fault::Ours => {
                    BackoffBound::Usual
                }
            },
            jitter: seed.with(seconds).below(1000),
            retry_at: failure.names_retry_at(now),
        }
    }

    /// What to wait for, by our own choice and by the CA's. The end of a certificate that is being
    /// served shortens the first but not the second: the CA would refuse.
    pub(super) fn retry_times(
        &self,
        held_until: Option<SystemTime>,
        now: SystemTime,
    ) -> [Option<RetryAt>; 2] {
        let at = self.at.min(now) + self.wait(held_until, now);
        let last = || self.last.clone();
        let ours = RetryAt {
            at,
            why: BlockReason::BackingOff {
                times: self.times,
                last: last(),
            },
        };
        // None once the administrator has ended the waiting.
        let ours = Some(ours).filter(|_| self.times > 0);
        let theirs = self.retry_at.map(|at| RetryAt {
            at: at.min(now + MAX_RETRY_AFTER),
            why: BlockReason::RetryAfter { last: last() },
        });
        [ours, theirs]
    }

    fn wait(&self, held_until: Option<SystemTime>, now: SystemTime) -> Duration {
        let step = match self.times {
            0 | 1 => MINUTE,
            2 => 10 * MINUTE,
            3 => 100 * MINUTE,
            _ => DAY,
        };
        // A day is too long for what ends in two: an eighth of the rest then, so that ten attempts
        // and more remain. With nothing to serve, a CA that is out of order is asked more often
        // than one that refuses.
        let left = held_until
            .and_then(|end| end.duration_since(now).ok())
            .filter(|left| !left.is_zero());
        let most = match (self.bound, left) {
            (BackoffBound::Unfinished, _) => MAX_UNFINISHED_WAIT,
            (_, Some(left)) => (left / 8).max(100 * MINUTE),
            (BackoffBound::Unavailable, None) => 100 * MINUTE,
            (BackoffBound::Usual, None) => DAY,
        };
        // From 9/10 to 11/10.
        step.min(most) * (9000 + 2 * u32::from(self.jitter)) / 10_000
    }

    /// Whether it is an order that is waited for.
    pub(super) fn is_for_an_order(&self) -> bool {
        self.bound == BackoffBound::Unfinished
    }

    /// So old that nobody waits for it any more.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.at + BACKOFF_RETENTION < now && self.retry_at.is_none_or(|at| at < now)
    }

    /// A clock that was set back leaves nothing in the future but what the CA demanded, within
    /// reason.
    pub(super) fn settle(&mut self, now: SystemTime) {
        self.at = self.at.min(now);
        self.retry_at = self.retry_at.map(|at| at.min(now + MAX_RETRY_AFTER));
    }

    pub(super) fn shift(&mut self, by: Duration) {
        self.at += by;
        self.retry_at = self.retry_at.map(|at| at + by);
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that a CA with published limits has reason to say, and a day. More is a mistake.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// An order that is being processed is looked at again at least so often.
pub(super) const MAX_UNFINISHED_WAIT: Duration = Duration::from_secs(60 * 60);
const BACKOFF_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// In characters. A CA's answer may be a page.
const MAX_MESSAGE_CHARS: usize = 300;
