//! The order of an attempt: the one that is in flight, or a new one, which is on disk before
//! anything is done with it.

use secrecy::SecretString;

use super::outcome::{Stop, allowed};
use super::{Ask, At, Attempt};
use crate::certs::acme::{AcmeError, Order, Session, Wish};
use crate::certs::state::ledger::{Event, OrderKind};
use crate::certs::state::pending_order::OpenOrder;
use crate::state_file::run_blocking;

impl Attempt<'_> {
    /// The order that is in flight at the CA, if it is still the one that is wanted.
    pub(super) async fn pending(
        &self,
        at: &mut At<'_>,
    ) -> Result<Option<(OpenOrder, SecretString)>, Stop> {
        let Some(account) = self.account(at).await? else {
            return Ok(None);
        };
        at.ask.account = account.stored.url;
        let (storage, domain, now) = (
            self.issuer.storage.clone(),
            self.host.domain.clone(),
            (self.issuer.wall)(),
        );
        let ask = at.ask.clone();
        let read =
            run_blocking(move || storage.order(&ask.ca, &domain, &ask.account, &ask.names, now))
                .await;
        let found =
            read.map_err(|error| Stop::Local(format!("the order cannot be read: {error}")))?;
        if let Some((open, _)) = &found {
            at.ask.kind = open.kind;
        }
        Ok(found)
    }

    /// `None`: the CA does not know it any more.
    pub(super) async fn resume(
        &self,
        at: &At<'_>,
        session: &Session,
        open: &OpenOrder,
    ) -> Result<Option<Order>, Stop> {
        tracing::info!(domain = %self.host.domain, ca = %at.ca.directory, "taking up an order");
        match session.resume(&open.url).await {
            Ok(order) => Ok(Some(order)),
            Err(AcmeError::OrderGone(reason)) => {
                tracing::info!(domain = %self.host.domain, reason, "the CA does not know the order any more");
                self.forget(at).await.map_err(Stop::Local)?;
                self.tell(at, |ask| Event::Abandoned(ask.request())).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Places an order, with a new account where the CA has forgotten ours.
    pub(super) async fn place_anew(
        &self,
        at: &mut At<'_>,
        session: &mut Session,
    ) -> Result<(Order, SecretString), Stop> {
        match self.place(at, session).await {
            Err(Stop::Failed(AcmeError::AccountGone(reason))) => {
                tracing::warn!(ca = %at.ca.directory, reason, "the CA has forgotten the account, it is made again");
                self.tell(at, |ask| Event::Abandoned(ask.request())).await?;
                *session = self.register(at).await?;
                self.place(at, session).await
            }
            placed => placed,
        }
    }

    /// Places an order: in the ledger, at the CA, and in its file.
    async fn place(
        &self,
        at: &mut At<'_>,
        session: &Session,
    ) -> Result<(Order, SecretString), Stop> {
        if !session.knows_renewal_info() {
            at.replaces = None;
        }
        loop {
            if at.replaces.is_some() {
                at.ask.kind = OrderKind::Replacement;
            }
            let ask = at.ask.clone();
            let placed = self
                .issuer
                .ledger(move |ledger, now| ledger.place(ask.request(), now))
                .await;
            allowed(placed.map_err(Stop::Local)?, false)?;
            let wish = Wish {
                names: &self.request.names,
                profile: at.profile,
                replaces: at.replaces.as_ref(),
            };
            match session.order(&wish).await {
                Ok(order) => {
                    let key = self.note_order(at, session, &order).await?;
                    return Ok((order, key));
                }
                Err(AcmeError::ReplacesRefused(reason)) if at.replaces.is_some() => {
                    tracing::info!(domain = %self.host.domain, reason, "the CA does not take it as a replacement");
                    self.tell(at, |ask| Event::Abandoned(ask.request())).await?;
                    at.replaces = None;
                    at.ask.kind = OrderKind::Renewal;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Keeps the order with the key of its certificate, which nobody has been told of yet.
    async fn note_order(
        &self,
        at: &At<'_>,
        session: &Session,
        order: &Order,
    ) -> Result<SecretString, Stop> {
        let Ask {
            ca, names, kind, ..
        } = at.ask.clone();
        let (account, url) = (session.account_url().to_owned(), order.url().to_owned());
        let open = OpenOrder {
            ca,
            account,
            url,
            names,
            kind,
            placed: (self.issuer.wall)(),
        };
        let (storage, domain) = (self.issuer.storage.clone(), self.host.domain.clone());
        let written = run_blocking(move || {
            let key = rcgen::KeyPair::generate()
                .map_err(std::io::Error::other)?
                .serialize_pem();
            storage.write_order(&domain, &open, &key)?;
            Ok(SecretString::from(key))
        });
        let written: Result<SecretString, std::io::Error> = written.await;
        written.map_err(|error| Stop::Local(format!("the order cannot be kept: {error}")))
    }
}
