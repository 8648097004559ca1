//! What is held for a domain, in words: for the status page and `moorgate certs`.

mod display;

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::certs::inspect::{CertificateFacts, Defect, Rfc3339};
use crate::certs::state::ledger::LimitBudget;
use crate::certs::state::paths::CaId;
use crate::config::vhost::{CertificateSource, VirtualHost};
use crate::registry::host::HostName;

/// What is held for one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateReport {
    /// The domain.
    #[serde(serialize_with = "as_text")]
    pub domain: HostName,
    /// Where the certificate comes from.
    pub source: SourceKind,
    /// The names in the certificate; none when none is held.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// The first moment of its life.
    #[serde(serialize_with = "as_rfc3339")]
    pub not_before: Option<SystemTime>,
    /// The last moment of its life.
    #[serde(serialize_with = "as_rfc3339")]
    pub not_after: Option<SystemTime>,
    /// What is wrong, in words. Without a certificate, handshakes for this domain are refused.
    pub problem: Option<String>,
    /// How far its renewal is, for certificates of CAs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeStatus>,
}

/// How far the next certificate of a domain is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AcmeStatus {
    /// The CA that has issued what is held, or that is asked first.
    pub ca: String,
    /// The profile that was asked for.
    pub profile: Option<String>,
    /// What is going on, in words.
    pub state: String,
    /// When the CA suggests to renew, from.
    #[serde(serialize_with = "as_rfc3339")]
    pub window_start: Option<SystemTime>,
    /// When the CA suggests to renew, to.
    #[serde(serialize_with = "as_rfc3339")]
    pub window_end: Option<SystemTime>,
    /// The next moment at which something will be done.
    #[serde(serialize_with = "as_rfc3339")]
    pub next_attempt: Option<SystemTime>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// What was found out before an attempt was spent.
    pub findings: Vec<String>,
    /// How often what has ended how.
    pub attempts: Attempts,
}

/// How attempts to get a domain's certificate have ended since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attempts {
    /// With a certificate.
    pub issued: u64,
    /// Without one: a CA, the way to it, or this machine failed.
    pub failed: u64,
    /// Before a CA was asked: a limit, a finding or an administrator's word is waited for.
    pub postponed: u64,
}

/// What is left of the limits of a CA for one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainBudget {
    /// The domain.
    pub domain: HostName,
    /// Whose limits.
    pub ca: CaId,
    /// One for each kind of limit that its next order would use;
    /// [`Limit::label`](crate::certs::state::ledger::Limit::label) names it.
    pub budget: Vec<LimitBudget>,
}

/// The kind of a [`CertificateSource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// PEM files.
    Files,
    /// moorgate's own CA.
    Internal,
    /// A CA that is asked by ACME.
    Acme,
}

impl SourceKind {
    /// Of a decided setting.
    pub fn of(source: &CertificateSource) -> Self {
        match source {
            CertificateSource::Files { .. } => Self::Files,
            CertificateSource::Internal => Self::Internal,
            CertificateSource::Acme(_) => Self::Acme,
        }
    }

    /// Its name. It never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Internal => "internal",
            Self::Acme => "acme",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl CertificateReport {
    /// Of what is held for a host; `fault` is why the newest attempt to get one failed.
    pub(crate) fn new(
        host: &VirtualHost,
        facts: Option<&CertificateFacts>,
        fault: Option<&str>,
        now: SystemTime,
    ) -> Self {
        Self {
            domain: host.domain.clone(),
            source: SourceKind::of(&host.certificate),
            names: facts
                .iter()
                .flat_map(|facts| &facts.names)
                .map(ToString::to_string)
                .collect(),
            issuer: facts.map(|facts| facts.issuer.clone()),
            serial: facts.map(|facts| facts.serial.clone()),
            not_before: facts.map(|facts| facts.not_before),
            not_after: facts.map(|facts| facts.not_after),
            problem: problem(host, facts, fault, now),
            acme: None,
        }
    }
}

/// For people: a line for each domain, and below it what concerns its CA.
pub fn listing(reports: &[CertificateReport]) -> String {
    display::listing(reports)
}

/// The fault of the newest attempt, then what is wrong with the certificate that is held.
pub(crate) fn problem(
    host: &VirtualHost,
    facts: Option<&CertificateFacts>,
    fault: Option<&str>,
    now: SystemTime,
) -> Option<String> {
    let defects = facts
        .iter()
        .flat_map(|facts| facts.defects(now, host.names()));
    let words: Vec<String> = fault
        .map(str::to_owned)
        .into_iter()
        .chain(defects.map(|defect: Defect| defect.to_string()))
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn as_text<S: Serializer>(value: &HostName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_rfc3339<S: Serializer>(value: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(moment) => serializer.collect_str(&Rfc3339(*moment)),
        None => serializer.serialize_none(),
    }
}
