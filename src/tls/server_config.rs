//! The TLS settings that all listeners share. Certificates are in the table, so that a listener
//! keeps its configuration, and clients their tickets, across reloads.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::version::{TLS12, TLS13};

use super::resolver::{ListenerResolver, TlsClient};
use super::ticket_keys::{TicketKeys, TicketSecrets};
use crate::certs::challenge::Challenges;
use crate::certs::served::table::CertificateTable;
use crate::config::vhost::ListenAddress;
use crate::crypto::NoRandomness;

/// The TLS configuration of one listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerConfig {
    server: Arc<ServerConfig>,
    for_proxies: Arc<ServerConfig>,
    /// For tls-alpn-01.
    pub(super) challenges: Arc<Challenges>,
}

impl ListenerConfig {
    pub(super) fn server(&self, client: TlsClient) -> &Arc<ServerConfig> {
        match client {
            TlsClient::Any => &self.server,
            TlsClient::TrustedProxy => &self.for_proxies,
        }
    }
}

/// Builds the configurations of all listeners of the process.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfigs {
    /// The defaults of rustls with `prefer-post-quantum`: X25519MLKEM768 first, then X25519 and the
    /// NIST curves; AEAD suites with forward secrecy only.
    provider: Arc<CryptoProvider>,
    /// A ticket carries the name that it was made for, and rustls resumes it for no other. A ticket
    /// of one domain on another would be harmless, too: requests are authenticated, not
    /// connections.
    tickets: Arc<TicketKeys>,
}

impl ServerConfigs {
    /// With the ticket keys of a predecessor of the process, or new ones. Fails only if the system has no randomness.
    pub(crate) fn new(keys: Option<TicketSecrets>) -> Result<Self, NoRandomness> {
        let tickets = match keys {
            Some(keys) => TicketKeys::from_secrets(keys)?,
            None => TicketKeys::random()?,
        };
        Ok(Self {
            provider: Arc::new(default_provider()),
            tickets: Arc::new(tickets),
        })
    }

    /// The keys of the tickets of all listeners.
    pub(crate) fn tickets(&self) -> &TicketKeys {
        &self.tickets
    }

    /// The configuration of one listener, for as long as it listens.
    pub(crate) fn for_listener(
        &self,
        table: Arc<CertificateTable>,
        listen: ListenAddress,
    ) -> Result<Arc<ListenerConfig>, rustls::Error> {
        let challenges = table.challenges().clone();
        let resolver = |client| {
            let table = table.clone();
            Arc::new(ListenerResolver {
                table,
                listen,
                client,
            })
        };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver(TlsClient::Any));
        config.alpn_protocols = vec![ALPN_H2.into(), ALPN_HTTP1.into()];
        config.ticketer = self.tickets.clone();
        // One is enough: registry clients do not resume at all, and those that do get a new one
        // each time. Each further ticket costs an encryption and 250 bytes in every handshake.
        config.send_tls13_tickets = 1;
        // Tickets carry the state, so that unauthenticated clients occupy no memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Early data can be replayed, and an upload must not be.
        config.max_early_data_size = 0;
        let mut for_proxies = config.clone();
        for_proxies.cert_resolver = resolver(TlsClient::TrustedProxy);
        Ok(Arc::new(ListenerConfig {
            server: Arc::new(config),
            for_proxies: Arc::new(for_proxies),
            challenges,
        }))
    }
}

pub(crate) const ALPN_H2: &[u8] = b"h2";
pub(crate) const ALPN_HTTP1: &[u8] = b"http/1.1";
