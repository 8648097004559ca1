//! Rows by the networks of their rules: for each length of a prefix, the network of that length
//! that an address is in.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Map;
use super::rows::{Bits, Rows};

/// Rows by network.
#[derive(Debug, Default)]
pub(super) struct Networks {
    /// Of rules that say no network.
    any: Rows,
    /// By the lengths that there are.
    some: Vec<(u8, Map<IpNet, Rows>)>,
}

impl Networks {
    /// Adds the last row so far, or one more.
    pub(super) fn add(&mut self, row: usize, networks: Option<&[IpNet]>) {
        let Some(networks) = networks else {
            return self.any.add(row);
        };
        for network in networks {
            let length = network.prefix_len();
            let at = self
                .some
                .iter()
                .position(|(other, _)| *other == length)
                .unwrap_or_else(|| {
                    self.some.push((length, Map::default()));
                    self.some.len() - 1
                });
            if let Some((_, map)) = self.some.get_mut(at) {
                map.entry(network.trunc()).or_default().add(row);
            }
        }
    }

    /// Those that an address is in.
    pub(super) fn find(&self, client: IpAddr, to: &mut Bits) {
        to.add(&self.any);
        for (length, map) in &self.some {
            let Ok(network) = IpNet::new(client, *length) else {
                continue;
            };
            if let Some(rows) = map.get(&network.trunc()) {
                to.add(rows);
            }
        }
    }
}
