//! The order of the checks that wait, and which one a full queue drops.

use std::collections::{HashMap, VecDeque};

use tokio::sync::watch;

use super::super::credential_tag::{BuildTagHasher, CredentialTag};
use super::{Check, Full, Verdict};

/// Checks that wait or run.
#[derive(Default)]
pub(super) struct Queue {
    /// Checks of pairs that were right not long ago. They go first and without a bound, since only
    /// clients with the password get here: a flood of guesses does not delay regular users.
    trusted: VecDeque<Check>,
    /// All other checks, in the order of arrival, whether the user exists or not.
    untrusted: VecDeque<Check>,
    /// One sender for each check that waits or runs; its receivers are the clients that wait for
    /// the verdict.
    in_flight: InFlight,
    closed: bool,
}

type InFlight = HashMap<CredentialTag, watch::Sender<Option<Verdict>>, BuildTagHasher>;

impl Queue {
    /// An empty queue that hands out no checks any more.
    pub(super) fn closed() -> Self {
        Self {
            closed: true,
            ..Self::default()
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Subscribes to the same check if it waits or runs already.
    pub(super) fn join(&mut self, check: &Check) -> Option<watch::Receiver<Option<Verdict>>> {
        let flight = self.in_flight.get(&check.tag)?;
        // The check gets the better rank of the clients that wait for it.
        if let Some(waiting) = self
            .untrusted
            .iter_mut()
            .find(|waiting| waiting.tag == check.tag)
        {
            waiting.rank = waiting.rank.min(check.rank);
        }
        Some(flight.subscribe())
    }

    /// Appends a check of a pair that was right not long ago: it runs before all others.
    pub(super) fn push_trusted(&mut self, check: Check) -> watch::Receiver<Option<Verdict>> {
        let receiver = self.insert_in_flight(&check);
        self.trusted.push_back(check);
        receiver
    }

    /// Appends one of at most `bound` checks. Each further check of an address ranks behind the one
    /// before it, so that addresses are served alternately, however many connections each of them
    /// has. A full queue drops the check with the worst rank.
    ///
    /// Errors: [`Full`] if no other check ranks worse.
    pub(super) fn push_untrusted(
        &mut self,
        mut check: Check,
        bound: usize,
    ) -> Result<watch::Receiver<Option<Verdict>>, Full> {
        if self.untrusted.len() >= bound {
            let in_flight = &mut self.in_flight;
            self.untrusted.retain(|waiting| wanted(in_flight, waiting));
        }
        let own = |waiting: &&Check| waiting.attempt.address() == check.attempt.address();
        let before = self.untrusted.iter().filter(own).count();
        check.rank = check
            .rank
            .saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
        if self.untrusted.len() >= bound {
            // The last of those that rank the same: an equal check is not dropped.
            let last = self
                .untrusted
                .iter()
                .enumerate()
                .max_by_key(|(_, waiting)| waiting.rank);
            let (at, _) = last
                .filter(|(_, waiting)| waiting.rank > check.rank)
                .ok_or(Full)?;
            // Without a verdict its clients are asked to try again.
            if let Some(gone) = self.untrusted.remove(at) {
                self.in_flight.remove(&gone.tag);
            }
        }
        let receiver = self.insert_in_flight(&check);
        self.untrusted.push_back(check);
        Ok(receiver)
    }

    /// The next check that a client still waits for: a trusted one, or else the first of the
    /// untrusted ones with the best rank.
    pub(super) fn take(&mut self) -> Option<Check> {
        loop {
            let check = match self.trusted.pop_front() {
                Some(check) => check,
                None => {
                    let next = self
                        .untrusted
                        .iter()
                        .enumerate()
                        .min_by_key(|(_, waiting)| waiting.rank);
                    let at = next.map(|(at, _)| at)?;
                    self.untrusted.remove(at)?
                }
            };
            if wanted(&mut self.in_flight, &check) {
                return Some(check);
            }
        }
    }

    /// Ends a check. The verdict goes to the sender that this returns.
    pub(super) fn complete(&mut self, check: &Check) -> Option<watch::Sender<Option<Verdict>>> {
        self.in_flight.remove(&check.tag)
    }

    /// The number of checks that wait.
    pub(super) fn waiting(&self) -> usize {
        self.trusted.len() + self.untrusted.len()
    }

    /// The number of checks that wait or run.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn insert_in_flight(&mut self, check: &Check) -> watch::Receiver<Option<Verdict>> {
        let (sender, receiver) = watch::channel(None);
        self.in_flight.insert(check.tag, sender);
        receiver
    }
}

/// Whether a client still waits for this check. If not, it is no longer in flight.
fn wanted(in_flight: &mut InFlight, check: &Check) -> bool {
    let wanted = in_flight
        .get(&check.tag)
        .is_some_and(|flight| flight.receiver_count() > 0);
    if !wanted {
        in_flight.remove(&check.tag);
    }
    wanted
}
