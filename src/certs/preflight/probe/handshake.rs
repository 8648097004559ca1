//! A TLS handshake as a CA makes it for tls-alpn-01 (RFC 8737 §3), which accepts any certificate and
//! then inspects it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::certs::challenge::server_name;
use crate::registry::host::HostName;

/// A client for handshakes with one name.
pub(super) struct AlpnHandshake {
    connector: TlsConnector,
    server: ServerName<'static>,
}

/// Accepts any certificate: it is searched for our digest afterwards, and nothing is sent.
/// Signatures cannot be verified, as webpki rejects a certificate with an unknown critical extension.
#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl AlpnHandshake {
    pub(super) fn new(name: &HostName) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone());
        let config = config
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let mut config = config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
        let server = server_name(name.as_str()).into_string();
        let server = ServerName::try_from(server).map_err(io::Error::other)?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server,
        })
    }

    /// Whether the server there presents the certificate of the challenge: no other server knows the
    /// digest.
    pub(super) async fn shows(&self, at: SocketAddr, digest: &[u8]) -> io::Result<bool> {
        let tcp = TcpStream::connect(at).await?;
        let stream = self.connector.connect(self.server.clone(), tcp).await?;
        let (_, connection) = stream.get_ref();
        let leaf = connection
            .peer_certificates()
            .and_then(|chain| chain.first());
        let shown = leaf.is_some_and(|leaf| leaf.windows(digest.len()).any(|part| part == digest));
        Ok(shown && connection.alpn_protocol() == Some(ACME_TLS_ALPN))
    }
}

/// Whether a TLS server has refused the handshake.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|source| source.is::<rustls::Error>())
}

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";
