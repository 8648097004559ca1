//! The certificates that a configuration orders from CAs.

use crate::certs::state::paths::CaId;
use crate::config::acme::{AcmeRequest, AcmeSettings, CaSettings};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::{CertificateSource, SharedVirtualHost};

/// The part of a configuration that concerns CAs. A reload replaces it whole.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: AcmeSettings,
    pub(super) hosts: Vec<SharedVirtualHost>,
    /// The contacts of all domains as URLs, sorted.
    pub(super) contacts: Vec<String>,
}

impl Plan {
    pub(super) fn from_snapshot(snapshot: &Snapshot) -> Self {
        let with_acme = snapshot
            .domains
            .iter()
            .filter(|host| request_of(host).is_some());
        let hosts: Vec<SharedVirtualHost> = with_acme.cloned().collect();
        let contacts = hosts
            .iter()
            .filter_map(|host| request_of(host)?.contact.as_ref());
        let mut contacts: Vec<String> = contacts
            .map(|contact| format!("mailto:{contact}"))
            .collect();
        contacts.sort();
        contacts.dedup();
        Self {
            settings: snapshot.acme.clone(),
            hosts,
            contacts,
        }
    }

    /// The CAs in the order in which they are tried.
    pub(super) fn authorities(&self) -> impl Iterator<Item = (&CaSettings, CaId)> {
        let all = self.settings.authorities.iter();
        all.filter_map(|ca| Some((ca, CaId::new(ca.directory.url()).ok()?)))
    }

    /// The settings of a CA, if it is configured.
    pub(super) fn authority(&self, id: &CaId) -> Option<&CaSettings> {
        self.authorities()
            .find(|(_, known)| known == id)
            .map(|(ca, _)| ca)
    }
}

/// The request of a domain, if its certificate comes from a CA.
pub(super) fn request_of(host: &SharedVirtualHost) -> Option<&AcmeRequest> {
    match &host.certificate {
        CertificateSource::Acme(request) => Some(request),
        CertificateSource::Files { .. } | CertificateSource::Internal => None,
    }
}
