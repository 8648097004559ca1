//! Bounds connections: those of the process, and those of each client, so that one client cannot
//! occupy all of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::open_connections::{
    ConnectionClass, ConnectionCounts, OpenConnection, OpenConnections, Opened,
};

/// The bounds that the listeners of a process share.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    connections: Arc<OpenConnections>,
    max_per_client: usize,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    /// Open connections by [`client_network`]. As many entries as connections, at most.
    connections: HashMap<IpAddr, usize>,
    last_warning: Option<Instant>,
}

/// One connection of the process. Dropping it allows another.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    pub(crate) connection: Arc<OpenConnection>,
    _client: Option<ClientPermit>,
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct ClientPermit {
    limits: Arc<ConnectionLimits>,
    network: IpAddr,
}

impl ConnectionLimits {
    /// At most `max` connections, of which one client may have a quarter, and at least
    /// [`MIN_PER_CLIENT`]: a build farm or an office may share one address.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Self::of_class(max, ConnectionClass::Unauthenticated)
    }

    /// The same where every client is trusted.
    pub(crate) fn of_trusted(max: usize) -> Arc<Self> {
        Self::of_class(max, ConnectionClass::Authenticated)
    }

    fn of_class(max: usize, class: ConnectionClass) -> Arc<Self> {
        Arc::new(Self {
            connections: OpenConnections::new(max, class),
            max_per_client: (max / 4).max(MIN_PER_CLIENT),
            clients: Mutex::default(),
        })
    }

    /// Counts a connection of a client; `None` if it has too many.
    pub(super) fn admit_client(self: &Arc<Self>, address: IpAddr) -> Option<ClientPermit> {
        let network = client_network(address);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let open = clients.connections.entry(network).or_default();
        if *open < self.max_per_client {
            *open += 1;
            return Some(ClientPermit {
                limits: self.clone(),
                network,
            });
        }
        let now = Instant::now();
        let is_due = |last: Instant| now.duration_since(last) >= WARNING_INTERVAL;
        if clients.last_warning.is_none_or(is_due) {
            clients.last_warning = Some(now);
            // A slow reader of the log must not delay the connections of others.
            drop(clients);
            tracing::warn!(
                client = %network,
                limit = self.max_per_client,
                "connection refused: too many of one client"
            );
        }
        None
    }

    /// Waits until the process may have another connection, for which an idle one is closed at the
    /// limit. `client`: `None` for trusted proxies.
    ///
    /// Cancel-safe.
    pub(super) async fn permit(&self, client: Option<ClientPermit>) -> ConnectionPermit {
        let limit = self.counts().max;
        let opened = self.connections.open_when_possible(|| {
            tracing::warn!(limit, "connection limit reached: new connections wait");
        });
        let Opened {
            connection,
            evicted,
        } = opened.await;
        if let Some(class) = evicted {
            let class = class.as_str();
            tracing::warn!(
                limit,
                class,
                "connection limit reached: idle connections are closed"
            );
        }
        ConnectionPermit {
            connection,
            _client: client,
        }
    }

    /// The connections now.
    pub(crate) fn counts(&self) -> ConnectionCounts {
        self.connections.counts()
    }
}

impl ConnectionPermit {
    /// Serves the connection to its end, or until that is not waited for any more.
    pub(crate) async fn serve(self, mut serving: Pin<&mut impl Future<Output = ()>>) {
        let ended = poll_fn(|cx| match self.connection.poll_dropped(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => serving.as_mut().poll(cx),
        });
        ended.await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connection.close();
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let clients = self.limits.clients.lock();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut open) = clients.connections.entry(self.network) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// The address, or the /64 of an IPv6 address, which providers assign to one customer.
fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

const MIN_PER_CLIENT: usize = 64;
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_is_an_address_or_an_ipv6_network() {
        for (address_of_client, network) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(client_network(address(address_of_client)), address(network));
        }
    }

    #[test]
    fn a_client_has_a_quarter_and_ended_connections_take_no_memory() {
        let limits = ConnectionLimits::new(400);
        let client = address("2001:db8::1");
        let mut open: Vec<_> = (0..100)
            .map(|_| limits.admit_client(client).expect("below its share"))
            .collect();
        assert!(limits.admit_client(address("2001:db8::2")).is_none());
        drop(
            limits
                .admit_client(address("2001:db8:0:1::1"))
                .expect("another"),
        );
        open.pop();
        open.push(limits.admit_client(client).expect("one has ended"));
        drop(open);
        let clients = limits.clients.lock().expect("not poisoned");
        assert!(clients.connections.is_empty());
    }
}
