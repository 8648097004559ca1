//! The registry that moorgate keeps itself, in a directory: what a call does to the files. It knows
//! nothing of HTTP but the bodies that it reads and gives; `request/answer/store` speaks for it.

mod blobs;
pub(crate) mod collect;
mod error;
pub(crate) mod file_body;
mod hash;
mod index;
mod layout;
mod lists;
mod manifest;
mod precondition;
mod pull_times;
mod repository;
mod turns;
mod uploads;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use dashmap::DashMap;
use http_body::Body;

use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::registry::upload_id::UploadId;
use hash::DigestAlgorithm;
use layout::StoreLayout;
use pull_times::PullTimes;
use repository::StoredRepository;
use turns::Turns;
use uploads::Uploads;
use work::Work;

pub(crate) use blobs::OpenBlob;
pub(crate) use error::StoreError;
pub(crate) use lists::{Page, PageRequest};
pub(crate) use precondition::Precondition;
pub(crate) use repository::PutOutcome;
pub(crate) use uploads::{BodyTimeouts, ContentRange};

/// One store. Several processes may have the same directory open.
pub(crate) struct Store {
    layout: StoreLayout,
    /// Those that were found on the disk: a stranger's names make no entries.
    repositories: DashMap<RepositoryName, Arc<StoredRepository>>,
    uploads: Arc<Uploads>,
    pulled: PullTimes,
    turns: Turns,
    work: Work,
}

/// A manifest as it was pushed.
#[derive(Debug)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl Store {
    /// Opens the store in a directory, which is made if it is not there. Waits for the disk.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Arc<Self>> {
        let layout = StoreLayout::create(directory)?;
        let uploads = Arc::new(Uploads::new(layout.clone()));
        Ok(Arc::new(Self {
            layout,
            repositories: DashMap::new(),
            uploads,
            pulled: PullTimes::default(),
            turns: Turns::new(),
            work: Work::new(),
        }))
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        self.layout.root()
    }

    fn repository(&self, name: &RepositoryName) -> Arc<StoredRepository> {
        if let Some(known) = self.repositories.get(name) {
            return known.clone();
        }
        let repository = Arc::new(StoredRepository::new(self.layout.clone(), name.clone()));
        if self.layout.repository(name).exists() {
            self.repositories.insert(name.clone(), repository.clone());
        }
        repository
    }

    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        self.work.run(move || work(&store)).await
    }

    /// Opens a blob. `for_push`: the client only wants to know that it need not push it.
    pub(crate) async fn blob(
        self: &Arc<Self>,
        name: &RepositoryName,
        digest: &Digest,
        for_push: bool,
    ) -> Result<OpenBlob, StoreError> {
        let (name, digest) = (name.clone(), digest.clone());
        self.run(move |store| match for_push {
            true => blobs::open_for_push(&store.layout, &name, &digest),
            false => blobs::open(&store.layout, &name, &digest),
        })
        .await
    }

    /// Deletes a blob that no manifest needs.
    pub(crate) async fn delete_blob(
        self: &Arc<Self>,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let _turn = self.turns.to_change(name).await;
        let (name, digest) = (name.clone(), digest.clone());
        self.run(move |store| store.repository(&name).delete_blob(&digest))
            .await
    }

    /// Makes a blob of another repository one of this, too. `false`: it is not there.
    pub(crate) async fn mount(
        self: &Arc<Self>,
        name: &RepositoryName,
        from: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let _turn = self.turns.to_add(name).await;
        let (name, from, digest) = (name.clone(), from.clone(), digest.clone());
        self.run(
            move |store| match blobs::mount(&store.layout, &from, &name, &digest) {
                Err(StoreError::DigestUnsupported) => Ok(false),
                mounted => mounted,
            },
        )
        .await
    }

    /// Opens an upload session.
    pub(crate) async fn start_upload(
        self: &Arc<Self>,
        name: &RepositoryName,
    ) -> Result<UploadId, StoreError> {
        let name = name.clone();
        self.run(move |store| store.uploads.start(&name)).await
    }

    /// How many bytes of an upload are here.
    pub(crate) async fn upload_length(
        self: &Arc<Self>,
        name: &RepositoryName,
        id: &UploadId,
    ) -> Result<u64, StoreError> {
        let (name, id) = (name.clone(), id.clone());
        self.run(move |store| store.uploads.length(&name, &id))
            .await
    }

    /// Adds a body to an upload, and returns how many bytes are here then. What came stays, however
    /// the body ended.
    pub(crate) async fn append<B: Body<Data = Bytes> + Unpin>(
        &self,
        upload: (&RepositoryName, &UploadId),
        range: ContentRange,
        body: B,
        timeouts: BodyTimeouts,
    ) -> Result<u64, StoreError> {
        let received = self
            .uploads
            .receive(&self.work, upload, range, body, timeouts)
            .await?;
        Ok(received.length())
    }

    /// Adds a body to an upload, and makes the whole a blob. Content that is not what the digest
    /// says ends the upload.
    pub(crate) async fn commit<B: Body<Data = Bytes> + Unpin>(
        &self,
        upload: (&RepositoryName, &UploadId),
        digest: &Digest,
        range: ContentRange,
        body: B,
        timeouts: BodyTimeouts,
    ) -> Result<(), StoreError> {
        // Before the body comes for nothing.
        DigestAlgorithm::of(digest)?;
        let received = self
            .uploads
            .receive(&self.work, upload, range, body, timeouts)
            .await?;
        let _turn = self.turns.to_add(upload.0).await;
        self.uploads
            .commit(&self.work, upload, digest, received)
            .await
    }

    /// Ends an upload without a blob.
    pub(crate) async fn cancel_upload(
        self: &Arc<Self>,
        name: &RepositoryName,
        id: &UploadId,
    ) -> Result<(), StoreError> {
        let (name, id) = (name.clone(), id.clone());
        self.run(move |store| store.uploads.cancel(&name, &id))
            .await
    }

    /// A manifest by tag or digest. `pulled`: it is for a client that wants the image.
    pub(crate) async fn manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        reference: &Reference,
        pulled: bool,
    ) -> Result<StoredManifest, StoreError> {
        let (name, reference) = (name.clone(), reference.clone());
        self.run(move |store| {
            let repository = store.repository(&name);
            let (index, digest) = repository.find(&reference)?;
            let bytes = repository.bytes(&digest)?;
            let media_type = index
                .manifest(&digest)
                .map(|entry| entry.media_type.clone());
            if pulled {
                store.pulled.note(&name, &digest);
            }
            Ok(StoredManifest {
                digest,
                media_type: media_type.unwrap_or_default(),
                bytes,
            })
        })
        .await
    }

    /// Takes in a manifest under its digest, and moves these tags to it, if all of them are as
    /// expected.
    pub(crate) async fn put_manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        reference: &Reference,
        tags: &[Tag],
        expected: Vec<Precondition>,
        content_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<PutOutcome, StoreError> {
        let _turn = self.turns.to_change(name).await;
        let (name, reference, tags) = (name.clone(), reference.clone(), tags.to_vec());
        let content_type = content_type.map(str::to_owned);
        self.run(move |store| {
            let repository = store.repository(&name);
            repository.accept(
                &reference,
                &tags,
                &expected,
                content_type.as_deref(),
                &bytes,
            )
        })
        .await
    }

    /// Takes a tag away, or with a digest a manifest and its tags.
    pub(crate) async fn delete_manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<(), StoreError> {
        let _turn = self.turns.to_change(name).await;
        let (name, reference) = (name.clone(), reference.clone());
        self.run(move |store| store.repository(&name).delete(&reference))
            .await
    }

    /// Ends what was left behind, and writes what may be written late. Waits for the disk.
    pub(crate) fn maintain(&self) -> Result<(), StoreError> {
        self.uploads.expire()?;
        self.pulled.write(&self.layout, |name, digest| {
            self.repository(name)
                .index()
                .is_ok_and(|index| index.manifest(digest).is_some())
        })?;
        Ok(())
    }

    /// When the last collection on schedule ended, by any process.
    pub(crate) fn collected_at(&self) -> Option<SystemTime> {
        std::fs::metadata(self.layout.root().join(LAST_COLLECTION_FILE))
            .ok()?
            .modified()
            .ok()
    }

    /// Remembers that a collection has ended.
    pub(crate) fn record_collection(&self) -> io::Result<()> {
        crate::state_file::atomic_write(
            &self.layout.root().join(LAST_COLLECTION_FILE),
            b"",
            crate::state_file::Access::Private,
        )
    }

    /// The repositories that have a directory, in no order.
    fn names(&self) -> io::Result<Vec<RepositoryName>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.layout.repositories())? {
            names.extend(layout::repository_of(&entry?.file_name().to_string_lossy()));
        }
        Ok(names)
    }
}

/// An empty file whose time says when the last collection was.
const LAST_COLLECTION_FILE: &str = "collected";

#[cfg(test)]
mod tests;
