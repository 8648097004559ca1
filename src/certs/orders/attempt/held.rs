//! Whether a first order waits for the administrator's word, and what that word ends.

use std::time::Duration;

use super::Attempt;
use crate::certs::orders::state::State;
use crate::certs::preflight::hold::{Facts, HeldBack, hold};
use crate::certs::state::ledger::{Event, Ledger};
use crate::certs::state::storage::Record;
use crate::config::acme::{AcmeSettings, CaSettings};

impl Attempt<'_> {
    /// Whether the first order is held back because the state directory seems to have been lost.
    /// Once it is, it stays so, whoever serves the name meanwhile: until that is confirmed, there
    /// is a certificate, or the one that was found has expired.
    pub(super) async fn held(
        &self,
        settings: &AcmeSettings,
        record: &mut Record,
    ) -> Result<Option<State>, String> {
        let before = record.held.take();
        let is_production = settings.authorities.iter().any(CaSettings::is_public);
        if !is_production
            || self.forced
            || self.issuer.certificates.issued(&self.host.domain).is_some()
        {
            return Ok(None);
        }
        let (domain, names) = (self.host.domain.clone(), self.names());
        let asked = self.issuer.ledger(move |ledger, _| {
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
        let now = (self.issuer.wall)();
        record.held = match before.filter(|before| now < before.until) {
            Some(before) => Some(before),
            None => {
                let found = self.served(settings).await;
                let facts = Facts {
                    is_production,
                    is_known,
                    is_confirmed,
                    founded,
                    found: found.as_ref(),
                };
                let held = hold(self.host.domain.as_str(), facts, now);
                held.map(|held| HeldBack {
                    why: held.to_string(),
                    until: held.until(),
                })
            }
        };
        let Some(HeldBack { why, .. }) = record.held.clone() else {
            return Ok(None);
        };
        tracing::error!(domain = %self.host.domain, "{why}");
        self.issuer.keep(&self.host.domain, record).await?;
        Ok(Some(State::Held {
            until: now + LOOK_AT_HELD,
            why,
        }))
    }

    /// Takes down that somebody has asked for the order.
    pub(super) async fn confirm(&self) -> Result<(), String> {
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
        self.issuer.ledger(confirm).await
    }

    /// Takes down that what has failed may work now.
    pub(super) async fn forgive(&self) -> Result<(), String> {
        let names = self.names();
        let forgive =
            move |ledger: &mut Ledger, now| ledger.record(Event::Changed { names: &names }, now);
        self.issuer.ledger(forgive).await
    }
}

/// A volume that is mounted late is found again.
const LOOK_AT_HELD: Duration = Duration::from_secs(600);
