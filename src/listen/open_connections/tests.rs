use std::pin::pin;
use std::time::Duration;

use super::*;

/// A connection among others that never reach their limit.
pub(crate) fn connection() -> Arc<OpenConnection> {
    limited(1000).open().expect("below the limit").connection
}

fn limited(max: usize) -> Arc<OpenConnections> {
    OpenConnections::new(max, ConnectionClass::Unauthenticated)
}

/// Opens so many connections, a second apart.
async fn open(all: &Arc<OpenConnections>, count: usize) -> Vec<Arc<OpenConnection>> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(all.open().expect("below the limit").connection);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    open
}

fn is_evicted(connection: &OpenConnection, eviction: Eviction) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    connection.poll(eviction, &mut cx).is_ready()
}

/// Opens a busy connection and returns which of `candidates` is evicted for it.
fn evicted_of(all: &Arc<OpenConnections>, candidates: &[Arc<OpenConnection>]) -> Vec<usize> {
    let evicted = || {
        let all = candidates.iter().enumerate();
        all.filter(|(_, connection)| is_evicted(connection, Eviction::Close))
            .map(|(index, _)| index)
            .collect::<Vec<_>>()
    };
    let before = evicted();
    let opened = all.open().expect("one is evicted");
    opened.connection.begin_request();
    evicted()
        .into_iter()
        .filter(|index| !before.contains(index))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn unauthenticated_connections_are_evicted_first_and_busy_ones_never() {
    let all = limited(5);
    let open = open(&all, 5).await;
    open[0].begin_request();
    for index in [3, 1, 2] {
        open[index].begin_request();
        tokio::time::advance(Duration::from_secs(1)).await;
        open[index].end_request();
    }
    open[1].authenticate();
    open[3].authenticate();
    // The fifth has had no request at all.
    for expected in [4, 2, 3, 1] {
        assert_eq!(evicted_of(&all, &open), [expected]);
    }
    assert!(all.open().is_none());
    let counts = all.counts();
    assert_eq!(counts.open, 5);
    let [unauthenticated, authenticated] = ConnectionClass::ALL;
    assert_eq!(counts.evictions, [(unauthenticated, 2), (authenticated, 2)]);
    open[0].end_request();
    assert_eq!(evicted_of(&all, &open), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_a_connection_is_idle_or_closed() {
    type Change = fn(&Arc<OpenConnection>);
    let changes: [Change; 2] = [OpenConnection::end_request, |connection| connection.close()];
    for change in changes {
        let all = limited(1);
        let first = all.open().expect("the first").connection;
        first.begin_request();
        let mut next = pin!(all.open_when_possible(|| {}));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut cx).is_pending());
        change(&first);
        assert!(next.as_mut().poll(&mut cx).is_ready());
        assert_eq!(all.counts().open, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_evicted_connection_counts_while_it_answers_a_request_that_crossed() {
    let all = limited(2);
    let open = open(&all, 2).await;
    assert_eq!(evicted_of(&all, &open), [0]);
    assert_eq!(all.counts().open, 2);
    open[0].begin_request();
    assert_eq!(all.counts().open, 3);
    // Only one of two that would have to end can.
    assert!(all.open().is_none());
    assert!(is_evicted(&open[1], Eviction::Close));
    assert_eq!(all.counts().open, 2);
    open[0].end_request();
    assert!(all.open().is_some());
    open.iter().for_each(|connection| connection.close());
    assert_eq!(all.counts().open, 2);
}

#[tokio::test(start_paused = true)]
async fn few_evicted_connections_are_waited_for_and_none_remains_in_memory() {
    let all = limited(1);
    let open = open(&all, MIN_EVICTED + 3).await;
    let dropped = open.iter().filter(|one| is_evicted(one, Eviction::Drop));
    assert_eq!(dropped.count(), 2);
    assert!(is_evicted(&open[1], Eviction::Drop));
    open.iter().for_each(|connection| connection.close());
    // Streams of HTTP/2 may end a little later than their connection.
    open[0].begin_request();
    open[0].end_request();
    let table = all.table();
    assert!(table.order.is_empty() && table.evicted.is_empty() && table.open == 0);
}

#[tokio::test(start_paused = true)]
async fn an_eviction_costs_what_the_requests_before_it_have_paid_for() {
    let all = limited(1000);
    let open = open(&all, 1000).await;
    for connection in &open {
        connection.begin_request();
        connection.end_request();
    }
    // All places are outdated: the first eviction moves them.
    assert_eq!(evicted_of(&all, &open), [0]);
    // From then on the first is the one.
    let first = |all: &OpenConnections| all.table().order.first_key_value().map(|(key, _)| key.id);
    for expected in 1..10 {
        assert_eq!(first(&all), Some(expected as u64 + 1));
        assert_eq!(evicted_of(&all, &open), [expected]);
    }
}
