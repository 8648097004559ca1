//! The certificate plane: where certificates come from, what they say, and the table that a
//! handshake asks. `served` keeps the table, on a blocking thread; only `tls` reads it, and a
//! handshake never waits. `orders` gets from CAs, by `acme`, what `served` then finds in `state`;
//! `preflight` looks at the names of an order first.

mod acme;
pub mod challenge;
pub mod import;
pub mod inspect;
pub mod names;
pub mod orders;
pub mod preflight;
pub mod renewal;
pub(crate) mod roots;
pub mod served;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
mod timestamps;

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use inspect::{CertificateFacts, InspectError};

/// A chain with the key of its leaf, and what the leaf says.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What is handed to clients.
    pub key: Arc<CertifiedKey>,
    /// What the leaf says about itself.
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
