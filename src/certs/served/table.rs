//! The table that a handshake reads: the certificate for a server name on a listener. Immutable,
//! swapped as a whole, read without a lock and without allocation. There is no default certificate.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

use crate::certs::challenge::Challenges;
use crate::config::vhost::{ListenAddress, VirtualHost};

/// The current table. There is one for the whole process, so that TLS configurations outlive
/// reloads.
#[derive(Debug, Default)]
pub struct CertificateTable {
    entries: ArcSwap<CertificateEntries>,
    challenges: Arc<Challenges>,
}

impl CertificateTable {
    /// Starts without certificates.
    pub fn new(challenges: Arc<Challenges>) -> Self {
        Self {
            entries: ArcSwap::default(),
            challenges,
        }
    }

    /// The pending challenges that CAs validate by handshakes (tls-alpn-01).
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Returns the certificate for a handshake. `None`: the handshake must be refused.
    ///
    /// `server_name` is the SNI in lower case, as rustls gives it; a trailing dot is tolerated.
    /// Without SNI, clients can only have asked for an address (RFC 6066 §3). Which one cannot be
    /// known: behind a published container port, the local address is not the one they dialled. So
    /// the answer is the certificate of the only virtual host here that has an address among its
    /// names.
    pub fn find(
        &self,
        listen: ListenAddress,
        server_name: Option<&str>,
    ) -> Option<Arc<CertifiedKey>> {
        let entries = self.entries.load();
        let listener = entries.listeners.get(&listen)?;
        let Some(name) = server_name else {
            return listener.nameless.only();
        };
        listener
            .names
            .get(name.strip_suffix('.').unwrap_or(name))
            .cloned()
    }

    /// Returns the certificate for a handshake without SNI of a trusted proxy, which passes on the
    /// client's Host: that of [`CertificateTable::find`], or else the first on the listener, in the
    /// order of the configuration.
    pub(crate) fn find_for_proxy(&self, listen: ListenAddress) -> Option<Arc<CertifiedKey>> {
        let entries = self.entries.load();
        let listener = entries.listeners.get(&listen)?;
        listener.nameless.only().or_else(|| listener.first.clone())
    }

    /// Replaces the entries for all handshakes that begin from now on.
    pub fn replace(&self, entries: CertificateEntries) {
        self.entries.store(Arc::new(entries));
    }
}

/// The content of a table.
#[derive(Debug, Default)]
pub struct CertificateEntries {
    listeners: HashMap<ListenAddress, ListenerNames>,
}

#[derive(Debug, Default)]
struct ListenerNames {
    names: HashMap<Box<str>, Arc<CertifiedKey>>,
    nameless: Nameless,
    /// The certificate of the first virtual host that has one.
    first: Option<Arc<CertifiedKey>>,
}

/// Which virtual host answers a handshake without SNI.
#[derive(Debug, Default)]
enum Nameless {
    /// No virtual host has an address among its names.
    #[default]
    Nobody,
    /// Exactly one has. It may lack a certificate: no other one answers in its place.
    One(Option<Arc<CertifiedKey>>),
    /// Several have: the client may mean any of them.
    Several,
}

impl Nameless {
    fn only(&self) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::One(certificate) => certificate.clone(),
            Self::Nobody | Self::Several => None,
        }
    }
}

impl CertificateEntries {
    /// Adds a virtual host under all its names on all its listeners. One without a certificate is
    /// added too, so that no other host answers for its addresses.
    pub fn insert(&mut self, host: &VirtualHost, certificate: Option<&Arc<CertifiedKey>>) {
        for listen in &host.listen {
            let listener = self.listeners.entry(*listen).or_default();
            if host.names_on(*listen).any(|name| name.ip().is_some()) {
                listener.nameless = match listener.nameless {
                    Nameless::Nobody => Nameless::One(certificate.cloned()),
                    Nameless::One(_) | Nameless::Several => Nameless::Several,
                };
            }
            let Some(certificate) = certificate else {
                continue;
            };
            listener.first.get_or_insert_with(|| certificate.clone());
            for name in host.names_on(*listen) {
                listener
                    .names
                    .insert(name.as_str().into(), certificate.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::{certificate, host, listen};
    use crate::config::vhost::CertificateSource::Internal;

    #[test]
    fn names_answer_on_their_listeners_only() {
        let (table, held) = (
            CertificateTable::default(),
            certificate(&["a.example.com"]).key,
        );
        let mut entries = CertificateEntries::default();
        entries.insert(
            &host(&["a.example.com", "b.example.com"], &[443, 5000], Internal),
            Some(&held),
        );
        entries.insert(&host(&["broken.example.com"], &[443], Internal), None);
        table.replace(entries);
        let found = |port, name| table.find(listen(port), name).is_some();
        assert!(found(443, Some("a.example.com")) && found(5000, Some("b.example.com.")));
        assert!(!found(444, Some("a.example.com")));
        for other in [
            "",
            ".",
            "example.com",
            "x.a.example.com",
            "a.example.com..",
            "broken.example.com",
        ] {
            assert!(!found(443, Some(other)), "{other}");
        }
        assert!(!found(443, None));
    }

    #[test]
    fn without_sni_only_the_sole_owner_of_addresses_answers() {
        let held = certificate(&["192.0.2.1"]).key;
        let first = host(
            &["a.example.com", "192.0.2.1", "192.0.2.2"],
            &[443],
            Internal,
        );
        let second = host(&["b.example.com", "192.0.2.3"], &[443], Internal);
        let plain = host(&["c.example.com"], &[443], Internal);
        let answers = |hosts: &[(&VirtualHost, Option<&Arc<CertifiedKey>>)]| {
            let mut entries = CertificateEntries::default();
            for (host, held) in hosts {
                entries.insert(host, *held);
            }
            let table = CertificateTable::default();
            table.replace(entries);
            table.find(listen(443), None).is_some()
        };
        assert!(answers(&[(&plain, Some(&held)), (&first, Some(&held))]));
        assert!(!answers(&[(&plain, Some(&held))]));
        assert!(!answers(&[(&first, Some(&held)), (&second, Some(&held))]));
        assert!(
            !answers(&[(&first, None), (&second, Some(&held))]),
            "no other host answers for a broken one"
        );
        assert!(!answers(&[(&first, None)]));
    }
}
