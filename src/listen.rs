//! Sockets: they live as long as the process and outlast reloads.

pub(crate) mod accept;
pub mod proxy_protocol;
pub(crate) mod socket;
