//! The certificates that are served: the table that a handshake reads, what fills it, and what is
//! reported about it.

pub mod check;
pub mod files;
pub mod internal_ca;
pub mod manager;
pub mod report;
pub(crate) mod status;
pub(crate) mod stored;
pub mod table;
