//! Bounds the log lines about refused logins, however many addresses are refused.

use std::sync::{Mutex, PoisonError};

use super::table::{MINUTE, Millis};

/// Whether a line is written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    No,
    Yes {
        /// The number of lines that were left out since the last one.
        left_out: u64,
    },
}

/// Admits the first lines of each minute and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogQuota(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    since: Millis,
    lines: u32,
    left_out: u64,
}

impl LogQuota {
    pub(super) fn admit(&self, now: Millis) -> Logged {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(count.since) >= MINUTE {
            count.since = now;
            count.lines = 0;
        }
        if count.lines >= MAX_LINES_PER_MINUTE {
            count.left_out += 1;
            return Logged::No;
        }
        count.lines += 1;
        Logged::Yes {
            left_out: std::mem::take(&mut count.left_out),
        }
    }
}

const MAX_LINES_PER_MINUTE: u32 = 100;
