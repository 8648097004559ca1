//! Locks of repositories. Callers of this process queue by name; processes exclude each other by
//! `flock` on the repository's directory. Every wait has a timeout, and no thread waits: the file
//! lock is polled from asynchronous code.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::StoreError;
use super::lanes::Lanes;
use super::layout::{RepositoryLock, StoreLayout};
use crate::keyed_lock::{KeyGuard, KeyedLock};
use crate::registry::name::RepositoryName;

/// Runs work under the lock of a repository, on the lane for writes.
#[derive(Debug)]
pub(super) struct RepositoryLocks {
    queues: KeyedLock<RepositoryName>,
    layout: StoreLayout,
    lanes: Arc<Lanes>,
}

/// An exclusive lock: nobody else changes the repository.
#[derive(Debug)]
pub(super) struct WriteLock {
    // Dropped in this order: the next caller of this process finds the file lock free.
    pub(super) directory: RepositoryLock,
    _key: KeyGuard,
}

/// A caller at the head of the queue of this process.
struct QueueHead<K> {
    name: RepositoryName,
    key: K,
    /// Until then it waits for other processes.
    deadline: Instant,
}

/// How long a request waits for a repository that another request, a collection or another process
/// has locked. A collection locks a repository while it reads its manifests: for seconds, if there
/// are tens of thousands.
const REPOSITORY_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(1);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(100);

impl RepositoryLocks {
    pub(super) fn new(layout: StoreLayout, lanes: Arc<Lanes>) -> Self {
        Self {
            queues: KeyedLock::new(),
            layout,
            lanes,
        }
    }

    /// Locks a repository for adding blobs, many callers at once, and runs work on it. Creates it
    /// if it does not exist.
    ///
    /// Errors: `Locked` after [`REPOSITORY_LOCK_TIMEOUT`]; those of the work.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        name: &RepositoryName,
        work: impl FnOnce(&RepositoryLock) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + REPOSITORY_LOCK_TIMEOUT;
        let key = self.queues.read(name.clone(), REPOSITORY_LOCK_TIMEOUT);
        let head = QueueHead {
            name: name.clone(),
            key: key.await.map_err(|_| StoreError::Locked)?,
            deadline,
        };
        let lock =
            |layout: &StoreLayout, name: &RepositoryName| layout.lock_shared(name, Duration::ZERO);
        self.run(head, lock, |lock| work(&lock)).await
    }

    /// Locks a repository for changing its index or removing blobs, one caller at a time, and runs
    /// work on it. Creates it if it does not exist.
    ///
    /// Errors: as of [`Self::read`].
    pub(super) async fn write_or_create<T: Send + 'static>(
        &self,
        name: &RepositoryName,
        work: impl FnOnce(&RepositoryLock) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let head = self.write_head(name).await?;
        let lock = |layout: &StoreLayout, name: &RepositoryName| {
            layout.lock_exclusive(name, Duration::ZERO)
        };
        self.run(head, lock, |lock| work(&lock)).await
    }

    /// As [`Self::write_or_create`], but a repository that does not exist is not created: the work
    /// gets `None`.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        name: &RepositoryName,
        work: impl FnOnce(Option<&RepositoryLock>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let head = self.write_head(name).await?;
        let lock = |layout: &StoreLayout, name: &RepositoryName| {
            layout.lock_existing(name, Duration::ZERO)
        };
        self.run(head, lock, |lock| work(lock.as_ref())).await
    }

    /// Locks a repository exclusively, on a thread that may block. `None`: it does not exist.
    ///
    /// Errors: `Locked` after twice [`REPOSITORY_LOCK_TIMEOUT`].
    pub(super) fn blocking_write(
        &self,
        name: &RepositoryName,
    ) -> Result<Option<WriteLock>, StoreError> {
        let key = self
            .queues
            .blocking_write(name.clone(), REPOSITORY_LOCK_TIMEOUT)
            .map_err(|_| StoreError::Locked)?;
        let locked = self.layout.lock_existing(name, REPOSITORY_LOCK_TIMEOUT);
        let directory = if_free(locked)?.ok_or(StoreError::Locked)?;
        Ok(directory.map(|directory| WriteLock {
            directory,
            _key: key,
        }))
    }

    async fn write_head(&self, name: &RepositoryName) -> Result<QueueHead<KeyGuard>, StoreError> {
        let deadline = Instant::now() + REPOSITORY_LOCK_TIMEOUT;
        let key = self.queues.write(name.clone(), REPOSITORY_LOCK_TIMEOUT);
        Ok(QueueHead {
            name: name.clone(),
            key: key.await.map_err(|_| StoreError::Locked)?,
            deadline,
        })
    }

    /// Tries the file lock until it is free, at growing intervals. The attempt that gets it also
    /// does the work: each hop to another thread costs about as much as a small write. The job
    /// has the key, so that the next caller waits for the work even if this request is dropped.
    async fn run<K, L, T>(
        &self,
        mut head: QueueHead<K>,
        try_lock: fn(&StoreLayout, &RepositoryName) -> io::Result<L>,
        mut work: impl FnOnce(L) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError>
    where
        K: Send + 'static,
        L: 'static,
        T: Send + 'static,
    {
        let deadline = head.deadline;
        let mut interval = MIN_POLL_INTERVAL;
        loop {
            let layout = self.layout.clone();
            let attempt = self.lanes.write.run(move || {
                let locked = if_free(try_lock(&layout, &head.name));
                let locked = locked.map_err(|error| layout.explain(error.into()))?;
                let Some(lock) = locked else {
                    return Ok(ControlFlow::Continue((head, work)));
                };
                let done = work(lock).map_err(|error| layout.explain(error));
                drop(head.key);
                done.map(ControlFlow::Break)
            });
            (head, work) = match attempt.await? {
                ControlFlow::Break(done) => return Ok(done),
                ControlFlow::Continue(pending) => pending,
            };
            if Instant::now() >= deadline {
                return Err(StoreError::Locked);
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + interval)).await;
            interval = (interval * 2).min(MAX_POLL_INTERVAL);
        }
    }
}

/// `None` for a lock that was not released in time.
fn if_free<T>(locked: io::Result<T>) -> io::Result<Option<T>> {
    match locked {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(error),
    }
}
