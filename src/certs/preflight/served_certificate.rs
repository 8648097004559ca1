//! The certificate that is served under a name at its public address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::certs::inspect::CertificateFacts;
use crate::certs::preflight::dns::Resolver;
use crate::certs::roots;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// The facts of the certificate that a client gets which trusts the system's roots and those of the
/// files; `None`: there is none, or no server answers.
pub(crate) async fn served_certificate(
    resolver: &Resolver,
    name: &HostName,
    port: u16,
    files: Vec<PathBuf>,
) -> Option<CertificateFacts> {
    let connector = run_blocking(move || connector(&files)).await?;
    let server = ServerName::try_from(name.as_str().to_owned()).ok()?;
    let addresses = match name.ip() {
        Some(address) => vec![address],
        None => resolver.addresses(name.as_str()).await.ok()?,
    };
    for address in addresses {
        let connect = async {
            let tcp = TcpStream::connect(SocketAddr::new(address, port))
                .await
                .ok()?;
            let stream = connector.connect(server.clone(), tcp).await.ok()?;
            let leaf = stream.get_ref().1.peer_certificates()?.first()?.clone();
            CertificateFacts::read(&leaf).ok()
        };
        if let Some(facts) = timeout(CONNECT_TIMEOUT, connect).await.ok().flatten() {
            return Some(facts);
        }
    }
    None
}

fn connector(files: &[PathBuf]) -> Option<TlsConnector> {
    let mut store = roots::of_system().unwrap_or_else(|_| rustls::RootCertStore::empty());
    for file in files {
        store.extend(roots::of_file(file).ok()?.roots);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config
        .ok()?
        .with_root_certificates(store)
        .with_no_client_auth();
    Some(TlsConnector::from(Arc::new(config)))
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
