//! Sockets: they live as long as the process and outlast reloads.

pub(crate) mod accept;
pub(crate) mod socket;
