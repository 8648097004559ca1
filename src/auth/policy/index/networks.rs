//! Rows by the networks of their rules: for each prefix length in use, a map by network.

use std::net::IpAddr;

use fixedbitset::FixedBitSet;
use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::rows::Rows;

/// Rows by network.
#[derive(Debug, Default)]
pub(super) struct Networks {
    /// Rules without networks.
    any: Rows,
    /// By prefix length.
    some: Vec<(u8, FxHashMap<IpNet, Rows>)>,
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
                    self.some.push((length, FxHashMap::default()));
                    self.some.len() - 1
                });
            if let Some((_, map)) = self.some.get_mut(at) {
                map.entry(network.trunc()).or_default().add(row);
            }
        }
    }

    /// Adds the rows whose networks contain an address.
    pub(super) fn find(&self, client: IpAddr, to: &mut FixedBitSet) {
        self.any.add_to(to);
        for (length, map) in &self.some {
            let Ok(network) = IpNet::new(client, *length) else {
                continue;
            };
            if let Some(rows) = map.get(&network.trunc()) {
                rows.add_to(to);
            }
        }
    }
}
