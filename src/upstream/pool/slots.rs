//! Bounds the connections to one upstream. Whoever finds none left waits in line for the next that
//! ends or becomes idle.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The bound, and those who wait. `C`: a connection, which has its slot.
#[derive(Debug)]
pub(super) struct ConnectionSlots<C> {
    state: Mutex<SlotState<C>>,
    /// The length of the line, which every release of a connection reads.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct SlotState<C> {
    max: usize,
    open: usize,
    /// In the order of their arrival. Some may have given up.
    line: VecDeque<oneshot::Sender<Vacancy<C>>>,
}

/// What ends the waiting.
#[derive(Debug)]
pub(super) enum Vacancy<C> {
    /// A connection may be opened.
    Slot(ConnectionSlot<C>),
    /// An open connection that has become idle.
    Connection(C),
}

/// The right to one connection. Dropping it passes it on.
#[derive(Debug)]
pub(super) struct ConnectionSlot<C> {
    /// `None` once it is passed on.
    slots: Option<Arc<ConnectionSlots<C>>>,
}

/// There are as many connections as there may be, and as many requests in line.
#[derive(Debug)]
pub(super) struct LineFull;

impl<C> ConnectionSlots<C> {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(SlotState {
                max,
                open: 0,
                line: VecDeque::new(),
            }),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Changes the bound. Connections beyond a lower one end when others wait, or by themselves.
    pub(super) fn set_max(self: &Arc<Self>, max: usize) {
        self.state().max = max;
        // Each slot that is dropped goes to the next in line.
        while self.has_waiting()
            && let Some(slot) = self.take()
        {
            drop(slot);
        }
    }

    /// The right to a connection, if there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<ConnectionSlot<C>> {
        let mut state = self.state();
        if state.open >= state.max {
            return None;
        }
        state.open += 1;
        Some(self.slot())
    }

    /// Joins the line.
    pub(super) fn wait(&self) -> Result<oneshot::Receiver<Vacancy<C>>, LineFull> {
        let mut state = self.state();
        let max = state.max.max(MIN_LINE);
        if state.line.len() >= max {
            state.line.retain(|waiter| !waiter.is_closed());
        }
        if state.line.len() >= max {
            return Err(LineFull);
        }
        let (waiter, vacancy) = oneshot::channel();
        state.line.push_back(waiter);
        self.waiting.store(state.line.len(), Ordering::Relaxed);
        Ok(vacancy)
    }

    /// Whether anybody may be in line. Exact for those who joined it before a lock was taken that the
    /// caller holds now.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Gives a connection to the first in line; returns it if nobody is.
    pub(super) fn hand_over(&self, connection: C) -> Option<C> {
        if self.is_beyond() {
            // Its slot ends with it.
            return None;
        }
        let mut vacancy = Vacancy::Connection(connection);
        while let Some(waiter) = self.next_waiter() {
            match waiter.send(vacancy) {
                Ok(()) => return None,
                Err(unsent) => vacancy = unsent,
            }
        }
        match vacancy {
            Vacancy::Connection(connection) => Some(connection),
            Vacancy::Slot(_) => None,
        }
    }

    /// The open connections, and their bound.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.open, state.max)
    }

    fn is_beyond(&self) -> bool {
        let state = self.state();
        state.open > state.max
    }

    fn next_waiter(&self) -> Option<oneshot::Sender<Vacancy<C>>> {
        let mut state = self.state();
        let waiter = state.line.pop_front();
        self.waiting.store(state.line.len(), Ordering::Relaxed);
        waiter
    }

    /// The first in line, for a slot that has ended; `None` if the slot is given up.
    fn heir(&self) -> Option<oneshot::Sender<Vacancy<C>>> {
        let mut state = self.state();
        let waiter = if state.open > state.max {
            None
        } else {
            state.line.pop_front()
        };
        if waiter.is_none() {
            state.open -= 1;
        }
        self.waiting.store(state.line.len(), Ordering::Relaxed);
        waiter
    }

    fn slot(self: &Arc<Self>) -> ConnectionSlot<C> {
        ConnectionSlot {
            slots: Some(self.clone()),
        }
    }

    fn state(&self) -> MutexGuard<'_, SlotState<C>> {
        // Nothing under the lock panics, and no connection is dropped under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Drop for ConnectionSlot<C> {
    fn drop(&mut self) {
        let Some(slots) = self.slots.take() else {
            return;
        };
        while let Some(waiter) = slots.heir() {
            match waiter.send(Vacancy::Slot(slots.slot())) {
                Ok(()) => return,
                Err(Vacancy::Slot(mut unsent)) => unsent.slots = None,
                Err(Vacancy::Connection(_)) => {}
            }
        }
    }
}

/// As many requests as there may be connections wait, and at least so many.
const MIN_LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection with its slot.
    type Connection = ConnectionSlot<()>;

    fn slots(max: usize) -> Arc<ConnectionSlots<()>> {
        ConnectionSlots::new(max)
    }

    fn open(slots: &Arc<ConnectionSlots<()>>) -> usize {
        slots.counts().0
    }

    fn slot(vacancy: Result<Vacancy<()>, oneshot::error::TryRecvError>) -> Option<Connection> {
        match vacancy {
            Ok(Vacancy::Slot(slot)) => Some(slot),
            Ok(Vacancy::Connection(())) | Err(_) => None,
        }
    }

    #[test]
    fn slots_go_to_those_in_line_in_their_order() {
        let slots = slots(2);
        let (first, second) = (slots.take().expect("one"), slots.take().expect("two"));
        assert!(slots.take().is_none());
        let mut line: Vec<_> = (0..3).map(|_| slots.wait().expect("room")).collect();
        // One that has given up is passed over.
        drop(line.remove(0));
        drop(first);
        let third = slot(line[0].try_recv()).expect("the first in line");
        assert!(line[1].try_recv().is_err());
        // A slot that was passed on and never received goes on.
        drop(third);
        drop(line.remove(0));
        let fourth = slot(line[0].try_recv()).expect("the next in line");
        assert_eq!(open(&slots), 2);
        drop((second, fourth));
        assert_eq!(open(&slots), 0);
        assert!(!slots.has_waiting());
    }

    #[test]
    fn a_vacancy_that_is_not_received_in_time_goes_to_the_next() {
        let slots = slots(1);
        let only = slots.take().expect("one");
        let (late, mut next) = (slots.wait().expect("room"), slots.wait().expect("room"));
        drop(only);
        assert!(next.try_recv().is_err());
        drop(late);
        assert!(slot(next.try_recv()).is_some());
        assert_eq!(open(&slots), 0);
    }

    #[test]
    fn the_line_has_an_end_and_forgets_those_who_left() {
        let slots = slots(1);
        let _only = slots.take().expect("one");
        let line: Vec<_> = (0..MIN_LINE).map(|_| slots.wait().expect("room")).collect();
        assert!(slots.wait().is_err());
        drop(line);
        assert!(slots.wait().is_ok());
    }

    #[test]
    fn another_bound_takes_effect_at_once() {
        let slots = slots(1);
        let first = slots.take().expect("one");
        let mut waiting = slots.wait().expect("room");
        slots.set_max(2);
        let second = slot(waiting.try_recv()).expect("there are two now");
        slots.set_max(1);
        let mut waiting = slots.wait().expect("room");
        drop(second);
        assert!(waiting.try_recv().is_err(), "one was too many");
        drop(first);
        assert!(slot(waiting.try_recv()).is_some());
    }
}
