//! When a certificate is to be renewed, how soon the CA is asked for its advice again, and how
//! loudly to warn when renewal fails. Facts and time in, a decision out.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::inspect::Rfc3339;

/// Whether less than a third of its life is left. One whose life has not begun is due too: it was
/// made under a wrong clock. For certificates of the internal CA, which cost nothing.
pub fn is_due(now: SystemTime, not_before: SystemTime, not_after: SystemTime) -> bool {
    let (Ok(left), Ok(life)) = (
        not_after.duration_since(now),
        not_after.duration_since(not_before),
    ) else {
        return true;
    };
    now < not_before || left < life / 3
}

/// The first and the last moment of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The first.
    pub not_before: SystemTime,
    /// The last.
    pub not_after: SystemTime,
}

impl Life {
    /// From the first to the last moment; zero if they are the wrong way round.
    pub fn length(&self) -> Duration {
        self.not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
    }

    /// What is left of it; zero when it is over.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// The moment at which this much is left; never before the first moment.
    fn with_left(&self, left: Duration) -> SystemTime {
        self.not_after
            .checked_sub(left)
            .map_or(self.not_before, |at| at.max(self.not_before))
    }

    fn is_short(&self) -> bool {
        self.length() < SHORT
    }
}

/// In which span of time the CA wishes a certificate to be renewed (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AriWindow {
    start: SystemTime,
    end: SystemTime,
}

impl AriWindow {
    /// `None` unless it ends after its start, as RFC 9773 §4.2 demands: the CA's advice is then to
    /// be ignored, as if it had none. So is a moment before 1970: programs in Go send the year 1
    /// for none at all.
    pub fn new(start: SystemTime, end: SystemTime) -> Option<Self> {
        (SystemTime::UNIX_EPOCH <= start && start < end).then_some(Self { start, end })
    }

    /// Its first moment.
    pub fn start(&self) -> SystemTime {
        self.start
    }

    /// Its end.
    pub fn end(&self) -> SystemTime {
        self.end
    }

    /// A moment in it, the same for the same window and seed.
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

/// What makes the random choices for one certificate, so that they are the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// Of a number.
    pub fn new(number: u64) -> Self {
        Self(0).with(number)
    }

    /// Of a text that no other certificate has, like its serial number (CAs choose it at random).
    pub fn of(text: &str) -> Self {
        Self(0).and(text)
    }

    /// Mixed with a further text.
    pub fn and(self, text: &str) -> Self {
        text.bytes()
            .fold(self.with(text.len() as u64), |seed, byte| {
                seed.with(u64::from(byte))
            })
    }

    /// Mixed with a further number (the finalizer of SplitMix64).
    pub fn with(self, number: u64) -> Self {
        let mut z = (self.0 ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(z ^ (z >> 31))
    }

    /// From 0 up to, but not, 1.
    pub fn fraction(self) -> f64 {
        f64::from(u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
    }

    /// From 0 up to, but not, `end`.
    pub fn below(self, end: u16) -> u16 {
        u16::try_from(((self.0 >> 48) * u64::from(end)) >> 16).unwrap_or_default()
    }
}

/// When a certificate is to be renewed, and why then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// From when on. In the past: at once.
    pub at: SystemTime,
    /// Whose choice it is.
    pub why: Why,
}

impl Renewal {
    /// Whether it is time.
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.at <= now
    }
}

/// Why a certificate is renewed when it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The CA wishes it in this window.
    Ari(AriWindow),
    /// The CA's window is later than is safe: renewal must still succeed after days of failures.
    TooLateForSafety(AriWindow),
    /// The CA has no advice: a third of the life is left, or half of a short one.
    LifeLeft,
}

impl fmt::Display for Why {
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

/// When to renew. Independent of the time at which it is asked, so that looking often or rarely, or
/// after a clock has jumped, changes nothing.
///
/// With a window of the CA: a random moment in it, however early (after a mass revocation it lies
/// in the past, which means at once), but never so late that a fifth of the life is left (9/20 of
/// one below 10 days: then still 72 hours of 160). Without: when a third of the life is left (half
/// below 10 days), or up to 1/25 of the life earlier, so that what was issued together is not
/// renewed together.
pub fn renewal(life: Life, window: Option<AriWindow>, seed: Seed) -> Renewal {
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
            why: Why::LifeLeft,
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
            why: Why::Ari(window),
        }
    } else {
        Renewal {
            at: latest,
            why: Why::TooLateForSafety(window),
        }
    }
}

/// How an attempt to ask the CA for its window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AriAnswer {
    /// With a window, or with one that makes no sense; and how long to wait until the next
    /// question.
    Answered {
        /// What the CA said (RFC 9773 §4.3).
        retry_after: Option<Duration>,
    },
    /// Not at all, or with an error, for the nth time in a row (from 1); and how long it said to
    /// wait.
    Failed {
        /// How often in a row.
        times: u32,
        /// What the CA said, if anything.
        retry_after: Option<Duration>,
    },
}

/// When to ask the CA for its window again: as it says, but from 1 minute to 1 day (RFC 9773
/// §4.3.2); 6 hours if it does not say. After failures 1, 10, 100 minutes, then every 6 hours.
pub fn ask_ari_again(asked: SystemTime, answer: AriAnswer) -> SystemTime {
    let wait = match answer {
        AriAnswer::Answered { retry_after } => retry_after.unwrap_or(ARI_USUALLY),
        AriAnswer::Failed { times, retry_after } => {
            let ours = match times {
                0 | 1 => MINUTE,
                2 => 10 * MINUTE,
                3 => 100 * MINUTE,
                _ => ARI_USUALLY,
            };
            retry_after.map_or(ours, |theirs| ours.max(theirs))
        }
    };
    asked + wait.clamp(MINUTE, 24 * HOUR)
}

/// How much the end of a certificate presses, for the log and for backing off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// At least a fifth of its life is left: nothing to say.
    Calm,
    /// Less than a fifth: renewal has been failing.
    Notice,
    /// Less than a tenth.
    Warning,
    /// Less than a twentieth.
    Alarm,
    /// Its life is over.
    Expired,
}

/// How much it presses at this moment.
pub fn urgency(life: Life, now: SystemTime) -> Urgency {
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

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Twice a day is the least that Let's Encrypt asks for, and 6 hours what it answers.
const ARI_USUALLY: Duration = Duration::from_secs(6 * 60 * 60);
/// Below this, a third of the life is too little time for a person to mend what is wrong.
const SHORT: Duration = Duration::from_secs(10 * 24 * 60 * 60);

#[cfg(test)]
mod tests;
