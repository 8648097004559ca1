//! Whether a first order waits for the administrator's word, and what that word ends.

use std::time::Duration;

use super::Attempt;
use crate::certs::orders::domain_state::DomainState;
use crate::certs::orders::local_error::LocalError;
use crate::certs::preflight::lost_state_guard::{
    LostStateFacts, UnconfirmedOrder, lost_state_guard,
};
use crate::certs::state::ledger::{Event, Ledger};
use crate::certs::state::storage::DomainRecord;
use crate::config::acme::{AcmeSettings, CaSettings};

impl Attempt<'_> {
    /// Whether the first order is held back because the state directory seems to have been lost.
    /// Once it is, it stays so, whoever serves the name meanwhile: until that is confirmed, there
    /// is a certificate, or the one that was found has expired.
    pub(super) async fn check_lost_state(
        &self,
        settings: &AcmeSettings,
        record: &mut DomainRecord,
    ) -> Result<Option<DomainState>, LocalError> {
        let before = record.held.take();
        let is_production = settings.authorities.iter().any(CaSettings::is_public);
        if !is_production
            || self.requested
            || self
                .context
                .certificates
                .issued(&self.host.domain)
                .is_some()
        {
            return Ok(None);
        }
        let (domain, names) = (self.host.domain.clone(), self.names());
        let asked = self.context.ledger(move |ledger, _| {
            (
                ledger.knows(&names),
                ledger.is_confirmed(domain.as_str()),
                ledger.founded(),
            )
        });
        let (is_known, is_confirmed, founded) = asked.await?;
        if is_known || is_confirmed {
            return Ok(None);
        }
        let now = self.context.now();
        record.held = match before.filter(|before| now < before.until) {
            Some(before) => Some(before),
            None => {
                let found = self.served(settings).await;
                let facts = LostStateFacts {
                    is_production,
                    is_known,
                    is_confirmed,
                    founded,
                    found: found.as_ref(),
                };
                let held = lost_state_guard(self.host.domain.as_str(), facts, now);
                held.map(|held| UnconfirmedOrder {
                    why: held.to_string(),
                    until: held.until(),
                })
            }
        };
        let Some(UnconfirmedOrder { why, .. }) = record.held.clone() else {
            return Ok(None);
        };
        tracing::error!(domain = %self.host.domain, "{why}");
        self.context.store_record(&self.host.domain, record).await?;
        Ok(Some(DomainState::AwaitingConfirmation {
            until: now + LOST_STATE_POLL_INTERVAL,
            why,
        }))
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
}

/// A volume that is mounted late is found again.
const LOST_STATE_POLL_INTERVAL: Duration = Duration::from_secs(600);
