//! The open connections of the process, and which of them is closed for a new one when there are as
//! many as there may be: unauthenticated ones before others, and of these the one that has been idle
//! for the longest time. A connection with an open request is never closed for another.

// No request takes a lock of the process: it changes the state of its connection only. The place of
// the connection in the order is then outdated, and always too early. An eviction moves what it
// finds at an outdated place, so that the costs are those of one insertion for each request. It
// leaves out connections with an open request, which return to the order when it ends.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::time::Instant;

/// The open connections, and their limit.
#[derive(Debug)]
pub(crate) struct OpenConnections {
    /// The class of a connection without a login.
    initial: ConnectionClass,
    table: Mutex<ConnectionTable>,
    /// A connection has ended, or can be evicted now.
    changed: Notify,
}

#[derive(Debug, Default)]
struct ConnectionTable {
    max: usize,
    /// The connections that count: all but the evicted ones.
    open: usize,
    opened: u64,
    /// Those that can be evicted, in this order, each at its place or before it.
    order: BTreeMap<EvictionKey, Arc<OpenConnection>>,
    /// Those that have been evicted and are not closed yet, in the order of their eviction.
    evicted: BTreeMap<u64, Arc<OpenConnection>>,
    evictions: [u64; ConnectionClass::ALL.len()],
}

/// What a connection has shown of its client. The first class is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConnectionClass {
    /// No request had a valid login.
    Unauthenticated,
    /// A request had one, or the client is trusted.
    Authenticated,
}

impl ConnectionClass {
    pub(crate) const ALL: [Self; 2] = [Self::Unauthenticated, Self::Authenticated];

    /// The value of a label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Authenticated => "authenticated",
        }
    }
}

/// The place of a connection in the order of evictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EvictionKey {
    class: ConnectionClass,
    idle_since: Instant,
    id: u64,
}

/// An open connection, as far as its eviction needs it.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    id: u64,
    all: Arc<OpenConnections>,
    state: Mutex<OpenState>,
}

#[derive(Debug)]
struct OpenState {
    class: ConnectionClass,
    /// Open requests. One that has been answered is not open any more, even if the client does not
    /// read the answer.
    requests: u32,
    /// When the last of them ended.
    idle_since: Instant,
    listing: Listing,
    eviction: Eviction,
    /// The task that serves the connection.
    waker: Option<Waker>,
}

/// Where the table has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    InOrder(EvictionKey),
    /// Not in the order, because a request was open when an eviction came to it.
    LeftOut,
    /// Among the evicted ones, under this number.
    Evicted(u64),
    Removed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Eviction {
    None,
    /// The connection is to end as an idle one does.
    Close,
    /// Its end took too long, and is not waited for.
    Drop,
}

/// A new connection, and the class of the last one that was evicted for it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Arc<OpenConnection>,
    pub(super) evicted: Option<ConnectionClass>,
}

/// The connections at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionCounts {
    /// Those that count.
    pub(crate) open: usize,
    pub(crate) max: usize,
    /// Evictions since the start, by class.
    pub(crate) evictions: [(ConnectionClass, u64); ConnectionClass::ALL.len()],
}

impl OpenConnections {
    /// At most `max` connections that count. The class of each is `initial` until it has a login.
    pub(super) fn new(max: usize, initial: ConnectionClass) -> Arc<Self> {
        Arc::new(Self {
            initial,
            table: Mutex::new(ConnectionTable {
                max,
                ..ConnectionTable::default()
            }),
            changed: Notify::new(),
        })
    }

    /// Changes the limit. At a lower one, idle connections are evicted; those with open requests stay
    /// until these end.
    pub(super) fn set_max(&self, max: usize) {
        let mut wakers = Vec::new();
        let mut table = self.table();
        table.max = max;
        while table.open > max && table.evict(&mut wakers).is_some() {}
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
    }

    /// Opens a connection, for which another one may be evicted; `None` if requests are open on all
    /// of them.
    pub(super) fn open(self: &Arc<Self>) -> Option<Opened> {
        let mut wakers = Vec::new();
        let opened = self.open_in(&mut self.table(), &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        opened
    }

    fn open_in(
        self: &Arc<Self>,
        table: &mut ConnectionTable,
        wakers: &mut Vec<Waker>,
    ) -> Option<Opened> {
        let mut evicted = None;
        while table.open >= table.max {
            evicted = Some(table.evict(wakers)?);
        }
        table.open += 1;
        table.opened += 1;
        let key = EvictionKey {
            class: self.initial,
            idle_since: Instant::now(),
            id: table.opened,
        };
        let connection = Arc::new(OpenConnection::new(self.clone(), key));
        table.order.insert(key, connection.clone());
        Some(Opened {
            connection,
            evicted,
        })
    }

    /// Waits until [`OpenConnections::open`] succeeds. Runs `blocked` whenever it does not.
    ///
    /// Cancel-safe.
    pub(super) async fn open_when_possible(self: &Arc<Self>, blocked: impl Fn()) -> Opened {
        loop {
            // Before the attempt: a change in between is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(opened) = self.open() {
                return opened;
            }
            blocked();
            changed.await;
        }
    }

    pub(super) fn counts(&self) -> ConnectionCounts {
        let table = self.table();
        let evictions = ConnectionClass::ALL.into_iter().zip(table.evictions);
        let mut counts = ConnectionCounts {
            open: table.open,
            max: table.max,
            evictions: ConnectionClass::ALL.map(|class| (class, 0)),
        };
        for (slot, eviction) in counts.evictions.iter_mut().zip(evictions) {
            *slot = eviction;
        }
        counts
    }

    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        // Nothing under the lock panics.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionTable {
    /// Evicts the first connection of the order that has no open request.
    fn evict(&mut self, wakers: &mut Vec<Waker>) -> Option<ConnectionClass> {
        let max_evicted = (self.max / 8).max(MIN_EVICTED);
        while let Some((key, connection)) = self.order.pop_first() {
            let mut state = connection.state();
            if state.requests > 0 {
                state.listing = Listing::LeftOut;
                continue;
            }
            let current = state.key(connection.id);
            if current != key {
                state.listing = Listing::InOrder(current);
                drop(state);
                self.order.insert(current, connection);
                continue;
            }
            let number = self.evictions.iter().sum();
            state.listing = Listing::Evicted(number);
            wakers.extend(state.evict(Eviction::Close));
            drop(state);
            self.open -= 1;
            if let Some(count) = self.evictions.get_mut(key.class as usize) {
                *count += 1;
            }
            self.evicted.insert(number, connection);
            if self.evicted.len() > max_evicted
                && let Some((_, first)) = self.evicted.pop_first()
            {
                let mut state = first.state();
                state.listing = Listing::Removed;
                wakers.extend(state.evict(Eviction::Drop));
            }
            return Some(key.class);
        }
        None
    }
}

impl OpenState {
    fn key(&self, id: u64) -> EvictionKey {
        EvictionKey {
            class: self.class,
            idle_since: self.idle_since,
            id,
        }
    }

    /// Returns the task that is to be woken.
    fn evict(&mut self, eviction: Eviction) -> Option<Waker> {
        self.eviction = self.eviction.max(eviction);
        self.waker.take()
    }
}

impl OpenConnection {
    fn new(all: Arc<OpenConnections>, key: EvictionKey) -> Self {
        let EvictionKey {
            class,
            idle_since,
            id,
        } = key;
        let state = OpenState {
            class,
            requests: 0,
            idle_since,
            listing: Listing::InOrder(key),
            eviction: Eviction::None,
            waker: None,
        };
        Self {
            id,
            all,
            state: Mutex::new(state),
        }
    }

    /// A request is open.
    pub(crate) fn begin_request(&self) {
        let mut state = self.state();
        state.requests += 1;
        if matches!(state.listing, Listing::Evicted(_)) {
            drop(state);
            self.count_again();
        }
    }

    /// A request that crossed the eviction on its way is answered: until then the connection counts.
    fn count_again(&self) {
        let mut table = self.all.table();
        let mut state = self.state();
        if let Listing::Evicted(number) = state.listing {
            state.listing = Listing::LeftOut;
            table.evicted.remove(&number);
            table.open += 1;
        }
    }

    /// A request has been answered, or its client has gone.
    pub(crate) fn end_request(self: &Arc<Self>) {
        let mut state = self.state();
        state.requests = state.requests.saturating_sub(1);
        if state.requests == 0 {
            state.idle_since = Instant::now();
            if state.listing == Listing::LeftOut {
                drop(state);
                self.return_to_order();
            }
        }
    }

    fn return_to_order(self: &Arc<Self>) {
        let mut table = self.all.table();
        let mut state = self.state();
        if state.requests == 0 && state.listing == Listing::LeftOut {
            let key = state.key(self.id);
            state.listing = Listing::InOrder(key);
            table.order.insert(key, self.clone());
            drop(state);
            drop(table);
            self.all.changed.notify_one();
        }
    }

    /// A request had a valid login, or the client is trusted.
    pub(crate) fn authenticate(&self) {
        self.state().class = ConnectionClass::Authenticated;
    }

    /// When the last request ended.
    pub(crate) fn idle_since(&self) -> Instant {
        self.state().idle_since
    }

    pub(crate) fn class(&self) -> ConnectionClass {
        self.state().class
    }

    /// Ready when the connection is to end for another one. Call it and
    /// [`OpenConnection::poll_dropped`] from one task.
    pub(crate) fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(Eviction::Close, cx)
    }

    /// Waits for [`OpenConnection::poll_evicted`]. Cancel-safe.
    pub(crate) async fn evicted(&self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }

    /// Ready when the end of the connection is not waited for any more.
    pub(super) fn poll_dropped(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(Eviction::Drop, cx)
    }

    fn poll(&self, eviction: Eviction, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.eviction >= eviction {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The connection has ended.
    pub(super) fn close(&self) {
        let mut table = self.all.table();
        let mut state = self.state();
        let listing = std::mem::replace(&mut state.listing, Listing::Removed);
        drop(state);
        match listing {
            Listing::InOrder(key) => {
                table.order.remove(&key);
                table.open -= 1;
            }
            Listing::LeftOut => table.open -= 1,
            Listing::Evicted(number) => {
                table.evicted.remove(&number);
            }
            Listing::Removed => {}
        }
        drop(table);
        self.all.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, OpenState> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many evicted connections may still be closing, at least. Usually an eighth of the limit: while
/// a thousand connections a second are evicted, each has a second to read what is under way.
const MIN_EVICTED: usize = 64;

#[cfg(test)]
pub(crate) mod tests;
