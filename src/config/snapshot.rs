//! The whole validated configuration, immutable, swapped at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::acme::AcmeSettings;
use super::network::TrustedProxies;
use super::vhost::{ListenAddress, SharedVirtualHost};

/// The whole validated configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// The directory given as `--config`.
    pub directory: PathBuf,
    /// Where moorgate keeps what it makes itself.
    pub state: PathBuf,
    /// Every https listener that any domain uses, each once, in order of first mention.
    pub https: Vec<ListenAddress>,
    /// Plain listeners that only redirect.
    pub http: Vec<ListenAddress>,
    /// In order of their files' names.
    pub domains: Vec<SharedVirtualHost>,
    /// The CAs that domains with `acme` get their certificates from.
    pub acme: AcmeSettings,
    /// The read-only listener for health and status; none when it is not set.
    pub admin: Option<SocketAddr>,
    /// Whose word about the address of a client is believed.
    pub trusted_proxies: TrustedProxies,
    /// How many wrong passwords there may be.
    pub failures: FailureBudgets,
    /// How and what is logged.
    pub log: LogSettings,
    /// Limits that hold before a virtual host is known.
    pub connection: ConnectionSettings,
}

/// How many wrong passwords there may be before the next one is not looked at. The tries come back
/// one by one, evenly over the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureBudgets {
    /// Of an address; of IPv6, of a /64. Default 20: all the users of an office or a build farm may
    /// come from one address, and each of them may mistype.
    pub address: u32,
    /// Of a user: for all addresses together that it never logged in from, and for each of the
    /// others. Default 20.
    pub user: u32,
    /// The time in which a used-up budget is full again. Default 10 min: 2 guesses a minute in the
    /// long run.
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

/// How and what is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The form of the lines.
    pub format: LogFormat,
    /// The least important events that are written.
    pub level: LogLevel,
    /// Whether each request gets a line. Default true.
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

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important events that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs somebody.
    Error,
    /// And what may need somebody.
    Warn,
    /// And what an administrator wants to know.
    Info,
    /// And what explains it.
    Debug,
    /// Everything.
    Trace,
}

/// What holds for a connection before (or whichever) virtual host is asked for.
/// The sizes cannot be changed by a domain, since a head is read before it names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// The TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// From accept to the end of the first request head. Default 15 s.
    pub first_head: Duration,
    /// From the first to the last byte of a later head. Default 30 s.
    pub head: Duration,
    /// A connection without a request. Default 5 min.
    pub idle: Duration,
    /// An HTTP/2 connection without frames gets a PING. Default 60 s.
    pub h2_ping: Duration,
    /// How long running transfers may go on after a stop. Default 1 h.
    pub drain: Duration,
    /// The largest request head, HTTP/1 and HTTP/2 alike, in bytes. Default 32 KiB.
    pub head_bytes: usize,
    /// The most header lines in a head. Default 100.
    pub head_lines: usize,
    /// The longest request target, in bytes. Default 8 KiB.
    pub target_bytes: usize,
    /// The most HTTP/2 streams at once on a connection. Default 100.
    pub h2_streams: u32,
    /// The most connections at once, all listeners together. Default 10 000.
    pub connections: usize,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            first_head: Duration::from_secs(15),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            h2_ping: Duration::from_secs(60),
            drain: Duration::from_secs(3600),
            head_bytes: 32 << 10,
            head_lines: 100,
            target_bytes: 8 << 10,
            h2_streams: 100,
            connections: 10_000,
        }
    }
}
