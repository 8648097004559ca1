//! Docker Hub.

use super::{Capabilities, Deletion, Dialect, ListApi};
use crate::registry::host::HostName;
use crate::registry::product::Product;

pub(super) struct DockerHub;

impl Dialect for DockerHub {
    fn product(&self) -> Product {
        Product::DockerHub
    }

    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["auth.docker.io", "hub.docker.com"]
            .map(str::to_owned)
            .to_vec()
    }

    fn wants_tokens(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            catalog: ListApi::Api,
            levels: Some(2),
            ..Capabilities::STANDARD
        }
    }
}
