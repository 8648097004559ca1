//! The settings of `moorgate.toml` with defaults.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::access::{self, SharedRules};
use super::acme;
use super::{MainFile, RequestedListener, written};
use crate::config::acme::AcmeSettings;
use crate::config::network::TrustedProxies;
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{
    List, RawLimits, RawMainAuth, RawMainLimits, RawMainTimeouts, RawTimeouts,
};
use crate::config::snapshot::{ConnectionSettings, FailureBudgets, LogSettings};
use crate::config::vhost::{Limits, ListenAddress, Timeouts};

/// The settings of the process, and the defaults of domains.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) state: PathBuf,
    pub(super) acme: AcmeSettings,
    /// The contact address of domains with `acme = true`.
    pub(super) email: Option<String>,
    pub(super) https: Vec<RequestedListener>,
    pub(super) http: Vec<RequestedListener>,
    pub(super) admin: Option<RequestedListener>,
    pub(super) trusted_proxies: TrustedProxies,
    pub(super) failures: FailureBudgets,
    pub(super) log: LogSettings,
    pub(super) connection: ConnectionSettings,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    /// The access rules of domains that inherit them.
    pub(super) rules: SharedRules,
}

impl Process {
    pub(super) fn resolve(main: &MainFile, directory: &Path, problems: &mut Problems) -> Self {
        let MainFile {
            source,
            raw,
            bindings: _,
            groups: _,
        } = main;
        let (acme, email) = acme::settings(main, problems);
        let log = raw.log.or_empty();
        let log_default = LogSettings::default();
        let (raw_limits, raw_timeouts) = (raw.limits.or_empty(), raw.timeouts.or_empty());
        if let Some(span) = raw
            .https
            .span()
            .filter(|_| raw.https.given().is_some_and(Vec::is_empty))
        {
            let help = "write an address, or leave the key out for \":443\"";
            problems.push(Problem::at(source, span, "`https` is empty", help));
        }
        Self {
            state: state(main),
            acme,
            email,
            https: listeners(main, "https", &raw.https, 443, problems),
            http: listeners(main, "http", &raw.http, 80, problems),
            admin: admin(main, problems),
            trusted_proxies: trusted_proxies(main, problems),
            failures: failures(main),
            log: LogSettings {
                format: log.format.or(log_default.format),
                level: log.level.or(log_default.level),
                access: log.access.or(log_default.access),
            },
            connection: connection(main, &raw_limits, &raw_timeouts, problems),
            limits: limits(&raw_limits.domains, Limits::default()),
            timeouts: timeouts(&raw_timeouts.domains, Timeouts::default()),
            rules: access::shared(main, directory, problems),
        }
    }
}

/// The directory for everything that moorgate writes.
pub(super) fn state(main: &MainFile) -> PathBuf {
    main.raw.state.given().map_or_else(
        || PathBuf::from(DEFAULT_STATE),
        |path| main.source.beside(path),
    )
}

fn listeners(
    main: &MainFile,
    key: &str,
    list: &List<ListenAddress>,
    default_port: u16,
    problems: &mut Problems,
) -> Vec<RequestedListener> {
    if list.is_absent() {
        let everywhere = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), default_port);
        return vec![RequestedListener {
            address: ListenAddress(everywhere),
            written: None,
        }];
    }
    written(&main.source, key, list, problems)
}

fn admin(main: &MainFile, problems: &mut Problems) -> Option<RequestedListener> {
    let setting = main.raw.admin.given()?;
    if setting.listen.is_absent() {
        let span = main.raw.admin.span()?;
        let help = "write listen = \"127.0.0.1:9180\", or leave the table out";
        problems.push(Problem::at(
            &main.source,
            span,
            "`admin.listen` is missing",
            help,
        ));
    }
    let (address, span) = (*setting.listen.given()?, setting.listen.span()?.clone());
    if !address.0.ip().is_loopback() {
        let message = "`admin.listen` is not a loopback address: others can read what it reports";
        let help =
            "write \"127.0.0.1:9180\", unless a firewall or a private network stands before it";
        problems.push(Problem::at(&main.source, &span, message, help).warning());
    }
    Some(RequestedListener {
        address,
        written: Some((Arc::clone(&main.source), span)),
    })
}

fn trusted_proxies(main: &MainFile, problems: &mut Problems) -> TrustedProxies {
    let written = main.raw.trusted_proxies.given();
    for entry in written
        .into_iter()
        .flatten()
        .filter(|entry| entry.get_ref().is_everything())
    {
        let message = "`trusted_proxies` contains all addresses: any client can claim any address";
        let help = "name the addresses of the proxies alone";
        problems.push(Problem::at(&main.source, &entry.span(), message, help).warning());
    }
    written
        .into_iter()
        .flatten()
        .map(|entry| *entry.get_ref())
        .collect()
}

fn failures(main: &MainFile) -> FailureBudgets {
    let RawMainAuth {
        address_failures,
        user_failures,
        failure_window,
    } = main.raw.auth.or_empty();
    let default = FailureBudgets::default();
    FailureBudgets {
        address: address_failures.or(default.address),
        user: user_failures.or(default.user),
        window: failure_window.or(default.window),
    }
}

fn connection(
    main: &MainFile,
    limits: &RawMainLimits,
    timeouts: &RawMainTimeouts,
    problems: &mut Problems,
) -> ConnectionSettings {
    let RawMainLimits {
        domains: _,
        head,
        head_lines,
        target,
        h2_streams,
        connections,
        client_connections,
        client_connection_rate,
        passwords_waiting,
    } = limits;
    let RawMainTimeouts {
        domains: _,
        handshake,
        first_head,
        head: later_head,
        idle,
        idle_unauthenticated,
        h2_ping,
        drain,
    } = timeouts;
    let default = ConnectionSettings::default();
    // The parser bounds sizes far below `usize::MAX`.
    let bytes = |size: Option<&u64>, default| {
        size.map_or(default, |size| usize::try_from(*size).unwrap_or(default))
    };
    let settings = ConnectionSettings {
        handshake: handshake.or(default.handshake),
        first_head: first_head.or(default.first_head),
        head: later_head.or(default.head),
        idle: idle.or(default.idle),
        idle_unauthenticated: idle_unauthenticated.or(default.idle_unauthenticated),
        h2_ping: h2_ping.or(default.h2_ping),
        drain: drain.or(default.drain),
        head_bytes: bytes(head.given(), default.head_bytes),
        head_lines: head_lines.or(default.head_lines),
        target_bytes: bytes(target.given(), default.target_bytes),
        h2_streams: h2_streams.or(default.h2_streams),
        connections: connections.or(default.connections),
        client_connections: client_connections.given().copied(),
        client_connection_rate: client_connection_rate.or(default.client_connection_rate),
        passwords_waiting: passwords_waiting.or(default.passwords_waiting),
    };
    check_target(main, limits, &settings, problems);
    settings
}

/// The target is a part of the head.
fn check_target(
    main: &MainFile,
    limits: &RawMainLimits,
    settings: &ConnectionSettings,
    problems: &mut Problems,
) {
    if let Some(span) = limits
        .target
        .span()
        .or(limits.head.span())
        .filter(|_| settings.target_bytes >= settings.head_bytes)
    {
        let message =
            "`limits.target` is not below `limits.head`: the target is a part of the head";
        problems.push(Problem::at(
            &main.source,
            span,
            message,
            "raise `head` or lower `target`",
        ));
    }
}

pub(super) fn limits(raw: &RawLimits, default: Limits) -> Limits {
    let RawLimits {
        manifest,
        body,
        user_requests,
        user_uploads,
        user_upload_sessions,
        upstream_connections,
    } = raw;
    Limits {
        manifest_bytes: manifest.or(default.manifest_bytes),
        body_bytes: body.or(default.body_bytes),
        user_requests: user_requests.or(default.user_requests),
        user_uploads: user_uploads.or(default.user_uploads),
        user_upload_sessions: user_upload_sessions.or(default.user_upload_sessions),
        upstream_connections: upstream_connections.or(default.upstream_connections),
    }
}

pub(super) fn timeouts(raw: &RawTimeouts, default: Timeouts) -> Timeouts {
    let RawTimeouts {
        first_body_byte,
        stall,
        upstream_connect,
        upstream_head,
        upstream_commit,
        upstream_idle,
    } = raw;
    Timeouts {
        first_body_byte: first_body_byte.or(default.first_body_byte),
        stall: stall.or(default.stall),
        upstream_connect: upstream_connect.or(default.upstream_connect),
        upstream_head: upstream_head.or(default.upstream_head),
        upstream_commit: upstream_commit.or(default.upstream_commit),
        upstream_idle: upstream_idle.or(default.upstream_idle),
    }
}

const DEFAULT_STATE: &str = "/var/lib/moorgate";
