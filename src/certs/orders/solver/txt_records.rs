//! The TXT records of challenges, stored while they are set, so that the next process can remove
//! those that a stopped one has left.

use std::io;

use super::command::DnsCommand;
use crate::certs::orders::context::OrderContext;
use crate::certs::state::storage::{Storage, Txt};
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// The TXT records that are set for a domain. Changes require the lock of the domain.
pub(in crate::certs::orders) struct TxtRecords {
    storage: Storage,
    domain: HostName,
}

impl TxtRecords {
    pub(in crate::certs::orders) fn new(storage: &Storage, domain: &HostName) -> Self {
        Self {
            storage: storage.clone(),
            domain: domain.clone(),
        }
    }

    /// Stores a record before it is set.
    pub(super) async fn add(&self, txt: &Txt) -> io::Result<()> {
        let txt = txt.clone();
        self.change(move |all| all.push(txt)).await
    }

    /// Forgets a record that was removed.
    pub(super) async fn remove(&self, txt: &Txt) {
        let (name, removed) = (txt.name.clone(), txt.clone());
        if let Err(error) = self
            .change(move |all| all.retain(|txt| *txt != removed))
            .await
        {
            tracing::warn!(name, %error, "removal of a TXT record cannot be stored");
        }
    }

    async fn change(&self, change: impl FnOnce(&mut Vec<Txt>) + Send + 'static) -> io::Result<()> {
        let (storage, domain) = (self.storage.clone(), self.domain.clone());
        run_blocking(move || {
            let mut all = storage.texts(&domain)?;
            change(&mut all);
            storage.write_texts(&domain, &all)
        })
        .await
    }
}

/// Removes the TXT records that an earlier process has left. Each is tried once.
pub(in crate::certs::orders) async fn clean_up(context: &OrderContext, domain: &HostName) {
    let (storage, name) = (context.storage.clone(), domain.clone());
    let left = run_blocking(move || {
        let all = storage.texts(&name).ok().filter(|all| !all.is_empty())?;
        // Another process may be in the middle of a challenge.
        Some((all, storage.try_lock(&name).ok().flatten()?))
    });
    let Some((left, _lock)) = left.await else {
        return;
    };
    let plan = context.plan.load_full();
    let txt_records = TxtRecords::new(&context.storage, domain);
    for txt in left {
        let done = match plan.settings.dns_command.as_deref() {
            Some(command) => DnsCommand(command).cleanup(&txt.name, &txt.value).await,
            None => Ok(()),
        };
        match done {
            Ok(()) if plan.settings.dns_command.is_some() => {
                tracing::info!(%domain, name = txt.name, "removed the TXT record of an earlier challenge");
            }
            Ok(()) => {
                tracing::warn!(%domain, name = txt.name, "TXT record of an earlier challenge is left, and there is no `dns_command` to remove it");
            }
            Err(error) => {
                tracing::warn!(%domain, name = txt.name, %error, "TXT record of an earlier challenge cannot be removed, remove it by hand");
            }
        }
        txt_records.remove(&txt).await;
    }
}
