//! To whom the CAs write: they are told when that changes, not only when something is ordered next.

use std::sync::Arc;

use super::context::OrderContext;
use super::plan::Plan;
use crate::certs::acme::{AcmeError, AcmeSession};
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::Account;
use crate::config::acme::CaSettings;
use crate::state_file::run_blocking;

/// Why a CA does not know the contacts.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContactsError {
    /// The CA, or the way to it.
    #[error(transparent)]
    Ca(#[from] AcmeError),
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    #[error("another process is changing the account")]
    AccountLocked,
}

impl OrderContext {
    /// Tells each CA that has an account of ours and knows other contacts. Where that fails, the
    /// next order tries again.
    pub(super) async fn update_contacts(self: Arc<Self>, plan: Arc<Plan>) {
        if plan.hosts.is_empty() {
            return;
        }
        for (ca, id) in plan.authorities() {
            if let Err(error) = self.update_contacts_at(ca, &id, &plan.contacts).await {
                tracing::warn!(ca = %ca.directory, %error, "the CA was not told the new contacts");
            }
        }
    }

    async fn update_contacts_at(
        &self,
        ca: &CaSettings,
        id: &CaId,
        contacts: &[String],
    ) -> Result<(), ContactsError> {
        let (storage, its) = (self.storage.clone(), id.clone());
        let account = run_blocking(move || storage.account(&its)).await?;
        let Some(account) = account.filter(|account| account.stored.contacts != contacts) else {
            return Ok(());
        };
        let session = AcmeSession::open(ca, &account).await?;
        self.update_contacts_in(&session, id, contacts).await
    }

    /// Tells the contacts in a session, unless somebody else just has.
    pub(super) async fn update_contacts_in(
        &self,
        session: &AcmeSession,
        id: &CaId,
        contacts: &[String],
    ) -> Result<(), ContactsError> {
        let (storage, its) = (self.storage.clone(), id.clone());
        let limit = self.account_lock_timeout;
        let locked = run_blocking(move || {
            let Some(lock) = storage.lock_account(&its, limit)? else {
                return Ok(None);
            };
            Ok::<_, std::io::Error>(Some((lock, storage.account(&its)?)))
        });
        let (_lock, account) = locked.await?.ok_or(ContactsError::AccountLocked)?;
        let is_its = |account: &Account| account.stored.url == session.account_url();
        let Some(mut account) = account
            .filter(is_its)
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
