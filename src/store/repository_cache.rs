//! Caches the indexes of the repositories that were used last, within bounds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::repository::StoredRepository;
use crate::registry::name::RepositoryName;

/// Bounded by [`MAX_REPOSITORIES`] and [`MAX_INDEX_BYTES`]; drops the least recently used.
#[derive(Debug, Default)]
pub(super) struct RepositoryCache {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_name: HashMap<RepositoryName, CachedRepository>,
    /// The number of uses so far.
    clock: u64,
}

#[derive(Debug)]
struct CachedRepository {
    repository: Arc<StoredRepository>,
    used_at: u64,
}

const MAX_REPOSITORIES: usize = 1024;
/// By the size of the index files. A parsed index takes about three times as much.
const MAX_INDEX_BYTES: u64 = 32 * 1024 * 1024;

impl RepositoryCache {
    pub(super) fn get(&self, name: &RepositoryName) -> Option<Arc<StoredRepository>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.clock += 1;
        let clock = entries.clock;
        let cached = entries.by_name.get_mut(name)?;
        cached.used_at = clock;
        Some(cached.repository.clone())
    }

    /// As [`Self::get`], without counting as a use: a catalog reads all repositories.
    pub(super) fn peek(&self, name: &RepositoryName) -> Option<Arc<StoredRepository>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = entries.by_name.get(name)?;
        Some(cached.repository.clone())
    }

    /// Adds a repository unless another caller did, and returns the cached one.
    pub(super) fn insert(
        &self,
        name: &RepositoryName,
        repository: Arc<StoredRepository>,
    ) -> Arc<StoredRepository> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.make_space();
        entries.clock += 1;
        let cached = CachedRepository {
            repository,
            used_at: entries.clock,
        };
        let cached = entries.by_name.entry(name.clone()).or_insert(cached);
        cached.repository.clone()
    }
}

impl Entries {
    /// Drops a quarter of the entries when a bound is reached, so that the sort costs each
    /// insertion little. A repository stays alive until the requests that use it end.
    fn make_space(&mut self) {
        let bytes: u64 = self
            .by_name
            .values()
            .map(|cached| cached.repository.index_bytes())
            .sum();
        if self.by_name.len() < MAX_REPOSITORIES && bytes < MAX_INDEX_BYTES {
            return;
        }
        let mut uses: Vec<_> = self.by_name.values().map(|cached| cached.used_at).collect();
        uses.sort_unstable();
        let oldest_kept = uses.get(uses.len().div_ceil(4)).copied();
        self.by_name
            .retain(|_, cached| oldest_kept.is_some_and(|oldest| cached.used_at >= oldest));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.by_name.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::StoreLayout;
    use super::*;

    #[test]
    fn the_least_recently_used_repositories_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let layout = StoreLayout::create(directory.path().to_owned()).unwrap();
        let cache = RepositoryCache::default();
        let name = |n: usize| RepositoryName::parse(&format!("team/app-{n}")).unwrap();
        for n in 0..3 * MAX_REPOSITORIES {
            let repository = StoredRepository::new(layout.clone(), name(n));
            cache.insert(&name(n), Arc::new(repository));
            assert!(cache.get(&name(0)).is_some(), "in use all the time");
        }
        assert!(cache.entries.lock().unwrap().len() <= MAX_REPOSITORIES);
        assert!(cache.get(&name(1)).is_none());
        assert!(cache.get(&name(3 * MAX_REPOSITORIES - 1)).is_some());
    }
}
