//! Checks that wait: whose turn it is, and who has to give way.

use std::collections::{HashMap, VecDeque};

use tokio::sync::watch;

use super::super::cache::{BuildTagHasher, Tag};
use super::{Check, Full, Verdict};

/// Checks that wait or run.
#[derive(Default)]
pub(super) struct Line {
    /// Pairs that were right not long ago. They go first and are not counted, since nobody can be
    /// here without the password: a flood of strangers does not delay those who come every day.
    known: VecDeque<Check>,
    /// Everybody else, in the order in which they came. Not told apart by whether the user exists.
    strangers: VecDeque<Check>,
    /// One for each check that waits or runs; its receivers are the clients that still want to
    /// know.
    flights: Flights,
    closed: bool,
}

type Flights = HashMap<Tag, watch::Sender<Option<Verdict>>, BuildTagHasher>;

impl Line {
    /// Nobody stands in it, and nobody is taken from it any more.
    pub(super) fn closed() -> Self {
        Self {
            closed: true,
            ..Self::default()
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Waits for the same check with those who wait for it already, if there are any.
    pub(super) fn join(&mut self, check: &Check) -> Option<watch::Receiver<Option<Verdict>>> {
        let flight = self.flights.get(&check.tag)?;
        // It is as much the check of the one who has less behind him.
        if let Some(waiting) = self
            .strangers
            .iter_mut()
            .find(|waiting| waiting.tag == check.tag)
        {
            waiting.rank = waiting.rank.min(check.rank);
        }
        Some(flight.subscribe())
    }

    /// Stands behind those who were right not long ago, in front of all others.
    pub(super) fn push_known(&mut self, check: Check) -> watch::Receiver<Option<Verdict>> {
        let receiver = self.fly(&check);
        self.known.push_back(check);
        receiver
    }

    /// Stands in line as one of at most `bound`. Each check of an address that waits already ranks
    /// behind the one before it, so that addresses take turns, however many connections each of
    /// them has. In a full line, who ranks lower gives way.
    pub(super) fn push_stranger(
        &mut self,
        mut check: Check,
        bound: usize,
    ) -> Result<watch::Receiver<Option<Verdict>>, Full> {
        if self.strangers.len() >= bound {
            let flights = &mut self.flights;
            self.strangers.retain(|waiting| wanted(flights, waiting));
        }
        let own = |waiting: &&Check| waiting.attempt.address() == check.attempt.address();
        let before = self.strangers.iter().filter(own).count();
        check.rank = check
            .rank
            .saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
        if self.strangers.len() >= bound {
            // The last of those that rank the same: nobody is driven out by his equal.
            let last = self
                .strangers
                .iter()
                .enumerate()
                .max_by_key(|(_, waiting)| waiting.rank);
            let (at, _) = last
                .filter(|(_, waiting)| waiting.rank > check.rank)
                .ok_or(Full)?;
            // Its flight ends without a verdict: its clients are told to come back.
            if let Some(gone) = self.strangers.remove(at) {
                self.flights.remove(&gone.tag);
            }
        }
        let receiver = self.fly(&check);
        self.strangers.push_back(check);
        Ok(receiver)
    }

    /// The next check that somebody still waits for: of those who were right, else of the strangers
    /// with the least behind them the one that came first.
    pub(super) fn take(&mut self) -> Option<Check> {
        loop {
            let check = match self.known.pop_front() {
                Some(check) => check,
                None => {
                    let next = self
                        .strangers
                        .iter()
                        .enumerate()
                        .min_by_key(|(_, waiting)| waiting.rank);
                    let at = next.map(|(at, _)| at)?;
                    self.strangers.remove(at)?
                }
            };
            if wanted(&mut self.flights, &check) {
                return Some(check);
            }
        }
    }

    /// Ends a check: what came of it is for the receivers of this.
    pub(super) fn land(&mut self, check: &Check) -> Option<watch::Sender<Option<Verdict>>> {
        self.flights.remove(&check.tag)
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.known.len() + self.strangers.len()
    }

    /// How many wait or run.
    #[cfg(test)]
    pub(super) fn flights(&self) -> usize {
        self.flights.len()
    }

    fn fly(&mut self, check: &Check) -> watch::Receiver<Option<Verdict>> {
        let (sender, receiver) = watch::channel(None);
        self.flights.insert(check.tag, sender);
        receiver
    }
}

/// Whether a client still waits for this check. If not, its flight ends here.
fn wanted(flights: &mut Flights, check: &Check) -> bool {
    let wanted = flights
        .get(&check.tag)
        .is_some_and(|flight| flight.receiver_count() > 0);
    if !wanted {
        flights.remove(&check.tag);
    }
    wanted
}
