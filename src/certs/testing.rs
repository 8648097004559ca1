//! What the tests of this layer and of `tls` are made of: hosts, snapshots and certificates.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};

use super::Certificate;
use crate::certs::served::files;
use crate::config::access::{AccessSettings, WrittenUsers};
use crate::config::acme::{AcmeDirectory, AcmeSettings, CaSettings, ChallengeKind, KnownCa};
use crate::config::network::TrustedProxies;
use crate::config::snapshot::{
    ConnectionSettings, FailureBudgets, LogFormat, LogLevel, LogSettings, Snapshot,
};
use crate::config::upstream::{
    Redirects, Scheme, UpstreamAuthorization, UpstreamSettings, UpstreamUrl,
};
use crate::config::vhost::{
    AnonymousAccess, AuthMode, AuthSettings, CertificateSource, Limits, ListenAddress,
    LocationForm, RegistrySettings, SharedVirtualHost, Timeouts, VirtualHost,
};
use crate::registry::host::{Authority, HostName};
use crate::registry::name_map::NameMap;

/// The two texts of a self-signed certificate.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    /// Writes them as `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> CertificateSource {
        let [certificate, key] =
            ["pem", "key"].map(|suffix| directory.join(format!("{name}.{suffix}")));
        std::fs::write(&certificate, &self.certificate).expect("written");
        std::fs::write(&key, &self.key).expect("written");
        CertificateSource::Files { certificate, key }
    }
}

/// A new key, certified for a year around now.
pub(crate) fn pair(names: &[&str]) -> Pair {
    pair_of(&KeyPair::generate().expect("made"), names)
}

pub(crate) fn pair_of(key: &KeyPair, names: &[&str]) -> Pair {
    const HALF_YEAR: Duration = Duration::from_secs(183 * 24 * 60 * 60);
    pair_for(
        key,
        names,
        SystemTime::now() - HALF_YEAR,
        SystemTime::now() + HALF_YEAR,
    )
}

pub(crate) fn pair_for(
    key: &KeyPair,
    names: &[&str],
    not_before: SystemTime,
    not_after: SystemTime,
) -> Pair {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    Pair {
        certificate: params.self_signed(key).expect("signed").pem(),
        key: key.serialize_pem(),
    }
}

/// A certificate as it is held.
pub(crate) fn certificate(names: &[&str]) -> Certificate {
    let directory = tempfile::tempdir().expect("directory");
    let CertificateSource::Files { certificate, key } = pair(names).write(directory.path(), "any")
    else {
        unreachable!("written as files")
    };
    files::load(&certificate, &key).expect("a pair")
}

pub(crate) fn name(text: &str) -> HostName {
    HostName::parse(text).expect("a host name")
}

pub(crate) fn listen(port: u16) -> ListenAddress {
    ListenAddress(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
}

/// A host whose first name is its domain.
pub(crate) fn host(
    names: &[&str],
    ports: &[u16],
    certificate: CertificateSource,
) -> SharedVirtualHost {
    let (domain, aliases) = names.split_first().expect("a domain");
    let second = Duration::from_secs(1);
    Arc::new(VirtualHost {
        domain: name(domain),
        aliases: aliases
            .iter()
            .map(|alias| Authority {
                host: name(alias),
                port: None,
            })
            .collect(),
        listen: ports.iter().copied().map(listen).collect(),
        certificate,
        auth: AuthSettings {
            htpasswd: "htpasswd".into(),
            realm: "test".into(),
            mode: AuthMode::Basic,
            anonymous: AnonymousAccess::None,
        },
        access: AccessSettings::default(),
        registry: RegistrySettings::Upstream(Box::new(UpstreamSettings {
            url: UpstreamUrl {
                scheme: Scheme::Http,
                host: name("registry"),
                port: 5000,
                base_path: String::new(),
            },
            others: Vec::new(),
            check: None,
            roots: None,
            authorization: UpstreamAuthorization::Strip,
            product: None,
            create: false,
            untag: None,
            admin: None,
            api: None,
            hosts: Vec::new(),
            names: NameMap::default(),
            spool: 0,
            spool_directory: "spool".into(),
            redirects: Redirects::Pass,
            follow_hosts: Vec::new(),
        })),
        locations: LocationForm::Absolute,
        browser: None,
        limits: Limits {
            manifest_bytes: 1,
            body_bytes: None,
            user_requests: 1,
            user_uploads: 1,
            user_upload_sessions: 1,
            upstream_connections: 1,
        },
        retention: None,
        quotas: Vec::new(),
        timeouts: Timeouts {
            first_body_byte: second,
            stall: second,
            upstream_connect: second,
            upstream_head: second,
            upstream_commit: second,
            upstream_idle: second,
        },
        source: format!("conf.d/{domain}.toml").into(),
    })
}

/// A configuration of these hosts.
pub(crate) fn snapshot(state: &Path, domains: Vec<SharedVirtualHost>) -> Snapshot {
    let second = Duration::from_secs(1);
    Snapshot {
        directory: state.to_owned(),
        state: state.to_owned(),
        written_listeners: Vec::new(),
        https: Vec::new(),
        http: Vec::new(),
        domains,
        shared_users: WrittenUsers::default(),
        acme: AcmeSettings {
            authorities: vec![CaSettings::new(AcmeDirectory::Known(
                KnownCa::LetsEncryptStaging,
            ))],
            challenges: vec![ChallengeKind::Http01],
            dns_command: None,
            resolvers: Vec::new(),
        },
        admin: None,
        trusted_proxies: TrustedProxies::default(),
        failures: FailureBudgets::default(),
        log: LogSettings {
            format: LogFormat::Text,
            level: LogLevel::Info,
            access: true,
        },
        connection: ConnectionSettings {
            handshake: second,
            first_head: second,
            head: second,
            idle: second,
            idle_unauthenticated: second,
            h2_ping: second,
            drain: second,
            head_bytes: 1,
            head_lines: 1,
            target_bytes: 1,
            h2_streams: 1,
            connections: 1,
            client_connections: None,
            client_connection_rate: 1,
            passwords_waiting: 1,
        },
    }
}
