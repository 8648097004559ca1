//! The certificates that are served: the table that a handshake reads, what fills it, and what is
//! reported about it.

pub(crate) mod check;
pub(crate) mod files;
pub(crate) mod internal_ca;
pub(crate) mod manager;
pub(crate) mod report;
pub(crate) mod status;
pub(crate) mod stored;
pub(crate) mod table;
