//! The real binary, for what is measured of a process: memory, and time under load.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Setup;
use super::gateway::client_config;

/// A running moorgate with the domain `ci.test`. It ends with this.
pub struct Process {
    child: Child,
    pub https: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    _directory: tempfile::TempDir,
}

impl Setup {
    /// Starts the binary: `MOORGATE_BIN`, or else the one built with the tests.
    /// `entries` replaces the htpasswd file of `ci.test`.
    pub fn spawn(self, entries: &str, alpn: &str) -> Process {
        let directory = tempfile::tempdir().unwrap();
        self.write(directory.path());
        std::fs::write(directory.path().join("conf.d/ci.test.htpasswd"), entries).unwrap();
        let binary =
            std::env::var_os("MOORGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_moorgate").into());
        let mut child = Command::new(binary)
            .args(["run", "--config"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let https = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, address)) = line.split_once("listening kind=\"https\" address=") {
                break address.trim().parse().unwrap();
            }
        };
        // Whatever else it says has to go somewhere, or it would wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        let mut roots = RootCertStore::empty();
        let pem = directory.path().join("state/internal-ca/ca.pem");
        roots.add(CertificateDer::from_pem_file(pem).unwrap()).unwrap();
        let config = Arc::new(client_config(roots, &[alpn]));
        Process { child, https, config, _directory: directory }
    }
}

impl Process {
    pub async fn tls(&self) -> TlsStream<TcpStream> {
        self.tls_over(TcpStream::connect(self.https).await.unwrap()).await
    }

    /// TLS over a connection that leads to it.
    pub async fn tls_over(&self, tcp: TcpStream) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(ServerName::try_from("ci.test").unwrap(), tcp).await.unwrap()
    }

    /// Resident memory now, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that it ever had.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
