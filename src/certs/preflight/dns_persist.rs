//! dns-persist-01: a permanent TXT record that names a CA and an account, and is checked before the
//! CA is told to validate it (draft-ietf-acme-dns-persist).

use std::fmt;
use std::time::{Duration, SystemTime};

use super::dns::{DnsError, Resolver};
use crate::config::acme::CertifiedName;

/// The TXT record that a name needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PersistRecord {
    pub name: String,
    pub value: String,
}

impl PersistRecord {
    /// The record for a name, the CA that `issuer` identifies in DNS, and the URL of an account.
    pub(crate) fn new(name: &CertifiedName, issuer: &str, account: &str) -> Self {
        let policy = if name.is_wildcard() {
            "; policy=wildcard"
        } else {
            ""
        };
        Self {
            name: format!("_validation-persist.{}", name.base()),
            value: format!("{issuer}; accounturi={account}{policy}"),
        }
    }

    /// The record that is missing for a name; `None`: there is one for one of the CA's domains.
    pub(crate) async fn missing(
        name: &CertifiedName,
        issuers: &[String],
        account: &str,
        resolver: &Resolver,
    ) -> Result<Option<Self>, DnsError> {
        let mut missing = None;
        for issuer in issuers {
            let record = Self::new(name, issuer, account);
            if record.is_set(resolver).await? {
                return Ok(None);
            }
            missing = missing.or(Some(record));
        }
        Ok(missing)
    }

    /// Whether the name has it, or an equivalent one.
    async fn is_set(&self, resolver: &Resolver) -> Result<bool, DnsError> {
        let texts = resolver.texts(&self.name).await?;
        let now = SystemTime::now();
        Ok(texts.iter().any(|text| self.is_met_by(text, now)))
    }

    fn is_met_by(&self, text: &str, now: SystemTime) -> bool {
        let wanted = parts(&self.value);
        let found = parts(text);
        let ends = found
            .iter()
            .filter_map(|part| part.strip_prefix("persistUntil="));
        wanted.first() == found.first()
            && wanted.iter().all(|part| found.contains(part))
            && ends
                .map(from_unix_seconds)
                .all(|until| until.is_some_and(|until| now <= until))
    }
}

impl fmt::Display for PersistRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value } = self;
        write!(f, "set the TXT record {name} to \"{value}\"")
    }
}

/// Parses seconds since 1970. A record with anything else does not count for a CA.
fn from_unix_seconds(text: &str) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(text.parse().ok()?))
}

/// The issuer, then the parameters.
fn parts(text: &str) -> Vec<&str> {
    text.split(';').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::name;

    #[test]
    fn an_equivalent_record_counts() {
        let account = "https://ca.example/account/1";
        let host = PersistRecord::new(
            &CertifiedName::Host(name("a.example.com")),
            "ca.example",
            account,
        );
        let star = PersistRecord::new(
            &CertifiedName::Wildcard(name("a.example.com")),
            "ca.example",
            account,
        );
        assert_eq!(host.name, "_validation-persist.a.example.com");
        assert_eq!(
            star.value,
            "ca.example; accounturi=https://ca.example/account/1; policy=wildcard"
        );
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let is_met = |record: &PersistRecord, text: &str| record.is_met_by(text, now);
        assert!(
            is_met(&host, &host.value) && is_met(&star, &star.value) && is_met(&host, &star.value)
        );
        assert!(is_met(
            &star,
            "ca.example;policy=wildcard ;accounturi=https://ca.example/account/1"
        ));
        for other in [
            "",
            "ca.example",
            "ca.example; accounturi=https://ca.example/account/12",
            &host.value,
        ] {
            assert!(!is_met(&star, other), "{other}");
        }
        assert!(!is_met(
            &host,
            "other.example; accounturi=https://ca.example/account/1"
        ));
        for (until, holds) in [
            ("2000000001", true),
            ("1999999999", false),
            ("soon", false),
            ("-1", false),
        ] {
            let text = format!("{}; persistUntil={until}", host.value);
            assert_eq!(is_met(&host, &text), holds, "{text}");
        }
    }
}
