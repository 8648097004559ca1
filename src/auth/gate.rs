//! The gate before bcrypt: one check per password at a time, few at once, few waiting.
//!
//! Threads of its own instead of the runtime's blocking pool, for two reasons: a nice value is a property of a
//! thread and cannot be taken back, and the line before them can be seen, bounded and tidied under one lock.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::cache::{BuildTagHasher, Memory, Remembered, Tag};
use super::{BcryptHash, BcryptKey, Cost};

/// A password to be checked. It is wiped when the check is done or given up.
pub(super) struct Check {
    pub(super) tag: Tag,
    pub(super) key: BcryptKey,
    pub(super) hash: BcryptHash,
    /// What it costs to find the password wrong.
    pub(super) highest: Cost,
    pub(super) asked: Instant,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
}

/// What somebody gets who brings a check.
#[derive(Debug)]
pub(super) enum Ticket {
    /// It was verified in the meantime.
    Remembered,
    /// The verdict will be here, or the sender will be gone if the check broke off.
    Waiting(watch::Receiver<Option<Verdict>>),
}

/// Too many are waiting.
#[derive(Debug)]
pub(super) struct Full;

/// Checks that wait, checks that run, and what came of them.
pub(super) struct Gate {
    pub(super) remembered: Remembered,
    line: Mutex<Line>,
    arrived: Condvar,
    bound: usize,
    hashed: AtomicU64,
}

#[derive(Default)]
struct Line {
    /// Pairs that were right not long ago. They go first and are not counted, since nobody can be here without
    /// the password: a flood of strangers does not delay those who come every day.
    known: VecDeque<Check>,
    /// Everybody else, first come, first served. Not told apart by whether the user exists.
    strangers: VecDeque<Check>,
    /// One for each check that waits or runs; its receivers are the clients that still want to know.
    flights: Flights,
    closed: bool,
}

type Flights = HashMap<Tag, watch::Sender<Option<Verdict>>, BuildTagHasher>;

impl Gate {
    /// At most `bound` checks wait, besides those of known pairs.
    pub(super) fn new(remembered: Remembered, bound: usize) -> Self {
        Self { remembered, line: Mutex::default(), arrived: Condvar::new(), bound, hashed: AtomicU64::new(0) }
    }

    /// Joins the check of the same password that waits or runs, or stands in line with this one.
    pub(super) fn enter(&self, check: Check) -> Result<Ticket, Full> {
        let mut guard = self.line();
        let line = &mut *guard;
        if let Some(flight) = line.flights.get(&check.tag) {
            return Ok(Ticket::Waiting(flight.subscribe()));
        }
        // Under the lock, because a check that was right is remembered before its flight ends: whoever
        // sees no flight sees what it found.
        let waiting = match self.remembered.look(&check.tag, check.asked) {
            Memory::Fresh => return Ok(Ticket::Remembered),
            Memory::Stale => &mut line.known,
            Memory::Nothing => {
                if line.strangers.len() >= self.bound {
                    line.strangers.retain(|waiting| wanted(&mut line.flights, waiting));
                }
                if line.strangers.len() >= self.bound {
                    return Err(Full);
                }
                &mut line.strangers
            }
        };
        let (sender, receiver) = watch::channel(None);
        line.flights.insert(check.tag, sender);
        waiting.push_back(check);
        drop(guard);
        self.arrived.notify_one();
        Ok(Ticket::Waiting(receiver))
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
        while !line.closed {
            if let Some(check) = line.take() {
                return Some(check);
            }
            line = self.arrived.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Checks one password, and tells everybody who waits for it.
    pub(super) fn run(&self, check: &Check, verify: impl Fn(&Check) -> Verdict) {
        // One that panics must not take the thread with it.
        let verdict = catch_unwind(AssertUnwindSafe(|| verify(check))).ok();
        self.hashed.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Some(Verdict::Right) => self.remembered.insert(check.tag, check.asked),
            // Not remembered: strangers could fill the memory with wrong passwords, and drive out right ones.
            Some(Verdict::Wrong) => {}
            None => tracing::error!("a password check broke off: this is a bug in moorgate"),
        }
        let flight = self.line().flights.remove(&check.tag);
        if let Some(flight) = flight {
            // After a panic: `None`, and the sender goes, which tells the clients.
            flight.send_replace(verdict);
        }
    }

    /// Lets the threads end and turns away whoever waits.
    pub(super) fn close(&self) {
        *self.line() = Line { closed: true, ..Line::default() };
        self.arrived.notify_all();
    }

    /// Checks done since the start.
    pub(super) fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// Checks in line.
    pub(super) fn waiting(&self) -> usize {
        let line = self.line();
        line.known.len() + line.strangers.len()
    }

    /// Nothing under the lock panics, so a poisoned one is as good as another.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// The next check that somebody still waits for.
    fn take(&mut self) -> Option<Check> {
        loop {
            let check = self.known.pop_front().or_else(|| self.strangers.pop_front())?;
            if wanted(&mut self.flights, &check) {
                return Some(check);
            }
        }
    }
}

/// Whether a client still waits for this check. If not, its flight ends here.
fn wanted(flights: &mut Flights, check: &Check) -> bool {
    let wanted = flights.get(&check.tag).is_some_and(|flight| flight.receiver_count() > 0);
    if !wanted {
        flights.remove(&check.tag);
    }
    wanted
}

#[cfg(test)]
mod tests;
