//! Selects the certificate of a handshake: from the table, for one listener.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certs::served::table::CertificateTable;
use crate::config::vhost::ListenAddress;

/// Whether this is the handshake of a tls-alpn-01 challenge: it offers `acme-tls/1` only (RFC 8737
/// §3).
pub(crate) fn is_acme_challenge(hello: &ClientHello<'_>) -> bool {
    hello
        .alpn()
        .is_some_and(|mut offered| offered.next() == Some(ALPN_ACME) && offered.next().is_none())
}

/// Resolves to the certificate of one tls-alpn-01 challenge.
#[derive(Debug)]
pub(crate) struct ChallengeResolver(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for ChallengeResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Resolves to the certificates of one listener.
#[derive(Debug)]
pub(crate) struct ListenerResolver {
    pub(crate) table: Arc<CertificateTable>,
    pub(crate) listen: ListenAddress,
    pub(crate) client: TlsClient,
}

/// Who begins a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsClient {
    Any,
    /// May leave out the server name: most proxies do unless they are told.
    TrustedProxy,
}

impl ResolvesServerCert for ListenerResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match (hello.server_name(), self.client) {
            (None, TlsClient::TrustedProxy) => self.table.find_for_proxy(self.listen),
            (name, TlsClient::Any | TlsClient::TrustedProxy) => self.table.find(self.listen, name),
        }
    }
}

/// For challenges only: no application data follows the handshake (RFC 8737 §3).
pub(crate) const ALPN_ACME: &[u8] = b"acme-tls/1";
