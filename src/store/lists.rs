//! The lists of a store: repositories, tags and referrers; sorted and paginated.

use std::sync::Arc;

use serde::Serialize;

use super::Store;
use super::error::StoreError;
use super::index::MEDIA_TYPE;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;

/// The page of a list that a client requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageRequest {
    /// The maximum number of entries.
    pub(crate) limit: usize,
    /// Only entries after this text, in the order of the list.
    pub(crate) after: String,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<String>,
    /// Whether the list has entries after these.
    pub(crate) has_more: bool,
}

impl Page {
    fn take(request: &PageRequest, entries: impl Iterator<Item = String>) -> Self {
        let mut entries: Vec<_> = entries.take(request.limit.saturating_add(1)).collect();
        let has_more = entries.len() > request.limit;
        entries.truncate(request.limit);
        Self { entries, has_more }
    }
}

/// An image index of descriptors (distribution specification 1.1, "Listing Referrers").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersIndex<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<ReferrerDescriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrerDescriptor<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: &'a std::collections::BTreeMap<String, String>,
}

/// Decisions on names that a serving thread makes without a pause.
const DECISIONS_AT_ONCE: usize = 1000;

impl Store {
    /// The repositories that have a manifest, in order.
    pub(crate) async fn catalog(
        self: &Arc<Self>,
        request: PageRequest,
    ) -> Result<Page, StoreError> {
        self.run_read(move |store| {
            let names = store.names_after(&request.after)?;
            let names = names.into_iter().filter(|name| store.is_listed(name));
            Ok(Page::take(&request, names.map(|name| name.to_string())))
        })
        .await
    }

    /// As [`Self::catalog`], with only the repositories that a user may see. Reads the directory
    /// once, and stops when the page is full.
    pub(crate) async fn filtered_catalog(
        self: &Arc<Self>,
        request: PageRequest,
        may_see: impl Fn(&RepositoryName) -> bool,
    ) -> Result<Page, StoreError> {
        let after = request.after.clone();
        let names = self
            .run_read(move |store| Ok(store.names_after(&after)?))
            .await?;
        let mut entries = Vec::new();
        // In chunks: other requests of this thread run between them.
        for chunk in names.chunks(DECISIONS_AT_ONCE) {
            let visible: Vec<_> = chunk.iter().filter(|name| may_see(name)).cloned().collect();
            let missing = request.limit.saturating_add(1) - entries.len();
            let listed = self.run_read(move |store| {
                let listed = visible.iter().filter(|name| store.is_listed(name));
                // Reads no more indexes than the page needs.
                let listed = listed.take(missing).map(ToString::to_string);
                Ok(listed.collect::<Vec<_>>())
            });
            entries.extend(listed.await?);
            if entries.len() > request.limit {
                break;
            }
        }
        Ok(Page::take(&request, entries.into_iter()))
    }

    fn names_after(&self, after: &str) -> std::io::Result<Vec<RepositoryName>> {
        let mut names = self.names()?;
        names.retain(|name| name.as_str() > after);
        names.sort_unstable();
        Ok(names)
    }

    /// Whether the catalog lists a repository: it has a manifest, or its index cannot be read. A
    /// damaged index must neither hide its repository nor fail the whole catalog.
    fn is_listed(&self, name: &RepositoryName) -> bool {
        match self.repository_uncached(name).is_empty() {
            Ok(is_empty) => !is_empty,
            Err(StoreError::RepositoryUnknown) => false,
            // It has nothing that could be pulled.
            Err(error @ StoreError::Linked(_)) => {
                let (repository, error) = (name.as_str(), &error as &dyn std::error::Error);
                tracing::error!(repository, error, "repository passed over");
                false
            }
            // It is reported where it is found.
            Err(StoreError::IndexDamaged(_)) => true,
            Err(error) => {
                let (repository, error) = (name.as_str(), &error as &dyn std::error::Error);
                tracing::error!(repository, error, "repository index cannot be read");
                true
            }
        }
    }

    /// The tags of a repository, in order.
    pub(crate) async fn tags(
        self: &Arc<Self>,
        name: &RepositoryName,
        request: PageRequest,
    ) -> Result<Page, StoreError> {
        let name = name.clone();
        self.run_read(move |store| {
            let index = store.repository(&name).index()?;
            let tags = index
                .tags_after(&request.after)
                .map(|tag| tag.as_str().to_owned());
            Ok(Page::take(&request, tags))
        })
        .await
    }

    /// The referrers of a manifest as an image index; empty for a subject that does not exist.
    pub(crate) async fn referrers(
        self: &Arc<Self>,
        name: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<u8>, StoreError> {
        let (name, subject) = (name.clone(), subject.clone());
        let artifact_type = artifact_type.map(str::to_owned);
        self.run_read(move |store| store.referrers_now(&name, &subject, artifact_type.as_deref()))
            .await
    }

    fn referrers_now(
        &self,
        name: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<u8>, StoreError> {
        let repository = self.repository(name);
        let index = match repository.index() {
            Err(StoreError::RepositoryUnknown) if self.exists() => Arc::default(),
            other => other?,
        };
        let mut found = Vec::new();
        for (digest, entry) in index.manifests() {
            let Some(referrer) = repository.referrer(digest, entry)? else {
                continue;
            };
            let wanted =
                artifact_type.is_none_or(|kind| referrer.artifact_type.as_deref() == Some(kind));
            if referrer.subject == *subject && wanted {
                found.push((digest, entry, referrer));
            }
        }
        let manifests = found
            .iter()
            .map(|(digest, entry, referrer)| ReferrerDescriptor {
                media_type: &entry.media_type,
                digest: digest.as_str(),
                size: entry.size,
                artifact_type: referrer.artifact_type.as_deref(),
                annotations: &referrer.annotations,
            });
        let list = ReferrersIndex {
            schema_version: 2,
            media_type: MEDIA_TYPE,
            manifests: manifests.collect(),
        };
        let mut text = serde_json::to_vec(&list).map_err(std::io::Error::other)?;
        text.push(b'\n');
        Ok(text)
    }
}
