//! The real binary, for what is measured of a process: memory, and time under load.

use std::io::{BufRead, BufReader, Read, pipe};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::OwnedMutexGuard;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Setup;
use super::gateway::{client_config, write_session_key};

/// A running moorgate with the domain `ci.test`. It ends with this.
pub struct Process {
    child: Child,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    said: Arc<Mutex<String>>,
    reading: Arc<Reading>,
    config: Arc<rustls::ClientConfig>,
    directory: tempfile::TempDir,
}

impl Setup {
    /// Starts the binary: `MOORGATE_BIN`, or else the one built with the tests.
    /// `entries` replaces the htpasswd file of `ci.test`.
    pub fn spawn(self, entries: &str, alpn: &str) -> Process {
        self.spawn_logging_to(LogPipes::Two, entries, alpn)
    }

    /// The same, with its logs in one pipe or in two.
    pub fn spawn_logging_to(self, pipes: LogPipes, entries: &str, alpn: &str) -> Process {
        let directory = tempfile::tempdir().unwrap();
        self.write(directory.path());
        write_session_key(&directory.path().join("state"));
        std::fs::write(directory.path().join("conf.d/ci.test.htpasswd"), entries).unwrap();
        let binary = std::env::var_os("MOORGATE_BIN")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_moorgate").into());
        let (said, reading) = (Arc::<Mutex<String>>::default(), Arc::<Reading>::default());
        let mut command = Command::new(binary);
        command.args(["run", "--config"]).arg(directory.path());
        let (reader, writer) = pipe().unwrap();
        keep(reader, &said, &reading);
        match pipes {
            LogPipes::One => command.stderr(writer.try_clone().unwrap()),
            LogPipes::Two => {
                let (reader, writer) = pipe().unwrap();
                keep(reader, &said, &reading);
                command.stderr(writer)
            }
        };
        let child = command.stdout(writer).spawn().unwrap();
        drop(command);
        let [https, admin] = ["https", "admin"].map(|kind| listener(&said, kind));
        let mut roots = RootCertStore::empty();
        let pem = directory.path().join("state/internal-ca/ca.pem");
        roots
            .add(CertificateDer::from_pem_file(pem).unwrap())
            .unwrap();
        let config = Arc::new(client_config(roots, &[alpn]));
        Process {
            child,
            https,
            admin,
            said,
            reading,
            config,
            directory,
        }
    }
}

/// Locked for as long as nobody reads.
type Reading = tokio::sync::Mutex<()>;

/// Where a process writes its logs to.
#[derive(Clone, Copy, Debug)]
pub enum LogPipes {
    /// As with `2>&1`.
    One,
    Two,
}

/// Reads from a thread of its own, while `reading` is free: whoever writes would have to wait for
/// nobody to read.
fn keep(from: impl Read + Send + 'static, said: &Arc<Mutex<String>>, reading: &Arc<Reading>) {
    let (said, reading) = (said.clone(), reading.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            drop(reading.blocking_lock());
            let mut said = said.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

/// Where it says that it listens, as text or as JSON.
fn listener(said: &Mutex<String>, kind: &str) -> SocketAddr {
    let kind = format!("\"{kind}\"");
    let begun = std::time::Instant::now();
    loop {
        let said = said.lock().unwrap().clone();
        let mut of_kind = said
            .lines()
            .filter(|line| line.contains("listening") && line.contains(&kind));
        if let Some(line) = of_kind.next() {
            let address = line
                .rsplit_once("address")
                .expect("an address")
                .1
                .trim_start_matches(['"', ':', '=']);
            return address
                .split(['"', ' ', '}'])
                .next()
                .unwrap()
                .parse()
                .unwrap();
        }
        assert!(
            begun.elapsed() < super::PATIENCE,
            "it does not say where it listens:\n{said}"
        );
        std::thread::yield_now();
    }
}

impl Process {
    pub async fn tls(&self) -> TlsStream<TcpStream> {
        self.tls_over(TcpStream::connect(self.https).await.unwrap())
            .await
    }

    /// TLS over a connection that leads to it.
    pub async fn tls_over(&self, tcp: TcpStream) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(self.config.clone());
        connector
            .connect(ServerName::try_from("ci.test").unwrap(), tcp)
            .await
            .unwrap()
    }

    /// What it has said so far: its access log and its events.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Stops reading what it says until the guard is dropped.
    pub async fn pause_reading(&self) -> OwnedMutexGuard<()> {
        self.reading.clone().lock_owned().await
    }

    /// A file of its configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
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
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
