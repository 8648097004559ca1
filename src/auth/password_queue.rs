//! The queue in front of bcrypt: one check per password at a time, on a few threads, with a bound on
//! the checks that wait.
//!
//! It has threads of its own instead of the runtime's blocking pool: a thread cannot lower its nice
//! value again, and one lock makes the queue measurable and bounded.

mod order;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::credential_tag::CredentialTag;
use super::lockout::{Admission, Lockout, LoginAttempt};
use super::password_cache::{CacheState, PasswordCache};
use super::{BcryptHash, BcryptKey, Cost};
use crate::config::snapshot::FailureBudgets;
use order::Queue;

/// A password to be checked. It is wiped when the check ends or is dropped.
pub(super) struct Check {
    pub(super) tag: CredentialTag,
    pub(super) key: BcryptKey,
    pub(super) hash: BcryptHash,
    /// The cost at which every wrong password of the file is checked.
    pub(super) highest: Cost,
    pub(super) requested_at: Instant,
    /// The client and user whose failure budgets it counts for.
    pub(super) attempt: LoginAttempt,
    pub(super) budgets: FailureBudgets,
    /// Failures that still count plus checks of the same address before it. The lowest rank runs
    /// first.
    pub(super) rank: u32,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// It was not checked: checks before it in the queue used up the failure budget.
    Refused,
}

/// The result of [`PasswordQueue::enter`].
#[derive(Debug)]
pub(super) enum Ticket {
    /// The same pair was verified in the meantime.
    Verified,
    /// Receives the verdict; closed without one if the check failed.
    Waiting(watch::Receiver<Option<Verdict>>),
    /// Receives the verdict of a check that another request entered. The verdict is counted for that
    /// request only.
    Joined(watch::Receiver<Option<Verdict>>),
}

/// Too many checks wait.
#[derive(Debug)]
pub(super) struct Full;

/// Checks that wait or run, and the cache and failure budgets that their verdicts update.
pub(super) struct PasswordQueue {
    pub(super) cache: PasswordCache,
    pub(super) lockout: Lockout,
    queue: Mutex<Queue>,
    arrived: Condvar,
    bound: AtomicUsize,
    hashed: AtomicU64,
}

impl PasswordQueue {
    /// A queue in which at most `bound` checks wait, besides those of known pairs.
    pub(super) fn new(cache: PasswordCache, lockout: Lockout, bound: usize) -> Self {
        Self {
            cache,
            lockout,
            queue: Mutex::default(),
            arrived: Condvar::new(),
            bound: AtomicUsize::new(bound),
            hashed: AtomicU64::new(0),
        }
    }

    /// Joins the check of the same password that waits or runs, or appends this one.
    pub(super) fn enter(&self, check: Check) -> Result<Ticket, Full> {
        let mut queue = self.queue();
        if let Some(flight) = queue.join(&check) {
            return Ok(Ticket::Joined(flight));
        }
        // Under the lock: a right password is cached before its check leaves the queue, so that a
        // caller that finds no check finds its result.
        let flight = match self.cache.get(&check.tag, check.requested_at) {
            CacheState::Fresh => return Ok(Ticket::Verified),
            CacheState::Stale => queue.push_trusted(check),
            CacheState::Miss => queue.push_untrusted(check, self.bound())?,
        };
        drop(queue);
        self.arrived.notify_one();
        Ok(Ticket::Waiting(flight))
    }

    /// Checks passwords until the queue is closed. Each thread runs this.
    pub(super) fn work(&self, verify: impl Fn(&Check) -> Verdict) {
        while let Some(check) = self.next() {
            self.run(&check, &verify);
        }
    }

    /// The next check that a client still waits for; `None` when the queue is closed. Blocks.
    pub(super) fn next(&self) -> Option<Check> {
        let mut queue = self.queue();
        while !queue.is_closed() {
            if let Some(check) = queue.take() {
                return Some(check);
            }
            queue = self
                .arrived
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Checks one password, counts the verdict, and sends it to all clients that wait for it.
    pub(super) fn run(&self, check: &Check, verify: impl Fn(&Check) -> Verdict) {
        let verdict = if self.is_used_up(check) {
            Some(Verdict::Refused)
        } else {
            self.verdict(check, verify)
        };
        let flight = self.queue().complete(check);
        if let Some(flight) = flight {
            // After a panic the verdict is `None`, and dropping the sender ends the wait.
            flight.send_replace(verdict);
        }
    }

    fn verdict(&self, check: &Check, verify: impl Fn(&Check) -> Verdict) -> Option<Verdict> {
        // A panic of one check must not end the thread.
        let verdict = catch_unwind(AssertUnwindSafe(|| verify(check))).ok();
        self.hashed.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Some(Verdict::Right) => {
                self.cache.insert(check.tag, check.requested_at);
                self.lockout.succeeded(&check.attempt, check.requested_at);
            }
            // Not cached: clients without credentials could evict right passwords with wrong ones.
            // Counted here and not by the request, which a client can cancel.
            Some(Verdict::Wrong) => {
                self.lockout
                    .failed(&check.attempt, &check.budgets, check.requested_at)
            }
            Some(Verdict::Refused) => {}
            None => tracing::error!("password check panicked, this is a bug in moorgate"),
        }
        verdict
    }

    /// Whether other checks of the same address or user have used up the failure budget while this
    /// one waited. A pair that was right not long ago needs none.
    fn is_used_up(&self, check: &Check) -> bool {
        self.cache.get(&check.tag, check.requested_at) == CacheState::Miss
            && matches!(
                self.lockout
                    .evaluate(&check.attempt, &check.budgets, check.requested_at),
                Admission::Refused(_)
            )
    }

    /// Ends the threads and drops the checks that wait.
    pub(super) fn close(&self) {
        *self.queue() = Queue::closed();
        self.arrived.notify_all();
    }

    /// The number of checks that ran since the start.
    pub(super) fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// The number of checks that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue().waiting()
    }

    /// The maximum number of checks that wait.
    pub(super) fn bound(&self) -> usize {
        self.bound.load(Ordering::Relaxed)
    }

    /// Changes it. Checks that wait already go on waiting.
    pub(super) fn set_bound(&self, bound: usize) {
        self.bound.store(bound, Ordering::Relaxed);
    }

    /// Nothing under the lock panics.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
