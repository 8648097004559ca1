//! TLS: a byte stream becomes [`handshake::Secured`], which carries the SNI and the negotiated
//! protocol.

pub mod handshake;
pub mod plain_http;
pub mod resolver;
pub mod server_config;
pub mod transport;
