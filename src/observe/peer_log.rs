//! Limits the log lines about peers to one a minute for each, so that no stranger fills the log.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts one kind of event by peer.
#[derive(Debug, Default)]
pub(crate) struct PeerLog(Mutex<HashMap<IpAddr, CountedPeer>>);

#[derive(Debug)]
struct CountedPeer {
    logged: Instant,
    /// Events since the last line, none of which has been logged.
    left_out: u64,
}

impl PeerLog {
    /// Counts an event. If a line is due, returns how many events it stands for: this one, and those
    /// since the last line.
    pub(crate) fn count(&self, peer: IpAddr) -> Option<u64> {
        let now = Instant::now();
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peer = peer.to_canonical();
        if peers.len() >= MAX_PEERS && !peers.contains_key(&peer) {
            peers.retain(|_, counted| now.duration_since(counted.logged) < LINE_INTERVAL);
            if peers.len() >= MAX_PEERS {
                peer = OTHER_PEERS;
            }
        }
        let Some(counted) = peers.get_mut(&peer) else {
            let counted = CountedPeer {
                logged: now,
                left_out: 0,
            };
            peers.insert(peer, counted);
            return Some(1);
        };
        counted.left_out += 1;
        if now.duration_since(counted.logged) < LINE_INTERVAL {
            return None;
        }
        counted.logged = now;
        Some(std::mem::take(&mut counted.left_out))
    }
}

const LINE_INTERVAL: Duration = Duration::from_mins(1);
/// 64 KiB. Further peers share one line a minute.
const MAX_PEERS: usize = 1024;
/// No peer has this address.
const OTHER_PEERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_peer_has_a_line_a_minute_that_counts_all_its_events() {
        let log = PeerLog::default();
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        assert_eq!(log.count(one), Some(1));
        assert_eq!(log.count("::ffff:192.0.2.1".parse().expect("valid")), None);
        assert_eq!(log.count(other), Some(1));
        tokio::time::advance(LINE_INTERVAL).await;
        assert_eq!(log.count(one), Some(2));
        assert_eq!(log.count(one), None);
        assert_eq!(log.count(other), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn many_peers_occupy_bounded_memory_and_lines() {
        let log = PeerLog::default();
        let peer = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        let lines = (0..100_000).filter_map(|number| log.count(peer(number)));
        assert_eq!(lines.count(), MAX_PEERS + 1);
        assert!(log.0.lock().expect("not poisoned").len() <= MAX_PEERS + 1);
        tokio::time::advance(LINE_INTERVAL).await;
        assert_eq!(log.count(peer(100_000)), Some(1));
        assert_eq!(log.0.lock().expect("not poisoned").len(), 1);
    }
}
