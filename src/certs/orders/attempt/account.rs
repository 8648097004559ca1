//! The account at a CA: opened, made once, made again when the CA has forgotten it, told new
//! contacts.

use super::outcome::{Stop, allowed};
use super::{At, Attempt};
use crate::certs::acme::{AcmeError, Session};
use crate::certs::orders::contacts::Untold;
use crate::certs::state::ledger::Event;
use crate::certs::state::storage::Account;
use crate::state_file::run_blocking;

impl Attempt<'_> {
    /// A session under the account. An order in flight belongs to the account that made it, so that
    /// only without one is the account asked for, and made again where it is gone.
    pub(super) async fn session(&self, at: &mut At<'_>, in_flight: bool) -> Result<Session, Stop> {
        let Some(account) = self.account(at).await? else {
            return self.register(at).await;
        };
        at.ask.account.clone_from(&account.stored.url);
        let session = match Session::open(at.ca, &account).await {
            Ok(session) => session,
            Err(error @ AcmeError::AccountKey) => {
                tracing::error!(ca = %at.ca.directory, %error, "the account is of no use, another one is made");
                return self.register(at).await;
            }
            Err(error) => return Err(error.into()),
        };
        let contacts = self.issuer.plan.load().contacts.clone();
        if in_flight || account.stored.contacts == contacts {
            return Ok(session);
        }
        match self.issuer.tell_in(&session, &at.ask.ca, &contacts).await {
            Ok(()) => {}
            Err(Untold::Disk(error)) => {
                return Err(Stop::Local(format!("the account cannot be kept: {error}")));
            }
            Err(Untold::Ca(AcmeError::AccountGone(_))) => return self.register(at).await,
            // No reason to go without a certificate.
            Err(Untold::Ca(error)) => {
                tracing::warn!(ca = %at.ca.directory, %error, "the CA was not told the new contacts")
            }
        }
        Ok(session)
    }

    /// A new account, once for all domains and processes.
    pub(super) async fn register(&self, at: &mut At<'_>) -> Result<Session, Stop> {
        let before = at.ask.account.clone();
        let (storage, id) = (self.issuer.storage.clone(), at.ask.ca.clone());
        let locked = run_blocking(move || storage.lock_account(&id)).await;
        let _lock = locked.map_err(|error| Stop::Local(error.to_string()))?;
        if let Some(account) = self.account(at).await?
            && account.stored.url != before
        {
            at.ask.account.clone_from(&account.stored.url);
            return Ok(Session::open(at.ca, &account).await?);
        }
        let id = at.ask.ca.clone();
        let may = self.issuer.ledger(move |ledger, now| {
            ledger.may_create_account(&id, now)?;
            ledger.record(Event::NewAccount { ca: &id }, now);
            Ok(())
        });
        allowed(may.await.map_err(Stop::Local)?, false)?;
        let contacts = self.issuer.plan.load().contacts.clone();
        let (session, account) = Session::register(at.ca, &at.ask.ca, &contacts).await?;
        tracing::info!(ca = %at.ca.directory, account = account.stored.url, "made an account");
        at.ask.account.clone_from(&account.stored.url);
        self.keep_account(account).await?;
        Ok(session)
    }

    pub(super) async fn account(&self, at: &At<'_>) -> Result<Option<Account>, Stop> {
        let (storage, id) = (self.issuer.storage.clone(), at.ask.ca.clone());
        let read = run_blocking(move || storage.account(&id)).await;
        read.map_err(|error| Stop::Local(format!("the account cannot be read: {error}")))
    }

    async fn keep_account(&self, account: Account) -> Result<(), Stop> {
        let storage = self.issuer.storage.clone();
        let written = run_blocking(move || storage.write_account(&account)).await;
        written.map_err(|error| Stop::Local(format!("the account cannot be kept: {error}")))
    }
}
