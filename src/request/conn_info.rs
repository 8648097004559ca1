//! What is known of the connection that a request came over.

use std::net::{IpAddr, SocketAddr};

use crate::config::vhost::ListenAddress;
use crate::registry::host::HostName;

/// The facts of one client connection, the same for all its requests.
#[derive(Debug)]
pub(crate) struct ConnInfo {
    /// The listener that accepted it.
    pub(crate) listener: ListenAddress,
    /// Who connected.
    pub(crate) peer: SocketAddr,
    /// The name of the TLS handshake; `None` when an IP address was asked for.
    pub(crate) sni: Option<HostName>,
    /// What is spoken on it.
    pub(crate) protocol: Protocol,
    /// The longest request target.
    pub(crate) target_bytes: usize,
    /// The most header lines.
    pub(crate) head_lines: usize,
}

impl ConnInfo {
    /// The client's address, an IPv4 one that came over an IPv6 socket as IPv4.
    pub(crate) fn client(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// As it stands in the access log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}
