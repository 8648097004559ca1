//! Chooses the certificate of a handshake: the table's answer for one listener, and nothing else.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certs::table::CertificateTable;
use crate::config::vhost::ListenAddress;

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
