//! Bounds connections: those of the process, and those of each client, so that one client cannot
//! occupy all of them.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::time::Instant;

use super::clients::{ClientBounds, ClientExcess, ClientTable, RefusedConnections};
use super::open_connections::{
    ConnectionClass, ConnectionCounts, OpenConnection, OpenConnections, Opened,
};
use crate::config::network::client_network;
use crate::observe::peer_log::PeerLog;
use crate::observe::repeats::PACED;
use crate::observe::resource_use::ResourceUse;

/// The bounds that the listeners of a process share.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    connections: Arc<OpenConnections>,
    clients: Mutex<ClientTable>,
    /// Connections refused for one reason or the other.
    too_many_log: PeerLog,
    too_fast_log: PeerLog,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionBounds {
    /// In all.
    pub(crate) connections: usize,
    /// Of one client; `None` stands for a quarter of all, and [`MIN_PER_CLIENT`] at least: a build
    /// farm or an office may share one address.
    pub(crate) per_client: Option<usize>,
    /// New ones of one client per second.
    pub(crate) client_rate: u32,
}

impl ConnectionBounds {
    fn of_client(self) -> ClientBounds {
        let quarter = (self.connections / 4).max(MIN_PER_CLIENT);
        ClientBounds {
            connections: self.per_client.unwrap_or(quarter),
            rate: self.client_rate,
        }
    }
}

/// One connection of the process. Dropping it allows another.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    pub(crate) connection: Arc<OpenConnection>,
    pub(crate) limits: Arc<ConnectionLimits>,
    _client: Option<ClientPermit>,
}

/// One connection of a client.
#[derive(Debug)]
pub(crate) struct ClientPermit {
    limits: Arc<ConnectionLimits>,
    network: IpAddr,
}

impl ConnectionLimits {
    pub(crate) fn new(bounds: ConnectionBounds) -> Arc<Self> {
        Self::of_class(bounds, ConnectionClass::Unauthenticated)
    }

    /// At most `max` connections, where every client is trusted.
    pub(crate) fn of_trusted(max: usize) -> Arc<Self> {
        let bounds = ConnectionBounds {
            connections: max,
            per_client: None,
            client_rate: u32::MAX,
        };
        Self::of_class(bounds, ConnectionClass::Authenticated)
    }

    fn of_class(bounds: ConnectionBounds, class: ConnectionClass) -> Arc<Self> {
        Arc::new(Self {
            connections: OpenConnections::new(bounds.connections, class),
            clients: Mutex::new(ClientTable::new(bounds.of_client())),
            too_many_log: PeerLog::default(),
            too_fast_log: PeerLog::default(),
        })
    }

    /// Changes the bounds. At a lower one idle connections are closed; those of a client that has too
    /// many now stay.
    pub(crate) fn set_bounds(&self, bounds: ConnectionBounds) {
        self.clients()
            .set_bounds(bounds.of_client(), Instant::now());
        self.connections.set_max(bounds.connections);
    }

    /// Counts a connection of a client; `None` if it has too many, or too many new ones.
    pub(crate) fn admit_client(self: &Arc<Self>, address: IpAddr) -> Option<ClientPermit> {
        let network = client_network(address);
        let mut clients = self.clients();
        let bounds = clients.bounds();
        let excess = match clients.open(network, Instant::now()) {
            Ok(()) => {
                return Some(ClientPermit {
                    limits: self.clone(),
                    network,
                });
            }
            Err(excess) => excess,
        };
        // A slow reader of the log must not delay the connections of others.
        drop(clients);
        self.log(network, excess, bounds);
        None
    }

    /// Logs a refused connection, once a minute for each client.
    fn log(&self, client: IpAddr, excess: ClientExcess, bounds: ClientBounds) {
        let (log, limit) = match excess {
            ClientExcess::TooMany => (&self.too_many_log, bounds.connections as u64),
            ClientExcess::TooFast => (&self.too_fast_log, u64::from(bounds.rate)),
        };
        let Some(count) = log.count(client) else {
            return;
        };
        match excess {
            ClientExcess::TooMany => {
                tracing::warn!(target: PACED, %client, count, limit, "connections refused: too many of one client");
            }
            ClientExcess::TooFast => {
                tracing::warn!(target: PACED, %client, count, limit, "connections refused: too many new ones of one client");
            }
        }
    }

    /// Waits until the process may have another connection, for which an idle one is closed at the
    /// limit. `client`: `None` for trusted proxies.
    ///
    /// Cancel-safe.
    pub(super) async fn permit(self: &Arc<Self>, client: Option<ClientPermit>) -> ConnectionPermit {
        let opened = self.connections.open_when_possible(|| {
            let limit = self.counts().max;
            tracing::warn!(limit, "connection limit reached: new connections wait");
        });
        let Opened {
            connection,
            evicted,
        } = opened.await;
        if let Some(class) = evicted {
            let (class, limit) = (class.as_str(), self.counts().max);
            tracing::warn!(
                limit,
                class,
                "connection limit reached: idle connections are closed"
            );
        }
        ConnectionPermit {
            connection,
            limits: self.clone(),
            _client: client,
        }
    }

    /// The connections now.
    pub(crate) fn counts(&self) -> ConnectionCounts {
        self.connections.counts()
    }

    /// The connections of the client that has the most, and the new ones of the one that has the most
    /// of these.
    pub(crate) fn of_clients(&self) -> [ResourceUse; 2] {
        let clients = self.clients();
        let RefusedConnections { too_many, too_fast } = clients.refused();
        let (most, limit) = (clients.most(), clients.bounds().connections);
        let (recent, burst) = clients.most_recent(Instant::now());
        [
            ResourceUse::new("client_connections", most, limit).refused(too_many),
            ResourceUse::new("client_new_connections", recent, burst).refused(too_fast),
        ]
    }

    fn clients(&self) -> MutexGuard<'_, ClientTable> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.limits.clients().close(self.network, Instant::now());
    }
}

const MIN_PER_CLIENT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_a_quarter_unless_a_setting_says_otherwise() {
        let of_client = |connections, per_client| {
            let bounds = ConnectionBounds {
                connections,
                per_client,
                client_rate: 1,
            };
            bounds.of_client().connections
        };
        assert_eq!(of_client(400, None), 100);
        assert_eq!(of_client(100, None), MIN_PER_CLIENT);
        assert_eq!(of_client(400, Some(3)), 3);
    }

    #[test]
    fn the_connections_of_a_network_count_together_until_they_end() {
        let limits = ConnectionLimits::new(ConnectionBounds {
            connections: 400,
            per_client: Some(2),
            client_rate: 100,
        });
        let admit = |address: &str| limits.admit_client(address.parse().expect("an address"));
        let open = [admit("2001:db8::1"), admit("2001:db8::2")];
        assert!(open.iter().all(Option::is_some));
        assert!(admit("2001:db8::3").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        drop(open);
        assert!(admit("2001:db8::3").is_some());
        let [ResourceUse { used, refused, .. }, _] = limits.of_clients();
        assert_eq!((used, refused), (0, Some(1)));
    }
}
