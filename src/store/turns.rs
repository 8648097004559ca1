//! Whose turn it is to change a repository, within this process: waiting for a lock of the
//! directory would hold up a thread that others need.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::registry::name::RepositoryName;

/// A fixed number of locks, of which several repositories may share one: names cost no memory.
pub(super) struct Turns {
    locks: Vec<RwLock<()>>,
    hasher: RandomState,
}

const LOCKS: u64 = 256;

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            locks: (0..LOCKS).map(|_| RwLock::new(())).collect(),
            hasher: RandomState::new(),
        }
    }

    fn lock(&self, name: &RepositoryName) -> &RwLock<()> {
        let place = usize::try_from(self.hasher.hash_one(name) % LOCKS).unwrap_or_default();
        self.locks
            .get(place)
            .or_else(|| self.locks.first())
            .expect("there are some")
    }

    /// For adding blobs: many at once.
    pub(super) async fn to_add(&self, name: &RepositoryName) -> RwLockReadGuard<'_, ()> {
        self.lock(name).read().await
    }

    /// For changing the index: one at a time.
    pub(super) async fn to_change(&self, name: &RepositoryName) -> RwLockWriteGuard<'_, ()> {
        self.lock(name).write().await
    }

    /// The same on a thread that may wait. Not for asynchronous code.
    pub(super) fn wait_to_change(&self, name: &RepositoryName) -> RwLockWriteGuard<'_, ()> {
        self.lock(name).blocking_write()
    }
}
