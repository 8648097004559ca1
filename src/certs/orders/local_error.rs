//! Errors of this machine around an order.

use std::io;

use crate::certs::state::ledger::file::LedgerError;

/// Why this machine cannot order now, from no CA.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The directories or a lock.
    #[error("the directory `state` cannot be used: {0}; it must belong to moorgate's user")]
    StateDirectory(#[source] io::Error),
    #[error("the account cannot be read: {0}")]
    ReadAccount(#[source] io::Error),
    #[error("the account cannot be stored: {0}")]
    StoreAccount(#[source] io::Error),
    #[error("the order cannot be read: {0}")]
    ReadOrder(#[source] io::Error),
    #[error("the order cannot be stored: {0}")]
    StoreOrder(#[source] io::Error),
    #[error("the certificate cannot be stored: {0}")]
    StoreCertificate(#[source] io::Error),
    #[error("the signing request cannot be created: {0}; please report this")]
    SigningRequest(#[source] rcgen::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The record of a domain, or the file of a finished order.
    #[error(transparent)]
    File(#[from] io::Error),
}
