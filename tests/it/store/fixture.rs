//! A store in this process or in one of its own, and what lies on its disk.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::client::{Client, Endpoint};
use super::image::{sha256, sha512};
use crate::harness::gateway::client_config;
use crate::harness::{Domain, Gateway, Setup};

/// A gateway of this process with a store as the registry of `ci.test`.
pub struct StoreFixture {
    pub gateway: Gateway,
}

impl StoreFixture {
    pub async fn new() -> Self {
        Self::with(|domain| domain).await
    }

    /// With further settings of the domain.
    pub async fn with(settings: impl FnOnce(Domain) -> Domain) -> Self {
        let gateway = Setup::new()
            .domain(settings(Domain::store("ci.test", "ci")))
            .start()
            .await;
        Self { gateway }
    }

    pub fn http1(&self) -> Client {
        Endpoint::new(&self.gateway, "http/1.1").client()
    }

    pub fn http2(&self) -> Client {
        Endpoint::new(&self.gateway, "h2").client()
    }

    pub fn disk(&self) -> Disk {
        Disk(self.gateway.path("state/store/ci"))
    }

    /// Runs `moorgate gc` as a process beside this one, as an administrator does.
    pub fn gc(&self, options: &[&str]) -> Value {
        gc(self.gateway.directory.path(), options)
    }
}

/// What a collection by command says, as JSON.
pub fn gc(config: &Path, options: &[&str]) -> Value {
    let mut command = Command::new(binary());
    command
        .args(["gc", "ci.test", "--json", "--config"])
        .arg(config)
        .args(options);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("MOORGATE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_moorgate").into(), PathBuf::from)
}

/// A moorgate of its own that can be killed and started again over the same files.
pub struct Killable {
    config: PathBuf,
    child: Child,
    pub endpoint: Endpoint,
}

impl Killable {
    /// Starts one with the store of `ci.test` below a directory.
    pub fn start(directory: &Path) -> Self {
        Self::with(directory, Domain::store("ci.test", "ci"))
    }

    /// Starts one with this domain.
    pub fn with(directory: &Path, domain: Domain) -> Self {
        Setup::new().domain(domain).write(directory);
        Self::again(directory)
    }

    fn again(directory: &Path) -> Self {
        let mut command = Command::new(binary());
        command.args(["run", "--config"]).arg(directory);
        Self::spawn(directory, command)
    }

    /// Starts it by a command, which may prepare the process before it becomes moorgate.
    pub fn spawn(directory: &Path, mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else {
                panic!("it ended:\n{}", said.join("\n"))
            };
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("listening kind=\"https\" address=") {
                break address.trim().parse().unwrap();
            }
            said.push(line);
        };
        // Whatever else it says has to go somewhere, or it would wait for that: to who reads of a
        // failure.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| eprintln!("{line}"))
        });
        let mut roots = RootCertStore::empty();
        // Its state may lie where only it looks.
        let root = format!("/proc/{}/root", child.id());
        let ca = format!("{root}{}/state/internal-ca/ca.pem", directory.display());
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
        let config = Arc::new(client_config(roots, &["http/1.1"]));
        Self {
            config: directory.to_owned(),
            child,
            endpoint: Endpoint {
                address,
                config,
                host: "ci.test".to_owned(),
            },
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `kill -9`, and another process over the same files.
    pub fn restart(&mut self) {
        self.kill();
        *self = Self::again(&self.config.clone());
    }

    pub fn disk(&self) -> Disk {
        Disk(self.config.join("state/store/ci"))
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory of a store.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn repository(&self, name: &str) -> PathBuf {
        self.0.join("repositories").join(name.replace('/', "+"))
    }

    pub fn blob(&self, name: &str, digest: &str) -> PathBuf {
        self.repository(name)
            .join("blobs")
            .join(digest.replace(':', "/"))
    }

    pub fn shared(&self, digest: &str) -> PathBuf {
        self.0.join("blobs").join(digest.replace(':', "/"))
    }

    /// Where the bytes of an upload lie. The name that its owner gets ends with a tag.
    pub fn upload(&self, location: &str) -> PathBuf {
        let (repository, id) = location
            .strip_prefix("https://ci.test/v2/")
            .and_then(|path| path.split_once("/blobs/uploads/"))
            .unwrap();
        let (id, _) = id.split_once('~').unwrap();
        self.0
            .join("uploads")
            .join(repository.replace('/', "+"))
            .join(id)
    }

    /// The names of a directory, in order; none if it is not there.
    pub fn list(path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(path) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn repositories(&self) -> Vec<String> {
        Self::list(self.0.join("repositories"))
            .iter()
            .map(|name| name.replace('+', "/"))
            .collect()
    }

    pub fn index(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.repository(name).join("index.json")).unwrap())
            .unwrap()
    }

    /// Asserts that all of it is a store: every blob is what its name says, every index can be
    /// read, and everything that a manifest needs is there.
    pub fn is_sound(&self) {
        for (algorithm, hash) in [
            ("sha256", sha256 as fn(&[u8]) -> String),
            ("sha512", sha512),
        ] {
            let shared = self.0.join("blobs").join(algorithm);
            let own = self
                .repositories()
                .into_iter()
                .map(|name| self.repository(&name).join("blobs").join(algorithm));
            for directory in own.chain([shared]) {
                for name in Self::list(&directory)
                    .iter()
                    .filter(|name| !name.starts_with(".moorgate-"))
                {
                    let content = std::fs::read(directory.join(name)).unwrap();
                    assert_eq!(
                        hash(&content),
                        format!("{algorithm}:{name}"),
                        "{}",
                        directory.display()
                    );
                }
            }
        }
        for name in self.repositories() {
            if self.repository(&name).join("index.json").exists() {
                self.is_whole(&name);
            }
        }
    }

    fn is_whole(&self, name: &str) {
        let mark = std::fs::read(self.repository(name).join("oci-layout")).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&mark).unwrap()["imageLayoutVersion"],
            "1.0.0"
        );
        let index = self.index(name);
        let listed: Vec<&Value> = index["manifests"].as_array().unwrap().iter().collect();
        let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
        for entry in &listed {
            let bytes = std::fs::read(self.blob(name, &digest(entry))).unwrap();
            assert_eq!(entry["size"], bytes.len(), "{name} {entry}");
            let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else {
                continue;
            };
            let layers = manifest["layers"].as_array().into_iter().flatten();
            for blob in layers.chain(manifest.get("config")) {
                let path = self.blob(name, &digest(blob));
                let size = std::fs::metadata(&path)
                    .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
                    .len();
                assert_eq!(blob["size"], size, "{name} {blob}");
            }
            for child in manifest["manifests"].as_array().into_iter().flatten() {
                assert!(
                    listed.iter().any(|other| digest(other) == digest(child)),
                    "{name} has no {child}"
                );
            }
        }
    }

    /// Makes all blobs and uploads look as if nobody had used them for so long, and the store like
    /// one of an older version that has recorded no pull in all that time.
    pub fn age(&self, time: Duration) {
        self.age_content(time);
        let uploads = self.0.join("uploads");
        for directory in Self::list(&uploads) {
            for name in Self::list(uploads.join(&directory)) {
                age(&uploads.join(&directory).join(name), time);
            }
        }
    }

    /// The same of blobs alone: the process removes uploads so old whenever it maintains its stores.
    pub fn age_content(&self, time: Duration) {
        for file in ["journal.redb", "journal.redb.previous", "journal.lock"] {
            let _ = std::fs::remove_file(self.0.join(file));
        }
        std::fs::create_dir_all(self.0.join("pulled")).unwrap();
        let names = self.repositories();
        for directory in names
            .iter()
            .map(|name| self.repository(name))
            .chain([self.0.clone()])
        {
            for algorithm in ["sha256", "sha512"] {
                let directory = directory.join("blobs").join(algorithm);
                for name in Self::list(&directory) {
                    age(&directory.join(name), time);
                }
            }
        }
    }
}

/// Makes a file look as old as that.
pub fn age(file: &Path, time: Duration) {
    // One that a collection takes away in this moment has no age.
    if let Ok(file) = File::open(file) {
        file.set_modified(SystemTime::now() - time).unwrap();
    }
}

pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// The upstream of a domain that removes untagged manifests.
pub const UNTAGGED: &str = "directory = \"ci\"\nuntagged = \"24h\"";
