//! Google Artifact Registry.

use super::{Capabilities, Chunks, Dialect};
use crate::registry::host::HostName;

pub(super) struct Gar;

impl Dialect for Gar {
    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["oauth2.googleapis.com", "artifactregistry.googleapis.com"]
            .map(str::to_owned)
            .to_vec()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            chunks: Chunks::One,
            immutable_tags: true,
            own_refusals: true,
            ..Capabilities::STANDARD
        }
    }
}
