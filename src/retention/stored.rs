//! moorgate's own registry as retention uses it. Each call is a job on the threads of the store, or
//! one after the other: a plan for any number of repositories never has more than one there.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use super::expiry;
use super::image_config::{self, ImageConfig};
use super::inventory::{ContentSize, ImageIndex, ImageRecord, Inventory, TagRecord, UnixSeconds};
use super::registry::{RegistryError, Removal, Removed, Restored, RetainedRegistry, SavedManifest};
use crate::config::retention::RetentionSettings;
use crate::config::vhost::MissingContent;
use crate::journal::{Journal, JournalError, Used};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::store::inventory::{ManifestReader, RepositoryContents, RepositoryHandle};
use crate::store::removal::{self, ManifestRemoval, RemovalRequest, TagRemoval};
use crate::store::{Descriptor, NewManifest, ParsedManifest, Store, StoreError};

/// A store with the journal of its use.
pub(crate) struct StoredRegistry {
    store: Arc<Store>,
    journal: Arc<Journal>,
    settings: Arc<RetentionSettings>,
    /// Whether images may lack some of their content.
    missing: MissingContent,
    /// The repository of the last call: many calls in a row are about one, and reading the index of
    /// a large one takes a second.
    last: Mutex<Option<RepositoryHandle>>,
}

/// The manifests that one job reads: 20 ms of a thread that clients wait for, too.
const MANIFESTS_PER_JOB: usize = 512;
/// A larger configuration is not read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

impl StoredRegistry {
    pub(crate) fn new(
        store: Arc<Store>,
        journal: Arc<Journal>,
        settings: Arc<RetentionSettings>,
        missing: MissingContent,
    ) -> Self {
        Self {
            store,
            journal,
            settings,
            missing,
            last: Mutex::default(),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.store.run_read(move |store| Ok(work(store))).await?
    }

    fn handle(&self, repository: &RepositoryName) -> RepositoryHandle {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(handle) if handle.name() == repository => handle.clone(),
            _ => last
                .insert(RepositoryHandle::new(&self.store, repository))
                .clone(),
        }
    }

    /// Frees the memory of the last repository's index.
    fn forget_last(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl RetainedRegistry for StoredRegistry {
    async fn repositories(&self) -> Result<Vec<RepositoryName>, RegistryError> {
        self.run(|store| Ok(crate::store::inventory::repository_names(store)?))
            .await
    }

    async fn inventory(&self, repository: &RepositoryName) -> Result<Inventory, RegistryError> {
        self.forget_last();
        let (name, journal) = (repository.clone(), self.journal.clone());
        let label = expiry::label_of(&self.settings, repository).map(Box::from);
        let begin = move |store: &Store| {
            let contents = RepositoryContents::read(store, &name)?;
            let reader = ManifestReader::new(store, &name);
            let mut draft = InventoryDraft::new(name, contents, reader);
            draft.inventory.expiry_label = label;
            draft.add_history(&journal)?;
            Ok(draft)
        };
        let mut draft = self.run(begin).await?;
        while !draft.is_complete() {
            draft = self.run(move |_| draft.read_manifests()).await?;
        }
        Ok(draft.inventory)
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<SavedManifest>, RegistryError> {
        let (handle, digest) = (self.handle(repository), digest.clone());
        let read = self.run(move |_| Ok(handle.manifest(&digest)?)).await?;
        Ok(read.map(|manifest| SavedManifest {
            digest: manifest.digest,
            media_type: manifest.media_type,
            bytes: manifest.bytes.into(),
        }))
    }

    async fn remove(
        &self,
        repository: &RepositoryName,
        removal: &Removal,
    ) -> Result<Removed, RegistryError> {
        let (journal, name) = (self.journal.clone(), repository.clone());
        let history = move || journal.history(&name);
        let removed = removal::remove(&self.store, repository, request(removal), history);
        let removed = removed.await??;
        Ok(Removed {
            tags: removed.tags,
            manifests: removed.manifests,
            changed: removed.changed,
        })
    }

    async fn restore(
        &self,
        repository: &RepositoryName,
        manifest: &SavedManifest,
        tags: &[Tag],
    ) -> Result<Restored, RegistryError> {
        let manifest = NewManifest {
            reference: Reference::Digest(manifest.digest.clone()),
            tags: tags.to_vec(),
            preconditions: Vec::new(),
            content_type: Some(manifest.media_type.clone()),
            bytes: manifest.bytes.clone(),
            missing: self.missing,
        };
        let restored = removal::restore(&self.store, repository, manifest).await?;
        Ok(Restored {
            tags: restored.set,
            taken: restored.taken,
        })
    }

    async fn missing_of(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, RegistryError> {
        let (handle, tag, missing) = (self.handle(repository), tag.clone(), self.missing);
        self.run(move |_| Ok(handle.missing_of(&tag, missing)?))
            .await
    }
}

fn request(removal: &Removal) -> RemovalRequest {
    let Removal { tags, manifests } = removal;
    let tags = tags.iter().map(|tag| TagRemoval {
        tag: tag.tag.clone(),
        digest: tag.digest.clone(),
        pushed: tag.pushed,
        pulled: tag.pulled,
    });
    let manifests = manifests.iter().map(|manifest| ManifestRemoval {
        digest: manifest.digest.clone(),
        pulled: manifest.pulled,
    });
    RemovalRequest {
        tags: tags.collect(),
        manifests: manifests.collect(),
    }
}

/// An inventory whose manifests are being read.
struct InventoryDraft {
    inventory: Inventory,
    reader: ManifestReader,
    /// Of the images, in their order.
    media_types: Vec<Arc<str>>,
    /// The number of images whose manifests were read.
    read: usize,
}

impl InventoryDraft {
    /// All tags and manifests, of which nothing further is known yet.
    fn new(
        repository: RepositoryName,
        contents: Option<RepositoryContents>,
        reader: ManifestReader,
    ) -> Self {
        let mut draft = Self {
            inventory: Inventory {
                repository,
                tags: Vec::new(),
                images: Vec::new(),
                recorded_since: None,
                expiry_label: None,
            },
            reader,
            media_types: Vec::new(),
            read: 0,
        };
        let Some(contents) = contents else {
            return draft;
        };
        let types = contents.manifests();
        draft.media_types = types.map(|(_, media_type, _)| media_type.clone()).collect();
        let images = contents.manifests().map(|(digest, _, size)| ImageRecord {
            digest: digest.clone(),
            children: Box::default(),
            subject: None,
            pushed: None,
            pulled: None,
            expires_after: None,
            created: None,
            content: Box::new([content(digest, size)]),
        });
        let images: Vec<_> = images.collect();
        let tags = contents.tags().filter_map(|(tag, digest)| {
            Some(TagRecord {
                tag: tag.clone(),
                image: position(&images, digest)?,
                pushed: None,
                pulled: None,
            })
        });
        draft.inventory.tags = tags.collect();
        draft.inventory.images = images;
        draft
    }

    /// Adds what the journal knows. Blocks on the disk.
    fn add_history(&mut self, journal: &Journal) -> Result<(), JournalError> {
        let inventory = &mut self.inventory;
        // First: what is recorded meanwhile is at most too much.
        inventory.recorded_since = journal.recorded_since()?;
        let Inventory {
            repository,
            tags,
            images,
            ..
        } = inventory;
        journal.each_use(repository, |reference, known| {
            let (pushed, pulled) = match reference {
                Used::Tag(tag) => {
                    let found = tags.binary_search_by(|record| record.tag.cmp(tag));
                    let Some(record) = found.ok().and_then(|at| tags.get_mut(at)) else {
                        return;
                    };
                    (&mut record.pushed, &mut record.pulled)
                }
                Used::Manifest(digest) => {
                    let found = position(images, digest);
                    let Some(record) = found.and_then(|at| images.get_mut(at.at())) else {
                        return;
                    };
                    (&mut record.pushed, &mut record.pulled)
                }
            };
            *pushed = known.pushed.map(UnixSeconds::from);
            *pulled = known.pulled.map(UnixSeconds::from);
        })?;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.read == self.inventory.images.len()
    }

    /// Reads the next manifests. Blocks on the disk.
    fn read_manifests(mut self) -> Result<Self, RegistryError> {
        let end = self.inventory.images.len();
        let end = end.min(self.read.saturating_add(MANIFESTS_PER_JOB));
        for at in self.read..end {
            let digest = &self.inventory.images[at].digest;
            let document = self.reader.document(digest, &self.media_types[at])?;
            if let Some(document) = document {
                self.add_document(at, &document)?;
            }
        }
        self.read = end;
        Ok(self)
    }

    fn add_document(&mut self, at: usize, document: &ParsedManifest) -> Result<(), StoreError> {
        let images = &self.inventory.images;
        let listed = document.manifests.iter();
        let children = listed.filter_map(|child| position(images, &child.digest));
        let children = children.collect();
        let subject = document.subject.as_ref();
        let subject = subject.and_then(|subject| position(images, subject));
        let blobs = document.references().filter(|reference| {
            !reference.has_urls && position(images, &reference.digest).is_none()
        });
        let blobs = blobs.map(|blob| {
            let size = blob.size.and_then(|size| u64::try_from(size).ok());
            content(&blob.digest, size.unwrap_or_default())
        });
        let all = images[at].content.iter().copied().chain(blobs).collect();
        let config = self.config(document)?;
        let expires_after = self.expires_after(document, &config);
        let image = &mut self.inventory.images[at];
        image.expires_after = expires_after;
        image.created = config.created.map(UnixSeconds::from);
        (image.children, image.subject, image.content) = (children, subject, all);
        Ok(())
    }

    fn expires_after(&self, document: &ParsedManifest, config: &ImageConfig) -> Option<NonZeroU32> {
        let label = self.inventory.expiry_label.as_deref()?;
        let annotation = document.annotations.get(label);
        // An annotation counts more than a label, and is all that an index can have.
        let life = annotation.and_then(|text| image_config::time_to_live(text));
        expiry::whole_seconds(life.or_else(|| config.life(label))?)
    }

    fn config(&self, document: &ParsedManifest) -> Result<ImageConfig, StoreError> {
        let is_config = |blob: &&Descriptor| ImageConfig::is_type(&blob.media_type);
        let Some(config) = document.blobs.iter().find(is_config) else {
            return Ok(ImageConfig::default());
        };
        let bytes = self.reader.small_blob(&config.digest, MAX_CONFIG_BYTES)?;
        Ok(bytes
            .map(|bytes| ImageConfig::parse(&bytes))
            .unwrap_or_default())
    }
}

/// Where a manifest is in the list, which is in the order of digests.
fn position(images: &[ImageRecord], digest: &Digest) -> Option<ImageIndex> {
    let found = images.binary_search_by(|image| image.digest.cmp(digest));
    u32::try_from(found.ok()?).ok().map(ImageIndex)
}

fn content(digest: &Digest, size: u64) -> ContentSize {
    let start = digest.encoded().get(..16);
    let key = start.and_then(|start| u64::from_str_radix(start, 16).ok());
    ContentSize {
        key: key.unwrap_or_default(),
        size,
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Missing(digest) => Self::Missing(digest),
            StoreError::Locked => Self::Locked,
            error => Self::Failed(with_cause(&error)),
        }
    }
}

impl From<JournalError> for RegistryError {
    fn from(error: JournalError) -> Self {
        Self::Failed(with_cause(&error))
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

#[cfg(test)]
mod tests;
