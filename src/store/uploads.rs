//! Upload sessions: growing files. Content is hashed and written as it arrives, and survives a
//! restart. A session ends by a commit, a cancel, or after a day without a request.

mod body_writer;
mod expiry;
mod file;
mod quota;
mod upload_syncs;

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use http_body::Body;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio_util::sync::CancellationToken;

use super::error::StoreError;
use super::files;
use super::hash::DigestAlgorithm;
use super::lanes::Lanes;
use super::layout::{StoreLayout, if_exists};
use super::promised_size;
use super::quota::AreaQuotas;
use super::quota::reservation::UploadReservation;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::state_file::{FileLock, LockMode};
use body_writer::{BodyWriter, ReceivingCount};
use file::UploadFile;
use quota::SessionQuota;
pub(super) use quota::SessionSlot;
pub(crate) use quota::{SessionUser, upload_sessions};

/// How long a session waits for its next request.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_hours(24);

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
    /// The quotas of the repositories. `None`: there are no repositories.
    areas: Option<Arc<AreaQuotas>>,
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
    reservation: Option<UploadReservation>,
    _in_use: FileLock,
}

impl ReceivedUpload {
    pub(super) fn length(&self) -> u64 {
        self.file.length
    }

    /// Ends the request, and returns the number of bytes received.
    pub(super) async fn end(self) -> u64 {
        let length = self.length();
        if let Some(reservation) = self.reservation {
            reservation.end().await;
        }
        length
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
            areas: None,
        }
    }

    /// The sessions of repositories with quotas.
    pub(super) fn with_quotas(layout: StoreLayout, areas: Arc<AreaQuotas>) -> Self {
        Self {
            areas: Some(areas),
            ..Self::new(layout)
        }
    }

    /// Counts a session of a user, which is to be opened.
    ///
    /// Errors: `TooManyUploads`.
    pub(super) fn slot(&self, user: SessionUser) -> Result<SessionSlot, StoreError> {
        self.quota.take(user).ok_or(StoreError::TooManyUploads)
    }

    /// Opens a session.
    pub(super) fn start(
        &self,
        name: &RepositoryName,
        slot: SessionSlot,
    ) -> Result<UploadId, StoreError> {
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

    #[cfg(test)]
    pub(super) fn start_of(
        &self,
        name: &RepositoryName,
        user: Option<&str>,
    ) -> Result<UploadId, StoreError> {
        self.start(name, self.slot(SessionUser::of_test(user))?)
    }

    /// The most sessions that one user has open.
    pub(super) fn most_sessions(&self) -> usize {
        self.quota.most()
    }

    /// The number of bytes received of an upload.
    pub(super) fn length(&self, name: &RepositoryName, id: &UploadId) -> Result<u64, StoreError> {
        let (session, _) = self.find(name, id)?;
        Ok(session.length.load(Ordering::Acquire))
    }

    /// The bytes of all sessions that this process has used.
    pub(super) fn total_bytes(&self) -> u64 {
        let lengths = self.sessions.iter();
        lengths
            .map(|session| session.length.load(Ordering::Acquire))
            .sum()
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

    /// The file, for a chunk that begins where it ends.
    ///
    /// Errors: `OutOfOrder`; `Locked` after [`SESSION_LOCK_TIMEOUT`].
    async fn lock_at(&self, begin: Option<u64>) -> Result<FileGuard, StoreError> {
        let file = tokio::time::timeout(SESSION_LOCK_TIMEOUT, self.content.clone().lock_owned());
        let file = file.await.map_err(|_| StoreError::Locked)?;
        if let Some(begin) = begin.filter(|begin| *begin != file.length) {
            tracing::debug!(begin, at = file.length, "chunk out of order");
            return Err(StoreError::OutOfOrder { at: file.length });
        }
        Ok(file)
    }
}

/// An upload whose content matches its digest and is synced.
pub(super) struct VerifiedUpload(ReceivedUpload);

impl VerifiedUpload {
    pub(super) fn path(&self) -> &Path {
        &self.0.session.path
    }

    pub(super) fn length(&self) -> u64 {
        self.0.length()
    }

    /// The space that was reserved for it.
    pub(super) fn take_reservation(&mut self) -> Option<UploadReservation> {
        self.0.reservation.take()
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
    /// [`SESSION_LOCK_TIMEOUT`]; `OverQuota`; those of the body and of the disk.
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
        let (session, lock) = self.find_to_use(lanes, upload).await?;
        let token = session.take_over();
        // The cancelled request may still write a batch, or commit.
        let mut file = session.lock_at(chunk.range.begin).await?;
        if let Some(algorithm) = algorithm {
            file.hash_by(algorithm);
        }
        let reservation = self
            .reserve(upload, file.length, exact.or(announced))
            .await?;
        let mut writer = BodyWriter {
            lanes,
            session: &session,
            uploads: self,
            id: upload.id,
            _receiving: ReceivingCount::new(&self.receiving),
            file: Some(file),
            writing: None,
            reservation,
        };
        let read = token
            .run_until_cancelled(writer.read(&mut chunk.body, chunk.timeouts))
            .await;
        // The received bytes are written before the length is reported, however the body ended.
        let file = writer.finish().await;
        let reservation = writer.reservation.take();
        drop(writer);
        let read = read.unwrap_or(Err(StoreError::Superseded));
        match read.and(file) {
            Ok(Some(file)) => Ok(ReceivedUpload {
                file,
                session,
                reservation,
                _in_use: lock,
            }),
            failed => {
                if let Some(reservation) = reservation {
                    reservation.end().await;
                }
                failed.and(Err(StoreError::Superseded))
            }
        }
    }

    /// The session, whose file is locked: other processes see that it is in use.
    async fn find_to_use(
        self: &Arc<Self>,
        lanes: &Lanes,
        upload: UploadKey<'_>,
    ) -> Result<(Arc<UploadSession>, FileLock), StoreError> {
        let uploads = self.clone();
        let (name, id) = (upload.repository.clone(), upload.id.clone());
        let find = move || {
            let found = uploads.find(&name, &id);
            let (session, file) = found.map_err(|error| uploads.layout.explain(error))?;
            let lock = FileLock::acquire_open(file, LockMode::Shared, Duration::ZERO);
            let lock = lock.map_err(|_| StoreError::UploadUnknown)?;
            Ok((session, lock))
        };
        lanes.read.run(find).await
    }

    /// Reserves space for a body, before it is read.
    async fn reserve(
        &self,
        upload: UploadKey<'_>,
        length: u64,
        announced: Option<u64>,
    ) -> Result<Option<UploadReservation>, StoreError> {
        let Some(areas) = &self.areas else {
            return Ok(None);
        };
        match UploadReservation::new(areas, upload.repository, upload.id, length) {
            Some(reservation) => reservation.for_body(announced).await.map(Some),
            None => Ok(None),
        }
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
