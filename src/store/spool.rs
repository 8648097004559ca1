//! Uploads in chunks to a registry that takes a blob in one piece only: they grow in files until they
//! are complete. What a process leaves behind is removed by the next one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::sync::OnceCell;

use super::error::StoreError;
use super::files;
use super::hash::DigestAlgorithm;
use super::lanes::Lanes;
use super::layout::StoreLayout;
use super::uploads::{SessionUser, UploadChunk, UploadKey, Uploads, VerifiedUpload};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::state_file::run_blocking;

/// The uploads of one domain that are not complete.
pub(crate) struct Spool {
    uploads: Arc<Uploads>,
    lanes: Lanes,
    /// The most bytes of all uploads together.
    limit: u64,
    /// The bytes that are being received.
    reserved: Arc<AtomicU64>,
}

/// The spool of a domain, which is opened when it is needed.
pub(crate) struct DomainSpool {
    directory: PathBuf,
    limit: u64,
    opened: OnceCell<Arc<Spool>>,
}

impl DomainSpool {
    /// One that a previous process has left is opened at once, which removes its uploads. Blocks on
    /// the disk.
    pub(crate) fn new(directory: PathBuf, limit: u64) -> Result<Arc<Self>, StoreError> {
        let opened = files::exists(&directory)
            .then(|| Spool::open(directory.clone(), limit))
            .transpose()?;
        Ok(Arc::new(Self {
            directory,
            limit,
            opened: OnceCell::new_with(opened),
        }))
    }

    /// Whether it is the one of these settings.
    pub(crate) fn is(&self, directory: &Path, limit: u64) -> bool {
        self.directory == directory && self.limit == limit
    }

    pub(crate) async fn open(&self) -> Result<Arc<Spool>, StoreError> {
        let opened = self.opened.get_or_try_init(|| {
            let (directory, limit) = (self.directory.clone(), self.limit);
            run_blocking(move || Spool::open(directory, limit))
        });
        opened.await.cloned()
    }

    /// The most uploads that one user has open.
    pub(crate) fn most_sessions(&self) -> usize {
        let opened = self.opened.get();
        opened.map_or(0, |spool| spool.uploads.most_sessions())
    }

    /// Removes the uploads that nobody continues. Blocks on the disk.
    pub(crate) fn expire(&self) -> Result<(), StoreError> {
        self.opened.get().map_or(Ok(()), |spool| spool.expire())
    }
}

/// A complete blob. Its upload is locked until this is dropped.
pub(crate) struct SpooledBlob {
    pub(crate) file: Arc<File>,
    pub(crate) length: u64,
    _upload: VerifiedUpload,
}

impl Spool {
    /// Opens the spool in a directory, which it creates if necessary, and removes the uploads that
    /// no process adds to. Blocks on the disk.
    fn open(directory: PathBuf, limit: u64) -> Result<Arc<Self>, StoreError> {
        let layout = StoreLayout::create(&directory)?;
        let uploads = Arc::new(Uploads::new(layout));
        uploads.expire_after(Duration::ZERO)?;
        Ok(Arc::new(Self {
            uploads,
            lanes: Lanes::start()?,
            limit,
            reserved: Arc::default(),
        }))
    }

    /// The bytes of all uploads.
    fn used(&self) -> u64 {
        self.uploads.total_bytes()
    }

    /// Opens an upload of a user.
    pub(crate) async fn start(
        &self,
        name: &RepositoryName,
        user: SessionUser,
    ) -> Result<UploadId, StoreError> {
        let (name, slot) = (name.clone(), self.uploads.slot(user)?);
        let uploads = self.uploads.clone();
        self.lanes
            .write
            .run(move || uploads.start(&name, slot))
            .await
    }

    /// The number of bytes received of an upload.
    pub(crate) async fn length(&self, upload: UploadKey<'_>) -> Result<u64, StoreError> {
        let (name, id) = (upload.repository.clone(), upload.id.clone());
        let uploads = self.uploads.clone();
        self.lanes
            .read
            .run(move || uploads.length(&name, &id))
            .await
    }

    /// Adds a body to an upload, and returns the number of bytes received so far.
    ///
    /// Errors: `SpoolFull`; those of the upload, of the body and of the disk.
    pub(crate) async fn append<B: Body<Data = Bytes> + Unpin>(
        &self,
        upload: UploadKey<'_>,
        chunk: UploadChunk<B>,
    ) -> Result<u64, StoreError> {
        let _reserved = self.reserve(&chunk)?;
        let received = self.uploads.receive(&self.lanes, upload, None, chunk);
        Ok(received.await?.length())
    }

    /// Adds the last body to an upload, and checks the whole against its digest. The upload stays,
    /// unless its content is another one.
    ///
    /// Errors: as [`Self::append`], and `DigestMismatch`.
    pub(crate) async fn complete<B: Body<Data = Bytes> + Unpin>(
        &self,
        upload: UploadKey<'_>,
        digest: &Digest,
        chunk: UploadChunk<B>,
    ) -> Result<SpooledBlob, StoreError> {
        let algorithm = DigestAlgorithm::from_digest(digest)?;
        let _reserved = self.reserve(&chunk)?;
        let received = self
            .uploads
            .receive(&self.lanes, upload, Some(algorithm), chunk)
            .await?;
        let length = received.length();
        let verified = self
            .uploads
            .verify(&self.lanes, upload.id, digest, received)
            .await?;
        let opened = self.lanes.read.run(move || {
            let file = files::open(verified.path())?;
            Ok((verified, Arc::new(file)))
        });
        let (verified, file) = opened.await?;
        Ok(SpooledBlob {
            file,
            length,
            _upload: verified,
        })
    }

    /// Removes an upload.
    pub(crate) async fn remove(&self, upload: UploadKey<'_>) -> Result<(), StoreError> {
        let (name, id) = (upload.repository.clone(), upload.id.clone());
        let uploads = self.uploads.clone();
        self.lanes
            .write
            .run(move || uploads.cancel(&name, &id))
            .await
    }

    /// Removes the uploads that nobody continues. Blocks on the disk.
    fn expire(&self) -> Result<(), StoreError> {
        self.uploads.expire()?;
        Ok(())
    }

    /// Takes room for a body. One that does not say its length gets all that is left.
    fn reserve<B: Body>(&self, chunk: &UploadChunk<B>) -> Result<Reservation, StoreError> {
        let size = chunk.body.size_hint().exact().or(chunk.range.length);
        let used = self.used();
        let taken = self
            .reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |reserved| {
                let left = self.limit.checked_sub(used.checked_add(reserved)?)?;
                let size = size.unwrap_or(left);
                (size <= left).then(|| reserved + size)
            });
        let before = taken.map_err(|_| StoreError::SpoolFull)?;
        let left = self.limit.saturating_sub(used.saturating_add(before));
        Ok(Reservation {
            bytes: size.unwrap_or(left),
            reserved: self.reserved.clone(),
        })
    }
}

/// Room for a body that is being received.
struct Reservation {
    bytes: u64,
    reserved: Arc<AtomicU64>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;
    use crate::store::{BodyTimeouts, ContentRange};

    fn chunk(text: &str) -> UploadChunk<Full<Bytes>> {
        let minute = Duration::from_secs(60);
        UploadChunk {
            range: ContentRange::default(),
            body: Full::new(Bytes::copy_from_slice(text.as_bytes())),
            timeouts: BodyTimeouts {
                first_byte: minute,
                stall: minute,
            },
        }
    }

    #[tokio::test]
    async fn uploads_of_all_together_keep_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path().join("spool"), 10).unwrap();
        let name = RepositoryName::parse("a/b").unwrap();
        let [one, other] = [
            spool
                .start(&name, SessionUser::of_test(None))
                .await
                .unwrap(),
            spool
                .start(&name, SessionUser::of_test(None))
                .await
                .unwrap(),
        ];
        let key = |id| UploadKey {
            repository: &name,
            id,
        };
        assert_eq!(spool.append(key(&one), chunk("123456")).await.unwrap(), 6);
        let refused = spool.append(key(&other), chunk("12345")).await;
        assert!(matches!(refused, Err(StoreError::SpoolFull)), "{refused:?}");
        assert_eq!(spool.append(key(&other), chunk("1234")).await.unwrap(), 4);
        spool.remove(key(&one)).await.unwrap();
        assert_eq!(
            spool.append(key(&other), chunk("56789A")).await.unwrap(),
            10
        );
        assert_eq!(spool.used(), 10);
        // The next process begins with an empty one.
        let next = Spool::open(directory.path().join("spool"), 10).unwrap();
        let unknown = next.length(key(&other)).await;
        assert!(
            matches!(unknown, Err(StoreError::UploadUnknown)),
            "{unknown:?}"
        );
    }
}
