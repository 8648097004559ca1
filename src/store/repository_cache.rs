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
/// By the size of the index files. A parsed index takes about four times as much.
const MAX_INDEX_BYTES: u64 = 16 * 1024 * 1024;

impl RepositoryCache {
    pub(super) fn get(&self, name: &RepositoryName) -> Option<Arc<StoredRepository>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.clock += 1;
        let clock = entries.clock;
        let cached = entries.by_name.get_mut(name)?;
        cached.used_at = clock;
        Some(cached.repository.clone())
    }

    /// As [`Self::get`], without counting as a use: catalogs and collections read all repositories.
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
    /// When a bound is reached, drops entries until three quarters of it are used, so that the sort
    /// costs each insertion little. A repository stays alive until the requests that use it end.
    fn make_space(&mut self) {
        let mut uses: Vec<_> = self
            .by_name
            .values()
            .map(|cached| (cached.used_at, cached.repository.index_bytes()))
            .collect();
        let mut bytes: u64 = uses.iter().map(|(_, bytes)| bytes).sum();
        if uses.len() < MAX_REPOSITORIES && bytes < MAX_INDEX_BYTES {
            return;
        }
        uses.sort_unstable();
        let mut count = uses.len();
        let mut oldest_kept = 0;
        for (used_at, index_bytes) in uses {
            if count <= MAX_REPOSITORIES / 4 * 3 && bytes <= MAX_INDEX_BYTES / 4 * 3 {
                break;
            }
            count -= 1;
            bytes -= index_bytes;
            oldest_kept = used_at + 1;
        }
        self.by_name
            .retain(|_, cached| cached.used_at >= oldest_kept);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.by_name.len()
    }

    #[cfg(test)]
    fn index_bytes(&self) -> u64 {
        let cached = self.by_name.values();
        cached.map(|cached| cached.repository.index_bytes()).sum()
    }
}

#[cfg(test)]
impl RepositoryCache {
    pub(super) fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::StoreLayout;
    use super::*;

    #[test]
    fn the_least_recently_used_repositories_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let layout = StoreLayout::create(directory.path()).unwrap();
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

    #[test]
    fn large_indexes_are_dropped_before_they_take_much_memory() {
        let directory = tempfile::tempdir().unwrap();
        let layout = StoreLayout::create(directory.path()).unwrap();
        let cache = RepositoryCache::default();
        let size = usize::try_from(MAX_INDEX_BYTES).unwrap() / 8;
        let index = format!(
            "{{\"schemaVersion\":2,\"manifests\":[]{}}}",
            " ".repeat(size)
        );
        for n in 0..30 {
            let name = RepositoryName::parse(&format!("app-{n}")).unwrap();
            let path = layout.repository(&name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join(super::super::layout::INDEX_FILE), &index).unwrap();
            let repository = StoredRepository::new(layout.clone(), name.clone());
            let repository = cache.insert(&name, Arc::new(repository));
            repository.index().unwrap();
            let bytes = cache.entries.lock().unwrap().index_bytes();
            assert!(bytes <= MAX_INDEX_BYTES + index.len() as u64, "{bytes}");
            assert!(cache.get(&name).is_some());
        }
    }
}
