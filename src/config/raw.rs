//! The settings as written, key by key: each value is valid by itself, or a problem is reported.
//! The document is walked by hand rather than deserialized, so that all problems of a file are
//! reported at once, unknown keys included.

pub(super) mod access;
mod acme;
pub(super) mod retention;
mod table;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use self::access::RawRules;
use self::acme::tls;
pub(super) use self::acme::{RawAcmeSettings, RawCa, RawTls};
use self::retention::RawHoldings;
use self::table::TableReader;
use self::upstream::upstream;
pub(super) use self::upstream::{RawAuthorization, RawLogin, RawNameRule, RawUpstream};
use super::foreign;
use super::network::Network;
use super::problem::{Problem, Problems};
use super::schema::FileKind;
use super::snapshot::{LogFormat, LogLevel};
use super::source::{Source, Span};
use super::upstream::UpstreamUrl;
use super::values::{self, DAY, GIB, KIB};
use super::vhost::{AnonymousAccess, ListenAddress};
use crate::registry::host::{Authority, HostName};

/// The state of a key in a file.
#[derive(Clone, Debug, Default)]
pub(super) enum Setting<T> {
    #[default]
    Absent,
    /// Present with an invalid value, which is already reported.
    Invalid,
    /// Present with a valid value.
    Given(T, Span),
}

impl<T> Setting<T> {
    /// The value, if it is valid.
    pub(super) fn given(&self) -> Option<&T> {
        match self {
            Self::Given(value, _) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    /// The position of the value, if it is valid.
    pub(super) fn span(&self) -> Option<&Span> {
        match self {
            Self::Given(_, span) => Some(span),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: Clone> Setting<T> {
    /// The value, or the default if there is no valid one.
    pub(super) fn or(&self, default: T) -> T {
        self.given().cloned().unwrap_or(default)
    }
}

impl<T: Clone + Default> Setting<T> {
    /// The value, or an empty one.
    pub(super) fn or_empty(&self) -> T {
        self.given().cloned().unwrap_or_default()
    }

    /// A table that every domain needs, and where its header is; an absent table counts as an empty
    /// one. None for an invalid table, whose problem is reported already.
    pub(super) fn table(&self) -> Option<(T, Option<&Span>)> {
        match self {
            Self::Absent => Some((T::default(), None)),
            Self::Invalid => None,
            Self::Given(table, header) => Some((table.clone(), Some(header))),
        }
    }
}

/// A list whose elements carry their positions.
pub(super) type List<T> = Setting<Vec<Spanned<T>>>;

/// A domain file.
#[derive(Clone, Debug, Default)]
pub(super) struct RawDomain {
    pub(super) domain: Setting<HostName>,
    pub(super) aliases: List<Authority>,
    pub(super) listen: List<ListenAddress>,
    pub(super) tls: Setting<RawTls>,
    pub(super) auth: Setting<RawAuth>,
    pub(super) upstream: Setting<RawUpstream>,
    pub(super) browser: Setting<RawBrowser>,
    pub(super) inherit: Setting<bool>,
    pub(super) rules: RawRules,
    pub(super) holdings: RawHoldings,
    pub(super) limits: Setting<RawLimits>,
    pub(super) timeouts: Setting<RawTimeouts>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RawAuth {
    pub(super) htpasswd: Setting<PathBuf>,
    pub(super) realm: Setting<String>,
    pub(super) mode: Setting<RawMode>,
    pub(super) anonymous: Setting<AnonymousAccess>,
    pub(super) token_lifetime: Setting<Duration>,
    pub(super) refresh_token_lifetime: Setting<Duration>,
    pub(super) refresh_tokens: Setting<bool>,
}

/// How clients authenticate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RawMode {
    #[default]
    Basic,
    Token,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RawBrowser {
    pub(super) url: Setting<UpstreamUrl>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RawLimits {
    pub(super) manifest: Setting<u64>,
    pub(super) body: Setting<Option<u64>>,
    pub(super) user_requests: Setting<u32>,
    pub(super) user_uploads: Setting<u32>,
    pub(super) user_upload_sessions: Setting<usize>,
    pub(super) upstream_connections: Setting<usize>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RawTimeouts {
    pub(super) first_body_byte: Setting<Duration>,
    pub(super) stall: Setting<Duration>,
    pub(super) upstream_connect: Setting<Duration>,
    pub(super) upstream_head: Setting<Duration>,
    pub(super) upstream_commit: Setting<Duration>,
    pub(super) upstream_idle: Setting<Duration>,
}

/// `moorgate.toml`.
#[derive(Clone, Debug, Default)]
pub(super) struct RawMain {
    pub(super) https: List<ListenAddress>,
    pub(super) http: List<ListenAddress>,
    pub(super) state: Setting<PathBuf>,
    pub(super) acme: Setting<RawAcmeSettings>,
    pub(super) ca: List<RawCa>,
    pub(super) trusted_proxies: List<Network>,
    pub(super) admin: Setting<RawAdmin>,
    pub(super) auth: Setting<RawMainAuth>,
    /// For all domains that do not refuse them.
    pub(super) rules: RawRules,
    pub(super) log: Setting<RawLog>,
    pub(super) limits: Setting<RawMainLimits>,
    pub(super) timeouts: Setting<RawMainTimeouts>,
}

impl RawMain {
    /// The settings of a file that cannot be read: its listeners, its state directory and its rules
    /// count as invalid rather than absent, so that no problem is derived from defaults.
    pub(super) fn unknown() -> Self {
        let (https, http) = (Setting::Invalid, Setting::Invalid);
        Self {
            https,
            http,
            state: Setting::Invalid,
            rules: RawRules::unknown(),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct RawAdmin {
    pub(super) listen: Setting<ListenAddress>,
}

/// Limits on failed logins.
#[derive(Clone, Debug, Default)]
pub(super) struct RawMainAuth {
    pub(super) address_failures: Setting<u32>,
    pub(super) user_failures: Setting<u32>,
    pub(super) failure_window: Setting<Duration>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RawLog {
    pub(super) format: Setting<LogFormat>,
    pub(super) level: Setting<LogLevel>,
    pub(super) access: Setting<bool>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RawMainLimits {
    pub(super) domains: RawLimits,
    pub(super) head: Setting<u64>,
    pub(super) head_lines: Setting<usize>,
    pub(super) target: Setting<u64>,
    pub(super) h2_streams: Setting<u32>,
    pub(super) connections: Setting<usize>,
    pub(super) client_connections: Setting<usize>,
    pub(super) client_connection_rate: Setting<u32>,
    pub(super) passwords_waiting: Setting<usize>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct RawMainTimeouts {
    pub(super) domains: RawTimeouts,
    pub(super) handshake: Setting<Duration>,
    pub(super) first_head: Setting<Duration>,
    pub(super) head: Setting<Duration>,
    pub(super) idle: Setting<Duration>,
    pub(super) idle_unauthenticated: Setting<Duration>,
    pub(super) h2_ping: Setting<Duration>,
    pub(super) drain: Setting<Duration>,
}

/// Reads a domain file; `None` after a syntax error.
pub(super) fn domain(source: &Arc<Source>, problems: &mut Problems) -> Option<RawDomain> {
    read(source, FileKind::Domain, problems, |top| RawDomain {
        domain: top.value("domain", values::domain_name),
        aliases: top.list("aliases", values::alias),
        listen: top.list("listen", values::listen_address),
        tls: top.table("tls", tls),
        auth: top.table("auth", auth),
        upstream: top.table("upstream", upstream),
        browser: top.table("browser", |table| RawBrowser {
            url: table.value("url", values::upstream_url),
        }),
        inherit: top.value("inherit", values::flag),
        rules: access::rules(top),
        holdings: retention::holdings(top),
        limits: top.table("limits", limits),
        timeouts: top.table("timeouts", timeouts),
    })
}

/// Reads `moorgate.toml`.
pub(super) fn main(source: &Arc<Source>, problems: &mut Problems) -> RawMain {
    let raw = read(source, FileKind::Main, problems, |top| RawMain {
        https: top.list("https", values::listen_address),
        http: top.list("http", values::listen_address),
        state: top.value("state", values::path),
        acme: top.table("acme", acme::settings),
        ca: top.tables("ca", acme::ca),
        trusted_proxies: top.list("trusted_proxies", values::network),
        admin: top.table("admin", |table| RawAdmin {
            listen: table.value("listen", values::listen_address),
        }),
        auth: top.table("auth", main_auth),
        rules: access::rules(top),
        log: top.table("log", log),
        limits: top.table("limits", main_limits),
        timeouts: top.table("timeouts", main_timeouts),
    });
    raw.unwrap_or_else(RawMain::unknown)
}

const TOML_HELP: &str =
    "correct the TOML syntax here; strings stand in quotes, tables in [brackets]";

/// The smallest domain file.
pub(super) const DOMAIN_FILE: &str = "domain = \"registry.example.com\"
[tls]
internal = true
[auth]
htpasswd = \"../credentials/registry.htpasswd\"
[upstream]
url = \"http://registry:5000\"";

fn read<T>(
    source: &Arc<Source>,
    kind: FileKind,
    problems: &mut Problems,
    walk: impl FnOnce(&mut TableReader<'_>) -> T,
) -> Option<T> {
    match DeTable::parse(source.text()) {
        Ok(document) => Some(walk(&mut TableReader::top(
            source,
            kind,
            document.get_ref(),
            problems,
        ))),
        Err(error) => {
            let end = source.text().len();
            let span = error.span().unwrap_or(end..end);
            let problem = match foreign::language(source.text()) {
                Some(language) => {
                    let message = format!("this is not TOML, but looks like {language}");
                    let help = match kind {
                        FileKind::Domain if foreign::is_of_caddy(source.text()) => format!(
                            "`moorgate import caddy {}` translates it; or write a domain file in its place:\n{DOMAIN_FILE}",
                            source.path().display()
                        ),
                        FileKind::Domain => {
                            format!("write a domain file in its place:\n{DOMAIN_FILE}")
                        }
                        FileKind::Main => {
                            "write `key = value` lines, and tables in [brackets]".to_owned()
                        }
                    };
                    Problem::at(source, &span, message, help)
                }
                None => Problem::at(source, &span, error.message(), TOML_HELP),
            };
            problems.push(problem);
            None
        }
    }
}

fn auth(table: &mut TableReader<'_>) -> RawAuth {
    RawAuth {
        htpasswd: table.value("htpasswd", values::path),
        realm: table.value("realm", values::realm),
        mode: table.value("mode", |value| {
            values::choice(
                value,
                &[("basic", RawMode::Basic), ("token", RawMode::Token)],
            )
        }),
        anonymous: table.value("anonymous", |value| {
            values::choice(
                value,
                &[
                    ("none", AnonymousAccess::None),
                    ("pull", AnonymousAccess::Pull),
                ],
            )
        }),
        // Clients treat shorter lifetimes as one minute, and a key verifies for two days after its
        // last use.
        token_lifetime: table.value("token_lifetime", |value| {
            values::bounded(value, MINUTE, DAY)
        }),
        refresh_token_lifetime: table.value("refresh_token_lifetime", |value| {
            values::bounded(value, 60 * MINUTE, 3650 * DAY)
        }),
        refresh_tokens: table.value("refresh_tokens", values::flag),
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn limits(table: &mut TableReader<'_>) -> RawLimits {
    RawLimits {
        manifest: table.value("manifest", |value| values::size(value, KIB, GIB)),
        body: table.value("body", values::size_or_none),
        user_requests: table.value("user_requests", |value| values::number(value, 1, 1_000_000)),
        user_uploads: table.value("user_uploads", |value| values::number(value, 1, 1_000_000)),
        user_upload_sessions: table.value("user_upload_sessions", |value| {
            values::number(value, 1, 1_000_000)
        }),
        upstream_connections: table.value("upstream_connections", |value| {
            values::number(value, 1, 1_000_000)
        }),
    }
}

fn timeouts(table: &mut TableReader<'_>) -> RawTimeouts {
    RawTimeouts {
        first_body_byte: timeout(table, "first_body_byte"),
        stall: timeout(table, "stall"),
        upstream_connect: timeout(table, "upstream_connect"),
        upstream_head: timeout(table, "upstream_head"),
        upstream_commit: timeout(table, "upstream_commit"),
        upstream_idle: timeout(table, "upstream_idle"),
    }
}

fn timeout(table: &mut TableReader<'_>, key: &'static str) -> Setting<Duration> {
    table.value(key, |value| values::duration(value, DAY))
}

fn main_auth(table: &mut TableReader<'_>) -> RawMainAuth {
    RawMainAuth {
        // containerd needs five attempts if its password changes each time.
        address_failures: table.value("address_failures", |value| {
            values::number(value, 5, 1_000_000)
        }),
        user_failures: table.value("user_failures", |value| values::number(value, 5, 1_000_000)),
        failure_window: timeout(table, "failure_window"),
    }
}

fn log(table: &mut TableReader<'_>) -> RawLog {
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    RawLog {
        format: table.value("format", |value| {
            values::choice(
                value,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            )
        }),
        level: table.value("level", |value| values::choice(value, &levels)),
        access: table.value("access", values::flag),
    }
}

fn main_limits(table: &mut TableReader<'_>) -> RawMainLimits {
    RawMainLimits {
        domains: limits(table),
        // An unauthenticated connection must not occupy more than 256 KiB.
        head: table.value("head", |value| values::size(value, 4 * KIB, 256 * KIB)),
        head_lines: table.value("head_lines", |value| values::number(value, 10, 1000)),
        target: table.value("target", |value| values::size(value, KIB, 256 * KIB)),
        h2_streams: table.value("h2_streams", |value| values::number(value, 1, 10_000)),
        connections: table.value("connections", |value| values::number(value, 1, 1_000_000)),
        client_connections: table.value("client_connections", |value| {
            values::number(value, 1, 1_000_000)
        }),
        client_connection_rate: table.value("client_connection_rate", |value| {
            values::number(value, 1, 1_000_000)
        }),
        passwords_waiting: table.value("passwords_waiting", |value| {
            values::number(value, 1, 10_000)
        }),
    }
}

fn main_timeouts(table: &mut TableReader<'_>) -> RawMainTimeouts {
    RawMainTimeouts {
        domains: timeouts(table),
        handshake: timeout(table, "handshake"),
        first_head: timeout(table, "first_head"),
        head: timeout(table, "head"),
        idle: timeout(table, "idle"),
        idle_unauthenticated: timeout(table, "idle_unauthenticated"),
        h2_ping: timeout(table, "h2_ping"),
        // Long uploads may finish; the bound only keeps deadlines representable.
        drain: table.value("drain", |value| values::duration(value, 365 * DAY)),
    }
}

#[cfg(test)]
mod tests;
