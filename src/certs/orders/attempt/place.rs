//! The account and the order of an attempt at one CA. An account is registered once, and again when
//! the CA no longer knows it. A pending order is resumed; a new one is stored before anything is
//! done with it.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::{CaAttempt, CertificateAttempt, OrderKey};
use crate::certs::acme::{AcmeError, AcmeSession, CountedRequestError, NewOrder, Order};
use crate::certs::orders::attempt_error::{AttemptError, Wait, allowed};
use crate::certs::orders::contacts::ContactsError;
use crate::certs::orders::local_error::LocalError;
use crate::certs::orders::order_error::OrderError;
use crate::certs::state::ledger::{Event, OrderKind};
use crate::certs::state::pending_order::OpenOrder;
use crate::certs::state::storage::Account;
use crate::state_file::run_blocking;

impl CertificateAttempt<'_> {
    /// Opens a session with the account, and registers one where there is none. A pending order
    /// belongs to the account that placed it: with one, the contacts are not updated, which could
    /// end in another account.
    pub(super) async fn session(
        &self,
        at: &mut CaAttempt<'_>,
        is_pending: bool,
    ) -> Result<AcmeSession, AttemptError> {
        let Some(account) = self.account(at).await? else {
            return self.register(at).await;
        };
        at.key.account.clone_from(&account.stored.url);
        let session = match AcmeSession::open(at.ca, &account).await {
            Ok(session) => session,
            Err(error @ AcmeError::AccountKey) => {
                tracing::error!(ca = %at.ca.directory, %error, "account key is damaged, registering another account");
                return self.register(at).await;
            }
            Err(error) => return Err(error.into()),
        };
        let contacts = self.context.plan.load().contacts.clone();
        if is_pending || account.stored.contacts == contacts {
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
            // The certificate does not depend on the contacts.
            Err(error) => {
                tracing::warn!(ca = %at.ca.directory, %error, "contacts cannot be updated at the CA")
            }
        }
        Ok(session)
    }

    /// Registers an account, once for all domains and processes.
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
        let plan = self.context.plan.load_full();
        let failed = &self.context.failed_registrations;
        if let Some(error) = failed.recent(&at.key.ca, &plan).filter(|_| !self.requested) {
            return Err(OrderError::Registration(error).into());
        }
        match self.request_account(at, &plan.contacts).await {
            Ok((session, account)) => {
                tracing::info!(ca = %at.ca.directory, account = account.stored.url, "account registered");
                at.key.account.clone_from(&account.stored.url);
                self.store_account(account).await?;
                Ok(session)
            }
            Err(AttemptError::Failed(OrderError::Acme(error))) => {
                let error = Arc::new(error);
                failed.add(at.key.ca.clone(), plan, error.clone());
                Err(OrderError::Registration(error).into())
            }
            Err(error) => Err(error),
        }
    }

    /// Requests an account from the CA, if its limit allows. The ledger counts it before, and no
    /// longer once the CA is known not to have counted it.
    async fn request_account(
        &self,
        at: &CaAttempt<'_>,
        contacts: &[String],
    ) -> Result<(AcmeSession, Account), AttemptError> {
        let id = at.key.ca.clone();
        let may = self.context.ledger(move |ledger, now| {
            ledger.may_create_account(&id, now)?;
            ledger.record(Event::NewAccount { ca: &id }, now);
            Ok(())
        });
        allowed(may.await?, false)?;
        let registered = AcmeSession::register(at.ca, &at.key.ca, contacts).await;
        let CountedRequestError { error, may_count } = match registered {
            Ok(registered) => return Ok(registered),
            Err(error) => error,
        };
        if !may_count {
            self.record_event(at, |key| Event::NoAccount { ca: &key.ca })
                .await?;
        }
        Err(error.into())
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

    /// The stored order, if it is for the same account and names.
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
        let read = run_blocking(move || storage.order(&domain, &key.request(), now)).await;
        let found = read.map_err(LocalError::ReadOrder)?;
        if let Some((open, _)) = &found {
            at.key.kind = open.kind;
        }
        Ok(found)
    }

    /// Resumes a stored order; `None`: the CA no longer knows it.
    pub(super) async fn resume(
        &self,
        at: &CaAttempt<'_>,
        session: &AcmeSession,
        open: &OpenOrder,
    ) -> Result<Option<Order>, AttemptError> {
        tracing::info!(domain = %self.host.domain, ca = %at.ca.directory, "resuming the stored order");
        match session.resume(&open.url).await {
            Ok(order) => Ok(Some(order)),
            Err(AcmeError::OrderGone(reason)) => {
                tracing::info!(domain = %self.host.domain, %reason, "CA no longer knows the stored order, placing a new one");
                self.remove_order(at).await?;
                self.record_event(at, |key| Event::Abandoned(key.request()))
                    .await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Places an order, with a new account where the CA no longer knows ours.
    pub(super) async fn place_with_known_account(
        &self,
        at: &mut CaAttempt<'_>,
        session: &mut AcmeSession,
    ) -> Result<(Order, SecretString), AttemptError> {
        match self.place(at, session).await {
            Err(AttemptError::Failed(OrderError::Acme(AcmeError::AccountGone(reason)))) => {
                tracing::warn!(ca = %at.ca.directory, %reason, "CA no longer knows the account, registering another one");
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
            let CountedRequestError { error, may_count } = match session.order(&request).await {
                Ok(order) => {
                    let stored = self.store_order(at, session, &order).await;
                    if stored.is_err() {
                        // Where the ledger is on the same full disk, it is changed in memory.
                        let _ = self
                            .record_event(at, |key| Event::OnlyPlaced(key.request()))
                            .await;
                    }
                    return Ok((order, stored?));
                }
                Err(error) => error,
            };
            self.record_event(at, move |key| match may_count {
                true => Event::OnlyPlaced(key.request()),
                false => Event::NotPlaced(key.request()),
            })
            .await?;
            let is_as_replacement = matches!(
                error,
                AcmeError::ReplacesRefused(_) | AcmeError::ReplacesUnsupported
            );
            if !is_as_replacement || at.replaces.is_none() {
                return Err(error.into());
            }
            tracing::info!(domain = %self.host.domain, reason = %error, "CA refuses the order as a replacement, placing it without");
            at.replaces = None;
            at.key.kind = OrderKind::Renewal;
        }
    }

    /// Stores the order with a new key for its certificate.
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

/// Another process has locked the account longer than `account_lock_timeout`.
const ACCOUNT_RETRY_DELAY: Duration = Duration::from_mins(1);
const ACCOUNT_LOCKED: &str = "another process is creating the account at this CA";
