//! Locks for writes to tags of an upstream, from the check whether a tag exists to the end of the
//! write.

use std::time::Duration;

use tokio::time::Instant;

use crate::keyed_lock::{KeyGuard, KeyedLock, LockTimeout};
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// One lock for each tag that is being written.
pub(crate) struct TagLocks {
    locks: KeyedLock<LockedTag>,
}

/// A tag of one upstream registry. Two domains with the same upstream share it.
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

impl TagLocks {
    pub(crate) fn new() -> Self {
        Self {
            locks: KeyedLock::new(),
        }
    }

    /// Locks all of these tags, within [`LOCK_TIMEOUT`] together. Always in the same order, so that
    /// no two callers wait for each other.
    pub(super) async fn lock<'t>(
        &self,
        registry: &str,
        repository: &RepositoryName,
        tags: impl Iterator<Item = &'t Tag>,
    ) -> Result<Vec<KeyGuard>, LockTimeout> {
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
        let mut guards = Vec::with_capacity(keys.len());
        for key in keys {
            let timeout = deadline.saturating_duration_since(Instant::now());
            guards.push(self.locks.write(key, timeout).await?);
        }
        Ok(guards)
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
            assert_eq!(guards.expect("free").len(), tags.len());
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let both = tags(&["2", "3"]);
        assert!(locks.lock("a", &app, both.iter()).await.is_err());
        assert_eq!(begun.elapsed(), LOCK_TIMEOUT);
        drop(held);
        assert!(locks.lock("a", &app, both.iter()).await.is_ok());
    }
}
