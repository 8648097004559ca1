//! The real binary by a path where another one can be put, and those that take over from it.

use std::fs;
use std::io::{BufRead, BufReader, Read, pipe};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Domain, PATIENCE, Setup, client_config};

/// moorgate with its own registry at `ci.test`, and whoever takes over from it. All end with this.
pub struct Service {
    child: Child,
    pub directory: tempfile::TempDir,
    said: Arc<Mutex<String>>,
    pub https: SocketAddr,
    pub admin: SocketAddr,
}

impl Service {
    pub fn start() -> Self {
        Self::with(Setup::new().domain(Domain::store("ci.test", "ci")))
    }

    pub fn with(setup: Setup) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), setup)
    }

    /// The same where something has been prepared.
    pub fn start_in(directory: tempfile::TempDir, setup: Setup) -> Self {
        setup.write(directory.path());
        let program = directory.path().join("moorgate");
        symlink(binary(), &program).unwrap();
        let (reader, writer) = pipe().unwrap();
        let said = Arc::<Mutex<String>>::default();
        collect(reader, said.clone());
        let child = Command::new(&program)
            .args(["run", "--config"])
            .arg(directory.path())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let mut service = Self {
            child,
            directory,
            said,
            https: SocketAddr::from(([0; 4], 0)),
            admin: SocketAddr::from(([0; 4], 0)),
        };
        service.https = service.listener("https");
        service.admin = service.listener("admin");
        until("it is ready", || service.cli(&["health"]).status.success());
        service
    }

    fn listener(&self, kind: &str) -> SocketAddr {
        let field = format!("kind=\"{kind}\" address=");
        let begun = Instant::now();
        while !self.said().contains(&field) {
            assert!(begun.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(POLL);
        }
        let said = self.said();
        let (_, address) = said.split_once(&field).unwrap();
        let address = address.split_whitespace().next().unwrap();
        address.parse().unwrap()
    }

    /// What all processes have said.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a command with the configuration.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(arguments)
            .arg("--config")
            .arg(self.path())
            .output()
            .unwrap()
    }

    /// Lets a new process take over, and returns its id.
    pub fn upgrade(&self) -> Pid {
        let output = self.cli(&["upgrade"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}\n{}", self.said());
        let pid = text
            .split_once("): process ")
            .and_then(|(_, rest)| rest.split_once(" serves now"))
            .map(|(pid, _)| pid.parse().unwrap());
        Pid::from_raw(pid.expect("its id")).unwrap()
    }

    /// An upgrade that must fail; returns what the command says.
    pub fn refused_upgrade(&self) -> String {
        let output = self.cli(&["upgrade"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn first(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How the process that was started first has ended.
    pub fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "{}", self.said());
            std::thread::sleep(POLL);
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Puts a script in the place of the binary.
    pub fn replace_by(&self, script: &str) {
        let new = self.path().join("new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, self.path().join("moorgate")).unwrap();
    }

    /// Puts the binary back.
    pub fn restore(&self) {
        let new = self.path().join("new");
        symlink(binary(), &new).unwrap();
        fs::rename(new, self.path().join("moorgate")).unwrap();
    }

    pub fn client_config(&self, alpn: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let pem = self.path().join("state/internal-ca/ca.pem");
        roots
            .add(CertificateDer::from_pem_file(pem).unwrap())
            .unwrap();
        Arc::new(client_config(roots, &[alpn]))
    }

    /// A metric of the process that serves.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The last one may be unknown to this: all that run with this configuration.
        let own = self.path().as_os_str().as_encoded_bytes().to_vec();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            let Some(pid) = pid.and_then(Pid::from_raw) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if line
                .split(|byte| *byte == 0)
                .any(|argument| argument == own)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

pub fn binary() -> PathBuf {
    std::env::var_os("MOORGATE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_moorgate").into(), PathBuf::from)
}

pub async fn tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(config.clone())
        .connect(ServerName::try_from("ci.test").unwrap(), tcp)
        .await
}

/// Sends a request and reads the answer: its status and its head in small letters.
pub async fn answer(stream: &mut TlsStream<TcpStream>, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.unwrap();
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    let body = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; body.map_or(0, |bytes| bytes.trim().parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head)
}

/// One that its parent has not collected has no command line.
pub fn has_ended(pid: Pid) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
    line.map_or(true, |line| line.is_empty())
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut said = into.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

/// Waits for what another process brings about.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(POLL);
    }
}

const POLL: Duration = Duration::from_millis(10);
