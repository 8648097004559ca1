//! Azure Container Registry.

use super::{Capabilities, Deletion, Dialect, TokenNeed};
use crate::registry::host::HostName;
use crate::registry::product::Product;

pub(super) struct Acr;

impl Dialect for Acr {
    fn product(&self) -> Product {
        Product::Acr
    }

    /// The data endpoints and the storage get no credentials: blobs are behind signed addresses.
    fn credential_hosts(&self, _registry: &HostName) -> Vec<String> {
        ["login.microsoftonline.com"].map(str::to_owned).to_vec()
    }

    /// Registries with ABAC know rights to metadata beside those to content.
    fn token_actions(&self, need: TokenNeed) -> &'static str {
        match need {
            TokenNeed::Read => "pull,metadata_read",
            TokenNeed::Write => "pull,push,metadata_read,metadata_write",
            TokenNeed::Delete => "pull,delete,metadata_read,metadata_write",
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tag_deletion: Deletion::Api,
            ..Capabilities::STANDARD
        }
    }
}
