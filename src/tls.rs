//! TLS: from a byte stream to [`handshake::Secured`], which knows the name that was asked for and
//! the protocol that was agreed on.

pub mod handshake;
pub mod plain_http;
pub mod resolver;
pub mod server_config;
pub mod transport;
