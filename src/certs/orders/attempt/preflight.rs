//! What is found out before an order, and what follows: it is placed, postponed, or waits for the
//! administrator's word.

use std::time::{Duration, SystemTime};

use super::{CaAttempt, OrderAttempt};
use crate::certs::acme::AcmeSession;
use crate::certs::inspect::CertificateFacts;
use crate::certs::orders::attempt_error::{AttemptError, Wait};
use crate::certs::orders::domain_state::DomainState;
use crate::certs::orders::local_error::LocalError;
use crate::certs::preflight::backoff::next_retry;
use crate::certs::preflight::dns::Resolver;
use crate::certs::preflight::lost_state_guard::{
    LostStateFacts, UnconfirmedOrder, lost_state_guard,
};
use crate::certs::preflight::{self, Findings, Preflight};
use crate::certs::state::ledger::{Event, Ledger};
use crate::certs::state::storage::DomainRecord;
use crate::config::acme::{AcmeSettings, CaSettings, ChallengeKind};
use crate::state_file::run_blocking;

impl OrderAttempt<'_> {
    /// The state in which the first order waits for the administrator because the state directory
    /// seems to have been lost; `None`: it need not wait. It goes on waiting, whoever serves the
    /// name meanwhile, until it is confirmed, there is a certificate, or the certificate that was
    /// found has expired.
    pub(super) async fn check_lost_state(
        &self,
        settings: &AcmeSettings,
        record: &mut DomainRecord,
    ) -> Result<Option<DomainState>, LocalError> {
        let before = record.held.take();
        let issued = self.context.certificates.issued(&self.host.domain);
        let is_production = settings.authorities.iter().any(CaSettings::is_public);
        if self.requested || issued.is_some() || !is_production {
            return Ok(None);
        }
        let (domain, names) = (self.host.domain.clone(), self.names());
        let founded = self.context.ledger(move |ledger, _| {
            let is_settled = ledger.knows(&names) || ledger.is_confirmed(domain.as_str());
            (!is_settled).then(|| ledger.founded())
        });
        let Some(founded) = founded.await? else {
            return Ok(None);
        };
        let now = self.context.now();
        let unconfirmed = match before.filter(|before| now < before.until) {
            Some(before) => Some(before),
            None => self.find_lost_state(settings, founded, now).await,
        };
        let Some(unconfirmed) = unconfirmed else {
            return Ok(None);
        };
        let why = unconfirmed.why.clone();
        tracing::error!(domain = %self.host.domain, "{why}");
        record.held = Some(unconfirmed);
        self.context.store_record(&self.host.domain, record).await?;
        Ok(Some(DomainState::AwaitingConfirmation {
            until: now + LOST_STATE_POLL_INTERVAL,
            why,
        }))
    }

    /// Compares the certificate that is served under the domain with the age of the state
    /// directory, which knows nothing of the domain.
    async fn find_lost_state(
        &self,
        settings: &AcmeSettings,
        founded: SystemTime,
        now: SystemTime,
    ) -> Option<UnconfirmedOrder> {
        let served = self.served(settings).await;
        let facts = LostStateFacts {
            is_production: true,
            is_known: false,
            is_confirmed: false,
            founded,
            found: served.as_ref(),
        };
        let warning = lost_state_guard(self.host.domain.as_str(), facts, now)?;
        Some(UnconfirmedOrder {
            why: warning.to_string(),
            until: warning.until(),
        })
    }

    /// Takes down that somebody has asked for the order.
    pub(super) async fn confirm(&self) -> Result<(), LocalError> {
        let (domain, names) = (self.host.domain.clone(), self.names());
        let confirm = move |ledger: &mut Ledger, now| {
            ledger.record(
                Event::Confirmed {
                    domain: domain.as_str(),
                    names: &names,
                },
                now,
            );
        };
        self.context.ledger(confirm).await
    }

    /// Takes down that what has failed may work now.
    pub(super) async fn reset_backoff(&self) -> Result<(), LocalError> {
        let names = self.names();
        let reset =
            move |ledger: &mut Ledger, now| ledger.record(Event::Changed { names: &names }, now);
        self.context.ledger(reset).await
    }

    /// Looks at the names where the CA looks from outside, as everybody does; the view of a CA
    /// inside somebody's network is another. Records that have to stand in DNS are always looked
    /// for. Stops the attempt as long as what is found calls for that, unless somebody has asked
    /// for the order: then it is told, and no more.
    pub(super) async fn run_preflight(
        &self,
        at: &mut CaAttempt<'_>,
        session: &AcmeSession,
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
        let (certainty, texts) = (found.certainty(), found.texts());
        at.found = Some(found);
        let before = record.postponed.remove(&at.key.ca);
        let Some(certainty) = certainty.filter(|_| !self.requested) else {
            return Ok(());
        };
        let now = self.context.now();
        let found = texts.join("; ");
        let Some((postponed, until)) = next_retry(before, certainty, at.key.held_until, now) else {
            tracing::warn!(domain = %self.host.domain, found, "an order is tried in spite of what was found");
            return Ok(());
        };
        if before.is_none() {
            tracing::warn!(domain = %self.host.domain, ca = %at.ca.directory, found, "the order is postponed");
        }
        record.postponed.insert(at.key.ca.clone(), postponed);
        Err(AttemptError::Wait(Wait {
            until,
            why: format!("no order is placed yet: {found}"),
        }))
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
pub(super) fn identities(ca: &CaSettings, session: &AcmeSession) -> Vec<String> {
    let mut all: Vec<String> = session.dns_identities();
    all.extend(
        ca.directory
            .dns_identity()
            .map(str::to_owned)
            .filter(|_| all.is_empty()),
    );
    all
}

/// A volume that is mounted late is found again.
const LOST_STATE_POLL_INTERVAL: Duration = Duration::from_secs(600);
