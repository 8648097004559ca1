//! Updates the contacts of the accounts at the CAs when the configuration changes them.

use std::sync::Arc;

use super::context::OrderContext;
use super::plan::Plan;
use crate::certs::acme::{AcmeError, AcmeSession};
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::Account;
use crate::config::acme::CaSettings;
use crate::state_file::run_blocking;

/// Why the contacts of an account are not updated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContactsError {
    #[error(transparent)]
    Ca(#[from] AcmeError),
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    #[error("another process is changing the account")]
    AccountLocked,
}

impl OrderContext {
    /// Updates the contacts of all accounts that have other ones. Where that fails, the next order
    /// tries again.
    pub(super) async fn update_contacts(self: Arc<Self>, plan: Arc<Plan>) {
        if plan.hosts.is_empty() {
            return;
        }
        for (ca, id) in plan.authorities() {
            if let Err(error) = self.update_contacts_at(ca, &id, &plan.contacts).await {
                tracing::warn!(ca = %ca.directory, %error, "contacts cannot be updated at the CA");
            }
        }
    }

    async fn update_contacts_at(
        &self,
        ca: &CaSettings,
        id: &CaId,
        contacts: &[String],
    ) -> Result<(), ContactsError> {
        let (storage, ca_id) = (self.storage.clone(), id.clone());
        let account = run_blocking(move || storage.account(&ca_id)).await?;
        let Some(account) = account.filter(|account| account.stored.contacts != contacts) else {
            return Ok(());
        };
        let session = AcmeSession::open(ca, &account).await?;
        self.update_contacts_in(&session, id, contacts).await
    }

    /// Updates the contacts in a session, unless another process has done so.
    pub(super) async fn update_contacts_in(
        &self,
        session: &AcmeSession,
        id: &CaId,
        contacts: &[String],
    ) -> Result<(), ContactsError> {
        let (storage, ca_id) = (self.storage.clone(), id.clone());
        let limit = self.account_lock_timeout;
        let locked = run_blocking(move || {
            let Some(lock) = storage.lock_account(&ca_id, limit)? else {
                return Ok(None);
            };
            Ok::<_, std::io::Error>(Some((lock, storage.account(&ca_id)?)))
        });
        let (_lock, account) = locked.await?.ok_or(ContactsError::AccountLocked)?;
        let is_current = |account: &Account| account.stored.url == session.account_url();
        let Some(mut account) = account
            .filter(is_current)
            .filter(|known| known.stored.contacts != contacts)
        else {
            return Ok(());
        };
        session.update_contacts(contacts).await?;
        account.stored.contacts = contacts.to_vec();
        account.stored.identities = session.dns_identities();
        let storage = self.storage.clone();
        Ok(run_blocking(move || storage.write_account(&account)).await?)
    }
}
