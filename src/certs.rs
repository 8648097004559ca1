//! The certificate plane: where certificates come from, what they say, and the table that a
//! handshake asks. `manager` keeps the table, on a blocking thread; only `tls` reads it, and a
//! handshake never waits. `issuer` orders from CAs what `manager` then finds below `state`.

mod acme;
pub mod challenge;
pub mod check;
mod dns;
pub mod dns_persist;
pub mod files;
pub mod hold;
pub mod import;
pub mod inspect;
pub mod internal_ca;
mod issued;
pub mod issuer;
pub mod ledger;
pub mod manager;
mod moments;
pub mod names;
pub mod orders;
pub(crate) mod postpone;
pub mod renewal;
pub mod report;
pub(crate) mod roots;
pub mod state;
mod status;
pub mod storage;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;

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
