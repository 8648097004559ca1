//! What is known of the connection that a request came over.

use std::net::{IpAddr, SocketAddr};

use crate::config::vhost::ListenAddress;
use crate::registry::host::HostName;

/// The facts of one client connection, the same for all its requests.
#[derive(Debug)]
pub struct ConnInfo {
    /// The listener that accepted it.
    pub listener: ListenAddress,
    /// Who connected.
    pub peer: SocketAddr,
    /// The name of the TLS handshake; `None` when an IP address was asked for.
    pub sni: Option<HostName>,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The longest request target.
    pub target_bytes: usize,
    /// The most header lines.
    pub head_lines: usize,
}

impl ConnInfo {
    /// The client's address, an IPv4 one that came over an IPv6 socket as IPv4.
    pub fn client(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// As it stands in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}
