//! Reads the contents of a certificate and finds its defects for the names that it should serve.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::registry::host::HostName;

/// The contents of a leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The distinguished name of the issuer.
    pub issuer: String,
    /// The serial number, in hexadecimal with colons.
    pub serial: String,
    /// The subject alternative names that are DNS names or addresses. Clients check no others.
    pub names: Vec<CertificateName>,
    /// The start of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// A DNS name in lower case, whose first label may be `*`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

/// Why a leaf cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// The chain has no leaf.
    #[error("the chain is empty")]
    Empty,
    /// The bytes are not X.509, or are truncated.
    #[error("the certificate is not valid X.509")]
    Malformed,
}

/// A defect of a certificate that could be read. The certificate is served all the same: a client
/// that rejects it tells its user why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// It has expired.
    #[error("the certificate expired on {}", Rfc3339(*.0))]
    Expired(SystemTime),
    /// It expires soon and has not been renewed.
    #[error("the certificate expires on {}, in less than {days} {}", Rfc3339(*.at), if *.days == 1 { "day" } else { "days" })]
    ExpiresSoon {
        /// The end of its validity.
        at: SystemTime,
        /// The days left, including the current one.
        days: u64,
    },
    /// Its validity has not begun, or the clock of this machine is slow.
    #[error("the certificate is not valid before {}", Rfc3339(*.0))]
    NotYetValid(SystemTime),
    /// It does not cover a name that it is served for.
    #[error("the certificate does not cover {0}")]
    DoesNotCover(HostName),
}

impl CertificateFacts {
    /// Reads the contents of a leaf (RFC 5280 §4.1, §4.2.1.6).
    pub fn read(leaf: &CertificateDer<'_>) -> Result<Self, InspectError> {
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| InspectError::Malformed)?;
        let alternatives = certificate
            .subject_alternative_name()
            .map_err(|_| InspectError::Malformed)?;
        let names = alternatives
            .map(|extension| {
                extension
                    .value
                    .general_names
                    .iter()
                    .filter_map(CertificateName::read)
                    .collect()
            })
            .unwrap_or_default();
        Ok(Self {
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            names,
            not_before: system_time(certificate.validity().not_before)?,
            not_after: system_time(certificate.validity().not_after)?,
        })
    }

    /// Whether a client that asked for `host` accepts this certificate's names (RFC 9525 §6.3).
    pub fn covers(&self, host: &HostName) -> bool {
        self.names.iter().any(|name| name.matches(host))
    }

    /// Whether its period of validity includes `at`.
    pub(crate) fn is_valid(&self, at: SystemTime) -> bool {
        self.not_before <= at && at < self.not_after
    }

    /// All defects of the certificate for a host with these names.
    pub fn defects<'a>(
        &self,
        now: SystemTime,
        names: impl IntoIterator<Item = &'a HostName>,
    ) -> Vec<Defect> {
        let mut defects = Vec::from_iter(self.defect_of_life(now));
        let missing = names.into_iter().filter(|name| !self.covers(name));
        defects.extend(missing.cloned().map(Defect::DoesNotCover));
        defects
    }

    fn defect_of_life(&self, now: SystemTime) -> Option<Defect> {
        if now < self.not_before {
            return Some(Defect::NotYetValid(self.not_before));
        }
        let Ok(left) = self.not_after.duration_since(now) else {
            return Some(Defect::Expired(self.not_after));
        };
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default();
        // A week gives an administrator time to act. A certificate with a lifetime of six days is
        // renewed later than that.
        if left >= EXPIRY_NOTICE.min(life / 5) {
            return None;
        }
        Some(Defect::expires_soon(self.not_after, left))
    }
}

impl Defect {
    pub(crate) fn expires_soon(at: SystemTime, left: Duration) -> Self {
        Self::ExpiresSoon {
            at,
            days: left.as_secs() / Duration::from_hours(24).as_secs() + 1,
        }
    }
}

impl CertificateName {
    fn read(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase())),
            GeneralName::IPAddress(bytes) => address(bytes).map(Self::Ip),
            _ => None,
        }
    }

    fn matches(&self, host: &HostName) -> bool {
        match (self, host.ip()) {
            (Self::Ip(address), Some(ip)) => address.to_canonical() == ip,
            (Self::Dns(pattern), None) => dns_matches(pattern, host.as_str()),
            (Self::Ip(_), None) | (Self::Dns(_), Some(_)) => false,
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// A wildcard matches exactly one whole label, the first (RFC 9525 §6.3).
fn dns_matches(pattern: &str, host: &str) -> bool {
    let Some(parent) = pattern.strip_prefix("*.") else {
        return pattern == host;
    };
    host.split_once('.').is_some_and(|(_, rest)| rest == parent)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

pub(crate) fn system_time(time: ASN1Time) -> Result<SystemTime, InspectError> {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    let moment = if time.timestamp() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    moment.ok_or(InspectError::Malformed)
}

/// A time in the form of RFC 3339, in UTC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rfc3339(pub SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::try_from(self.0) {
            // Whole seconds: people read it.
            Ok(timestamp) => write!(f, "{timestamp:.0}"),
            // Beyond the year 9999 (RFC 5280 §4.1.2.5: such a certificate never expires).
            Err(_) => f.write_str("a day far away"),
        }
    }
}

const EXPIRY_NOTICE: Duration = Duration::from_hours(7 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::parse(name).expect("a host")
    }

    fn facts(names: &[&str], life: Duration) -> CertificateFacts {
        let names = names.iter().map(|name| match name.parse() {
            Ok(address) => CertificateName::Ip(address),
            Err(_) => CertificateName::Dns((*name).to_owned()),
        });
        CertificateFacts {
            issuer: "CN=Test".into(),
            serial: "01".into(),
            names: names.collect(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH + life,
        }
    }

    #[test]
    fn a_star_covers_one_label_and_addresses_only_themselves() {
        let facts = facts(
            &["*.example.com", "example.org", "192.0.2.1", "2001:db8::1"],
            EXPIRY_NOTICE,
        );
        for covered in [
            "ci.example.com",
            "EXAMPLE.org.",
            "192.0.2.1",
            "[2001:db8:0::1]",
        ] {
            assert!(facts.covers(&host(covered)), "{covered}");
        }
        for other in [
            "example.com",
            "a.b.example.com",
            "www.example.org",
            "192.0.2.2",
            "::1",
        ] {
            assert!(!facts.covers(&host(other)), "{other}");
        }
    }

    #[test]
    fn defects_say_what_is_wrong_and_when() {
        let facts = facts(&["a.example.com"], Duration::from_hours(90 * 24));
        let (good, other) = (host("a.example.com"), host("b.example.com"));
        let at = |days: u64| {
            SystemTime::UNIX_EPOCH + Duration::from_hours(days * 24) + Duration::from_secs(1)
        };
        let words = |now, names: &[&HostName]| {
            facts
                .defects(now, names.iter().copied())
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(at(1), &[&good]), Vec::<String>::new());
        assert_eq!(
            words(at(88), &[&good]),
            ["the certificate expires on 1970-04-01T00:00:00Z, in less than 2 days"]
        );
        assert_eq!(
            words(at(90), &[&good, &other]),
            [
                "the certificate expired on 1970-04-01T00:00:00Z",
                "the certificate does not cover b.example.com"
            ]
        );
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(
            words(early, &[]),
            ["the certificate is not valid before 1970-01-01T00:00:00Z"]
        );
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none() {
        for bytes in [&b""[..], b"x", &[0x30, 0x82, 0xff, 0xff]] {
            let leaf = CertificateDer::from(bytes);
            assert_eq!(CertificateFacts::read(&leaf), Err(InspectError::Malformed));
        }
    }
}
