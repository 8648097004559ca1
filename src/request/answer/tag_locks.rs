//! Locks for writes to manifests of an upstream, from the check whether a tag exists to the end of
//! the write. Whoever writes shares the lock of the repository, and has that of each tag alone; whoever
//! deletes a manifest, with which all tags go that lead to it, has the repository alone.

use std::time::Duration;

use tokio::time::Instant;

use crate::keyed_lock::{KeyGuard, KeyedLock, LockTimeout, SharedKeyGuard};
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// One lock for each tag that is being written, and for its repository.
pub(crate) struct TagLocks {
    repositories: KeyedLock<LockedRepository>,
    tags: KeyedLock<LockedTag>,
}

/// A repository of one upstream registry. Two domains with the same upstream share it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LockedRepository {
    registry: String,
    repository: RepositoryName,
}

/// The locks of a write to some tags, released on drop.
#[derive(Debug)]
#[must_use]
pub(in crate::request) struct WriteLocks {
    #[cfg_attr(not(test), expect(dead_code, reason = "dropped"))]
    tags: Vec<KeyGuard>,
    #[expect(dead_code, reason = "dropped, after those of the tags")]
    repository: SharedKeyGuard,
}

/// A tag of such a repository.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LockedTag {
    registry: String,
    repository: RepositoryName,
    tag: Tag,
}

/// Longer than a registry needs for a manifest, shorter than clients wait. A write to a registry
/// that does not respond holds its locks for up to `upstream_head` plus `upstream_commit`; other
/// writes get 503 meanwhile.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Writers of the repository wait behind whoever waits for all of it.
const REPOSITORY_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

impl TagLocks {
    pub(crate) fn new() -> Self {
        Self {
            repositories: KeyedLock::new(),
            tags: KeyedLock::new(),
        }
    }

    /// Locks all of these tags, within [`LOCK_TIMEOUT`] together. Always in the same order, and the
    /// repository first, so that no two callers wait for each other. Without tags, only that nobody
    /// locks the whole repository.
    pub(in crate::request) async fn lock<'t>(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: impl Iterator<Item = &'t Tag>,
    ) -> Result<WriteLocks, LockTimeout> {
        let mut keys: Vec<_> = tags
            .map(|tag| LockedTag {
                registry: registry.to_owned(),
                repository: repository.clone(),
                tag: tag.clone(),
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let key = LockedRepository::new(registry, repository);
        let repository = self.repositories.read(key, LOCK_TIMEOUT).await?;
        let mut tags = Vec::with_capacity(keys.len());
        for key in keys {
            let timeout = deadline.saturating_duration_since(Instant::now());
            tags.push(self.tags.write(key, timeout).await?);
        }
        Ok(WriteLocks { tags, repository })
    }

    /// Locks a whole repository, within [`REPOSITORY_LOCK_TIMEOUT`].
    pub(in crate::request) async fn lock_repository(
        &self,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<KeyGuard, LockTimeout> {
        let key = LockedRepository::new(registry, repository);
        self.repositories.write(key, REPOSITORY_LOCK_TIMEOUT).await
    }
}

impl LockedRepository {
    fn new(registry: &str, repository: &RepositoryName) -> Self {
        Self {
            registry: registry.to_owned(),
            repository: repository.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(names: &[&str]) -> Vec<Tag> {
        let tags = names.iter().map(|name| Tag::parse(name).expect(name));
        tags.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_same_tag_of_the_same_registry_waits() {
        let locks = TagLocks::new();
        let app = RepositoryName::parse("app").expect("valid");
        let web = RepositoryName::parse("web").expect("valid");
        let (first, other) = (tags(&["1", "2"]), tags(&["3"]));
        let held = locks.lock("a", &app, first.iter()).await.expect("free");
        let begun = Instant::now();
        for (registry, repository, tags) in [
            ("b", &app, &first),
            ("a", &web, &first),
            ("a", &app, &other),
        ] {
            let guards = locks.lock(registry, repository, tags.iter()).await;
            assert_eq!(guards.expect("free").tags.len(), tags.len());
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let both = tags(&["2", "3"]);
        assert!(locks.lock("a", &app, both.iter()).await.is_err());
        assert_eq!(begun.elapsed(), LOCK_TIMEOUT);
        drop(held);
        assert!(locks.lock("a", &app, both.iter()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_repository_waits_for_its_writers_and_they_for_it() {
        let locks = TagLocks::new();
        let app = RepositoryName::parse("app").expect("valid");
        let web = RepositoryName::parse("web").expect("valid");
        let (one, none) = (tags(&["1"]), tags(&[]));
        for writers in [&one, &none] {
            let writing = locks.lock("a", &app, writers.iter()).await.expect("free");
            assert!(locks.lock_repository("a", &app).await.is_err());
            assert!(locks.lock_repository("a", &web).await.is_ok());
            assert!(locks.lock_repository("b", &app).await.is_ok());
            drop(writing);
            let whole = locks.lock_repository("a", &app).await.expect("free");
            assert!(locks.lock("a", &app, writers.iter()).await.is_err());
            drop(whole);
        }
    }
}
