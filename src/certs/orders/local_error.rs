//! What goes wrong on this machine around an order.

use std::io;

use crate::certs::state::ledger::file::LedgerError;

/// Why this machine can order nothing now. Another CA would not help.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The directories or the lock of the domain.
    #[error("the state directory cannot be used: {0}")]
    StateDirectory(#[source] io::Error),
    #[error("the account cannot be read: {0}")]
    ReadAccount(#[source] io::Error),
    #[error("the account cannot be kept: {0}")]
    StoreAccount(#[source] io::Error),
    #[error("the order cannot be read: {0}")]
    ReadOrder(#[source] io::Error),
    #[error("the order cannot be kept: {0}")]
    StoreOrder(#[source] io::Error),
    #[error("the certificate cannot be kept: {0}")]
    StoreCertificate(#[source] io::Error),
    #[error("the signing request cannot be made: {0}")]
    SigningRequest(#[source] rcgen::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A record or the file of an order that is over.
    #[error(transparent)]
    File(#[from] io::Error),
}
