//! Uses that are not yet written. A pull costs no disk and, of what is pending already, no memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::times::UseTimes;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// The uses since the last flush, bounded by [`MAX_PENDING`].
#[derive(Debug, Default)]
pub(super) struct PendingUses {
    /// By the last digit of the digest, so that workers seldom wait for each other.
    shards: [Mutex<UsesByRepository>; SHARDS],
    entries: AtomicUsize,
    overflowed: AtomicBool,
}

pub(super) type UsesByRepository = HashMap<RepositoryName, RepositoryUses>;

/// The uses of one repository.
#[derive(Clone, Debug, Default)]
pub(super) struct RepositoryUses {
    pub(super) tags: HashMap<Tag, UseTimes>,
    pub(super) manifests: HashMap<Digest, UseTimes>,
}

impl RepositoryUses {
    pub(super) fn merge(&mut self, more: Self) {
        merge(&mut self.tags, more.tags);
        merge(&mut self.manifests, more.manifests);
    }
}

impl PendingUses {
    /// Adds a use of a manifest and of tags of it. At the bound what is new is dropped, which
    /// [`Self::take_overflow`] tells.
    pub(super) fn add<'t>(
        &self,
        repository: &RepositoryName,
        tags: impl IntoIterator<Item = &'t Tag>,
        manifest: Option<&Digest>,
        times: UseTimes,
    ) {
        let mut shard = self.shard(manifest);
        let is_full = self.entries.load(Ordering::Relaxed) >= MAX_PENDING;
        let uses = match shard.get_mut(repository) {
            Some(uses) => uses,
            None if is_full => return self.overflowed.store(true, Ordering::Relaxed),
            None => shard.entry(repository.clone()).or_default(),
        };
        let tags = tags
            .into_iter()
            .map(|tag| add(&mut uses.tags, tag, times, is_full));
        let mut added: Added = tags.fold(Added::default(), Added::and);
        if let Some(digest) = manifest {
            added = added.and(add(&mut uses.manifests, digest, times, is_full));
        }
        drop(shard);
        if added.new > 0 {
            self.entries.fetch_add(added.new, Ordering::Relaxed);
        }
        if added.dropped {
            self.overflowed.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.load(Ordering::Relaxed) == 0 && !self.overflowed.load(Ordering::Relaxed)
    }

    /// Whether a flush is due before its time.
    pub(super) fn is_full(&self) -> bool {
        self.entries.load(Ordering::Relaxed) >= EARLY_FLUSH
    }

    /// Whether uses were dropped since the last call.
    pub(super) fn take_overflow(&self) -> bool {
        self.overflowed.swap(false, Ordering::Relaxed)
    }

    pub(super) fn put_overflow_back(&self) {
        self.overflowed.store(true, Ordering::Relaxed);
    }

    /// Takes everything out.
    pub(super) fn take(&self) -> UsesByRepository {
        let mut all = UsesByRepository::new();
        let mut taken = 0;
        for shard in &self.shards {
            for (repository, uses) in std::mem::take(&mut *lock(shard)) {
                taken += uses.tags.len() + uses.manifests.len();
                all.entry(repository).or_default().merge(uses);
            }
        }
        self.entries.fetch_sub(taken, Ordering::Relaxed);
        all
    }

    /// Puts back what could not be written.
    pub(super) fn put_back(&self, all: UsesByRepository) {
        for (repository, uses) in all {
            for (tag, times) in &uses.tags {
                self.add(&repository, [tag], None, *times);
            }
            for (digest, times) in &uses.manifests {
                self.add(&repository, [], Some(digest), *times);
            }
        }
    }

    /// The pending uses of a repository.
    pub(super) fn of(&self, repository: &RepositoryName) -> RepositoryUses {
        let mut found = RepositoryUses::default();
        for shard in &self.shards {
            if let Some(uses) = lock(shard).get(repository) {
                found.merge(uses.clone());
            }
        }
        found
    }

    /// The pending uses of a tag.
    pub(super) fn of_tag(&self, repository: &RepositoryName, tag: &Tag) -> UseTimes {
        let mut times = UseTimes::default();
        for shard in &self.shards {
            if let Some(found) = lock(shard)
                .get(repository)
                .and_then(|uses| uses.tags.get(tag))
            {
                times.merge(*found);
            }
        }
        times
    }

    fn shard(&self, manifest: Option<&Digest>) -> MutexGuard<'_, UsesByRepository> {
        let last = manifest.and_then(|digest| digest.as_str().bytes().last());
        lock(&self.shards[usize::from(last.unwrap_or_default()) % SHARDS])
    }
}

/// What adding changed.
#[derive(Clone, Copy, Default)]
struct Added {
    new: usize,
    dropped: bool,
}

impl Added {
    fn and(self, other: Self) -> Self {
        Self {
            new: self.new + other.new,
            dropped: self.dropped || other.dropped,
        }
    }
}

fn add<K: Clone + Eq + Hash>(
    known: &mut HashMap<K, UseTimes>,
    key: &K,
    times: UseTimes,
    is_full: bool,
) -> Added {
    if let Some(known) = known.get_mut(key) {
        known.merge(times);
        return Added::default();
    }
    if !is_full {
        known.insert(key.clone(), times);
    }
    Added {
        new: usize::from(!is_full),
        dropped: is_full,
    }
}

fn merge<K: Eq + Hash>(all: &mut HashMap<K, UseTimes>, more: HashMap<K, UseTimes>) {
    for (key, times) in more {
        all.entry(key).or_default().merge(times);
    }
}

fn lock(shard: &Mutex<UsesByRepository>) -> MutexGuard<'_, UsesByRepository> {
    // Plain data: a panic elsewhere leaves nothing half-done in it.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 16;
/// About 4 MiB with their keys.
const EARLY_FLUSH: usize = 20_000;
/// About 20 MiB: reached only where nothing can be written.
const MAX_PENDING: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: usize) -> Digest {
        Digest::parse(&format!("sha256:{n:064x}")).unwrap()
    }

    #[test]
    fn the_later_time_counts_whoever_comes_first() {
        let (pending, name) = (PendingUses::default(), RepositoryName::parse("a").unwrap());
        let tag = Tag::parse("v1").unwrap();
        for (n, times) in [(1, UseTimes::pulled(7)), (2, UseTimes::pulled(5))] {
            pending.add(&name, [&tag], Some(&digest(n)), times);
        }
        pending.add(&name, [&tag], Some(&digest(1)), UseTimes::pushed(3));
        let both = UseTimes {
            pushed: 3,
            pulled: 7,
        };
        for uses in [pending.of(&name), pending.take().remove(&name).unwrap()] {
            assert_eq!(uses.tags[&tag], both);
            assert_eq!(uses.manifests[&digest(1)], both);
            assert_eq!(uses.manifests[&digest(2)], UseTimes::pulled(5));
        }
        assert!(pending.is_empty());
    }

    #[test]
    fn at_the_bound_the_known_go_on_and_what_is_dropped_is_said() {
        let (pending, name) = (PendingUses::default(), RepositoryName::parse("a").unwrap());
        for n in 0..MAX_PENDING {
            pending.add(&name, [], Some(&digest(n)), UseTimes::pulled(1));
            assert_eq!(pending.is_full(), n + 1 >= EARLY_FLUSH);
        }
        pending.add(&name, [], Some(&digest(0)), UseTimes::pulled(2));
        assert!(!pending.take_overflow());
        pending.add(&name, [], Some(&digest(MAX_PENDING)), UseTimes::pulled(2));
        assert!(!pending.is_empty() && pending.take_overflow() && !pending.take_overflow());
        let taken = pending.take();
        assert_eq!(taken[&name].manifests.len(), MAX_PENDING);
        assert_eq!(taken[&name].manifests[&digest(0)].pulled, 2);
        pending.put_back(taken);
        assert_eq!(pending.of(&name).manifests.len(), MAX_PENDING);
    }
}
