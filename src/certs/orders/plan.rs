//! What is wanted of the CAs, as a configuration says it.

use crate::certs::state::paths::CaId;
use crate::config::acme::{AcmeRequest, AcmeSettings, CaSettings};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::{CertificateSource, SharedVirtualHost};

/// What is wanted. Swapped whole by a reload; an order that is under way goes on.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: AcmeSettings,
    pub(super) hosts: Vec<SharedVirtualHost>,
    /// As the CAs are to know them: those of all domains.
    pub(super) contacts: Vec<String>,
}

impl Plan {
    pub(super) fn from_snapshot(snapshot: &Snapshot) -> Self {
        let asking = snapshot
            .domains
            .iter()
            .filter(|host| request_of(host).is_some());
        let hosts: Vec<SharedVirtualHost> = asking.cloned().collect();
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

    /// The CAs, in the order in which they are asked.
    pub(super) fn authorities(&self) -> impl Iterator<Item = (&CaSettings, CaId)> {
        let all = self.settings.authorities.iter();
        all.filter_map(|ca| Some((ca, CaId::new(ca.directory.url()).ok()?)))
    }

    /// The settings of a CA, if it is one of those that are asked.
    pub(super) fn authority(&self, id: &CaId) -> Option<&CaSettings> {
        self.authorities()
            .find(|(_, known)| known == id)
            .map(|(ca, _)| ca)
    }
}

/// What a domain asks for, if it asks a CA.
pub(super) fn request_of(host: &SharedVirtualHost) -> Option<&AcmeRequest> {
    match &host.certificate {
        CertificateSource::Acme(request) => Some(request),
        CertificateSource::Files { .. } | CertificateSource::Internal => None,
    }
}
