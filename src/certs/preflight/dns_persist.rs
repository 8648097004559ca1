//! dns-persist-01: one TXT record that stays, says who may issue and for which account, and is
//! checked before a CA is told to look (draft-ietf-acme-dns-persist).

use std::fmt;
use std::time::{Duration, SystemTime};

use super::dns::{DnsError, Resolver};
use crate::config::acme::CertifiedName;

/// The record that a name needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistRecord {
    /// Where it stands.
    pub name: String,
    /// What it says.
    pub value: String,
}

impl PersistRecord {
    /// For a name, at the CA that this domain stands for in DNS, under an account.
    pub fn new(name: &CertifiedName, issuer: &str, account: &str) -> Self {
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

    /// The record that is to be set for a name, for one of a CA's domains; `None`: one of them is.
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

    /// Whether it is there, or another that says as much.
    async fn is_set(&self, resolver: &Resolver) -> Result<bool, DnsError> {
        let texts = resolver.texts(&self.name).await?;
        let now = SystemTime::now();
        Ok(texts.iter().any(|text| self.is_met_by(text, now)))
    }

    fn is_met_by(&self, text: &str, now: SystemTime) -> bool {
        let (wanted, found) = (parts(&self.value), parts(text));
        let holds = found
            .iter()
            .filter_map(|part| part.strip_prefix("persistUntil="));
        wanted.first() == found.first()
            && wanted.iter().all(|part| found.contains(part))
            && holds
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

/// Seconds since 1970. A CA does not take what is no number for a moment.
fn from_unix_seconds(text: &str) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(text.parse().ok()?))
}

/// The issuer, and the parameters in any order.
fn parts(text: &str) -> Vec<&str> {
    text.split(';').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::name;

    #[test]
    fn a_record_is_met_by_what_says_as_much() {
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
