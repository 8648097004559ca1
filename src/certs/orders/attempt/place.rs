//! The account and the order of an attempt at one CA. An account is made once, and again when the CA
//! has forgotten it; an order is the one that is in flight, or a new one, which is on disk before
//! anything is done with it.

use std::time::Duration;

use secrecy::SecretString;

use super::{CaAttempt, OrderAttempt, OrderKey};
use crate::certs::acme::{AcmeError, AcmeSession, NewOrder, Order};
use crate::certs::orders::attempt_error::{AttemptError, Wait, allowed};
use crate::certs::orders::contacts::ContactsError;
use crate::certs::orders::local_error::LocalError;
use crate::certs::orders::order_error::OrderError;
use crate::certs::state::ledger::{Event, OrderKind};
use crate::certs::state::pending_order::OpenOrder;
use crate::certs::state::storage::Account;
use crate::state_file::run_blocking;

impl OrderAttempt<'_> {
    /// A session under the account. An order in flight belongs to the account that made it, so that
    /// only without one is the account asked for, and made again where it is gone.
    pub(super) async fn session(
        &self,
        at: &mut CaAttempt<'_>,
        in_flight: bool,
    ) -> Result<AcmeSession, AttemptError> {
        let Some(account) = self.account(at).await? else {
            return self.register(at).await;
        };
        at.key.account.clone_from(&account.stored.url);
        let session = match AcmeSession::open(at.ca, &account).await {
            Ok(session) => session,
            Err(error @ AcmeError::AccountKey) => {
                tracing::error!(ca = %at.ca.directory, %error, "the account is of no use, another one is made");
                return self.register(at).await;
            }
            Err(error) => return Err(error.into()),
        };
        let contacts = self.context.plan.load().contacts.clone();
        if in_flight || account.stored.contacts == contacts {
            return Ok(session);
        }
        match self
            .context
            .update_contacts_in(&session, &at.key.ca, &contacts)
            .await
        {
            Ok(()) => {}
            Err(ContactsError::Disk(error)) => {
                return Err(LocalError::StoreAccount(error).into());
            }
            Err(ContactsError::Ca(AcmeError::AccountGone(_))) => return self.register(at).await,
            // No reason to go without a certificate.
            Err(error) => {
                tracing::warn!(ca = %at.ca.directory, %error, "the CA was not told the new contacts")
            }
        }
        Ok(session)
    }

    /// A new account, once for all domains and processes.
    pub(super) async fn register(
        &self,
        at: &mut CaAttempt<'_>,
    ) -> Result<AcmeSession, AttemptError> {
        let before = at.key.account.clone();
        let (storage, id) = (self.context.storage.clone(), at.key.ca.clone());
        let limit = self.context.account_lock_timeout;
        let locked = run_blocking(move || storage.lock_account(&id, limit)).await;
        let Some(_lock) = locked.map_err(LocalError::StateDirectory)? else {
            return Err(AttemptError::Wait(Wait {
                until: self.context.now() + ACCOUNT_RETRY_DELAY,
                why: ACCOUNT_LOCKED.to_owned(),
            }));
        };
        if let Some(account) = self.account(at).await?
            && account.stored.url != before
        {
            at.key.account.clone_from(&account.stored.url);
            return Ok(AcmeSession::open(at.ca, &account).await?);
        }
        let id = at.key.ca.clone();
        let may = self.context.ledger(move |ledger, now| {
            ledger.may_create_account(&id, now)?;
            ledger.record(Event::NewAccount { ca: &id }, now);
            Ok(())
        });
        allowed(may.await?, false)?;
        let contacts = self.context.plan.load().contacts.clone();
        let (session, account) = AcmeSession::register(at.ca, &at.key.ca, &contacts).await?;
        tracing::info!(ca = %at.ca.directory, account = account.stored.url, "made an account");
        at.key.account.clone_from(&account.stored.url);
        self.store_account(account).await?;
        Ok(session)
    }

    pub(super) async fn account(
        &self,
        at: &CaAttempt<'_>,
    ) -> Result<Option<Account>, AttemptError> {
        let (storage, id) = (self.context.storage.clone(), at.key.ca.clone());
        let read = run_blocking(move || storage.account(&id)).await;
        Ok(read.map_err(LocalError::ReadAccount)?)
    }

    async fn store_account(&self, account: Account) -> Result<(), AttemptError> {
        let storage = self.context.storage.clone();
        let written = run_blocking(move || storage.write_account(&account)).await;
        Ok(written.map_err(LocalError::StoreAccount)?)
    }

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
        let found = read.map_err(LocalError::ReadOrder)?;
        if let Some((open, _)) = &found {
            at.key.kind = open.kind;
        }
        Ok(found)
    }

    /// `None`: the CA does not know it any more.
    pub(super) async fn resume(
        &self,
        at: &CaAttempt<'_>,
        session: &AcmeSession,
        open: &OpenOrder,
    ) -> Result<Option<Order>, AttemptError> {
        tracing::info!(domain = %self.host.domain, ca = %at.ca.directory, "taking up an order");
        match session.resume(&open.url).await {
            Ok(order) => Ok(Some(order)),
            Err(AcmeError::OrderGone(reason)) => {
                tracing::info!(domain = %self.host.domain, %reason, "the CA does not know the order any more");
                self.forget(at).await?;
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
        session: &mut AcmeSession,
    ) -> Result<(Order, SecretString), AttemptError> {
        match self.place(at, session).await {
            Err(AttemptError::Failed(OrderError::Acme(AcmeError::AccountGone(reason)))) => {
                tracing::warn!(ca = %at.ca.directory, %reason, "the CA has forgotten the account, it is made again");
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
        session: &AcmeSession,
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
            allowed(placed?, false)?;
            let request = NewOrder {
                names: &self.request.names,
                profile: at.profile,
                replaces: at.replaces.as_ref(),
            };
            match session.order(&request).await {
                Ok(order) => {
                    let key = self.store_order(at, session, &order).await?;
                    return Ok((order, key));
                }
                Err(error @ (AcmeError::ReplacesRefused(_) | AcmeError::ReplacesUnsupported))
                    if at.replaces.is_some() =>
                {
                    tracing::info!(domain = %self.host.domain, reason = %error, "CA refuses the order as a replacement, placing it without");
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
        session: &AcmeSession,
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
        Ok(written.map_err(LocalError::StoreOrder)?)
    }
}

/// Another process, or another domain's attempt, has the account locked while it talks to the CA.
const ACCOUNT_RETRY_DELAY: Duration = Duration::from_mins(1);
const ACCOUNT_LOCKED: &str = "another process is creating the account at this CA";
