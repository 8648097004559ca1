//! The facts of a client connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::forwarded;
use crate::config::network::TrustedProxies;
use crate::config::snapshot::ConnectionSettings;
use crate::config::vhost::ListenAddress;
use crate::registry::host::HostName;

/// The facts of one client connection. All its requests share them, except for the client behind a
/// trusted proxy.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The listener that accepted it.
    pub listener: ListenAddress,
    /// The peer of the connection, or the one that the PROXY protocol names.
    pub peer: SocketAddr,
    pub handshake_name: HandshakeName,
    pub protocol: Protocol,
    /// The maximum length of a request target.
    pub target_bytes: usize,
    /// The maximum number of header lines.
    pub head_lines: usize,
    /// Limits the memory of the token requests that this connection makes at once: they come before
    /// a login. A permit for each KiB.
    form_permits: Arc<Semaphore>,
    /// Whether a request of the connection had a valid login.
    has_login: Arc<AtomicBool>,
    /// The client's address.
    address: IpAddr,
    /// The same as text, which every request needs twice.
    client: HeaderValue,
}

impl ConnInfo {
    /// The facts of a connection, and the limits that hold for it.
    pub fn new(
        listener: ListenAddress,
        peer: SocketAddr,
        handshake_name: HandshakeName,
        protocol: Protocol,
        settings: &ConnectionSettings,
    ) -> Self {
        let ConnectionSettings {
            target_bytes,
            head_lines,
            ..
        } = *settings;
        // An IPv4 client on an IPv6 socket has an IPv4-mapped address.
        let address = peer.ip().to_canonical();
        let client = to_header_value(address);
        let form_permits = Arc::new(Semaphore::new(MAX_FORMS_KIB));
        Self {
            listener,
            peer,
            handshake_name,
            protocol,
            target_bytes,
            head_lines,
            form_permits,
            has_login: Arc::default(),
            address,
            client,
        }
    }

    /// The facts for one request: those of the connection, or with the client that a trusted proxy
    /// names.
    pub fn for_request(
        self: &Arc<Self>,
        trusted: &TrustedProxies,
        headers: &HeaderMap,
    ) -> Arc<Self> {
        match forwarded::client(self.address, trusted, headers) {
            Some(address) => Arc::new(Self {
                address,
                client: to_header_value(address),
                ..Self::clone(self)
            }),
            None => self.clone(),
        }
    }

    /// A request had a valid login.
    pub(crate) fn record_login(&self) {
        self.has_login.store(true, Ordering::Relaxed);
    }

    /// Whether a request of the connection had a valid login. Anonymous access is none.
    pub(crate) fn has_login(&self) -> bool {
        self.has_login.load(Ordering::Relaxed)
    }

    /// The client's address; never an IPv4-mapped one.
    pub fn client_address(&self) -> IpAddr {
        self.address
    }

    /// Waits until one more token request of this connection, of so many bytes, may be held in
    /// memory.
    pub(crate) async fn form_permit(&self, bytes: usize) -> FormPermit {
        let permits = self.form_permits.clone();
        FormPermit(permits.acquire_many_owned(form_kib(bytes)).await.ok())
    }

    /// The client's address, as the log shows it and the upstream is told.
    pub fn client(&self) -> &HeaderValue {
        &self.client
    }
}

/// Which virtual host the TLS handshake was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeName {
    /// That of the server name (SNI, RFC 6066 §3).
    Sni(HostName),
    /// The one with an address among its names: the client sent no name.
    Address,
    /// Any: a trusted proxy sent no name, and passes on the client's Host.
    TrustedProxy,
}

/// The memory of a token request, until this is dropped.
#[derive(Debug)]
pub(crate) struct FormPermit(Option<OwnedSemaphorePermit>);

impl FormPermit {
    /// Gives back what a request of so many bytes does not need.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            let needed = form_kib(bytes) as usize;
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
    }
}

fn form_kib(bytes: usize) -> u32 {
    let kib = bytes.div_ceil(1024).clamp(1, MAX_FORMS_KIB);
    u32::try_from(kib).unwrap_or(u32::MAX)
}

/// Half of the memory that a connection may take before a login.
const MAX_FORMS_KIB: usize = 128;

fn to_header_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).expect("an address is visible ASCII")
}

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// The name in the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}
