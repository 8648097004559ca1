//! Upload sessions: growing files. Content is hashed and written as it arrives, and survives a
//! restart. A session ends by a commit, a cancel, or after a day without a request.

mod file;
mod quota;
mod upload_syncs;

use std::ffi::OsStr;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use http_body::Body;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio_util::sync::CancellationToken;

use super::blobs;
use super::error::StoreError;
use super::files::{self, FileStatus, OpenDirectory};
use super::hash::DigestAlgorithm;
use super::lanes::{DiskJob, Lanes};
use super::layout::{StoreLayout, if_exists};
use super::promised_size;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::state_file::{FileLock, LockMode};
use file::{Batch, UploadFile};
use quota::{SessionQuota, SessionSlot};
use upload_syncs::bytes_per_sync;

/// How long a session waits for its next request.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_hours(24);

/// Bytes of a body that one disk job hashes and writes. Meanwhile the next batch is read, so that
/// an upload has up to twice as much in memory.
const BATCH_BYTES: usize = 256 * 1024;

/// Timeouts for reading a request body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyTimeouts {
    pub(crate) first_byte: Duration,
    /// The maximum time between two frames.
    pub(crate) stall: Duration,
}

/// The position and length of a chunk, if the client sends a `Content-Range`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) begin: Option<u64>,
    pub(crate) length: Option<u64>,
}

/// An upload session and its repository.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UploadKey<'a> {
    pub(crate) repository: &'a RepositoryName,
    pub(crate) id: &'a UploadId,
}

/// A body to be added to an upload.
pub(crate) struct UploadChunk<B> {
    pub(crate) range: ContentRange,
    pub(crate) body: B,
    pub(crate) timeouts: BodyTimeouts,
}

/// The sessions of a store.
pub(super) struct Uploads {
    layout: StoreLayout,
    /// The sessions that this process has used. They are removed with their files.
    sessions: DashMap<UploadId, Arc<UploadSession>>,
    quota: SessionQuota,
    /// The number of bodies that are being received.
    receiving: AtomicUsize,
    /// Permits for hashing whole files.
    rehashes: Semaphore,
}

struct UploadSession {
    path: PathBuf,
    /// The number of bytes that are hashed and written.
    length: AtomicU64,
    content: Arc<tokio::sync::Mutex<UploadFile>>,
    /// Cancels the request that is adding to it.
    writer: Mutex<CancellationToken>,
    /// `None` for a session that another process opened.
    _slot: Option<SessionSlot>,
}

type FileGuard = OwnedMutexGuard<UploadFile>;

/// An upload after a body was added to it. It is locked until this is dropped.
pub(super) struct ReceivedUpload {
    file: FileGuard,
    session: Arc<UploadSession>,
    _in_use: FileLock,
}

impl ReceivedUpload {
    pub(super) fn length(&self) -> u64 {
        self.file.length
    }
}

impl Uploads {
    pub(super) fn new(layout: StoreLayout) -> Self {
        Self {
            layout,
            sessions: DashMap::new(),
            quota: SessionQuota::default(),
            receiving: AtomicUsize::new(0),
            rehashes: Semaphore::new(MAX_REHASHES),
        }
    }

    /// Opens a session for a user.
    ///
    /// Errors: `TooManyUploads`.
    pub(super) fn start(
        &self,
        name: &RepositoryName,
        user: Option<String>,
    ) -> Result<UploadId, StoreError> {
        let slot = self.quota.take(user).ok_or(StoreError::TooManyUploads)?;
        let id = new_id()?;
        let directory = self.layout.uploads_of(name);
        let path = directory.join(id.as_str());
        // The expiry of sessions removes empty directories.
        while if_exists(files::create_new(&path))?.is_none() {
            // Not to be created: it may be a mount point.
            if !self.layout.exists() {
                return Err(StoreError::StorageMissing);
            }
            if_exists(files::private_directory(&directory))?;
        }
        self.sessions
            .insert(id.clone(), UploadSession::new(path, 0, Some(slot)));
        Ok(id)
    }

    /// The number of bytes received of an upload.
    pub(super) fn length(&self, name: &RepositoryName, id: &UploadId) -> Result<u64, StoreError> {
        let (session, _) = self.find(name, id)?;
        Ok(session.length.load(Ordering::Acquire))
    }

    /// Cancels a session and deletes its file.
    pub(super) fn cancel(&self, name: &RepositoryName, id: &UploadId) -> Result<(), StoreError> {
        let (session, _) = self.find(name, id)?;
        session.take_over();
        Ok(self.remove(id, &session)?)
    }

    fn remove(&self, id: &UploadId, session: &UploadSession) -> io::Result<()> {
        self.forget(id);
        if_exists(files::remove_file(&session.path)).map(drop)
    }

    /// Drops a session whose file is gone.
    pub(super) fn forget(&self, id: &UploadId) {
        self.sessions.remove(id);
    }

    /// The session, and its file, opened for reading.
    fn find(
        &self,
        name: &RepositoryName,
        id: &UploadId,
    ) -> Result<(Arc<UploadSession>, File), StoreError> {
        if !is_id(id.as_str()) {
            return Err(StoreError::UploadUnknown);
        }
        let path = self.layout.uploads_of(name).join(id.as_str());
        let known = self.sessions.get(id).map(|session| session.clone());
        // With this guard no request of this process writes; without it one does.
        let content = known
            .as_ref()
            .and_then(|session| session.content.clone().try_lock_owned().ok());
        let file = if_exists(files::open(&path))?.ok_or(StoreError::UploadUnknown)?;
        let length = file.metadata()?.len();
        if let Some(mut content) = content {
            content.follow(length);
        }
        let new = || {
            self.sessions
                .entry(id.clone())
                .or_insert_with(|| UploadSession::new(path, length, None))
                .clone()
        };
        Ok((known.unwrap_or_else(new), file))
    }

    /// Removes the sessions that had no request for [`SESSION_LIFETIME`]. Returns their number.
    pub(super) fn expire(&self) -> io::Result<usize> {
        self.expire_after(SESSION_LIFETIME)
    }

    /// Removes the sessions that had no request for so long and that no request, of any process, is
    /// adding to. Returns their number.
    pub(super) fn expire_after(&self, lifetime: Duration) -> io::Result<usize> {
        // Another process has removed the files of these.
        self.sessions
            .retain(|_, session| files::exists(&session.path));
        self.each_expired(lifetime, |directory, file| {
            if let Ok(id) = UploadId::parse(&file.to_string_lossy()) {
                self.sessions.remove(&id);
            }
            if_exists(directory.remove_file(file)).map(drop)
        })
    }

    /// The number of sessions that [`Self::expire_after`] would remove.
    pub(super) fn count_expired(&self, lifetime: Duration) -> io::Result<usize> {
        self.each_expired(lifetime, |_, _| Ok(()))
    }

    fn each_expired(
        &self,
        lifetime: Duration,
        mut work: impl FnMut(&OpenDirectory, &OsStr) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let uploads = OpenDirectory::open(&self.layout.uploads())?;
        for repository in uploads.names()? {
            let repository = repository?;
            let opened = OpenDirectory::open(&uploads.path().join(&repository));
            if let Some(link) = opened.as_ref().err().and_then(files::link_in) {
                tracing::warn!(
                    error = link as &dyn std::error::Error,
                    "uploads passed over"
                );
                continue;
            }
            // Another process may remove it at the same time.
            let Some(directory) = if_exists(opened)? else {
                continue;
            };
            for file in directory.names()? {
                let file = file?;
                if let Some(_unused) = lock_expired(&directory, &file, lifetime)? {
                    work(&directory, &file)?;
                    count += 1;
                }
            }
            // Fails if it still has sessions.
            let _ = uploads.remove_directory(&repository);
        }
        Ok(count)
    }
}

/// Locks the file of a session that had no request for so long and that no request is adding to.
fn lock_expired(
    directory: &OpenDirectory,
    name: &OsStr,
    lifetime: Duration,
) -> io::Result<Option<FileLock>> {
    let status = if_exists(directory.status(name))?;
    let is_expired = |status: &FileStatus| status.is_file() && blobs::is_older(status, lifetime);
    if !status.as_ref().is_some_and(is_expired) {
        return Ok(None);
    }
    let Some(file) = if_exists(directory.file(name))? else {
        return Ok(None);
    };
    Ok(FileLock::acquire_open(file, LockMode::Exclusive, Duration::ZERO).ok())
}

impl UploadSession {
    fn new(path: PathBuf, length: u64, slot: Option<SessionSlot>) -> Arc<Self> {
        Arc::new_cyclic(|session| {
            let content = UploadFile::new(session.clone(), length);
            Self {
                path,
                length: AtomicU64::new(length),
                content: Arc::new(tokio::sync::Mutex::new(content)),
                writer: Mutex::default(),
                _slot: slot,
            }
        })
    }

    /// Cancels the request that is adding to it: a client that lost its connection may return on a
    /// new one before the old one is known to be dead.
    fn take_over(&self) -> CancellationToken {
        let token = CancellationToken::new();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *writer, token.clone()).cancel();
        token
    }
}

/// An upload whose content matches its digest and is synced.
pub(super) struct VerifiedUpload(ReceivedUpload);

impl VerifiedUpload {
    pub(super) fn path(&self) -> &Path {
        &self.0.session.path
    }
}

impl Uploads {
    /// Checks the content against a digest and syncs it. An upload that does not match is removed.
    ///
    /// Errors: `DigestMismatch`, `UploadUnknown`; `Overloaded` after [`REHASH_TIMEOUT`] if too many
    /// other uploads are being rehashed.
    pub(super) async fn verify(
        self: &Arc<Self>,
        lanes: &Lanes,
        id: &UploadId,
        digest: &Digest,
        mut received: ReceivedUpload,
    ) -> Result<VerifiedUpload, StoreError> {
        let algorithm = DigestAlgorithm::from_digest(digest)?;
        if let Err(error) = received.file.syncs.end().await {
            self.discard(id, &received.session);
            return Err(error);
        }
        let (uploads, upload, expected) = (self.clone(), id.clone(), digest.clone());
        let check = lanes.write.run(move || {
            // The previous request may have committed it.
            let file = if_exists(files::open(&received.session.path))?;
            let file = file.ok_or(StoreError::UploadUnknown)?;
            let Some(found) = received.file.running_digest(algorithm, &file)? else {
                return Ok(ControlFlow::Continue((received, file)));
            };
            let verified = uploads.accept(&upload, received, &file, found == expected);
            verified.map(ControlFlow::Break)
        });
        let (received, file) = match check.await? {
            ControlFlow::Break(verified) => return Ok(verified),
            ControlFlow::Continue(unhashed) => unhashed,
        };
        let permit = tokio::time::timeout(REHASH_TIMEOUT, self.rehashes.acquire()).await;
        let _permit = permit
            .ok()
            .and_then(Result::ok)
            .ok_or(StoreError::Overloaded)?;
        let (uploads, upload, expected) = (self.clone(), id.clone(), digest.clone());
        let rehash = lanes.write.run(move || {
            let found = algorithm.digest_file(&file)?;
            uploads.accept(&upload, received, &file, found == expected)
        });
        rehash.await
    }

    /// Syncs an upload whose content matches its digest, and removes any other.
    fn accept(
        &self,
        id: &UploadId,
        received: ReceivedUpload,
        file: &File,
        matches: bool,
    ) -> Result<VerifiedUpload, StoreError> {
        if !matches {
            self.remove(id, &received.session)?;
            return Err(StoreError::DigestMismatch);
        }
        promised_size::record(file)?;
        if let Err(error) = file.sync_data() {
            self.discard(id, &received.session);
            return Err(error.into());
        }
        Ok(VerifiedUpload(received))
    }

    /// Removes an upload of which the disk lost bytes: a client that goes on with it would be told
    /// that it is complete.
    fn discard(&self, id: &UploadId, session: &UploadSession) {
        if let Err(error) = self.remove(id, session) {
            tracing::error!(%error, "upload that failed to sync cannot be removed");
        }
    }

    /// Adds a body to an upload, and hashes it by `algorithm` where that is known. The received
    /// bytes stay, however the body ended.
    ///
    /// Errors: `UploadUnknown`, `BadRange`, `OutOfOrder`, `Superseded`; `Locked` after
    /// [`SESSION_LOCK_TIMEOUT`]; those of the body and of the disk.
    pub(super) async fn receive<B>(
        self: &Arc<Self>,
        lanes: &Lanes,
        upload: UploadKey<'_>,
        algorithm: Option<DigestAlgorithm>,
        mut chunk: UploadChunk<B>,
    ) -> Result<ReceivedUpload, StoreError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let exact = chunk.body.size_hint().exact();
        let announced = chunk.range.length;
        if announced.is_some_and(|length| exact.is_some_and(|exact| exact != length)) {
            return Err(StoreError::BadRange);
        }
        let uploads = self.clone();
        let (name, id) = (upload.repository.clone(), upload.id.clone());
        let find = move || {
            let found = uploads.find(&name, &id);
            // Other processes see that it is in use.
            let (session, file) = found.map_err(|error| uploads.layout.explain(error))?;
            let lock = FileLock::acquire_open(file, LockMode::Shared, Duration::ZERO);
            let lock = lock.map_err(|_| StoreError::UploadUnknown)?;
            Ok((session, lock))
        };
        let (session, lock) = lanes.read.run(find).await?;
        let token = session.take_over();
        // The cancelled request may still write a batch, or commit.
        let file = tokio::time::timeout(SESSION_LOCK_TIMEOUT, session.content.clone().lock_owned());
        let mut file = file.await.map_err(|_| StoreError::Locked)?;
        let begin = chunk.range.begin;
        if let Some(begin) = begin.filter(|begin| *begin != file.length) {
            tracing::debug!(begin, at = file.length, "chunk out of order");
            return Err(StoreError::OutOfOrder { at: file.length });
        }
        if let Some(algorithm) = algorithm {
            file.hash_by(algorithm);
        }
        let mut writer = BodyWriter {
            lanes,
            session: &session,
            uploads: self,
            id: upload.id,
            _receiving: ReceivingCount::new(&self.receiving),
            file: Some(file),
            writing: None,
        };
        let read = token
            .run_until_cancelled(writer.read(&mut chunk.body, chunk.timeouts))
            .await;
        // The received bytes are written before the length is reported, however the body ended.
        let file = writer.finish().await;
        drop(writer);
        read.unwrap_or(Err(StoreError::Superseded))?;
        let file = file?.ok_or(StoreError::Superseded)?;
        Ok(ReceivedUpload {
            file,
            session,
            _in_use: lock,
        })
    }
}

/// Writes a body to the file in batches, and reads the next batch meanwhile.
struct BodyWriter<'a> {
    lanes: &'a Lanes,
    session: &'a Arc<UploadSession>,
    uploads: &'a Uploads,
    id: &'a UploadId,
    _receiving: ReceivingCount<'a>,
    file: Option<FileGuard>,
    /// Returns the batch: memory that another thread frees is not soon reused by this one.
    writing: Option<DiskJob<(FileGuard, Batch)>>,
}

impl BodyWriter<'_> {
    async fn read<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        body: &mut B,
        timeouts: BodyTimeouts,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut limit = timeouts.first_byte;
        let ended = loop {
            let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
            match tokio::time::timeout(limit, frame).await {
                Ok(None) => break Ok(()),
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    batch.push(data);
                }
                Ok(Some(Err(_))) => break Err(StoreError::BodyCut),
                Err(_) => break Err(StoreError::BodyStalled),
            }
            limit = timeouts.stall;
            if batch.bytes >= BATCH_BYTES {
                self.write(std::mem::take(&mut batch)).await?;
            }
        };
        if batch.bytes > 0 {
            self.write(batch).await?;
        }
        ended
    }

    /// Waits for the previous batch, then starts to write this one.
    async fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let Some(mut file) = self.finish().await? else {
            return Err(StoreError::Superseded);
        };
        let path = self.session.path.clone();
        let piece = bytes_per_sync(self.uploads.receiving.load(Ordering::Relaxed));
        if let Err(error) = file.syncs.next(&self.lanes.sync, &path, piece).await {
            if matches!(error, StoreError::Io(_)) {
                self.uploads.discard(self.id, self.session);
            }
            return Err(error);
        }
        let write = move || file.add(&path, &batch).map(|()| (file, batch));
        self.writing = Some(self.lanes.write.start_job(write)?);
        Ok(())
    }

    /// Waits for the current write. `None`: an earlier write failed.
    async fn finish(&mut self) -> Result<Option<FileGuard>, StoreError> {
        match self.writing.as_mut() {
            // Cancel-safe: the job stays in `self` until it has ended.
            Some(writing) => {
                let written = writing.end().await;
                self.writing = None;
                written.map(|(file, _)| Some(file))
            }
            None => Ok(self.file.take()),
        }
    }
}

/// Counts a body while it is received.
struct ReceivingCount<'a>(&'a AtomicUsize);

impl<'a> ReceivingCount<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for ReceivingCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// 128 random bits.
fn new_id() -> Result<UploadId, StoreError> {
    let text = crate::crypto::hex(&crate::crypto::random::<16>().map_err(io::Error::from)?);
    Ok(UploadId::parse(&text).expect("hexadecimal digits"))
}

/// Whether [`new_id`] could have made it, so that it is safe as a file name.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whole files hashed at a time: the other threads stay free for other uploads.
const MAX_REHASHES: usize = 2;
const REHASH_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a request waits for the previous one of its session, which may be committing.
const SESSION_LOCK_TIMEOUT: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
