//! What each client address has of the connections: how many are open, and how fast new ones come.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// The bounds of each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientBounds {
    /// Open connections.
    pub(super) connections: usize,
    /// New connections per second, in the long run.
    pub(super) rate: u32,
}

/// The clients with open connections, and those whose last connections are counted yet.
#[derive(Debug)]
pub(super) struct ClientTable {
    bounds: ClientBounds,
    /// By [`client_network`](crate::config::network::client_network).
    clients: HashMap<IpAddr, Client>,
    /// The number of clients at which those that need not be remembered are removed.
    cleanup_at: usize,
    refused: RefusedConnections,
}

#[derive(Debug)]
struct Client {
    open: usize,
    /// When its new connections would have come, had they come at the rate: the bucket of
    /// [`BURST`] is full again then (the generic cell rate algorithm, ITU-T I.371).
    settled: Instant,
}

/// Connections that were refused since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RefusedConnections {
    pub(crate) too_many: u64,
    pub(crate) too_fast: u64,
}

/// Why a client gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientExcess {
    TooMany,
    TooFast,
}

impl ClientTable {
    pub(super) fn new(bounds: ClientBounds) -> Self {
        Self {
            bounds,
            clients: HashMap::new(),
            cleanup_at: MIN_CLEANUP,
            refused: RefusedConnections::default(),
        }
    }

    pub(super) fn bounds(&self) -> ClientBounds {
        self.bounds
    }

    /// Changes the bounds. Open connections stay, and as many new ones count as before.
    pub(super) fn set_bounds(&mut self, bounds: ClientBounds, now: Instant) {
        let slower = f64::from(self.bounds.rate.max(1)) / f64::from(bounds.rate.max(1));
        for client in self.clients.values_mut() {
            let unsettled = client.settled.saturating_duration_since(now);
            client.settled = now + unsettled.mul_f64(slower).min(BURST);
        }
        self.bounds = bounds;
    }

    /// Counts a new connection.
    pub(super) fn open(&mut self, network: IpAddr, now: Instant) -> Result<(), ClientExcess> {
        if self.clients.len() >= self.cleanup_at {
            self.clients
                .retain(|_, client| client.open > 0 || client.settled > now);
            self.cleanup_at = (2 * self.clients.len()).max(MIN_CLEANUP);
        }
        let client = self.clients.entry(network).or_insert(Client {
            open: 0,
            settled: now,
        });
        if client.open >= self.bounds.connections {
            self.refused.too_many += 1;
            return Err(ClientExcess::TooMany);
        }
        let settled = client.settled.max(now) + Duration::from_secs(1) / self.bounds.rate.max(1);
        if settled > now + BURST {
            self.refused.too_fast += 1;
            return Err(ClientExcess::TooFast);
        }
        client.settled = settled;
        client.open += 1;
        Ok(())
    }

    /// A connection has ended.
    pub(super) fn close(&mut self, network: IpAddr, now: Instant) {
        let remembered = self.clients.len() <= MAX_REMEMBERED;
        if let Some(client) = self.clients.get_mut(&network) {
            client.open -= 1;
            if client.open == 0 && (client.settled <= now || !remembered) {
                self.clients.remove(&network);
            }
        }
    }

    /// The most connections that one client has.
    pub(super) fn most(&self) -> usize {
        let open = self.clients.values().map(|client| client.open);
        open.max().unwrap_or_default()
    }

    /// The most new connections of one client that count now, and how many may.
    pub(super) fn most_recent(&self, now: Instant) -> (usize, usize) {
        let rate = u128::from(self.bounds.rate);
        let settled = self.clients.values().map(|client| client.settled).max();
        let unsettled = settled.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let connections = |time: Duration| {
            let thousands = time.as_millis().saturating_mul(rate);
            usize::try_from(thousands.saturating_add(500) / 1000).unwrap_or(usize::MAX)
        };
        (connections(unsettled), connections(BURST))
    }

    pub(super) fn refused(&self) -> RefusedConnections {
        self.refused
    }
}

/// A client that has opened none for so long may open as many at once as in this time at its rate.
pub(super) const BURST: Duration = Duration::from_secs(10);
/// Clients without connections whose last ones still count, at most: 2 MiB. An entry is remembered
/// for as long as its bucket takes to be full, which is milliseconds for a client that opens one.
const MAX_REMEMBERED: usize = 1 << 15;
const MIN_CLEANUP: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn table(connections: usize, rate: u32) -> ClientTable {
        ClientTable::new(ClientBounds { connections, rate })
    }

    #[test]
    fn a_client_has_its_share_and_others_have_theirs() {
        let mut table = table(2, 1000);
        let (now, client) = (Instant::now(), address("192.0.2.1"));
        for _ in 0..2 {
            table.open(client, now).expect("below its share");
        }
        assert_eq!(table.open(client, now), Err(ClientExcess::TooMany));
        table.open(address("192.0.2.2"), now).expect("another");
        assert_eq!(table.most(), 2);
        table.close(client, now);
        table.open(client, now).expect("one has ended");
        let bounds = ClientBounds {
            connections: 1,
            rate: 1000,
        };
        table.set_bounds(bounds, now);
        table.close(client, now);
        assert_eq!(table.open(client, now), Err(ClientExcess::TooMany));
        assert_eq!(table.refused().too_many, 2);
    }

    #[test]
    fn new_connections_come_in_bursts_and_at_the_rate_in_the_long_run() {
        let mut table = table(1000, 5);
        let (start, client) = (Instant::now(), address("192.0.2.1"));
        let opened_at = |table: &mut ClientTable, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            let mut opened = 0;
            while table.open(client, now).is_ok() {
                table.close(client, now);
                opened += 1;
            }
            opened
        };
        assert_eq!(table.most_recent(start), (0, 50));
        assert_eq!(opened_at(&mut table, 0), 50);
        assert_eq!(table.most_recent(start), (50, 50));
        assert_eq!(opened_at(&mut table, 0), 0);
        assert_eq!(opened_at(&mut table, 1), 5);
        assert_eq!(opened_at(&mut table, 4), 15);
        assert_eq!(opened_at(&mut table, 1000), 50);
        assert_eq!(table.refused().too_fast, 5);
        let now = start + Duration::from_secs(1000);
        for (rate, most) in [(10, (50, 100)), (5, (50, 50)), (1, (10, 10))] {
            let connections = 1000;
            table.set_bounds(ClientBounds { connections, rate }, now);
            assert_eq!(table.most_recent(now), most);
        }
    }

    #[test]
    fn clients_that_have_gone_take_bounded_memory() {
        let mut table = table(10, 1);
        let network = |number: u32| IpAddr::from(number.to_be_bytes());
        let now = Instant::now();
        for number in 0..200_000 {
            table.open(network(number), now).expect("its first");
            table.close(network(number), now);
        }
        assert!(table.clients.len() <= MAX_REMEMBERED + 1);
        let later = now + Duration::from_secs(1);
        for number in 0..200_000 {
            table.open(network(number), later).expect("its next");
            table.close(network(number), later);
        }
        assert!(table.clients.len() <= MAX_REMEMBERED + 1);
        let later = later + Duration::from_secs(1);
        table.open(network(0), later).expect("one");
        table.close(network(0), later);
        // At the latest when as many have come again.
        for number in (1..).take(MAX_REMEMBERED) {
            let later = later + Duration::from_secs(10);
            table.open(network(number), later).expect("one");
        }
        for number in (1..).take(MAX_REMEMBERED) {
            table.close(network(number), later + Duration::from_secs(20));
        }
        assert!(
            table.clients.len() <= MIN_CLEANUP,
            "{}",
            table.clients.len()
        );
    }
}
