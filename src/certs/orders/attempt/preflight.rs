//! The checks before an order, by which it is placed, postponed, or waits for a confirmation of the
//! administrator.

use std::time::{Duration, SystemTime};

use super::{CaAttempt, CertificateAttempt};
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

impl CertificateAttempt<'_> {
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

    /// Records that the administrator has requested the order.
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

    /// Records that the configuration has changed: what has failed may work now.
    pub(super) async fn reset_backoff(&self) -> Result<(), LocalError> {
        let names = self.names();
        let reset =
            move |ledger: &mut Ledger, now| ledger.record(Event::Changed { names: &names }, now);
        self.context.ledger(reset).await
    }

    /// Checks the names if the CA validates them from the Internet: a CA in a private network may
    /// see other addresses. Records that dns-persist-01 needs are checked for every CA. Findings
    /// postpone the order for a while, but never one that the administrator has requested.
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
        let held_until = at.key.held.map(|held| held.not_after);
        let Some((postponed, until)) = next_retry(before, certainty, held_until, now) else {
            tracing::warn!(domain = %self.host.domain, found, "placing the order in spite of preflight findings");
            return Ok(());
        };
        if before.is_none() {
            tracing::warn!(domain = %self.host.domain, ca = %at.ca.directory, found, "order postponed because of preflight findings");
        }
        record.postponed.insert(at.key.ca.clone(), postponed);
        Err(AttemptError::Wait(Wait {
            until,
            why: format!("no order is placed yet: {found}"),
        }))
    }

    /// The certificate that clients on the Internet get under the domain.
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
    /// The kinds of challenges that may be used, the most promising first.
    pub(super) fn ranked_challenges(&self, record: &DomainRecord) -> Vec<ChallengeKind> {
        let unfit = self.found.as_ref().map_or(&[][..], |found| &found.unfit);
        record.ranked(&self.settings.challenges, unfit)
    }
}

/// The domains that identify a CA in CAA records: as the CA says, or else as known for its
/// directory.
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

/// A volume that is mounted late is noticed then.
const LOST_STATE_POLL_INTERVAL: Duration = Duration::from_mins(10);
