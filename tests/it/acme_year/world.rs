//! What is around moorgate during the year: the CA, the names, the plain listener, the time and the disk.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use moorgate::certs::challenge::Challenges;
use moorgate::certs::issuer::Wall;
use moorgate::certs::storage::Storage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;

use super::alone::CA;
use super::chance::Chance;
use crate::harness::Domain;
use crate::harness::acme_ca::{AcmeCa, Nature, Told};

/// The domains: the profile, and the names.
pub const NAMES: [(&str, &[&str]); 6] = [
    ("classic", &["classic1.example.com"]),
    ("classic", &["classic2.example.com", "classic2.example.org"]),
    ("tlsserver", &["tlsserver1.example.com"]),
    ("tlsserver", &["tlsserver2.example.com", "tlsserver2.example.org"]),
    ("shortlived", &["shortlived1.example.com"]),
    ("shortlived", &["shortlived2.example.com", "shortlived2.example.org"]),
];

/// The profiles of Let's Encrypt, and how long their certificates live.
pub const PROFILES: [(&str, Duration); 3] = [
    ("classic", Duration::from_secs(90 * 86_400)),
    ("tlsserver", Duration::from_secs(45 * 86_400)),
    ("shortlived", Duration::from_secs(160 * 3600)),
];

/// How the CA is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// One validation in 25 fails.
    Usual = 0,
    /// It is out of order.
    Down = 1,
    /// It finds nobody at the names.
    Blind = 2,
}

#[derive(Default)]
struct Shared {
    /// True, in milliseconds since 1970.
    time: AtomicU64,
    /// How fast the clock of moorgate's machine is, in seconds.
    fast: AtomicI64,
    mood: AtomicU8,
    /// How often the CA was asked in vain.
    in_vain: AtomicU64,
    failed: AtomicU64,
}

pub struct World {
    _runtime: Runtime,
    pub ca: AcmeCa,
    pub directory: PathBuf,
    shared: Arc<Shared>,
}

impl World {
    pub fn new(directory: &Path, suggests: bool, mut chance: Chance) -> Self {
        let shared = Arc::new(Shared::default());
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        shared.time.store(u64::try_from(begun.as_millis()).unwrap(), Ordering::SeqCst);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (clock, whims) = (shared.clone(), shared.clone());
        let nature = Nature {
            listen: SocketAddr::from(([127, 0, 0, 1], 443)),
            host: Some(CA),
            clock: Arc::new(move || clock.now()),
            has_limits: true,
            whim: Some(Box::new(move |endpoint| whims.whim(endpoint, &mut chance))),
        };
        let ca = runtime.block_on(AcmeCa::with(nature));
        ca.profiles_for(&PROFILES);
        if suggests {
            ca.suggests();
        }
        configure(directory, &ca);
        runtime.spawn(answer_challenges(directory.join("state")));
        runtime.spawn(answer_questions());
        Self { _runtime: runtime, ca, directory: directory.to_owned(), shared }
    }

    /// The true time.
    pub fn now(&self) -> SystemTime {
        self.shared.now()
    }

    pub fn pass(&self, time: Duration) {
        self.shared.time.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The clock of moorgate's machine.
    pub fn wall(&self) -> Wall {
        let shared = self.shared.clone();
        Arc::new(move || shared.wall())
    }

    /// Sets that clock: so many seconds fast.
    pub fn set_fast(&self, seconds: i64) {
        self.shared.fast.store(seconds, Ordering::SeqCst);
    }

    pub fn set_mood(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Uses up the disk to the last byte.
    pub fn fill_disk(&self) {
        let mut file = std::fs::File::create(self.filling()).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    pub fn free_disk(&self) {
        std::fs::remove_file(self.filling()).unwrap();
    }

    fn filling(&self) -> PathBuf {
        self.directory.join("state/filling")
    }

    /// How often the CA was asked while it was out of order, and how many validations have failed.
    pub fn tally(&self) -> (u64, u64) {
        let Shared { in_vain, failed, .. } = &*self.shared;
        (in_vain.load(Ordering::SeqCst), failed.load(Ordering::SeqCst))
    }
}

impl Shared {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.time.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        let fast = self.fast.load(Ordering::SeqCst);
        let by = Duration::from_secs(fast.unsigned_abs());
        if fast < 0 { self.now() - by } else { self.now() + by }
    }

    fn whim(&self, endpoint: &str, chance: &mut Chance) -> Option<Told> {
        let mood = self.mood.load(Ordering::SeqCst);
        if mood == Mood::Down as u8 {
            self.in_vain.fetch_add(1, Ordering::SeqCst);
            return Some(match chance.below(3) {
                0 => Told::Hangup,
                1 => Told::Html(503, &[("retry-after", "1800")]),
                _ => Told::Refuse("serverInternal", 500, &[]),
            });
        }
        let fails = endpoint == "challenge" && (mood == Mood::Blind as u8 || chance.in_thousand(40));
        fails.then(|| {
            self.failed.fetch_add(1, Ordering::SeqCst);
            Told::Unmet
        })
    }
}

fn configure(directory: &Path, ca: &AcmeCa) {
    let roots = ca.write_roots(directory, "roots");
    let main = format!(
        "https = [\"127.0.0.1:443\"]\nhttp = [\"127.0.0.1:80\"]\nstate = \"state\"\n\
         [acme]\nchallenges = [\"http-01\"]\n[[ca]]\ndirectory = \"letsencrypt\"\nroots = \"{roots}\"\n"
    );
    std::fs::write(directory.join("moorgate.toml"), main).unwrap();
    std::fs::create_dir(directory.join("conf.d")).unwrap();
    let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
    for (profile, names) in NAMES {
        let aliases = format!("aliases = {:?}", &names[1..]);
        let tls = format!("acme = true\nprofile = \"{profile}\"");
        let domain = Domain::new(names[0], "http://127.0.0.1:9").top(&aliases).tls(&tls);
        let file = |extension| directory.join(format!("conf.d/{}.{extension}", names[0]));
        std::fs::write(file("toml"), domain.toml()).unwrap();
        std::fs::write(file("htpasswd"), &users).unwrap();
    }
}

/// The plain listener, where every name leads: a moorgate on the same state directory.
async fn answer_challenges(state: PathBuf) {
    let challenges = Arc::new(Challenges::new(Some(Storage::below(&state).challenges())));
    let listener = TcpListener::bind("127.0.0.1:80").await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let challenges = challenges.clone();
        tokio::spawn(async move {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let token = head.split(['/', ' ']).nth(4).unwrap_or_default();
            let answer = match challenges.find_http(token).await {
                Some(content) => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{content}"),
                None => "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

/// The DNS server: there are no records of whatever it is asked for.
async fn answer_questions() {
    let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
    let mut message = vec![0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut message).await {
        let Some(name) = message[..length].iter().skip(12).position(|byte| *byte == 0) else { continue };
        let question = &message[12..12 + name + 5];
        let head = [message[0], message[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        let _ = socket.send_to(&[&head, question].concat(), from).await;
    }
}
