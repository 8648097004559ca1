//! The certificates of one domain that are stored below `state`, one for each CA, and the choice of
//! the one that is served.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::certs::Certificate;
use crate::certs::chain;
use crate::certs::inspect::CertificateFacts;
use crate::certs::served::files::{self, FilesError};
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::Storage;
use crate::config::acme::{AcmeRequest, AcmeSettings, CertifiedName};
use crate::registry::host::HostName;
use crate::state_file::{FileChange, FileWatch};

/// The CAs whose certificates may be stored.
#[derive(Default)]
pub(in crate::certs) struct CandidateCas {
    /// The CAs of the configuration, in its order.
    configured: Vec<CaId>,
    /// The CAs with a directory below `state`, including former ones and those that `certs import`
    /// has added.
    kept: Vec<CaId>,
}

impl CandidateCas {
    pub(in crate::certs) fn from_settings(storage: &Storage, settings: &AcmeSettings) -> Self {
        let ids = settings
            .authorities
            .iter()
            .filter_map(|ca| CaId::new(ca.directory.url()).ok());
        Self {
            configured: ids.collect(),
            kept: storage.state().cas(),
        }
    }

    /// Lists the state directory again. Returns whether the CAs have changed.
    pub(super) fn refresh(&mut self, storage: &Storage) -> bool {
        let kept = storage.state().cas();
        std::mem::replace(&mut self.kept, kept) != self.kept
    }

    fn all(&self) -> impl Iterator<Item = (&CaId, bool)> {
        let others = self.kept.iter().filter(|ca| !self.configured.contains(ca));
        self.configured
            .iter()
            .map(|ca| (ca, true))
            .chain(others.map(|ca| (ca, false)))
    }
}

/// The stored certificates of a domain, one for each CA.
#[derive(Default)]
pub(in crate::certs) struct StoredCertificates {
    candidates: Vec<StoredCertificate>,
}

struct StoredCertificate {
    ca: CaId,
    /// Whether the configuration names the CA.
    is_configured: bool,
    path: PathBuf,
    watch: FileWatch,
    held: Option<Certificate>,
    /// Whether clients can verify its chain.
    is_sound: bool,
    fault: Option<String>,
}

/// The certificate that is served.
pub(in crate::certs) struct BestCertificate<'a> {
    pub(in crate::certs) ca: &'a CaId,
    pub(in crate::certs) certificate: &'a Certificate,
    /// Whether clients can verify its chain.
    pub(in crate::certs) is_sound: bool,
}

impl StoredCertificates {
    /// Changes the CAs. Keeps the certificates of those that stay.
    pub(in crate::certs) fn with_cas(
        self,
        storage: &Storage,
        sources: &CandidateCas,
        domain: &HostName,
    ) -> Self {
        let mut before = self.candidates;
        let candidates = sources.all().map(|(ca, is_configured)| {
            match before.iter().position(|known| known.ca == *ca) {
                Some(known) => StoredCertificate {
                    is_configured,
                    ..before.swap_remove(known)
                },
                None => {
                    let path = storage.certificate(ca, domain);
                    StoredCertificate {
                        ca: ca.clone(),
                        is_configured,
                        path,
                        watch: FileWatch::default(),
                        held: None,
                        is_sound: false,
                        fault: None,
                    }
                }
            }
        });
        Self {
            candidates: candidates.collect(),
        }
    }

    /// Reads the files that have changed.
    pub(in crate::certs) fn update(&mut self, now: SystemTime) {
        for candidate in &mut self.candidates {
            candidate.update(now);
        }
    }

    /// The certificate to serve: preferably one that is valid, then one that covers all requested
    /// names, then one with a chain that clients can verify, then one from a configured CA, then one
    /// with exactly these names, then the newest.
    pub(in crate::certs) fn best(
        &self,
        request: &AcmeRequest,
        now: SystemTime,
    ) -> Option<BestCertificate<'_>> {
        let held = self
            .candidates
            .iter()
            .filter_map(|one| Some((one, one.held.as_ref()?)));
        let best = held.max_by_key(|(candidate, certificate)| {
            let facts = &certificate.facts;
            let is_exact = is_for(facts, request);
            (
                facts.is_valid(now),
                covers(facts, request),
                candidate.is_sound,
                candidate.is_configured,
                is_exact,
                facts.not_before,
            )
        });
        best.map(|(candidate, certificate)| BestCertificate {
            ca: &candidate.ca,
            certificate,
            is_sound: candidate.is_sound,
        })
    }

    /// Why a stored file cannot be used. Files of CAs that are no longer configured do not matter.
    pub(super) fn fault(&self) -> Option<&str> {
        let configured = self
            .candidates
            .iter()
            .filter(|candidate| candidate.is_configured);
        configured
            .filter_map(|candidate| candidate.fault.as_deref())
            .next()
    }
}

impl StoredCertificate {
    fn update(&mut self, now: SystemTime) {
        if self.watch.poll([&self.path]) == FileChange::None {
            return;
        }
        match files::load(&self.path, &self.path) {
            Ok(certificate) => {
                self.is_sound = chain::check(&certificate.key.cert, now).is_ok();
                self.held = Some(certificate);
                self.fault = None;
            }
            // The certificate in memory stays. Without one, a file that never existed is no fault.
            Err(FilesError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                self.fault = None;
            }
            Err(error) => self.fault = Some(error.to_string()),
        }
        self.watch.settle([&self.path]);
    }
}

/// Whether a certificate has exactly the requested names.
pub(in crate::certs) fn is_for(facts: &CertificateFacts, request: &AcmeRequest) -> bool {
    let mut names: Vec<String> = facts.names.iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    names == crate::certs::state::storage::sorted(&request.names)
}

/// Whether a certificate covers all requested names, and possibly more.
pub(in crate::certs) fn covers(facts: &CertificateFacts, request: &AcmeRequest) -> bool {
    request.names.iter().all(|name| has(facts, name))
}

/// Whether a certificate covers a requested name.
pub(in crate::certs) fn has(facts: &CertificateFacts, name: &CertifiedName) -> bool {
    match name {
        CertifiedName::Host(host) => facts.covers(host),
        CertifiedName::Wildcard(_) => facts
            .names
            .iter()
            .any(|held| held.to_string() == name.to_string()),
    }
}
