//! Locks of repositories. Callers of this process queue by name; processes exclude each other by
//! `flock` on the repository's directory. Nobody waits without a timeout, and no thread waits: the
//! file lock is tried again and again from asynchronous code.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Store;
use super::error::StoreError;
use super::layout::{RepositoryLock, StoreLayout};
use crate::keyed_lock::{KeyGuard, KeyedLock, SharedKeyGuard};
use crate::registry::name::RepositoryName;

/// The queues of this process.
#[derive(Debug)]
pub(super) struct RepositoryLocks(KeyedLock<RepositoryName>);

/// Other callers of this process may add blobs too.
#[derive(Debug)]
pub(super) struct ReadLock {
    // Dropped in this order: the next caller of this process finds the file lock free.
    pub(super) directory: RepositoryLock,
    _key: SharedKeyGuard,
}

/// Nobody else changes the repository.
#[derive(Debug)]
pub(super) struct WriteLock {
    pub(super) directory: RepositoryLock,
    _key: KeyGuard,
}

/// How long a request waits for a repository that another request, a collection or another process
/// has locked. A collection holds a repository while it reads its manifests: seconds, if there are
/// tens of thousands.
pub(super) const REPOSITORY_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(1);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(100);

impl RepositoryLocks {
    pub(super) fn new() -> Self {
        Self(KeyedLock::new())
    }

    /// The queue of this process for a thread that may block.
    pub(super) fn blocking_write(&self, name: &RepositoryName) -> Result<KeyGuard, StoreError> {
        let guard = self.0.blocking_write(name.clone(), REPOSITORY_LOCK_TIMEOUT);
        guard.map_err(|_| StoreError::Locked)
    }
}

impl Store {
    /// Locks a repository for adding blobs: many callers at once. Makes it if it does not exist.
    ///
    /// Errors: `Locked` after [`REPOSITORY_LOCK_TIMEOUT`].
    pub(super) async fn read(
        self: &Arc<Self>,
        name: &RepositoryName,
    ) -> Result<ReadLock, StoreError> {
        let deadline = Instant::now() + REPOSITORY_LOCK_TIMEOUT;
        let key = self
            .locks
            .0
            .read(name.clone(), REPOSITORY_LOCK_TIMEOUT)
            .await
            .map_err(|_| StoreError::Locked)?;
        let lock =
            |layout: &StoreLayout, name: &RepositoryName| layout.lock_shared(name, Duration::ZERO);
        Ok(ReadLock {
            directory: self.poll_lock(name, deadline, lock).await?,
            _key: key,
        })
    }

    /// Locks a repository for changing its index or removing blobs: one caller at a time. Makes it
    /// if it does not exist.
    ///
    /// Errors: as of [`Self::read`].
    pub(super) async fn write_or_create(
        self: &Arc<Self>,
        name: &RepositoryName,
    ) -> Result<WriteLock, StoreError> {
        let (key, deadline) = self.write_key(name).await?;
        let lock = |layout: &StoreLayout, name: &RepositoryName| {
            layout.lock_exclusive(name, Duration::ZERO)
        };
        Ok(WriteLock {
            directory: self.poll_lock(name, deadline, lock).await?,
            _key: key,
        })
    }

    /// As [`Self::write_or_create`] for a repository that exists. `None`: it does not.
    pub(super) async fn write(
        self: &Arc<Self>,
        name: &RepositoryName,
    ) -> Result<Option<WriteLock>, StoreError> {
        let (key, deadline) = self.write_key(name).await?;
        let lock = |layout: &StoreLayout, name: &RepositoryName| {
            layout.lock_existing(name, Duration::ZERO)
        };
        let directory = self.poll_lock(name, deadline, lock).await?;
        Ok(directory.map(|directory| WriteLock {
            directory,
            _key: key,
        }))
    }

    async fn write_key(&self, name: &RepositoryName) -> Result<(KeyGuard, Instant), StoreError> {
        let deadline = Instant::now() + REPOSITORY_LOCK_TIMEOUT;
        let key = self
            .locks
            .0
            .write(name.clone(), REPOSITORY_LOCK_TIMEOUT)
            .await;
        Ok((key.map_err(|_| StoreError::Locked)?, deadline))
    }

    /// Tries until nobody has the lock.
    async fn poll_lock<T: Send + 'static>(
        self: &Arc<Self>,
        name: &RepositoryName,
        deadline: Instant,
        try_lock: fn(&StoreLayout, &RepositoryName) -> io::Result<T>,
    ) -> Result<T, StoreError> {
        let mut interval = MIN_POLL_INTERVAL;
        loop {
            let (store, name) = (self.clone(), name.clone());
            let attempt = self
                .lanes
                .write
                .run(move || match try_lock(&store.layout, &name) {
                    Ok(lock) => Ok(Some(lock)),
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
                    Err(error) => Err(error.into()),
                })
                .await?;
            if let Some(lock) = attempt {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(StoreError::Locked);
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + interval)).await;
            interval = (interval * 2).min(MAX_POLL_INTERVAL);
        }
    }
}
