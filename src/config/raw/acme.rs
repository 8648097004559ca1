//! The tables about certificates: `[tls]` of a domain, `[acme]` and `[[ca]]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::de::DeValue;

use super::table::TableReader;
use super::{List, Setting};
use crate::config::acme::{AcmeDirectory, CertifiedName, ChallengeKind, Fallback};
use crate::config::secret::RawSecret;
use crate::config::values::{self, InvalidValue, RawAcme};

#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawTls {
    pub(in crate::config) acme: Setting<RawAcme>,
    pub(in crate::config) names: List<CertifiedName>,
    pub(in crate::config) profile: Setting<String>,
    pub(in crate::config) fallback: Setting<Fallback>,
    pub(in crate::config) certificate: Setting<PathBuf>,
    pub(in crate::config) key: Setting<PathBuf>,
    pub(in crate::config) internal: Setting<bool>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawAcmeSettings {
    pub(in crate::config) email: Setting<String>,
    pub(in crate::config) challenges: List<ChallengeKind>,
    pub(in crate::config) dns_command: List<String>,
    pub(in crate::config) resolvers: List<SocketAddr>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::config) struct RawCa {
    pub(in crate::config) directory: Setting<AcmeDirectory>,
    pub(in crate::config) roots: Setting<PathBuf>,
    pub(in crate::config) profile: Setting<String>,
    pub(in crate::config) chain: Setting<String>,
    pub(in crate::config) eab_key_id: Setting<String>,
    pub(in crate::config) eab_hmac_key: Setting<RawSecret>,
    pub(in crate::config) public: Setting<bool>,
    pub(in crate::config) http_port: Setting<u16>,
    pub(in crate::config) tls_port: Setting<u16>,
}

pub(super) fn tls(table: &mut TableReader<'_>) -> RawTls {
    RawTls {
        acme: table.value("acme", values::acme),
        names: table.list("names", values::certified_name),
        profile: table.value("profile", values::ca_defined_name),
        fallback: table.value("fallback", |value| {
            values::choice(
                value,
                &[
                    ("refuse", Fallback::Refuse),
                    ("internal", Fallback::Internal),
                ],
            )
        }),
        certificate: table.value("certificate", values::path),
        key: table.value("key", values::path),
        internal: table.value("internal", values::flag),
    }
}

pub(super) fn settings(table: &mut TableReader<'_>) -> RawAcmeSettings {
    let challenges = ChallengeKind::ALL.map(|kind| (kind.name(), kind));
    RawAcmeSettings {
        email: table.value("email", values::email),
        challenges: table.list("challenges", |value| values::choice(value, &challenges)),
        dns_command: table.list("dns_command", values::argument),
        resolvers: table.list("resolvers", values::resolver),
    }
}

fn port(value: &DeValue<'_>) -> Result<u16, InvalidValue> {
    values::number(value, 1, u64::from(u16::MAX))
}

pub(super) fn ca(table: &mut TableReader<'_>) -> RawCa {
    RawCa {
        directory: table.value("directory", values::directory),
        roots: table.value("roots", values::path),
        profile: table.value("profile", values::ca_defined_name),
        chain: table.value("chain", values::ca_defined_name),
        eab_key_id: table.value("eab_key_id", values::ca_defined_name),
        eab_hmac_key: table.value("eab_hmac_key", values::secret),
        public: table.value("public", values::flag),
        http_port: table.value("http_port", port),
        tls_port: table.value("tls_port", port),
    }
}
