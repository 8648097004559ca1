//! Chooses the certificate of a handshake: the table's answer for one listener, and nothing else.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::server_config::ALPN_ACME;
use crate::certs::served::table::CertificateTable;
use crate::config::vhost::ListenAddress;

/// Whether a CA asks for the answer to a challenge: it offers `acme-tls/1` and nothing else (RFC
/// 8737 §3).
pub(crate) fn asks_for_challenge(hello: &ClientHello<'_>) -> bool {
    hello
        .alpn()
        .is_some_and(|mut offered| offered.next() == Some(ALPN_ACME) && offered.next().is_none())
}

/// Answers one challenge of a CA.
#[derive(Debug)]
pub(crate) struct ChallengeResolver(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for ChallengeResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Answers for one listener.
#[derive(Debug)]
pub(crate) struct ListenerResolver {
    pub(crate) table: Arc<CertificateTable>,
    pub(crate) listen: ListenAddress,
}

impl ResolvesServerCert for ListenerResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.table.find(self.listen, hello.server_name())
    }
}
