//! The account at a CA: opened, made once, made again when the CA has forgotten it, told new
//! contacts.

use std::time::Duration;

use super::error::{AttemptError, allowed};
use super::{Attempt, CaAttempt};
use crate::certs::acme::{AcmeError, Session};
use crate::certs::orders::contacts::ContactsError;
use crate::certs::orders::local_error::LocalError;
use crate::certs::state::ledger::Event;
use crate::certs::state::storage::Account;
use crate::state_file::run_blocking;

impl Attempt<'_> {
    /// A session under the account. An order in flight belongs to the account that made it, so that
    /// only without one is the account asked for, and made again where it is gone.
    pub(super) async fn session(
        &self,
        at: &mut CaAttempt<'_>,
        in_flight: bool,
    ) -> Result<Session, AttemptError> {
        let Some(account) = self.account(at).await? else {
            return self.register(at).await;
        };
        at.key.account.clone_from(&account.stored.url);
        let session = match Session::open(at.ca, &account).await {
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
                return Err(AttemptError::Local(LocalError::StoreAccount(error)));
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
    pub(super) async fn register(&self, at: &mut CaAttempt<'_>) -> Result<Session, AttemptError> {
        let before = at.key.account.clone();
        let (storage, id) = (self.context.storage.clone(), at.key.ca.clone());
        let limit = self.context.account_lock_timeout;
        let locked = run_blocking(move || storage.lock_account(&id, limit)).await;
        let locked =
            locked.map_err(|error| AttemptError::Local(LocalError::StateDirectory(error)))?;
        let Some(_lock) = locked else {
            let retry_at = self.context.now() + ACCOUNT_RETRY_DELAY;
            return Err(AttemptError::Wait(retry_at, ACCOUNT_LOCKED.to_owned()));
        };
        if let Some(account) = self.account(at).await?
            && account.stored.url != before
        {
            at.key.account.clone_from(&account.stored.url);
            return Ok(Session::open(at.ca, &account).await?);
        }
        let id = at.key.ca.clone();
        let may = self.context.ledger(move |ledger, now| {
            ledger.may_create_account(&id, now)?;
            ledger.record(Event::NewAccount { ca: &id }, now);
            Ok(())
        });
        allowed(may.await.map_err(AttemptError::Local)?, false)?;
        let contacts = self.context.plan.load().contacts.clone();
        let (session, account) = Session::register(at.ca, &at.key.ca, &contacts).await?;
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
        read.map_err(|error| AttemptError::Local(LocalError::ReadAccount(error)))
    }

    async fn store_account(&self, account: Account) -> Result<(), AttemptError> {
        let storage = self.context.storage.clone();
        let written = run_blocking(move || storage.write_account(&account)).await;
        written.map_err(|error| AttemptError::Local(LocalError::StoreAccount(error)))
    }
}

/// Another process, or another domain's attempt, has the account locked while it talks to the CA.
const ACCOUNT_RETRY_DELAY: Duration = Duration::from_mins(1);
const ACCOUNT_LOCKED: &str = "another order is making the account at this CA";
