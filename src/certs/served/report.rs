//! Reports on the certificate of each domain, for `/status` and `moorgate certs`.

mod display;

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::certs::inspect::{CertificateFacts, Defect, Rfc3339};
use crate::certs::state::ledger::LimitBudget;
use crate::certs::state::paths::CaId;
use crate::config::vhost::{CertificateSource, VirtualHost};
use crate::registry::host::HostName;

/// The certificate of one domain and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateReport {
    /// The domain.
    #[serde(serialize_with = "as_text")]
    pub domain: HostName,
    /// Where the certificate comes from.
    pub source: SourceKind,
    /// The names in the certificate; empty without one.
    pub names: Vec<String>,
    /// The distinguished name of the issuer.
    pub issuer: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// When it becomes valid.
    #[serde(serialize_with = "as_rfc3339")]
    pub not_before: Option<SystemTime>,
    /// When it expires.
    #[serde(serialize_with = "as_rfc3339")]
    pub not_after: Option<SystemTime>,
    /// The problems. Without a certificate, handshakes for this domain are refused.
    pub problem: Option<String>,
    /// The progress of its renewal, for certificates of ACME CAs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeStatus>,
}

/// The progress of the renewal of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AcmeStatus {
    /// The CA that issued the certificate, or that is used first.
    pub ca: String,
    /// The requested profile.
    pub profile: Option<String>,
    /// The state of the order, for people.
    pub state: String,
    /// The start of the window in which the CA suggests to renew.
    #[serde(serialize_with = "as_rfc3339")]
    pub window_start: Option<SystemTime>,
    /// The end of that window.
    #[serde(serialize_with = "as_rfc3339")]
    pub window_end: Option<SystemTime>,
    /// The URL of the CA's page that explains the window.
    pub explanation: Option<String>,
    /// The time of the next attempt.
    #[serde(serialize_with = "as_rfc3339")]
    pub next_attempt: Option<SystemTime>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
    /// The certificate that was issued and is not in force, and why.
    pub unused: Option<String>,
    /// What the checks before an order found.
    pub findings: Vec<String>,
    pub attempts: Attempts,
}

/// The results of attempts to obtain a certificate since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attempts {
    /// A certificate was issued.
    pub issued: u64,
    /// The CA, the connection to it, or this machine failed.
    pub failed: u64,
    /// No order was placed yet, because of a limit, a finding or a missing confirmation.
    pub postponed: u64,
}

/// The remaining budget of one domain at a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainBudget {
    /// The domain.
    pub domain: HostName,
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
    /// The internal CA of moorgate.
    Internal,
    /// A CA that is used through ACME.
    Acme,
}

impl SourceKind {
    pub fn of(source: &CertificateSource) -> Self {
        match source {
            CertificateSource::Files { .. } => Self::Files,
            CertificateSource::Internal => Self::Internal,
            CertificateSource::Acme(_) => Self::Acme,
        }
    }

    /// The name of the kind. It is part of the interface: log fields and JSON contain it.
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
    /// Reports on a host; `fault` is why the last attempt to load or issue its certificate failed.
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

/// The output of `moorgate certs`: a line for each domain, and below it the state of its orders.
pub(crate) fn listing(reports: &[CertificateReport]) -> String {
    display::listing(reports)
}

/// The failure of the last attempt, then the defects of the certificate.
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
