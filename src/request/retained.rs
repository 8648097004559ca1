//! Retention at the registry behind a domain: what it has, and how it is taken away and put back, by
//! the registry API and the product's own, with moorgate's own credentials.

mod calls;
pub(crate) mod driver;
pub(crate) mod facts;
mod inventory;
mod lanes;
mod listing;
mod removal;
mod restoration;

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::time::Instant;

use super::answer::own_calls::OwnCalls;
use super::answer::own_deletion::OwnDeletion;
use super::answer::pace::Pace;
use super::answer::product_api::ProductApi;
use super::gateway::Gateway;
use super::site::{Backend, Site};
use crate::config::upstream::UpstreamAuthorization;
use crate::journal::{Journal, JournalError, RepositoryHistory, Use};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::expiry;
use crate::retention::inventory::Inventory;
use crate::retention::registry::{
    RegistryError, Removal, Removed, Restored, RetainedRegistry, SavedManifest,
};
use crate::state_file::run_blocking;
use crate::upstream::transfer::TransferLimits;
use calls::RepositoryCalls;
use inventory::{Contents, Extent, KnownUse};
use removal::RepositoryRemoval;

/// The registry behind a domain, for one run of retention.
pub(crate) struct RetainedUpstream {
    gateway: Arc<Gateway>,
    site: Arc<Site>,
    backend: Backend,
    journal: Option<Arc<Journal>>,
    calls: OwnCalls,
    pace: Arc<Pace>,
    /// The contents that the last removal has read, and when: it may come in parts.
    last_contents: Mutex<Option<LastContents>>,
}

/// What a repository has, as far as it was looked up.
struct LastContents {
    /// At the registry.
    name: RepositoryName,
    contents: Contents,
    /// When that began.
    since: Timestamp,
    /// When it is to be looked up again as a whole.
    expires: Instant,
}

impl RetainedUpstream {
    /// Errors: `Unsupported` where moorgate has no credentials of its own, or no upstream.
    pub(crate) fn new(gateway: &Arc<Gateway>, site: &Arc<Site>) -> Result<Self, RegistryError> {
        let unsupported = |why: &str| RegistryError::Unsupported(why.to_owned());
        let backend = site.registry.upstream();
        let backend = backend.ok_or_else(|| unsupported("the domain has no upstream"))?;
        let settings = site.host.registry.upstream();
        match settings.map(|settings| &settings.authorization) {
            Some(UpstreamAuthorization::Strip | UpstreamAuthorization::Login(_)) => {}
            Some(UpstreamAuthorization::Pass) | None => return Err(unsupported(NO_CREDENTIALS)),
        }
        let pace = Arc::new(Pace::new());
        Ok(Self {
            gateway: gateway.clone(),
            site: site.clone(),
            backend: backend.clone(),
            journal: site.journal.clone(),
            calls: OwnCalls::of_domain(site, backend, &pace),
            pace,
            last_contents: Mutex::new(None),
        })
    }

    /// Before something is decided by what the product can.
    async fn know_product(&self) -> Result<(), RegistryError> {
        let limits = TransferLimits::new(&self.site.host.timeouts, false);
        let known = self.backend.know_product(limits).await;
        known.map_err(|error| RegistryError::Failed(error.explained()))
    }

    /// The requests to a repository; `None`: the registry cannot have one of this name.
    async fn repository(
        &self,
        repository: &RepositoryName,
    ) -> Result<Option<RepositoryCalls>, RegistryError> {
        self.know_product().await?;
        let name = match self.site.names() {
            Some(names) => names.to_registry(repository).ok(),
            None => Some(repository.clone()),
        };
        Ok(name.map(|name| RepositoryCalls::new(&self.gateway, &self.calls, name)))
    }

    /// The same where that is an error.
    async fn existing(
        &self,
        repository: &RepositoryName,
    ) -> Result<RepositoryCalls, RegistryError> {
        let calls = self.repository(repository).await?;
        let why = || RegistryError::Unsupported("no rule for names covers it".to_owned());
        calls.ok_or_else(why)
    }

    async fn known_use(&self, repository: &RepositoryName) -> Result<KnownUse, RegistryError> {
        let settings = self.site.host.retention.as_ref();
        let label = settings.and_then(|settings| expiry::label_of(settings, repository));
        let mut known = KnownUse {
            repository: repository.clone(),
            history: RepositoryHistory::default(),
            recorded_since: None,
            expiry_label: label.map(Into::into),
        };
        let name = repository.clone();
        let read = self.recorded(move |journal| {
            let since = journal.recorded_since()?;
            Ok((journal.history(&name)?, since))
        });
        if let Some(read) = read.await? {
            (known.history, known.recorded_since) = read;
        }
        Ok(known)
    }

    /// The use of a tag by its name.
    async fn use_of_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Use, RegistryError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        let read = self.recorded(move |journal| journal.tag(&repository, &tag));
        Ok(read.await?.unwrap_or_default())
    }

    /// What the journal says; `None` without one.
    async fn recorded<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<Option<T>, RegistryError> {
        let Some(journal) = self.journal.clone() else {
            return Ok(None);
        };
        let read = run_blocking(move || read(&journal)).await;
        let read = read.map_err(|error| RegistryError::Failed(error.to_string()));
        read.map(Some)
    }
}

impl RetainedRegistry for RetainedUpstream {
    async fn repositories(&self) -> Result<Vec<RepositoryName>, RegistryError> {
        self.know_product().await?;
        let api = ProductApi::of(&self.backend).at_pace(&self.pace);
        listing::repositories(&self.site, &self.backend, &self.calls, api).await
    }

    async fn inventory(&self, repository: &RepositoryName) -> Result<Inventory, RegistryError> {
        let known = self.known_use(repository).await?;
        let Some(calls) = self.repository(repository).await? else {
            return Ok(Contents::default().into_inventory(known));
        };
        // The use is read first: what is pulled meanwhile is seen before something goes.
        let contents = Contents::read(&calls, Extent::WithReferrers).await?;
        Ok(contents.into_inventory(known))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<SavedManifest>, RegistryError> {
        let Some(calls) = self.repository(repository).await? else {
            return Ok(None);
        };
        calls.manifest(digest).await
    }

    async fn remove(
        &self,
        repository: &RepositoryName,
        removal: &Removal,
    ) -> Result<Removed, RegistryError> {
        let calls = self.existing(repository).await?;
        let settings = self.site.host.registry.upstream();
        let deletion = OwnDeletion {
            calls: calls.calls.clone(),
            api: ProductApi::of(&self.backend).at_pace(&self.pace),
            repository: calls.name.clone(),
        };
        let mut work = RepositoryRemoval {
            upstream: self,
            calls: &calls,
            deletion,
            setting: settings.and_then(|settings| settings.untag),
            known_since: Instant::now(),
            known: self.known_use(repository).await?,
            removed: Removed::default(),
        };
        Box::pin(work.run(removal)).await?;
        Ok(work.removed)
    }

    async fn restore(
        &self,
        repository: &RepositoryName,
        manifest: &SavedManifest,
        tags: &[Tag],
    ) -> Result<Restored, RegistryError> {
        let calls = self.existing(repository).await?;
        let registry = self.site.host.registry.to_string();
        restoration::restore(&calls, &registry, manifest, tags).await
    }

    async fn missing_of(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, RegistryError> {
        let Some(calls) = self.repository(repository).await? else {
            return Ok(None);
        };
        restoration::missing_of(&calls, tag).await
    }
}

const NO_CREDENTIALS: &str = "retention needs credentials of its own, and this domain passes on \
     those of its clients: give moorgate a login there ([upstream.login])";
