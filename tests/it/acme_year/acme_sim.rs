//! The environment of moorgate during the year: the CA, the names, the plain listener, the time and
//! the disk.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use moorgate::internal::certs::Challenges;
use moorgate::internal::certs::Storage;
use moorgate::internal::certs::SystemClock;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

use super::alone::CA;
use crate::harness::Domain;
use crate::harness::acme_ca::{AcmeCa, CaOptions};
use crate::harness::plain::answer_challenges;

/// A domain: its profile and its names.
pub type Names = (&'static str, &'static [&'static str]);

/// The domains of all tests: the hosts file contains them.
pub const NAMES: [Names; 6] = [
    ("classic", &["classic1.example.com"]),
    ("classic", &["classic2.example.com", "classic2.example.org"]),
    ("tlsserver", &["tlsserver1.example.com"]),
    (
        "tlsserver",
        &["tlsserver2.example.com", "tlsserver2.example.org"],
    ),
    ("shortlived", &["shortlived1.example.com"]),
    (
        "shortlived",
        &["shortlived2.example.com", "shortlived2.example.org"],
    ),
];

/// The profiles of Let's Encrypt and the lifetimes of their certificates.
pub const PROFILES: [(&str, Duration); 3] = [
    ("classic", Duration::from_secs(90 * 86_400)),
    ("tlsserver", Duration::from_secs(45 * 86_400)),
    ("shortlived", Duration::from_secs(160 * 3600)),
];

#[derive(Default)]
struct Shared {
    /// The true time, in nanoseconds since 1970.
    time: AtomicU64,
    /// How many seconds the clock of moorgate's machine is fast.
    fast: AtomicI64,
}

pub struct AcmeSim {
    _runtime: Runtime,
    pub ca: AcmeCa,
    pub directory: PathBuf,
    shared: Arc<Shared>,
}

impl AcmeSim {
    /// Starts at `begun` with these domains, and these challenges in the syntax of the
    /// configuration.
    pub fn new(begun: SystemTime, directory: &Path, domains: &[Names], challenges: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let begun = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        shared
            .time
            .store(u64::try_from(begun.as_nanos()).unwrap(), Ordering::SeqCst);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let clock = shared.clone();
        let options = CaOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 443)),
            host: Some(CA),
            clock: Arc::new(move || clock.now()),
            has_limits: true,
        };
        let ca = runtime.block_on(AcmeCa::with(options));
        ca.profiles_for(&PROFILES);
        configure(directory, &ca, domains, challenges);
        let challenges =
            Challenges::new(Some(Storage::below(&directory.join("state")).challenges()));
        runtime.spawn(answer_challenges(
            ([127, 0, 0, 1], 80).into(),
            Arc::new(challenges),
        ));
        runtime.spawn(answer_questions());
        Self {
            _runtime: runtime,
            ca,
            directory: directory.to_owned(),
            shared,
        }
    }

    /// The true time.
    pub fn now(&self) -> SystemTime {
        self.shared.now()
    }

    pub fn pass(&self, time: Duration) {
        self.shared
            .time
            .fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    /// The clock of moorgate's machine.
    pub fn wall(&self) -> SystemClock {
        let shared = self.shared.clone();
        Arc::new(move || shared.wall())
    }

    /// Sets that clock fast by `seconds`.
    pub fn set_fast(&self, seconds: i64) {
        self.shared.fast.store(seconds, Ordering::SeqCst);
    }

    pub fn fill_disk(&self) {
        fill(&self.directory);
    }

    pub fn free_disk(&self) {
        std::fs::remove_file(self.directory.join(FILLING)).unwrap();
    }

    /// Makes the file system of the state directory read-only, or writable again.
    pub fn mount_disk(&self, how: &str) {
        let mut mount = std::process::Command::new("mount");
        mount
            .args(["-o", &format!("remount,bind,{how}")])
            .arg(self.directory.join("state"));
        assert!(mount.status().unwrap().success());
    }
}

/// Uses up the disk of the state directory to the last byte.
pub fn fill(directory: &Path) {
    let mut file = std::fs::File::create(directory.join(FILLING)).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}

impl Shared {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.time.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        let fast = self.fast.load(Ordering::SeqCst);
        let by = Duration::from_secs(fast.unsigned_abs());
        if fast < 0 {
            self.now() - by
        } else {
            self.now() + by
        }
    }
}

fn configure(directory: &Path, ca: &AcmeCa, domains: &[Names], challenges: &str) {
    let roots = ca.write_roots(directory, "roots");
    // Not public, so that moorgate does not check whether port 443 of the names, which the CA has
    // here, leads to it. The limits are the same.
    let public = !challenges.contains("tls-alpn-01");
    let main = format!(
        "https = [\"127.0.0.1:443\"]\nhttp = [\"127.0.0.1:80\"]\nstate = \"state\"\n\
         [acme]\nchallenges = {challenges}\n[[ca]]\ndirectory = \"letsencrypt\"\nroots = \"{roots}\"\n\
         public = {public}\n"
    );
    std::fs::write(directory.join("moorgate.toml"), main).unwrap();
    std::fs::create_dir(directory.join("conf.d")).unwrap();
    let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
    for (profile, names) in domains {
        let aliases = format!("aliases = {:?}", &names[1..]);
        let tls = format!("acme = true\nprofile = \"{profile}\"");
        let domain = Domain::new(names[0], "http://127.0.0.1:9")
            .top(&aliases)
            .tls(&tls);
        let file = |extension| directory.join(format!("conf.d/{}.{extension}", names[0]));
        std::fs::write(file("toml"), domain.toml()).unwrap();
        std::fs::write(file("htpasswd"), &users).unwrap();
    }
}

/// The DNS server: every name has the address 127.0.0.1 and no other records.
async fn answer_questions() {
    let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
    let mut message = vec![0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut message).await {
        let Some(name) = message[..length]
            .iter()
            .skip(12)
            .position(|byte| *byte == 0)
        else {
            continue;
        };
        let question = &message[12..12 + name + 5];
        let is_address = question[name + 1..name + 3] == [0, 1];
        let head = [
            message[0],
            message[1],
            0x81,
            0x80,
            0,
            1,
            0,
            u8::from(is_address),
            0,
            0,
            0,
            0,
        ];
        let record: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1];
        let answer = [&head[..], question, if is_address { record } else { &[] }].concat();
        let _ = socket.send_to(&answer, from).await;
    }
}

const FILLING: &str = "state/filling";
