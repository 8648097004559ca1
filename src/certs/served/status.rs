//! The state of ACME certificates by the files below `state` alone, for commands that run beside
//! the serving process.

use std::time::SystemTime;

use super::report::{AcmeStatus, Attempts, CertificateReport};
use super::stored::{CandidateCas, StoredCertificates};
use crate::certs::inspect::CertificateFacts;
use crate::certs::settings_digest::settings_digest;
use crate::certs::state::storage::{DomainRecord, Storage};
use crate::config::acme::AcmeRequest;
use crate::config::snapshot::Snapshot;
use crate::config::vhost::VirtualHost;

/// Reports on a domain and the progress of its renewal.
pub(crate) fn report(
    host: &VirtualHost,
    request: &AcmeRequest,
    snapshot: &Snapshot,
    now: SystemTime,
) -> CertificateReport {
    let storage = Storage::below(&snapshot.state);
    let mut record = storage.record(&host.domain).unwrap_or_default();
    record.forget_failure_of_others(&settings_digest(&snapshot.acme, request));
    let mut stored = StoredCertificates::default().with_cas(
        &storage,
        &CandidateCas::from_settings(&storage, &snapshot.acme),
        &host.domain,
    );
    stored.update(now);
    let held = stored.best(request, now);
    let facts = held.as_ref().map(|held| &held.certificate.facts);
    let fault = facts.is_none().then_some(NONE_YET);
    let ca = held.as_ref().map(|held| held.ca.to_string());
    let ca = ca.or_else(|| Some(snapshot.acme.authorities.first()?.directory.to_string()));
    let status = AcmeStatus {
        ca: ca.unwrap_or_default(),
        ..status(&record, request, facts)
    };
    CertificateReport {
        acme: Some(status),
        ..CertificateReport::new(host, facts, fault, now)
    }
}

/// Converts a stored record to a status. The caller fills in the CA.
pub(crate) fn status(
    record: &DomainRecord,
    request: &AcmeRequest,
    facts: Option<&CertificateFacts>,
) -> AcmeStatus {
    let advice = record
        .advice
        .as_ref()
        .filter(|advice| facts.is_some_and(|facts| facts.serial == advice.serial));
    let window = advice.and_then(|advice| advice.window);
    AcmeStatus {
        ca: String::new(),
        profile: record.profile.clone().or_else(|| request.profile.clone()),
        state: String::new(),
        window_start: window.map(|(start, _)| start),
        window_end: window.map(|(_, end)| end),
        explanation: advice.and_then(|advice| advice.explanation.clone()),
        next_attempt: None,
        error: record.error.clone(),
        unused: record.unused.as_ref().map(ToString::to_string),
        findings: record.findings.clone(),
        attempts: Attempts::default(),
    }
}

/// The problem of a domain that waits for its first certificate.
pub(crate) const NONE_YET: &str = "there is no certificate yet";
