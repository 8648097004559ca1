//! The certificate plane. `served` maintains the table that handshakes read, on a blocking thread;
//! handshakes never wait for it. `orders` obtains certificates from CAs through `acme` and stores
//! them in `state`, where `served` finds them; `preflight` checks the names before an order.

mod acme;
pub(crate) mod chain;
pub(crate) mod challenge;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod library_error;
pub(crate) mod names;
pub(crate) mod orders;
pub(crate) mod preflight;
pub(crate) mod renewal;
pub(crate) mod roots;
pub(crate) mod served;
mod settings_digest;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod testing;
mod timestamps;

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use inspect::{CertificateFacts, InspectError};

/// A certificate chain with the private key of its leaf, and the contents of the leaf.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// The chain that is sent to clients, with its key.
    pub key: Arc<CertifiedKey>,
    /// The contents of the leaf.
    pub facts: CertificateFacts,
}

impl Certificate {
    /// Reads the leaf of a chain whose key is known to belong to it.
    pub(crate) fn new(key: CertifiedKey) -> Result<Self, InspectError> {
        let leaf = key.cert.first().ok_or(InspectError::Empty)?;
        let facts = CertificateFacts::read(leaf)?;
        Ok(Self {
            key: Arc::new(key),
            facts,
        })
    }
}
