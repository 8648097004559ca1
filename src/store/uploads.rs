//! Upload sessions: files that grow. What has come is hashed and written as it comes, and stays for
//! whoever continues, also after a restart; a session ends by a commit, a cancel, or after a day.

mod file;

use std::fs::{DirEntry, File};
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use http_body::Body;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::blobs;
use super::error::StoreError;
use super::hash::DigestAlgorithm;
use super::layout::{StoreLayout, if_exists};
use super::work::{Started, Work};
use crate::crypto;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use file::{Batch, UploadFile};

/// How long a session waits for its next request.
const SESSION_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What is collected of a body before it is hashed and written on another thread. While that goes
/// on, as much again is read: so this is half of what an upload holds in memory.
const BATCH_BYTES: usize = 256 * 1024;

/// Timeouts for reading a request body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyTimeouts {
    pub(crate) first_byte: Duration,
    /// Between two frames.
    pub(crate) stall: Duration,
}

/// The position and length of a chunk, where the client sends a `Content-Range`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) begin: Option<u64>,
    pub(crate) length: Option<u64>,
}

/// The sessions of a store.
pub(super) struct Uploads {
    layout: StoreLayout,
    /// Those that this process has seen. Only logged-in users make entries, and the expiry takes
    /// them away with their files.
    sessions: DashMap<UploadId, Arc<UploadSession>>,
}

struct UploadSession {
    path: PathBuf,
    /// Bytes that are hashed and written.
    length: AtomicU64,
    content: Arc<tokio::sync::Mutex<UploadFile>>,
    /// Ends the request that adds to it now.
    writer: Mutex<CancellationToken>,
}

type Turn = OwnedMutexGuard<UploadFile>;

/// An upload after a body was added to it. Nobody else adds to it while this lives.
pub(super) struct ReceivedUpload {
    turn: Turn,
    session: Arc<UploadSession>,
}

impl ReceivedUpload {
    /// Bytes that are here.
    pub(super) fn length(&self) -> u64 {
        self.turn.length
    }
}

impl Uploads {
    pub(super) fn new(layout: StoreLayout) -> Self {
        Self {
            layout,
            sessions: DashMap::new(),
        }
    }

    /// Opens a session.
    pub(super) fn start(&self, name: &RepositoryName) -> Result<UploadId, StoreError> {
        let id = new_id()?;
        let directory = self.layout.uploads_of(name);
        let path = directory.join(id.as_str());
        // Whoever ends old sessions takes an empty directory away.
        while if_exists(File::create_new(&path))?.is_none() {
            crate::state_file::private_directory(&directory)?;
        }
        self.sessions
            .insert(id.clone(), UploadSession::new(path, 0));
        Ok(id)
    }

    /// How many bytes of an upload are here.
    pub(super) fn length(&self, name: &RepositoryName, id: &UploadId) -> Result<u64, StoreError> {
        Ok(self.find(name, id)?.length.load(Ordering::Acquire))
    }

    /// Ends a session without a blob.
    pub(super) fn cancel(&self, name: &RepositoryName, id: &UploadId) -> Result<(), StoreError> {
        let session = self.find(name, id)?;
        session.take_over();
        self.forget(id, &session)?;
        Ok(())
    }

    fn forget(&self, id: &UploadId, session: &UploadSession) -> io::Result<()> {
        self.sessions.remove(id);
        if_exists(std::fs::remove_file(&session.path)).map(drop)
    }

    fn find(&self, name: &RepositoryName, id: &UploadId) -> Result<Arc<UploadSession>, StoreError> {
        if !is_id(id.as_str()) {
            return Err(StoreError::UploadUnknown);
        }
        let path = self.layout.uploads_of(name).join(id.as_str());
        let known = self.sessions.get(id).map(|session| session.clone());
        // While this is held nobody here writes; if it cannot be had, somebody does.
        let content = known
            .as_ref()
            .and_then(|session| session.content.clone().try_lock_owned().ok());
        let Some(data) = if_exists(std::fs::metadata(&path))? else {
            return Err(StoreError::UploadUnknown);
        };
        if let Some(mut content) = content {
            content.follow(data.len());
        }
        let new = || {
            self.sessions
                .entry(id.clone())
                .or_insert_with(|| UploadSession::new(path, data.len()))
                .clone()
        };
        Ok(known.unwrap_or_else(new))
    }

    /// Removes the sessions that nobody has continued for a day. Returns how many.
    pub(super) fn expire(&self) -> io::Result<usize> {
        self.each_expired(|file| {
            if let Ok(id) = UploadId::parse(&file.file_name().to_string_lossy()) {
                self.sessions.remove(&id);
            }
            if_exists(std::fs::remove_file(file.path())).map(drop)
        })
    }

    /// How many there are that [`Self::expire`] would remove.
    pub(super) fn count_expired(&self) -> io::Result<usize> {
        self.each_expired(|_| Ok(()))
    }

    fn each_expired(&self, mut work: impl FnMut(&DirEntry) -> io::Result<()>) -> io::Result<usize> {
        let mut count = 0;
        for repository in std::fs::read_dir(self.layout.uploads())? {
            let repository = repository?.path();
            // Another process may do the same.
            for file in if_exists(std::fs::read_dir(&repository))?
                .into_iter()
                .flatten()
            {
                let file = file?;
                let Some(data) = if_exists(file.metadata())? else {
                    continue;
                };
                if !blobs::is_older(&data, SESSION_LIFETIME) {
                    continue;
                }
                work(&file)?;
                count += 1;
            }
            // Fails where there are sessions left.
            let _ = std::fs::remove_dir(&repository);
        }
        Ok(count)
    }
}

impl UploadSession {
    fn new(path: PathBuf, length: u64) -> Arc<Self> {
        Arc::new_cyclic(|session| {
            let content = UploadFile::new(session.clone(), length);
            Self {
                path,
                length: AtomicU64::new(length),
                content: Arc::new(tokio::sync::Mutex::new(content)),
                writer: Mutex::default(),
            }
        })
    }

    /// Ends the request that adds to it now: a client that lost its connection comes back on a new
    /// one before the old one is known to be dead.
    fn take_over(&self) -> CancellationToken {
        let token = CancellationToken::new();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *writer, token.clone()).cancel();
        token
    }
}

impl Uploads {
    /// Makes all that has been received a blob. An upload whose content is not what the digest says
    /// is over.
    pub(super) async fn commit(
        self: &Arc<Self>,
        work: &Work,
        (name, id): (&RepositoryName, &UploadId),
        digest: &Digest,
        ReceivedUpload { mut turn, session }: ReceivedUpload,
    ) -> Result<(), StoreError> {
        let algorithm = DigestAlgorithm::of(digest)?;
        let (uploads, name, id, digest) = (self.clone(), name.clone(), id.clone(), digest.clone());
        work.run(move || {
            // Whoever had the turn before may have committed it.
            let file = if_exists(File::open(&session.path))?.ok_or(StoreError::UploadUnknown)?;
            if turn.finish(algorithm, &file)? != digest {
                uploads.forget(&id, &session)?;
                return Err(StoreError::DigestMismatch);
            }
            file.sync_data()?;
            blobs::publish(&uploads.layout, &name, &digest, &session.path)?;
            uploads.sessions.remove(&id);
            Ok(())
        })
        .await
    }

    /// Adds a body to an upload. What came stays, however the body ended.
    pub(super) async fn receive<B>(
        self: &Arc<Self>,
        work: &Work,
        (name, id): (&RepositoryName, &UploadId),
        range: ContentRange,
        mut body: B,
        timeouts: BodyTimeouts,
    ) -> Result<ReceivedUpload, StoreError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let exact = body.size_hint().exact();
        if range
            .length
            .is_some_and(|length| exact.is_some_and(|exact| exact != length))
        {
            return Err(StoreError::BadRange);
        }
        let uploads = self.clone();
        let (owned_name, owned_id) = (name.clone(), id.clone());
        let session = work
            .run(move || uploads.find(&owned_name, &owned_id))
            .await?;
        let token = session.take_over();
        let turn = session.content.clone().lock_owned().await;
        if let Some(begin) = range.begin.filter(|begin| *begin != turn.length) {
            tracing::debug!(begin, at = turn.length, "a chunk out of order");
            return Err(StoreError::OutOfOrder { at: turn.length });
        }
        let mut writer = BodyWriter {
            work,
            session: &session,
            turn: Some(turn),
            writing: None,
        };
        let read = token
            .run_until_cancelled(writer.read(&mut body, timeouts))
            .await;
        // What has come is written, however it ended, before anybody is told where the upload
        // stands.
        let turn = writer.turn().await;
        drop(writer);
        read.unwrap_or(Err(StoreError::Superseded))?;
        let turn = turn?.ok_or(StoreError::Superseded)?;
        Ok(ReceivedUpload { turn, session })
    }
}

/// Takes a body to the file, a batch at a time, and reads on meanwhile.
struct BodyWriter<'a> {
    work: &'a Work,
    session: &'a Arc<UploadSession>,
    turn: Option<Turn>,
    /// The batch comes back: memory that another thread gives free is not at hand here for long.
    writing: Option<Started<(Turn, Batch)>>,
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

    /// Waits for the batch before, then begins with this one.
    async fn write(&mut self, batch: Batch) -> Result<(), StoreError> {
        let Some(mut turn) = self.turn().await? else {
            return Err(StoreError::Superseded);
        };
        let path = self.session.path.clone();
        self.writing = Some(
            self.work
                .start(move || turn.add(&path, &batch).map(|()| (turn, batch))),
        );
        Ok(())
    }

    async fn turn(&mut self) -> Result<Option<Turn>, StoreError> {
        match self.writing.as_mut() {
            // Cancel safe: it stays here until it has ended.
            Some(writing) => {
                let written = writing.end().await;
                self.writing = None;
                written.map(|(turn, _)| Some(turn))
            }
            None => Ok(self.turn.take()),
        }
    }
}

/// 128 random bits.
fn new_id() -> Result<UploadId, StoreError> {
    let bytes = crypto::random::<16>().map_err(io::Error::from)?;
    Ok(UploadId::parse(&crypto::hex(&bytes)).expect("hexadecimal digits"))
}

/// Whether it is a name that [`new_id`] makes, and so one that is safe as a file's.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
