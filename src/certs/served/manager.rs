//! Maintains the table: loads or issues the certificates of a configuration, reloads files that
//! changed, renews leaves of the internal CA. A problem of one domain never affects another one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::files;
use super::internal_ca::{InternalCa, InternalCaError};
use super::report::{self, AcmeStatus, CertificateReport, SourceKind};
use super::status;
use super::stored::{CandidateCas, StoredCertificates};
use super::table::{CertificateEntries, CertificateTable};
use crate::certs::Certificate;
use crate::certs::challenge::Challenges;
use crate::certs::inspect::Rfc3339;
use crate::certs::renewal;
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::Storage;
use crate::config::acme::{AcmeRequest, Fallback};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::{CertificateSource, SharedVirtualHost};
use crate::registry::host::HostName;
use crate::state_file::{FileChange, FileWatch};

/// All certificates of the process.
///
/// [`apply`](Self::apply) and [`refresh`](Self::refresh) read files and generate keys: call them
/// on a blocking thread. [`table`](Self::table) and [`report`](Self::report) never wait for them.
pub struct Certificates {
    state: PathBuf,
    table: Arc<CertificateTable>,
    reports: ArcSwap<Vec<CertificateReport>>,
    /// The certificates from CAs that are served, by domain.
    issued: ArcSwap<HashMap<HostName, Issued>>,
    /// The progress of renewals, by domain.
    acme: Mutex<HashMap<HostName, AcmeStatus>>,
    managed: Mutex<DomainCertificates>,
}

/// A certificate that was issued by an ACME CA.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) ca: CaId,
    pub(crate) certificate: Certificate,
    /// Whether clients can verify its chain.
    pub(crate) is_sound: bool,
}

#[derive(Default)]
struct DomainCertificates {
    /// Opened when the first domain needs it.
    ca: Option<InternalCa>,
    sources: CandidateCas,
    domains: Vec<DomainCertificate>,
}

impl Certificates {
    /// Starts without certificates. `state` is the state directory of the configuration.
    pub fn new(state: PathBuf) -> Self {
        let challenges = Challenges::new(Some(Storage::below(&state).challenges()));
        let table = Arc::new(CertificateTable::new(Arc::new(challenges)));
        let (reports, issued) = (ArcSwap::default(), ArcSwap::default());
        Self {
            state,
            table,
            reports,
            issued,
            acme: Mutex::default(),
            managed: Mutex::default(),
        }
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The table that handshakes read.
    pub fn table(&self) -> &Arc<CertificateTable> {
        &self.table
    }

    /// Reports on each domain as of the last update, in the order of the domain files.
    pub fn report(&self) -> Vec<CertificateReport> {
        let acme = self.acme.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reports = self.reports.load().as_ref().clone();
        for report in reports
            .iter_mut()
            .filter(|report| report.source == SourceKind::Acme)
        {
            report.acme = acme.get(&report.domain).cloned();
        }
        reports
    }

    /// Publishes the progress of renewals for [`report`](Self::report).
    pub(crate) fn publish_status(&self, all: HashMap<HostName, AcmeStatus>) {
        *self.acme.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// The certificate from a CA that is served for a domain.
    pub(crate) fn issued(&self, domain: &HostName) -> Option<Issued> {
        self.issued.load().get(domain).cloned()
    }

    /// Applies a configuration: keeps the certificates that it still uses, loads or issues new
    /// ones, drops the others, and replaces the table once.
    pub fn apply(&self, snapshot: &Snapshot) {
        self.prepare(snapshot).publish();
    }

    /// [`apply`](Self::apply) but for the replacement of the table.
    pub(crate) fn prepare(&self, snapshot: &Snapshot) -> PreparedCertificates<'_> {
        let now = SystemTime::now();
        let mut managed = self.lock();
        let DomainCertificates {
            ca,
            sources,
            domains,
        } = &mut *managed;
        let storage = Storage::below(&self.state);
        *sources = CandidateCas::from_settings(&storage, &snapshot.acme);
        let previous = domains
            .drain(..)
            .map(|domain| (domain.host.domain.clone(), domain));
        let mut previous: HashMap<HostName, DomainCertificate> = previous.collect();
        for host in &snapshot.domains {
            let (mut domain, reason) = match previous.remove(&host.domain) {
                // Its files may be about to be replaced while another domain changes.
                Some(domain) if Arc::ptr_eq(&domain.host, host) => (domain, UpdateReason::Poll),
                Some(domain) if domain.is_reusable_for(host) => {
                    (domain.with_host(host.clone()), UpdateReason::Apply)
                }
                Some(_) | None => (DomainCertificate::new(host.clone()), UpdateReason::Apply),
            };
            domain.update_candidates(&storage, sources);
            domain.update(ca, &self.state, now, reason);
            domains.push(domain);
        }
        PreparedCertificates {
            certificates: self,
            managed,
            now,
        }
    }

    /// Updates all certificates from their sources. Call it about once a second; it is cheap when
    /// nothing changed.
    pub fn refresh(&self) {
        self.refresh_at(SystemTime::now());
    }

    pub(crate) fn refresh_at(&self, now: SystemTime) {
        let mut managed = self.lock();
        let DomainCertificates {
            ca,
            sources,
            domains,
        } = &mut *managed;
        let storage = Storage::below(&self.state);
        let imported = sources.refresh(&storage);
        let mut changed = false;
        for domain in domains.iter_mut() {
            if imported {
                domain.update_candidates(&storage, sources);
            }
            changed |= domain.update(ca, &self.state, now, UpdateReason::Poll);
        }
        if changed {
            self.publish(domains, now);
        }
    }

    fn publish(&self, domains: &[DomainCertificate], now: SystemTime) {
        let mut entries = CertificateEntries::default();
        for domain in domains {
            let served = domain.certificate.as_ref().or(domain.stand_in.as_ref());
            entries.insert(&domain.host, served.map(|certificate| &certificate.key));
        }
        self.table.replace(entries);
        self.issued.store(Arc::new(
            domains
                .iter()
                .filter_map(|domain| domain.issued(now))
                .collect(),
        ));
        self.reports.store(Arc::new(
            domains.iter().map(|domain| domain.report(now)).collect(),
        ));
    }

    /// Ignores poisoning: a panic in an earlier call leaves at worst a domain with its previous
    /// certificate.
    fn lock(&self) -> MutexGuard<'_, DomainCertificates> {
        self.managed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The certificates of a configuration that is about to take effect.
pub(crate) struct PreparedCertificates<'a> {
    certificates: &'a Certificates,
    managed: MutexGuard<'a, DomainCertificates>,
    now: SystemTime,
}

impl PreparedCertificates<'_> {
    /// Replaces the table that handshakes read.
    pub(crate) fn publish(self) {
        self.certificates.publish(&self.managed.domains, self.now);
    }
}

/// One domain and its certificate.
struct DomainCertificate {
    host: SharedVirtualHost,
    certificate: Option<Certificate>,
    /// A leaf of the internal CA that is served while there is no certificate.
    stand_in: Option<Certificate>,
    /// The certificates from CAs below `state`.
    stored: StoredCertificates,
    /// Why the last attempt to load or issue a certificate failed.
    fault: Option<String>,
    /// The chain and the key of a pair of files, and the problem that was logged last, whatever the
    /// source.
    watch: FileWatch<2>,
}

/// What an update is part of. Decides when a pair of files that does not match is reported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UpdateReason {
    /// A new configuration: certificates are needed now, so problems are reported now.
    Apply,
    /// A poll, which another one follows in a second. Renewal tools replace the two files one after
    /// the other, so a bad pair is reported if the next poll finds it too.
    Poll,
}

impl DomainCertificate {
    fn new(host: SharedVirtualHost) -> Self {
        Self {
            host,
            certificate: None,
            stand_in: None,
            stored: StoredCertificates::default(),
            fault: None,
            watch: FileWatch::default(),
        }
    }

    /// Whether the certificate can be used with another configuration of the domain. A certificate
    /// from a CA can be, until a new one is issued.
    fn is_reusable_for(&self, host: &SharedVirtualHost) -> bool {
        use CertificateSource::Acme;
        matches!(
            (&self.host.certificate, &host.certificate),
            (Acme(_), Acme(_))
        ) || self.host.certificate == host.certificate
    }

    fn update_candidates(&mut self, storage: &Storage, sources: &CandidateCas) {
        self.stored =
            std::mem::take(&mut self.stored).with_cas(storage, sources, &self.host.domain);
    }

    fn with_host(self, host: SharedVirtualHost) -> Self {
        Self { host, ..self }
    }

    /// Updates the certificate. Returns whether the table or the report has to change.
    fn update(
        &mut self,
        ca: &mut Option<InternalCa>,
        state: &Path,
        now: SystemTime,
        reason: UpdateReason,
    ) -> bool {
        let host = self.host.clone();
        let replaced = match &host.certificate {
            CertificateSource::Files { certificate, key } => self.reload(certificate, key, reason),
            CertificateSource::Internal => self.reissue(ca, state, now),
            CertificateSource::Acme(request) => self.take_issued(request, ca, state, now),
        };
        if replaced {
            self.log_certificate();
        }
        let spoke = self.log_problem(now);
        replaced || spoke
    }

    fn reload(&mut self, certificate: &Path, key: &Path, reason: UpdateReason) -> bool {
        let change = self.watch.poll([certificate, key]);
        if change == FileChange::None {
            return false;
        }
        match files::load(certificate, key) {
            Ok(loaded) => {
                self.watch.settle([certificate, key]);
                self.fault = None;
                self.replace(loaded)
            }
            // Not settled: the next poll reads them again.
            Err(_) if reason == UpdateReason::Poll && change == FileChange::Certain => false,
            Err(error) => {
                if !self.watch.is_settled() {
                    // The same problem with another change is logged again.
                    self.watch.problem_ended();
                }
                self.watch.settle([certificate, key]);
                self.fault = Some(error.to_string());
                false
            }
        }
    }

    fn reissue(&mut self, ca: &mut Option<InternalCa>, state: &Path, now: SystemTime) -> bool {
        if self
            .certificate
            .as_ref()
            .is_some_and(|held| is_good(held, &self.host, now))
        {
            self.fault = None;
            return false;
        }
        match issue(ca, state, &self.host, now) {
            Ok(issued) => {
                self.fault = None;
                self.replace(issued)
            }
            Err(error) => {
                self.fault = Some(error.to_string());
                false
            }
        }
    }

    /// Uses the best stored certificate from a CA, or else a stand-in from the internal CA.
    fn take_issued(
        &mut self,
        request: &AcmeRequest,
        ca: &mut Option<InternalCa>,
        state: &Path,
        now: SystemTime,
    ) -> bool {
        self.stored.update(now);
        self.fault = self.stored.fault().map(str::to_owned);
        let mut replaced = false;
        if let Some(best) = self.stored.best(request, now) {
            let best = best.certificate.clone();
            replaced = self.replace(best);
        }
        if self.certificate.is_none() && self.fault.is_none() {
            self.fault = Some(status::NONE_YET.to_owned());
        }
        if self.certificate.is_some() || request.fallback == Fallback::Refuse {
            return self.stand_in.take().is_some() || replaced;
        }
        if self
            .stand_in
            .as_ref()
            .is_some_and(|held| is_good(held, &self.host, now))
        {
            return replaced;
        }
        match issue(ca, state, &self.host, now) {
            Ok(issued) => self.stand_in = Some(issued),
            Err(error) => self.fault = Some(error.to_string()),
        }
        true
    }

    fn issued(&self, now: SystemTime) -> Option<(HostName, Issued)> {
        let CertificateSource::Acme(request) = &self.host.certificate else {
            return None;
        };
        let best = self.stored.best(request, now)?;
        let issued = Issued {
            ca: best.ca.clone(),
            certificate: best.certificate.clone(),
            is_sound: best.is_sound,
        };
        Some((self.host.domain.clone(), issued))
    }

    /// Replaces the certificate. Returns whether it differs from the previous one.
    fn replace(&mut self, new: Certificate) -> bool {
        let same = self
            .certificate
            .as_ref()
            .is_some_and(|held| held.key.cert == new.key.cert);
        if !same {
            self.certificate = Some(new);
        }
        !same
    }

    fn report(&self, now: SystemTime) -> CertificateReport {
        let facts = self
            .certificate
            .as_ref()
            .map(|certificate| &certificate.facts);
        CertificateReport::new(&self.host, facts, self.fault.as_deref(), now)
    }

    fn log_certificate(&self) {
        let Some(Certificate { facts, .. }) = &self.certificate else {
            return;
        };
        tracing::info!(
            domain = %self.host.domain,
            source = %SourceKind::of(&self.host.certificate),
            issuer = %facts.issuer,
            serial = %facts.serial,
            not_after = %Rfc3339(facts.not_after),
            "certificate in force"
        );
    }

    /// Logs a problem when it appears or changes, and when it is solved; one of files each time, which
    /// the log counts. Returns whether it is news.
    fn log_problem(&mut self, now: SystemTime) -> bool {
        let facts = self
            .certificate
            .as_ref()
            .map(|certificate| &certificate.facts);
        let problem = report::problem(&self.host, facts, self.fault.as_deref(), now);
        let is_news = match &problem {
            Some(problem) => self.watch.problem_began(problem.clone()),
            None => self.watch.problem_ended(),
        };
        if !is_news && self.fault.is_none() {
            return false;
        }
        match &problem {
            Some(problem) if facts.is_none() && self.stand_in.is_some() => {
                tracing::warn!(domain = %self.host.domain, %problem, "no certificate: serving one of the internal CA");
            }
            Some(problem) if facts.is_none() => {
                tracing::error!(domain = %self.host.domain, %problem, "no certificate: handshakes are refused");
            }
            Some(problem) => {
                tracing::warn!(domain = %self.host.domain, %problem, "certificate needs attention");
            }
            None => tracing::info!(domain = %self.host.domain, "certificate problem solved"),
        }
        is_news
    }
}

/// Issues a leaf for all names of the host. Opens the CA if it is not open yet.
fn issue(
    ca: &mut Option<InternalCa>,
    state: &Path,
    host: &SharedVirtualHost,
    now: SystemTime,
) -> Result<Certificate, InternalCaError> {
    let ca = match ca {
        Some(ca) => ca,
        None => ca.insert(InternalCa::open_or_make(state)?),
    };
    ca.issue(host.names(), now)
}

/// Whether a leaf of the internal CA has exactly the names of the host and is not due for renewal.
fn is_good(held: &Certificate, host: &SharedVirtualHost, now: SystemTime) -> bool {
    let facts = &held.facts;
    facts.names.len() == host.names().count()
        && host.names().all(|name| facts.covers(name))
        && !renewal::is_due(now, facts.not_before, facts.not_after)
}

#[cfg(test)]
mod tests;
