//! Listening sockets, which outlive reloads, and the addresses of their clients.

pub(crate) mod accept;
mod clients;
pub(crate) mod inherited;
pub(crate) mod limits;
pub(crate) mod open_connections;
pub mod proxy_protocol;
pub(crate) mod socket;
