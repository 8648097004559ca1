//! The certificates that CAs have given for one domain, as they lie below `state`: which of them is served.

use std::io;
use std::path::PathBuf;

use crate::certs::Certificate;
use crate::certs::files::{self, FilesError};
use crate::certs::state::CaId;
use crate::certs::storage::Storage;
use crate::config::acme::{AcmeRequest, AcmeSettings};
use crate::fs::Fingerprint;
use crate::registry::host::HostName;

/// What lies there for a domain, one for each CA of the configuration, in its order.
#[derive(Default)]
pub(super) struct Stored {
    candidates: Vec<Candidate>,
}

struct Candidate {
    ca: CaId,
    path: PathBuf,
    seen: Option<Fingerprint>,
    held: Option<Certificate>,
    fault: Option<String>,
}

impl Stored {
    /// For these CAs; what is known of those that stay is kept.
    pub(super) fn of(self, storage: &Storage, settings: &AcmeSettings, domain: &HostName) -> Self {
        let mut before = self.candidates;
        let ids = settings.authorities.iter().filter_map(|ca| CaId::new(ca.directory.url()).ok());
        let candidates = ids.map(|ca| match before.iter().position(|known| known.ca == ca) {
            Some(known) => before.swap_remove(known),
            None => {
                let path = storage.certificate(&ca, domain);
                Candidate { ca, path, seen: None, held: None, fault: None }
            }
        });
        Self { candidates: candidates.collect() }
    }

    /// Reads what has changed.
    pub(super) fn update(&mut self) {
        for candidate in &mut self.candidates {
            candidate.update();
        }
    }

    /// The best: for all names that are wanted, and the newest of those.
    pub(super) fn best(&self, request: &AcmeRequest) -> Option<(&CaId, &Certificate)> {
        let held = self.candidates.iter().filter_map(|one| Some((&one.ca, one.held.as_ref()?)));
        held.max_by_key(|(_, certificate)| {
            let facts = &certificate.facts;
            (is_for(facts.names.iter().map(ToString::to_string), request), facts.not_before)
        })
    }

    /// Why a file that is there cannot be used.
    pub(super) fn fault(&self) -> Option<&str> {
        self.candidates.iter().find_map(|candidate| candidate.fault.as_deref())
    }
}

impl Candidate {
    fn update(&mut self) {
        let seen = Fingerprint::of(&self.path);
        if seen == self.seen && !seen.is_some_and(|seen| seen.is_fresh()) {
            return;
        }
        self.seen = seen;
        match files::load(&self.path, &self.path) {
            Ok(certificate) => {
                self.held = Some(certificate);
                self.fault = None;
            }
            // What is in memory stays; without it there is nothing to be said about a file that never was.
            Err(FilesError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.fault = None;
            }
            Err(error) => self.fault = Some(error.to_string()),
        }
    }
}

/// Whether a certificate with these names is exactly the one that is asked for.
pub(in crate::certs) fn is_for(names: impl Iterator<Item = String>, request: &AcmeRequest) -> bool {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names == crate::certs::storage::sorted(&request.names)
}
