//! moorgate's own registry in a directory: what each call does to the files. Of HTTP it knows only
//! the bodies that it reads and returns; `request/answer/store` translates between the two.

mod blobs;
pub(crate) mod collect;
mod damage;
mod error;
mod files;
mod former_pulls;
mod hash;
mod index;
pub(crate) mod inventory;
mod lanes;
mod layout;
mod lists;
mod locks;
mod manifest;
mod precondition;
mod promised_size;
mod publish;
mod quota;
pub(crate) mod removal;
mod removed;
mod repository;
mod repository_cache;
mod reserve;
mod sources;
pub(crate) mod spool;
#[cfg(test)]
pub(crate) mod testing;
mod uploads;
pub(crate) mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body::Body;

use crate::config::retention::QuotaSettings;
use crate::journal::Journal;
use crate::observe::resource_use::ResourceUse;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Reference;
use crate::registry::upload_id::UploadId;
use files::OpenDirectory;
use hash::DigestAlgorithm;
use lanes::Lanes;
use layout::StoreLayout;
use locks::RepositoryLocks;
use quota::AreaQuotas;
use quota::reservation::{Publication, PublishedContent};
use repository::{FoundManifest, StoredRepository};
use repository_cache::RepositoryCache;
use reserve::SpaceReserve;
use uploads::Uploads;

pub(crate) use blobs::OpenBlob;
pub(crate) use error::StoreError;
pub(crate) use hash::is_digest_of;
pub(crate) use lists::{Page, PageRequest};
pub(crate) use manifest::{Descriptor, ParsedManifest};
pub(crate) use precondition::Precondition;
pub(crate) use quota::excess::ByteCount;
pub(crate) use quota::{AreaUse, StoreUse};
pub(crate) use repository::{NewManifest, PutOutcome, WrongSize};
pub(crate) use sources::ManifestSearch;
pub(crate) use uploads::{
    BodyTimeouts, ContentRange, SessionUser, UploadChunk, UploadKey, upload_sessions,
};

/// One store. Several processes may have the same directory open.
pub(crate) struct Store {
    /// As it was configured, perhaps a symbolic link.
    directory: PathBuf,
    layout: StoreLayout,
    /// Existing repositories only.
    repositories: RepositoryCache,
    uploads: Arc<Uploads>,
    /// When its tags and manifests were last pushed and pulled.
    journal: Arc<Journal>,
    locks: RepositoryLocks,
    lanes: Arc<Lanes>,
    reserve: SpaceReserve,
    quotas: Arc<AreaQuotas>,
    /// The number of reads of the directory of repositories.
    #[cfg(test)]
    directory_reads: std::sync::atomic::AtomicUsize,
}

/// A manifest as it was pushed, byte for byte.
#[derive(Debug)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl Store {
    /// Opens the store in a directory, which it creates if necessary. Blocks on the disk.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Arc<Self>> {
        let layout = StoreLayout::create(&directory)?;
        let quotas = AreaQuotas::new(layout.clone())?;
        let uploads = Arc::new(Uploads::with_quotas(layout.clone(), quotas.clone()));
        let lanes = Arc::new(Lanes::start()?);
        let reserve = SpaceReserve::new(layout.root().join(RESERVE_FILE));
        let journal = Arc::new(Journal::new(layout.journal()));
        Ok(Arc::new(Self {
            directory,
            locks: RepositoryLocks::new(layout.clone(), lanes.clone()),
            layout,
            repositories: RepositoryCache::default(),
            uploads,
            journal,
            lanes,
            reserve,
            quotas,
            #[cfg(test)]
            directory_reads: std::sync::atomic::AtomicUsize::new(0),
        }))
    }

    /// Whether a directory has a store.
    pub(crate) fn is_at(directory: &Path) -> bool {
        files::leads_to_directory(&directory.join(layout::REPOSITORIES))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Replaces the quotas of areas. Blocks on a lock.
    pub(crate) fn set_quotas(&self, quotas: &[QuotaSettings]) {
        self.quotas.set(quotas);
    }

    /// Reads from the disk what the store holds. Blocks on the disk.
    pub(crate) fn measure(&self, quotas: &[QuotaSettings]) -> Result<StoreUse, StoreError> {
        Ok(quota::measure(&self.layout, quotas)?)
    }

    /// What the areas with quotas held at the last maintenance, the fullest first.
    pub(crate) fn area_use(&self) -> Arc<Vec<AreaUse>> {
        self.quotas.report()
    }

    /// When its tags and manifests were last pushed and pulled by clients, whom the caller counts.
    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Whether the directory is there.
    pub(crate) fn exists(&self) -> bool {
        self.layout.exists()
    }

    /// The jobs of the fullest queue for disk work.
    pub(crate) fn queued_jobs(&self) -> ResourceUse {
        self.lanes.fullest_queue()
    }

    fn repository(&self, name: &RepositoryName) -> Arc<StoredRepository> {
        if let Some(cached) = self.repositories.get(name) {
            return cached;
        }
        let repository = Arc::new(StoredRepository::new(self.layout.clone(), name.clone()));
        // Not cached: clients can invent any number of names that do not exist.
        if !files::exists(&self.layout.repository(name)) {
            return repository;
        }
        self.repositories.insert(name, repository)
    }

    /// As [`Self::repository`], but caches nothing: for work on all repositories.
    fn repository_uncached(&self, name: &RepositoryName) -> Arc<StoredRepository> {
        let cached = self.repositories.peek(name);
        cached.unwrap_or_else(|| Arc::new(StoredRepository::new(self.layout.clone(), name.clone())))
    }

    /// Runs work that reads on the store's threads for that.
    pub(crate) async fn run_read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let job = move || work(&store).map_err(|error| store.layout.explain(error));
        self.lanes.read.run(job).await
    }

    async fn run_write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let job = move || work(&store).map_err(|error| store.layout.explain(error));
        self.lanes.write.run(job).await
    }

    /// Opens a blob. `for_push`: the client asks whether it must push the blob.
    pub(crate) async fn blob(
        self: &Arc<Self>,
        name: &RepositoryName,
        digest: &Digest,
        for_push: bool,
    ) -> Result<OpenBlob, StoreError> {
        let (name, digest) = (name.clone(), digest.clone());
        self.run_read(move |store| {
            if for_push {
                blobs::open_for_push(&store.layout, &name, &digest)
            } else {
                blobs::open(&store.layout, &name, &digest)
            }
        })
        .await
    }

    /// Deletes a blob that no manifest references.
    pub(crate) async fn delete_blob(
        self: &Arc<Self>,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        DigestAlgorithm::from_digest(digest)?;
        let (store, digest) = (self.clone(), digest.clone());
        let repository = name.clone();
        self.locks
            .write(name, move |lock| {
                let lock = lock.ok_or(StoreError::BlobUnknown)?;
                let repository = store.repository(&repository);
                store.reserve.run(|| repository.delete_blob(&digest, lock))
            })
            .await
    }

    /// Mounts a blob of `from` into `name`. Returns `false` if `from` does not have it.
    pub(crate) async fn mount(
        self: &Arc<Self>,
        name: &RepositoryName,
        from: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let (source, wanted) = (from.clone(), digest.clone());
        let opened = self
            .run_read(move |store| blobs::open(&store.layout, &source, &wanted))
            .await;
        let opened = match opened {
            // Without a mount the client pushes it, which mends a damaged one.
            Err(
                StoreError::BlobUnknown
                | StoreError::DigestUnsupported
                | StoreError::Damaged(_)
                | StoreError::Linked(_),
            ) => return Ok(false),
            opened => opened?,
        };
        let content = PublishedContent {
            repository: name,
            digest,
            size: opened.size,
            upload: None,
        };
        let publication = Publication::begin(&self.quotas, content, None).await?;
        let (layout, to) = (self.layout.clone(), name.clone());
        let (from, digest) = (from.clone(), digest.clone());
        self.locks
            .read(name, move |lock| {
                let mounted = publish::mount(&layout, &from, &to, &digest, lock)?;
                if let Some(publication) = publication.filter(|_| mounted) {
                    publication.stored();
                }
                Ok(mounted)
            })
            .await
    }

    /// Opens an upload session for a user.
    pub(crate) async fn start_upload(
        self: &Arc<Self>,
        name: &RepositoryName,
        user: SessionUser,
    ) -> Result<UploadId, StoreError> {
        let (name, slot) = (name.clone(), self.uploads.slot(user)?);
        self.run_write(move |store| store.uploads.start(&name, slot))
            .await
    }

    /// The most upload sessions that one user has open.
    pub(crate) fn most_sessions(&self) -> usize {
        self.uploads.most_sessions()
    }

    /// The number of bytes received of an upload.
    pub(crate) async fn upload_length(
        self: &Arc<Self>,
        upload: UploadKey<'_>,
    ) -> Result<u64, StoreError> {
        let (name, id) = (upload.repository.clone(), upload.id.clone());
        self.run_read(move |store| store.uploads.length(&name, &id))
            .await
    }

    /// Adds a body to an upload, and returns the number of bytes received so far. They stay,
    /// however the body ended, unless the disk is full or a quota used up.
    pub(crate) async fn append<B: Body<Data = Bytes> + Unpin>(
        self: &Arc<Self>,
        upload: UploadKey<'_>,
        chunk: UploadChunk<B>,
    ) -> Result<u64, StoreError> {
        let receiving = self.uploads.receive(&self.lanes, upload, None, chunk);
        let received = match receiving.await {
            Ok(received) => Ok(received.end().await),
            Err(error) => Err(error),
        };
        self.cancel_if_full(upload, received).await
    }

    /// Cancels an upload that failed because the disk is full or a quota used up: others need the
    /// space it took.
    async fn cancel_if_full<T>(
        self: &Arc<Self>,
        upload: UploadKey<'_>,
        done: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if matches!(done, Err(StoreError::Full(_) | StoreError::OverQuota(_)))
            && let Err(error) = self.cancel_upload(upload).await
        {
            tracing::debug!(%error, "upload that found no space is not removed");
        }
        done
    }

    /// Adds a body to an upload, and publishes the whole as a blob. Content that does not match the
    /// digest ends the upload.
    pub(crate) async fn commit<B: Body<Data = Bytes> + Unpin>(
        self: &Arc<Self>,
        upload: UploadKey<'_>,
        digest: &Digest,
        chunk: UploadChunk<B>,
    ) -> Result<(), StoreError> {
        let done = self.receive_and_publish(upload, digest, chunk).await;
        self.cancel_if_full(upload, done).await
    }

    async fn receive_and_publish<B: Body<Data = Bytes> + Unpin>(
        self: &Arc<Self>,
        upload: UploadKey<'_>,
        digest: &Digest,
        chunk: UploadChunk<B>,
    ) -> Result<(), StoreError> {
        // Before the body is read in vain.
        let algorithm = DigestAlgorithm::from_digest(digest)?;
        let receiving = self
            .uploads
            .receive(&self.lanes, upload, Some(algorithm), chunk);
        let received = receiving.await?;
        let (name, id) = (upload.repository.clone(), upload.id.clone());
        let mut verified = self
            .uploads
            .verify(&self.lanes, &id, digest, received)
            .await?;
        let content = PublishedContent {
            repository: upload.repository,
            digest,
            size: verified.length(),
            upload: Some(upload.id),
        };
        let reservation = verified.take_reservation();
        let publication = Publication::begin(&self.quotas, content, reservation).await?;
        let (store, digest) = (self.clone(), digest.clone());
        self.locks
            .read(upload.repository, move |lock| {
                publish::publish(&store.layout, &name, &digest, verified.path(), lock)?;
                publication.into_iter().for_each(Publication::stored);
                store.uploads.forget(&id);
                Ok(())
            })
            .await
    }

    /// Cancels an upload: its bytes are deleted.
    pub(crate) async fn cancel_upload(
        self: &Arc<Self>,
        upload: UploadKey<'_>,
    ) -> Result<(), StoreError> {
        let (name, id) = (upload.repository.clone(), upload.id.clone());
        self.run_write(move |store| store.uploads.cancel(&name, &id))
            .await
    }

    /// Reads a manifest by tag or digest. `pulled`: the client wants the image itself, and does not
    /// ask whether it must push it.
    pub(crate) async fn manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        reference: &Reference,
        pulled: bool,
    ) -> Result<StoredManifest, StoreError> {
        let (name, reference) = (name.clone(), reference.clone());
        self.run_read(move |store| {
            let repository = store.repository(&name);
            let found = match repository.find(&reference) {
                // A client that asks whether it must push the manifest must do so.
                Err(StoreError::Damaged(_)) if !pulled => return Err(StoreError::ManifestUnknown),
                found => found?,
            };
            let FoundManifest {
                index,
                digest,
                bytes,
            } = found;
            let media_type = index
                .manifest(&digest)
                .map(|entry| entry.media_type.clone());
            Ok(StoredManifest {
                digest,
                media_type: media_type.unwrap_or_default().to_string(),
                bytes,
            })
        })
        .await
    }

    /// Stores a manifest under its digest and points its tags at it, if all preconditions hold.
    pub(crate) async fn put_manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        manifest: NewManifest,
    ) -> Result<PutOutcome, StoreError> {
        let checked = self.run_write(move |_| manifest.check()).await?;
        let publication = Publication::begin(&self.quotas, checked.content(name), None).await?;
        let (store, repository) = (self.clone(), name.clone());
        let required = checked.first_required().cloned();
        let put = move |checked, lock: &_| {
            let outcome = store.repository(&repository).put(checked, lock)?;
            publication.into_iter().for_each(Publication::stored);
            Ok(outcome)
        };
        let Some(required) = required else {
            let put = move |lock: &_| put(checked, lock);
            return self.locks.write_or_create(name, put).await;
        };
        let put = move |lock: Option<&_>| match lock {
            Some(lock) => put(checked, lock),
            // A repository that does not exist has nothing.
            None => {
                checked.check_preconditions(&index::RepositoryIndex::default())?;
                Err(StoreError::Missing(required))
            }
        };
        self.locks.write(name, put).await
    }

    /// Deletes a tag, or, by digest, a manifest with its tags.
    pub(crate) async fn delete_manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<(), StoreError> {
        let (store, reference) = (self.clone(), reference.clone());
        let repository = name.clone();
        self.locks
            .write(name, move |lock| {
                let lock = lock.ok_or(StoreError::RepositoryUnknown)?;
                let repository = store.repository(&repository);
                store.reserve.run(|| repository.delete(&reference, lock))
            })
            .await
    }

    /// Removes expired uploads and writes the journal. Blocks on the disk.
    pub(crate) fn maintain(&self) -> Result<(), StoreError> {
        if !self.exists() {
            return Err(StoreError::StorageMissing);
        }
        let expired = self.uploads.expire();
        self.reserve.restore();
        let counted = self.quotas.maintain();
        let imported = former_pulls::import(&self.layout, &self.journal);
        self.journal.flush()?;
        imported?;
        expired?;
        counted
    }

    /// The end of the last scheduled collection, by this or another process.
    pub(crate) fn collected_at(&self) -> Option<SystemTime> {
        files::metadata(&self.layout.root().join(LAST_COLLECTION_FILE))
            .ok()?
            .modified()
            .ok()
    }

    /// Records the end of a scheduled collection.
    pub(crate) fn record_collection(&self) -> io::Result<()> {
        files::replace(&self.layout.root().join(LAST_COLLECTION_FILE), b"")
    }

    /// The repositories that have a directory, in no particular order.
    fn names(&self) -> io::Result<Vec<RepositoryName>> {
        #[cfg(test)]
        self.directory_reads
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut names = Vec::new();
        for name in OpenDirectory::open(&self.layout.repositories())?.names()? {
            names.extend(layout::repository_of(&name?.to_string_lossy()));
        }
        Ok(names)
    }
}

/// An empty file whose modification time is the end of the last scheduled collection.
const LAST_COLLECTION_FILE: &str = "collected";
const RESERVE_FILE: &str = "reserved";

#[cfg(test)]
mod tests;
