//! Decides when a certificate is renewed, when the CA's renewal information is fetched again, and
//! how urgent a failing renewal is. Pure: takes facts and the time, returns a decision.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::inspect::{CertificateFacts, Rfc3339};

/// Whether less than a third of the lifetime is left. A certificate that is not valid yet is due
/// too: it was issued by a wrong clock. For certificates of the internal CA, which cost nothing.
pub(crate) fn is_due(now: SystemTime, not_before: SystemTime, not_after: SystemTime) -> bool {
    let (Ok(left), Ok(life)) = (
        not_after.duration_since(now),
        not_after.duration_since(not_before),
    ) else {
        return true;
    };
    now < not_before || left < life / 3
}

/// The period of validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Validity {
    /// The period of a certificate.
    pub(crate) fn of(facts: &CertificateFacts) -> Self {
        Self {
            not_before: facts.not_before,
            not_after: facts.not_after,
        }
    }

    /// The length of the period; zero if it ends before it begins.
    pub(crate) fn length(&self) -> Duration {
        self.not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
    }

    /// The remaining time; zero after the end.
    pub(crate) fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// When `left` remains; never before `not_before`.
    fn with_left(&self, left: Duration) -> SystemTime {
        self.not_after
            .checked_sub(left)
            .map_or(self.not_before, |at| at.max(self.not_before))
    }

    fn is_short(&self) -> bool {
        self.length() < SHORT_LIFETIME
    }
}

/// The window in which the CA suggests to renew a certificate (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AriWindow {
    start: SystemTime,
    end: SystemTime,
}

impl AriWindow {
    /// Returns `None` unless the window ends after its start: RFC 9773 §4.2 demands that clients
    /// ignore such a window. A start before 1970 is ignored too: CAs written in Go send the year 1
    /// for a missing time.
    pub(crate) fn new(start: SystemTime, end: SystemTime) -> Option<Self> {
        (SystemTime::UNIX_EPOCH <= start && start < end).then_some(Self { start, end })
    }

    pub(crate) fn start(&self) -> SystemTime {
        self.start
    }

    pub(crate) fn end(&self) -> SystemTime {
        self.end
    }

    /// A random time in the window, the same for the same window and seed.
    fn random_time(&self, seed: Seed) -> SystemTime {
        let since = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs()
        };
        let seed = seed.with(since(self.start)).with(since(self.end));
        let length = self.end.duration_since(self.start).unwrap_or_default();
        self.start + length.mul_f64(seed.fraction())
    }
}

/// The seed of the random choices for one certificate, so that they are the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) fn new(number: u64) -> Self {
        Self(0).with(number)
    }

    /// Derives a seed from a text that is unique to the certificate, like its serial number, which
    /// CAs choose at random.
    pub(crate) fn of(text: &str) -> Self {
        Self(0).and(text)
    }

    /// Mixes in a text.
    pub(crate) fn and(self, text: &str) -> Self {
        text.bytes()
            .fold(self.with(text.len() as u64), |seed, byte| {
                seed.with(u64::from(byte))
            })
    }

    /// Mixes in a number (the finalizer of SplitMix64).
    pub(crate) fn with(self, number: u64) -> Self {
        let mut z = (self.0 ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(z ^ (z >> 31))
    }

    /// A number from 0 up to but excluding 1.
    pub(crate) fn fraction(self) -> f64 {
        f64::from(u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
    }

    /// A number from 0 up to but excluding `end`.
    pub(crate) fn below(self, end: u16) -> u16 {
        u16::try_from(((self.0 >> 48) * u64::from(end)) >> 16).unwrap_or_default()
    }
}

/// When a certificate is renewed, and what determined that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewal {
    /// The earliest time. In the past: at once.
    pub at: SystemTime,
    pub why: RenewalReason,
}

/// What determined the time of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RenewalReason {
    /// The CA suggests this window.
    Ari(AriWindow),
    /// The CA's window is later than is safe: renewal must still succeed after days of failures.
    TooLateForSafety(AriWindow),
    /// The CA suggests no window: a third of the lifetime is left, or half of a short one.
    LifeLeft,
}

impl fmt::Display for RenewalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ari(window) => {
                write!(
                    f,
                    "the CA suggests {} to {}",
                    Rfc3339(window.start),
                    Rfc3339(window.end)
                )
            }
            Self::TooLateForSafety(window) => write!(
                f,
                "the CA suggests {} to {}, which leaves too little time for failures",
                Rfc3339(window.start),
                Rfc3339(window.end)
            ),
            Self::LifeLeft => f.write_str("by its lifetime, as the CA suggests no time"),
        }
    }
}

/// Decides when to renew. The result does not depend on the current time, so that neither the
/// frequency of calls nor a jump of the clock changes it.
///
/// With a window of the CA: a random time in it, however early (after a mass revocation the window
/// lies in the past, which means at once), but not later than when a fifth of the lifetime is left
/// (9/20 of a lifetime below 10 days: 72 of 160 hours). Without a window: when a third of the
/// lifetime is left (half below 10 days), or up to 1/25 of the lifetime earlier, so that
/// certificates that were issued together are not renewed together.
pub(crate) fn renewal(life: Validity, window: Option<AriWindow>, seed: Seed) -> Renewal {
    let length = life.length();
    let Some(window) = window else {
        let left = if life.is_short() {
            length / 2
        } else {
            length / 3
        };
        let earlier = (length / 25).mul_f64(seed.fraction());
        return Renewal {
            at: life.with_left(left + earlier),
            why: RenewalReason::LifeLeft,
        };
    };
    let latest = life.with_left(if life.is_short() {
        length * 9 / 20
    } else {
        length / 5
    });
    let chosen = window.random_time(seed);
    if chosen <= latest {
        Renewal {
            at: chosen,
            why: RenewalReason::Ari(window),
        }
    } else {
        Renewal {
            at: latest,
            why: RenewalReason::TooLateForSafety(window),
        }
    }
}

/// The result of fetching renewal information from the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AriAnswer {
    /// The CA has answered, with a valid window or an invalid one.
    Answered {
        /// The `Retry-After` of the CA (RFC 9773 §4.3).
        retry_after: Option<Duration>,
    },
    /// The CA could not be reached, or has answered with an error.
    Failed {
        /// Consecutive failures, from 1.
        times: u32,
        /// The `Retry-After` of the CA, if it sent one.
        retry_after: Option<Duration>,
    },
}

/// When to fetch renewal information again: after the CA's `Retry-After`, clamped to 1 minute to 1
/// day (RFC 9773 §4.3.2), or 6 hours without one. After failures: 1, 10, 100 minutes, then every 6
/// hours.
pub(crate) fn ask_ari_again(asked: SystemTime, answer: AriAnswer) -> SystemTime {
    let wait = match answer {
        AriAnswer::Answered { retry_after } => retry_after.unwrap_or(ARI_INTERVAL),
        AriAnswer::Failed { times, retry_after } => {
            let ours = match times {
                0 | 1 => Duration::from_mins(1),
                2 => Duration::from_mins(10),
                3 => Duration::from_mins(100),
                _ => ARI_INTERVAL,
            };
            retry_after.map_or(ours, |theirs| ours.max(theirs))
        }
    };
    asked + wait.clamp(Duration::from_mins(1), Duration::from_hours(24))
}

/// How close a certificate is to its end, for the level of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// At least a fifth of the lifetime is left.
    Calm,
    /// Less than a fifth is left: renewal has been failing.
    Notice,
    /// Less than a tenth is left.
    Warning,
    /// Less than a twentieth is left.
    Alarm,
    /// Its life is over.
    Expired,
}

/// The urgency at the time `now`.
pub(crate) fn urgency(life: Validity, now: SystemTime) -> Urgency {
    let (length, left) = (life.length(), life.left(now));
    if left.is_zero() {
        return Urgency::Expired;
    }
    if left < length / 20 {
        return Urgency::Alarm;
    }
    if left < length / 10 {
        return Urgency::Warning;
    }
    if left < length / 5 {
        Urgency::Notice
    } else {
        Urgency::Calm
    }
}

/// Let's Encrypt asks for at least two fetches a day, and answers with 6 hours.
const ARI_INTERVAL: Duration = Duration::from_hours(6);
/// Below this lifetime, a third of it is too little time for an administrator to solve a problem.
const SHORT_LIFETIME: Duration = Duration::from_hours(10 * 24);

#[cfg(test)]
mod tests;
