//! TLS: a byte stream becomes [`handshake::Secured`], which carries the SNI and the negotiated
//! protocol.

pub(crate) mod handshake;
pub(crate) mod plain_http;
pub(crate) mod resolver;
pub(crate) mod server_config;
pub(crate) mod ticket_keys;
pub(crate) mod transport;
