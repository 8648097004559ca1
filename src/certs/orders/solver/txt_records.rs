//! The TXT records of challenges, kept on disk while they are set: a process that ends meanwhile
//! leaves them to the next one.

use std::io;

use super::command::DnsCommand;
use crate::certs::orders::context::OrderContext;
use crate::certs::state::storage::{Storage, Txt};
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// Those of a domain. Whoever writes holds the domain's lock.
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

    /// Before a record is set.
    pub(super) async fn add(&self, txt: &Txt) -> io::Result<()> {
        let txt = txt.clone();
        self.change(move |all| all.push(txt)).await
    }

    /// When it is gone.
    pub(super) async fn remove(&self, txt: &Txt) {
        let (name, gone) = (txt.name.clone(), txt.clone());
        if let Err(error) = self.change(move |all| all.retain(|txt| *txt != gone)).await {
            tracing::warn!(name, %error, "it cannot be noted that a TXT record is gone");
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

/// Takes away the TXT records that an earlier process has left behind. Each is tried once.
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
                tracing::info!(%domain, name = txt.name, "took away the TXT record of an earlier challenge");
            }
            Ok(()) => {
                tracing::warn!(%domain, name = txt.name, "a TXT record of an earlier challenge is left, and there is no `dns_command` any more");
            }
            Err(error) => {
                tracing::warn!(%domain, name = txt.name, %error, "the TXT record of an earlier challenge is left: take it away by hand");
            }
        }
        txt_records.remove(&txt).await;
    }
}
