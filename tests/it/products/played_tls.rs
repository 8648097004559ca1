//! TLS in front of a player, which speaks none itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::harness::played::PlayedAddresses;
use crate::harness::tls_server;

/// Two TLS servers with the name `localhost`. Dropped, they stop listening.
pub struct PlayedTls {
    registry: u16,
    api: u16,
    roots: PathBuf,
    _directory: tempfile::TempDir,
    listening: Vec<JoinHandle<()>>,
}

impl PlayedTls {
    pub async fn new(addresses: PlayedAddresses) -> Self {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let roots = directory.path().join("roots.pem");
        std::fs::write(&roots, own.cert.pem()).unwrap();
        let acceptor = tls_server(&own.cert, &own.signing_key);
        let mut listening = Vec::new();
        let mut ports = Vec::new();
        for behind in [addresses.registry, addresses.api] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ports.push(listener.local_addr().unwrap().port());
            listening.push(tokio::spawn(forward(listener, acceptor.clone(), behind)));
        }
        Self {
            registry: ports[0],
            api: ports[1],
            roots,
            _directory: directory,
            listening,
        }
    }

    pub fn registry_url(&self) -> String {
        format!("https://localhost:{}", self.registry)
    }

    pub fn api_url(&self) -> String {
        format!("https://localhost:{}", self.api)
    }

    /// The file with its certificate.
    pub fn roots(&self) -> &Path {
        &self.roots
    }
}

impl Drop for PlayedTls {
    fn drop(&mut self) {
        for server in &self.listening {
            server.abort();
        }
    }
}

async fn forward(listener: TcpListener, acceptor: TlsAcceptor, behind: SocketAddr) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Either side may leave at any time.
            let Ok(mut client) = acceptor.accept(stream).await else {
                return;
            };
            let mut server = TcpStream::connect(behind).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
