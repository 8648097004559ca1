//! What all requests of the process share.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::answer::failed_uploads::FailedUploads;
use super::answer::manifest_budget::ManifestBudget;
use super::answer::tag_locks::TagLocks;
use super::retained::facts::KnownManifests;
use super::site::Sites;
use super::user_limits::UserLimits;
use crate::auth::verify::{KnownLogins, Verifier, VerifierError, VerifierSettings};
use crate::observe::access_log::AccessLog;
use crate::observe::log_queue::LogQueue;
use crate::observe::metrics::Traffic;
use crate::observe::peer_log::PeerLog;

/// The state that all requests of the process share.
pub(crate) struct Gateway {
    /// The configuration in force, with its live parts. A request loads it once.
    pub(crate) sites: ArcSwap<Sites>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) access_log: Arc<AccessLog>,
    /// Counters of the requests that found no domain.
    pub(crate) unlocated_traffic: Arc<Traffic>,
    /// The sockets on which moorgate listens.
    pub(crate) listeners: ArcSwap<Vec<SocketAddr>>,
    pub(crate) tag_locks: TagLocks,
    pub(crate) failed_uploads: FailedUploads,
    pub(crate) manifest_budget: ManifestBudget,
    pub(crate) user_limits: UserLimits,
    /// What retention has read at upstreams.
    pub(crate) known_manifests: KnownManifests,
    /// Refused handshakes without a server name.
    pub(crate) nameless_log: PeerLog,
    /// Other failed handshakes.
    pub(crate) handshake_log: PeerLog,
    /// Plain HTTP on TLS ports.
    pub(crate) plain_http_log: PeerLog,
}

impl Gateway {
    /// Serves these sites. The lines of requests go to `log_lines`; `logins` is what a predecessor
    /// of the process knows. Fails if the passwords of logins cannot be verified.
    pub(crate) fn new(
        sites: Arc<Sites>,
        log_lines: Arc<LogQueue>,
        logins: Option<KnownLogins>,
    ) -> Result<Self, VerifierError> {
        let settings = VerifierSettings {
            waiting: sites.snapshot.connection.passwords_waiting,
            ..VerifierSettings::default()
        };
        let verifier = Arc::new(match logins {
            Some(known) => Verifier::resume(settings, known)?,
            None => Verifier::new(settings)?,
        });
        let access_log = Arc::new(AccessLog::new(log_lines));
        let log = &sites.snapshot.log;
        access_log.configure(log.access, log.format);
        Ok(Self {
            sites: ArcSwap::from(sites),
            verifier,
            access_log,
            unlocated_traffic: Arc::default(),
            listeners: ArcSwap::default(),
            tag_locks: TagLocks::new(),
            failed_uploads: FailedUploads::default(),
            manifest_budget: ManifestBudget::new(),
            user_limits: UserLimits::default(),
            known_manifests: KnownManifests::default(),
            nameless_log: PeerLog::default(),
            handshake_log: PeerLog::default(),
            plain_http_log: PeerLog::default(),
        })
    }
}
