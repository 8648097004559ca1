//! What is found out before an order, and what follows: it is placed, or postponed.

use super::error::AttemptError;
use super::{Attempt, CaAttempt};
use crate::certs::acme::Session;
use crate::certs::inspect::CertificateFacts;
use crate::certs::preflight::backoff::next_retry;
use crate::certs::preflight::dns::Resolver;
use crate::certs::preflight::{self, Findings, Preflight};
use crate::certs::state::storage::DomainRecord;
use crate::config::acme::{AcmeSettings, CaSettings, ChallengeKind};
use crate::state_file::run_blocking;

impl Attempt<'_> {
    /// Looks at the names where the CA looks from outside, as everybody does; the view of a CA
    /// inside somebody's network is another. Records that have to stand in DNS are always looked
    /// for. Stops the attempt as long as what is found calls for that, unless somebody has asked
    /// for the order: then it is told, and no more.
    pub(super) async fn run_preflight(
        &self,
        at: &mut CaAttempt<'_>,
        session: &Session,
        record: &mut DomainRecord,
    ) -> Result<(), AttemptError> {
        let resolver = self.resolver(at.settings).await;
        let identities = identities(at.ca, session);
        let preflight = Preflight {
            resolver: &resolver,
            challenges: self.context.certificates.table().challenges(),
            kinds: &at.settings.challenges,
            identities: &identities,
            ports: at.ca.ports,
        };
        let mut found = Findings::default();
        if at.ca.is_public() {
            found = preflight.check(&self.request.names).await;
        }
        preflight
            .check_persistent_records(&self.request.names, session.account_url(), &mut found)
            .await;
        let (severity, texts) = (found.severity(), found.texts());
        at.found = Some(found);
        let before = record.postponed.remove(&at.key.ca);
        let Some(severity) = severity.filter(|_| !self.requested) else {
            return Ok(());
        };
        let now = self.context.now();
        let words = texts.join("; ");
        let Some((postponed, until)) = next_retry(before, severity, at.key.held_until, now) else {
            tracing::warn!(domain = %self.host.domain, found = words, "an order is tried in spite of what was found");
            return Ok(());
        };
        if before.is_none() {
            tracing::warn!(domain = %self.host.domain, ca = %at.ca.directory, found = words, "the order is postponed");
        }
        record.postponed.insert(at.key.ca.clone(), postponed);
        Err(AttemptError::Wait(
            until,
            format!("no order is placed yet: {words}"),
        ))
    }

    /// The certificate that the world sees under the domain.
    pub(super) async fn served(&self, settings: &AcmeSettings) -> Option<CertificateFacts> {
        let resolver = self.resolver(settings).await;
        let public = || settings.authorities.iter().filter(|ca| ca.is_public());
        let port = public().next()?.ports.tls;
        let files = public().filter_map(|ca| ca.roots.clone()).collect();
        preflight::served_certificate(&resolver, &self.host.domain, port, files).await
    }

    async fn resolver(&self, settings: &AcmeSettings) -> Resolver {
        let servers = settings.resolvers.clone();
        run_blocking(move || Resolver::from_servers(&servers)).await
    }
}

impl CaAttempt<'_> {
    /// The challenges that may be tried, the most promising first.
    pub(super) fn ranked_challenges(&self, record: &DomainRecord) -> Vec<ChallengeKind> {
        let unfit = self.found.as_ref().map_or(&[][..], |found| &found.unfit);
        record.ranked(&self.settings.challenges, unfit)
    }
}

/// The domains that stand for a CA in DNS, its own word first.
pub(super) fn identities(ca: &CaSettings, session: &Session) -> Vec<String> {
    let mut all: Vec<String> = session.dns_identities();
    all.extend(
        ca.directory
            .dns_identity()
            .map(str::to_owned)
            .filter(|_| all.is_empty()),
    );
    all
}
