//! Counts the requests that a user, or the anonymous clients of an address, have in flight.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dashmap::{DashMap, Entry};

use crate::config::network::client_network;

/// The requests in flight of one user.
#[derive(Debug, Default)]
pub(crate) struct RunningRequests {
    all: AtomicU32,
    /// Those with a body.
    uploads: AtomicU32,
}

/// The bounds of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestBounds {
    pub(crate) requests: u32,
    pub(crate) uploads: u32,
}

/// A request in flight, until this is dropped.
#[derive(Debug)]
pub(crate) struct RunningRequest {
    of: Arc<RunningRequests>,
    is_upload: bool,
}

/// The bound that a request would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestExcess {
    Requests,
    Uploads,
}

impl RunningRequests {
    /// Counts a request.
    pub(crate) fn begin(
        self: Arc<Self>,
        is_upload: bool,
        bounds: RequestBounds,
    ) -> Result<RunningRequest, RequestExcess> {
        // Taken back by the drop if one of the bounds is exceeded.
        let uploads = if is_upload {
            self.uploads.fetch_add(1, Ordering::Relaxed)
        } else {
            0
        };
        let all = self.all.fetch_add(1, Ordering::Relaxed);
        let running = RunningRequest {
            of: self,
            is_upload,
        };
        if all >= bounds.requests {
            return Err(RequestExcess::Requests);
        }
        if is_upload && uploads >= bounds.uploads {
            return Err(RequestExcess::Uploads);
        }
        Ok(running)
    }

    /// All of them, and those with a body.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let [all, uploads] = [&self.all, &self.uploads].map(|count| count.load(Ordering::Relaxed));
        (all, uploads)
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.of.all.fetch_sub(1, Ordering::Relaxed);
        if self.is_upload {
            self.of.uploads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The requests in flight of anonymous clients, by address; IPv6: by /64.
#[derive(Debug)]
pub(crate) struct AnonymousClients {
    by_network: DashMap<IpAddr, Arc<RunningRequests>>,
    /// With so many, those without a request are removed: twice as many as were left the last time,
    /// so that each new client costs the same however many have requests in flight.
    cleanup_at: AtomicUsize,
}

impl Default for AnonymousClients {
    fn default() -> Self {
        Self {
            by_network: DashMap::new(),
            cleanup_at: AtomicUsize::new(MIN_CLEANUP),
        }
    }
}

impl AnonymousClients {
    /// Those of a client.
    pub(crate) fn of(&self, client: IpAddr) -> Arc<RunningRequests> {
        let network = client_network(client);
        if let Some(known) = self.by_network.get(&network) {
            return known.clone();
        }
        if self.by_network.len() >= self.cleanup_at.load(Ordering::Relaxed) {
            self.by_network
                .retain(|_, running| Arc::strong_count(running) > 1);
            let next = MIN_CLEANUP.max(2 * self.by_network.len());
            self.cleanup_at.store(next, Ordering::Relaxed);
        }
        match self.by_network.entry(network) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => new.insert(Arc::default()).clone(),
        }
    }

    /// The counts of each client.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (u32, u32)> {
        self.by_network.iter().map(|running| running.counts())
    }
}

/// Clients without a request in flight are removed when there are so many in all, at least: 100 KiB.
/// The others have a connection each, or one behind a proxy.
const MIN_CLEANUP: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RequestBounds = RequestBounds {
        requests: 3,
        uploads: 1,
    };

    #[test]
    fn requests_count_until_they_end_and_refused_ones_never() {
        let user = Arc::<RunningRequests>::default();
        let begin = |is_upload| user.clone().begin(is_upload, BOUNDS);
        let upload = begin(true).expect("the first");
        let refused = begin(true).map(drop);
        assert_eq!(refused, Err(RequestExcess::Uploads));
        assert_eq!(user.counts(), (1, 1));
        let others = [begin(false), begin(false)];
        assert!(others.iter().all(Result::is_ok));
        for is_upload in [false, true] {
            let refused = begin(is_upload).map(drop);
            assert_eq!(refused, Err(RequestExcess::Requests));
        }
        assert_eq!(user.counts(), (3, 1));
        drop(upload);
        assert!(begin(true).is_ok());
        drop(others);
        assert_eq!(user.counts(), (0, 0));
    }

    #[test]
    fn anonymous_clients_count_by_network_and_take_bounded_memory() {
        let clients = AnonymousClients::default();
        let of = |address: &str| clients.of(address.parse().expect("an address"));
        let running = of("2001:db8::1").begin(false, BOUNDS).expect("the first");
        assert_eq!(of("2001:db8::2").counts(), (1, 0));
        assert_eq!(of("2001:db8:0:1::1").counts(), (0, 0));
        for number in 0..10_000_u32 {
            let _ = clients.of(number.to_be_bytes().into());
        }
        assert!(clients.by_network.len() <= MIN_CLEANUP);
        // With many in flight, the next cleanup is far away, and comes.
        let of_number = |number: u32| clients.of(number.to_be_bytes().into());
        let many: Vec<_> = (0..3000)
            .map(|number| of_number(number).begin(false, BOUNDS))
            .collect();
        assert!(clients.cleanup_at.load(Ordering::Relaxed) > many.len());
        drop(many);
        for number in 3000..10_000 {
            let _ = of_number(number);
        }
        assert!(clients.by_network.len() <= MIN_CLEANUP);
        assert_eq!(of("2001:db8::1").counts(), (1, 0));
        drop(running);
        assert_eq!(of("2001:db8::1").counts(), (0, 0));
    }
}
