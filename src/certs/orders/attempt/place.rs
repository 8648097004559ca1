//! The order of an attempt: the one that is in flight, or a new one, which is on disk before
//! anything is done with it.

use secrecy::SecretString;

use super::error::{AttemptError, allowed};
use super::{Attempt, CaAttempt, OrderKey};
use crate::certs::acme::{AcmeError, NewOrder, Order, Session};
use crate::certs::orders::local_error::LocalError;
use crate::certs::state::ledger::{Event, OrderKind};
use crate::certs::state::pending_order::OpenOrder;
use crate::state_file::run_blocking;

impl Attempt<'_> {
    /// The order that is in flight at the CA, if it is still the one that is wanted.
    pub(super) async fn pending(
        &self,
        at: &mut CaAttempt<'_>,
    ) -> Result<Option<(OpenOrder, SecretString)>, AttemptError> {
        let Some(account) = self.account(at).await? else {
            return Ok(None);
        };
        at.key.account = account.stored.url;
        let (storage, domain, now) = (
            self.context.storage.clone(),
            self.host.domain.clone(),
            self.context.now(),
        );
        let key = at.key.clone();
        let read =
            run_blocking(move || storage.order(&key.ca, &domain, &key.account, &key.names, now))
                .await;
        let found = read.map_err(|error| AttemptError::Local(LocalError::ReadOrder(error)))?;
        if let Some((open, _)) = &found {
            at.key.kind = open.kind;
        }
        Ok(found)
    }

    /// `None`: the CA does not know it any more.
    pub(super) async fn resume(
        &self,
        at: &CaAttempt<'_>,
        session: &Session,
        open: &OpenOrder,
    ) -> Result<Option<Order>, AttemptError> {
        tracing::info!(domain = %self.host.domain, ca = %at.ca.directory, "taking up an order");
        match session.resume(&open.url).await {
            Ok(order) => Ok(Some(order)),
            Err(AcmeError::OrderGone(reason)) => {
                tracing::info!(domain = %self.host.domain, reason, "the CA does not know the order any more");
                self.forget(at).await.map_err(AttemptError::Local)?;
                self.record_event(at, |key| Event::Abandoned(key.request()))
                    .await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Places an order, with a new account where the CA has forgotten ours.
    pub(super) async fn place_with_known_account(
        &self,
        at: &mut CaAttempt<'_>,
        session: &mut Session,
    ) -> Result<(Order, SecretString), AttemptError> {
        match self.place(at, session).await {
            Err(AttemptError::Failed(AcmeError::AccountGone(reason))) => {
                tracing::warn!(ca = %at.ca.directory, reason, "the CA has forgotten the account, it is made again");
                self.record_event(at, |key| Event::Abandoned(key.request()))
                    .await?;
                *session = self.register(at).await?;
                self.place(at, session).await
            }
            placed => placed,
        }
    }

    /// Places an order: in the ledger, at the CA, and in its file.
    async fn place(
        &self,
        at: &mut CaAttempt<'_>,
        session: &Session,
    ) -> Result<(Order, SecretString), AttemptError> {
        if !session.supports_renewal_info() {
            at.replaces = None;
        }
        loop {
            if at.replaces.is_some() {
                at.key.kind = OrderKind::Replacement;
            }
            let key = at.key.clone();
            let placed = self
                .context
                .ledger(move |ledger, now| ledger.place(key.request(), now))
                .await;
            allowed(placed.map_err(AttemptError::Local)?, false)?;
            let wish = NewOrder {
                names: &self.request.names,
                profile: at.profile,
                replaces: at.replaces.as_ref(),
            };
            match session.order(&wish).await {
                Ok(order) => {
                    let key = self.store_order(at, session, &order).await?;
                    return Ok((order, key));
                }
                Err(AcmeError::ReplacesRefused(reason)) if at.replaces.is_some() => {
                    tracing::info!(domain = %self.host.domain, reason, "the CA does not take it as a replacement");
                    self.record_event(at, |key| Event::Abandoned(key.request()))
                        .await?;
                    at.replaces = None;
                    at.key.kind = OrderKind::Renewal;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Stores the order with the key of its certificate, which the CA has not seen yet.
    async fn store_order(
        &self,
        at: &CaAttempt<'_>,
        session: &Session,
        order: &Order,
    ) -> Result<SecretString, AttemptError> {
        let OrderKey {
            ca, names, kind, ..
        } = at.key.clone();
        let (account, url) = (session.account_url().to_owned(), order.url().to_owned());
        let open = OpenOrder {
            ca,
            account,
            url,
            names,
            kind,
            placed: self.context.now(),
        };
        let (storage, domain) = (self.context.storage.clone(), self.host.domain.clone());
        let written = run_blocking(move || {
            let key = rcgen::KeyPair::generate()
                .map_err(std::io::Error::other)?
                .serialize_pem();
            storage.write_order(&domain, &open, &key)?;
            Ok(SecretString::from(key))
        });
        let written: Result<SecretString, std::io::Error> = written.await;
        written.map_err(|error| AttemptError::Local(LocalError::StoreOrder(error)))
    }
}
