//! The validated configuration: immutable, and replaced as a whole on a reload.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::access::WrittenUsers;
use super::acme::AcmeSettings;
use super::network::TrustedProxies;
use super::vhost::{ListenAddress, SharedVirtualHost};

/// The validated configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// The directory given as `--config`.
    pub directory: PathBuf,
    /// The directory for everything that moorgate writes.
    pub state: PathBuf,
    /// Where the files name the listeners; defaults are not among them.
    pub written_listeners: Vec<WrittenListener>,
    /// Every https listener that any domain uses, each once, in order of first mention.
    pub https: Vec<ListenAddress>,
    /// Plain listeners, which redirect to https and answer http-01 challenges.
    pub http: Vec<ListenAddress>,
    /// Sorted by the names of their files.
    pub domains: Vec<SharedVirtualHost>,
    /// What the access rules and groups of `moorgate.toml` say of users.
    pub shared_users: WrittenUsers,
    /// The CAs that domains with `acme` get their certificates from.
    pub acme: AcmeSettings,
    /// The read-only listener for health and status, if there is one.
    pub admin: Option<SocketAddr>,
    /// The proxies whose PROXY headers are accepted.
    pub trusted_proxies: TrustedProxies,
    /// Limits on failed logins.
    pub failures: FailureBudgets,
    pub log: LogSettings,
    /// Limits that apply before a virtual host is known.
    pub connection: ConnectionSettings,
}

impl Snapshot {
    /// The path of `moorgate.toml`, which need not exist.
    pub fn main_file(&self) -> PathBuf {
        self.directory.join(MAIN_FILE)
    }
}

/// Within the configuration directory.
pub(super) const MAIN_FILE: &str = "moorgate.toml";

/// A listener as a file names it.
#[derive(Clone, Debug)]
pub struct WrittenListener {
    pub address: ListenAddress,
    pub file: PathBuf,
    /// Of the address in the file, in bytes.
    pub span: Range<usize>,
}

/// Failed logins that are allowed before further passwords are refused unchecked. Used attempts
/// come back one by one, evenly over the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureBudgets {
    /// For each client address (IPv6: each /64). Default 20: all users of an office or a build farm
    /// may share one address, and each of them may mistype.
    pub address: u32,
    /// For each user: one budget for all addresses without a previous login of that user, and one
    /// for each address with one. Default 20.
    pub user: u32,
    /// The time in which a used-up budget becomes full again. Default 10 min: 2 guesses per minute
    /// in the long run.
    pub window: Duration,
}

impl Default for FailureBudgets {
    fn default() -> Self {
        Self {
            address: 20,
            user: 20,
            window: Duration::from_secs(600),
        }
    }
}

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// Events below this level are not written.
    pub level: LogLevel,
    /// Whether each request is logged. Default true.
    pub access: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: LogLevel::Info,
            access: true,
        }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The lowest level that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Limits of a connection, whichever virtual host its requests name. A domain cannot change them,
/// since a request head is read before its host is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// For the TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// From accept to the end of the first request head. Default 15 s.
    pub first_head: Duration,
    /// From the first to the last byte of a later head. Default 30 s.
    pub head: Duration,
    /// Time without a request after which a connection is closed. Default 5 min.
    pub idle: Duration,
    /// The same before the first login. Default 15 s.
    pub idle_unauthenticated: Duration,
    /// Time without frames after which an HTTP/2 connection gets a PING. Default 60 s.
    pub h2_ping: Duration,
    /// How long running transfers may continue after a stop. Default 1 h.
    pub drain: Duration,
    /// The largest request head, HTTP/1 and HTTP/2 alike, in bytes. Default 32 KiB.
    pub head_bytes: usize,
    /// The maximum number of header lines in a head. Default 100.
    pub head_lines: usize,
    /// The longest request target, in bytes. Default 8 KiB.
    pub target_bytes: usize,
    /// The maximum number of concurrent HTTP/2 streams on a connection. Default 100.
    pub h2_streams: u32,
    /// The maximum number of connections of all listeners together. Default 10 000.
    pub connections: usize,
    /// The maximum number of connections of one client; `None` stands for a quarter of all, and 64
    /// at least.
    pub client_connections: Option<usize>,
    /// New connections of one client per second, in the long run. Default 500.
    pub client_connection_rate: u32,
    /// The maximum number of passwords that wait to be hashed. Default 64: 3 to 6 s for one thread
    /// at cost 10.
    pub passwords_waiting: usize,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_head: Duration::from_secs(15),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            idle_unauthenticated: Duration::from_secs(15),
            h2_ping: Duration::from_secs(60),
            drain: Duration::from_secs(3600),
            head_bytes: 32 << 10,
            head_lines: 100,
            target_bytes: 8 << 10,
            h2_streams: 100,
            connections: 10_000,
            client_connections: None,
            client_connection_rate: 500,
            passwords_waiting: 64,
        }
    }
}
