//! The container registry of GitHub Packages.

use super::{Capabilities, Chunks, Deletion, Dialect, ListApi};
use crate::registry::host::HostName;
use crate::registry::product::Product;

pub(super) struct Ghcr;

impl Dialect for Ghcr {
    fn product(&self) -> Product {
        Product::Ghcr
    }

    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["api.github.com"].map(str::to_owned).to_vec()
    }

    fn wants_tokens(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            digest_deletion: Deletion::Api,
            catalog: ListApi::Api,
            chunks: Chunks::AtMost(4 << 20),
            has_referrers: false,
            ..Capabilities::STANDARD
        }
    }
}
