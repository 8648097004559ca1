//! The gate before bcrypt: one check per password at a time, few at once, few waiting.
//!
//! Threads of its own instead of the runtime's blocking pool, for two reasons: a nice value is a
//! property of a thread and cannot be taken back, and the line before them can be seen, bounded and
//! tidied under one lock.

mod line;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::cache::{CacheState, CredentialTag, PasswordCache};
use super::lockout::{Admission, Lockout, LoginAttempt};
use super::{BcryptHash, BcryptKey, Cost};
use crate::config::snapshot::FailureBudgets;
use line::Queue;

/// A password to be checked. It is wiped when the check is done or given up.
pub(super) struct Check {
    pub(super) tag: CredentialTag,
    pub(super) key: BcryptKey,
    pub(super) hash: BcryptHash,
    /// What it costs to find the password wrong.
    pub(super) highest: Cost,
    pub(super) requested_at: Instant,
    /// Who shows it, as the budgets know it.
    pub(super) attempt: LoginAttempt,
    pub(super) budgets: FailureBudgets,
    /// What is against it: failures that still count, and checks in line before it. The least goes
    /// first.
    pub(super) rank: u32,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// It was not looked at: its budget was used up by those before it in line.
    Refused,
}

/// What somebody gets who brings a check.
#[derive(Debug)]
pub(super) enum Ticket {
    /// It was verified in the meantime.
    Verified,
    /// The verdict will be here, or the sender will be gone if the check broke off.
    Waiting(watch::Receiver<Option<Verdict>>),
    /// The same, of a check that somebody else brought. What comes of it is counted for that one
    /// only.
    Joined(watch::Receiver<Option<Verdict>>),
}

/// Too many are waiting.
#[derive(Debug)]
pub(super) struct Full;

/// Checks that wait, checks that run, and what came of them.
pub(super) struct PasswordQueue {
    pub(super) cache: PasswordCache,
    pub(super) lockout: Lockout,
    line: Mutex<Queue>,
    arrived: Condvar,
    bound: usize,
    hashed: AtomicU64,
}

impl PasswordQueue {
    /// At most `bound` checks wait, besides those of known pairs.
    pub(super) fn new(cache: PasswordCache, lockout: Lockout, bound: usize) -> Self {
        let (line, arrived, hashed) = (Mutex::default(), Condvar::new(), AtomicU64::new(0));
        Self {
            cache,
            lockout,
            line,
            arrived,
            bound,
            hashed,
        }
    }

    /// Joins the check of the same password that waits or runs, or stands in line with this one.
    pub(super) fn enter(&self, check: Check) -> Result<Ticket, Full> {
        let mut line = self.line();
        if let Some(flight) = line.join(&check) {
            return Ok(Ticket::Joined(flight));
        }
        // Under the lock, because a check that was right is remembered before its flight ends:
        // whoever sees no flight sees what it found.
        let flight = match self.cache.get(&check.tag, check.requested_at) {
            CacheState::Fresh => return Ok(Ticket::Verified),
            CacheState::Stale => line.push_trusted(check),
            CacheState::Miss => line.push_untrusted(check, self.bound)?,
        };
        drop(line);
        self.arrived.notify_one();
        Ok(Ticket::Waiting(flight))
    }

    /// Checks passwords until the gate is closed: what each of its threads does.
    pub(super) fn work(&self, verify: impl Fn(&Check) -> Verdict) {
        while let Some(check) = self.next() {
            self.run(&check, &verify);
        }
    }

    /// The next check that somebody still waits for; `None` when the gate is closed.
    pub(super) fn next(&self) -> Option<Check> {
        let mut line = self.line();
        while !line.is_closed() {
            if let Some(check) = line.take() {
                return Some(check);
            }
            line = self
                .arrived
                .wait(line)
                .unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Checks one password, counts what came of it, and tells everybody who waits for it.
    pub(super) fn run(&self, check: &Check, verify: impl Fn(&Check) -> Verdict) {
        let verdict = if self.is_used_up(check) {
            Some(Verdict::Refused)
        } else {
            self.verdict(check, verify)
        };
        let flight = self.line().complete(check);
        if let Some(flight) = flight {
            // After a panic: `None`, and the sender goes, which tells the clients.
            flight.send_replace(verdict);
        }
    }

    fn verdict(&self, check: &Check, verify: impl Fn(&Check) -> Verdict) -> Option<Verdict> {
        // One that panics must not take the thread with it.
        let verdict = catch_unwind(AssertUnwindSafe(|| verify(check))).ok();
        self.hashed.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Some(Verdict::Right) => {
                self.cache.insert(check.tag, check.requested_at);
                self.lockout.succeeded(&check.attempt, check.requested_at);
            }
            // Not remembered here: strangers could fill the memory with wrong passwords, and drive
            // out right ones. Here and not by the client, which may have gone to escape it.
            Some(Verdict::Wrong) => {
                self.lockout
                    .failed(&check.attempt, &check.budgets, check.requested_at)
            }
            Some(Verdict::Refused) => {}
            None => tracing::error!("a password check broke off: this is a bug in moorgate"),
        }
        verdict
    }

    /// Whether others of the same address or user have used up the budget while this one stood in
    /// line. A pair that was right not long ago needs none.
    fn is_used_up(&self, check: &Check) -> bool {
        self.cache.get(&check.tag, check.requested_at) == CacheState::Miss
            && matches!(
                self.lockout
                    .evaluate(&check.attempt, &check.budgets, check.requested_at),
                Admission::Refused(_)
            )
    }

    /// Lets the threads end and turns away whoever waits.
    pub(super) fn close(&self) {
        *self.line() = Queue::closed();
        self.arrived.notify_all();
    }

    /// Checks done since the start.
    pub(super) fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// Checks in line.
    pub(super) fn waiting(&self) -> usize {
        self.line().waiting()
    }

    /// Nothing under the lock panics, so a poisoned one is as good as another.
    fn line(&self) -> MutexGuard<'_, Queue> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
