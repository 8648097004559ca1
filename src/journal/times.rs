//! The times of a use as they are counted and stored: whole seconds since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The last push and pull of a tag or a manifest. The later time of each counts, whoever saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UseTimes {
    /// 0: never.
    pub(super) pushed: u32,
    /// 0: never.
    pub(super) pulled: u32,
}

impl UseTimes {
    pub(super) fn pulled(at: u32) -> Self {
        Self {
            pushed: 0,
            pulled: at,
        }
    }

    pub(super) fn pushed(at: u32) -> Self {
        Self {
            pushed: at,
            pulled: 0,
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.pushed = self.pushed.max(other.pushed);
        self.pulled = self.pulled.max(other.pulled);
    }

    /// A time in the future, of a clock that was wrong, counts as `now`.
    pub(super) fn until(self, now: u32) -> Self {
        Self {
            pushed: self.pushed.min(now),
            pulled: self.pulled.min(now),
        }
    }

    pub(super) fn latest(self) -> u32 {
        self.pushed.max(self.pulled)
    }
}

/// Now, in whole seconds since 1970.
pub(super) fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u32::try_from(now.as_secs()).unwrap_or(u32::MAX))
}

/// `None` for 0, which stands for never.
pub(super) fn timestamp(seconds: u32) -> Option<Timestamp> {
    (seconds > 0)
        .then(|| Timestamp::from_second(i64::from(seconds)).ok())
        .flatten()
}
