//! The times of the last pulls of manifests, which an image layout cannot express. They are
//! collected in memory and written once a minute; a killed process loses the last minute.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::StoreError;
use super::files::{self, OpenDirectory};
use super::index::RepositoryIndex;
use super::layout::{StoreLayout, if_exists};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::state_file::{FileLock, LOCK_TIMEOUT, LockMode};

type Pulls = BTreeMap<Digest, u64>;

/// The pulls that are not yet written, in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct PullTimes {
    pending: Mutex<HashMap<RepositoryName, Pulls>>,
}

impl PullTimes {
    /// Records that a manifest is pulled now.
    pub(super) fn record(&self, name: &RepositoryName, digest: &Digest) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let mut pending = self.pending();
        if let Some(pulls) = pending.get_mut(name) {
            pulls.insert(digest.clone(), now);
        } else {
            pending.insert(name.clone(), BTreeMap::from([(digest.clone(), now)]));
        }
    }

    /// Adds the pending pulls to the files, and drops the manifests that the index does not have.
    /// Pulls that cannot be written stay pending.
    ///
    /// Errors: the last error; the other repositories are written nevertheless.
    pub(super) fn flush(
        &self,
        layout: &StoreLayout,
        index: impl Fn(&RepositoryName) -> Result<Arc<RepositoryIndex>, StoreError>,
    ) -> Result<(), StoreError> {
        let pending = std::mem::take(&mut *self.pending());
        if pending.is_empty() {
            return Ok(());
        }
        // Other processes update these files, too.
        let locked = OpenDirectory::open(&layout.pull_times()).and_then(|directory| {
            FileLock::acquire_open(directory.into_file(), LockMode::Exclusive, LOCK_TIMEOUT)
        });
        let _lock = match locked {
            Ok(lock) => lock,
            Err(error) => {
                pending
                    .into_iter()
                    .for_each(|(name, pulls)| self.put_back(name, pulls));
                return Err(error.into());
            }
        };
        let mut flushed = Ok(());
        for (name, pulls) in pending {
            if let Err(error) = write(layout, &name, &pulls, index(&name)) {
                self.put_back(name, pulls);
                flushed = Err(error);
            }
        }
        flushed
    }

    /// Returns pulls to the pending ones. The later pull of a manifest counts.
    fn put_back(&self, name: RepositoryName, mut pulls: Pulls) {
        let mut pending = self.pending();
        let later = pending.entry(name).or_default();
        pulls.append(later);
        *later = pulls;
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<RepositoryName, Pulls>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(
    layout: &StoreLayout,
    name: &RepositoryName,
    pulls: &Pulls,
    index: Result<Arc<RepositoryIndex>, StoreError>,
) -> Result<(), StoreError> {
    let index = match index {
        Ok(index) => index,
        Err(StoreError::RepositoryUnknown) => Arc::default(),
        // It is unknown which manifests are gone, so that none may be dropped.
        Err(error) => return Err(error),
    };
    let mut all = read(layout, name)?;
    for (digest, at) in pulls {
        let last = all.entry(digest.as_str().to_owned()).or_default();
        *last = (*last).max(*at);
    }
    all.retain(|digest, _| {
        Digest::parse(digest).is_ok_and(|digest| index.manifest(&digest).is_some())
    });
    let text = serde_json::to_vec(&all).map_err(io::Error::other)?;
    Ok(files::replace(&layout.pull_times_of(name), &text)?)
}

/// The times of the last pulls, by digest.
///
/// Errors: `InvalidData` for a damaged file; those of the file system.
pub(super) fn read(
    layout: &StoreLayout,
    name: &RepositoryName,
) -> io::Result<BTreeMap<String, u64>> {
    let path = layout.pull_times_of(name);
    let Some(bytes) = if_exists(files::read(&path))? else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("{} is damaged: {error}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

#[cfg(test)]
mod tests {
    use super::super::index::ManifestEntry;
    use super::*;

    fn layout() -> (tempfile::TempDir, StoreLayout, RepositoryName) {
        let directory = tempfile::tempdir().unwrap();
        let layout = StoreLayout::create(directory.path()).unwrap();
        let name = RepositoryName::parse("base/app").unwrap();
        (directory, layout, name)
    }

    fn digest(n: usize) -> Digest {
        Digest::parse(&format!("sha256:{n:064x}")).unwrap()
    }

    fn index(digests: impl IntoIterator<Item = usize>) -> Arc<RepositoryIndex> {
        let mut index = RepositoryIndex::default();
        for n in digests {
            index.insert(&digest(n), ManifestEntry::new("a/b".to_owned(), 1, None));
        }
        Arc::new(index)
    }

    #[test]
    fn pulls_are_added_to_those_written_before() {
        let (_directory, layout, name) = layout();
        let pull_times = PullTimes::default();
        for n in [1, 2] {
            pull_times.record(&name, &digest(n));
            pull_times.flush(&layout, |_| Ok(index(1..4))).unwrap();
        }
        assert_eq!(read(&layout, &name).unwrap().len(), 2);
        pull_times.record(&name, &digest(3));
        pull_times.flush(&layout, |_| Ok(index(2..4))).unwrap();
        let left: Vec<_> = read(&layout, &name).unwrap().into_keys().collect();
        assert_eq!(left, [digest(2).as_str(), digest(3).as_str()]);
    }

    #[test]
    fn an_index_that_cannot_be_read_costs_no_pull_times() {
        let (_directory, layout, name) = layout();
        let pull_times = PullTimes::default();
        pull_times.record(&name, &digest(1));
        pull_times.flush(&layout, |_| Ok(index([1, 2]))).unwrap();
        pull_times.record(&name, &digest(2));
        let unreadable = |_: &RepositoryName| Err(io::Error::other("broken").into());
        pull_times.flush(&layout, unreadable).unwrap_err();
        assert_eq!(read(&layout, &name).unwrap().len(), 1);
        pull_times.flush(&layout, |_| Ok(index([1, 2]))).unwrap();
        assert_eq!(read(&layout, &name).unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_replaced() {
        let (_directory, layout, name) = layout();
        let path = layout.pull_times_of(&name);
        std::fs::write(&path, "{\"half").unwrap();
        let pull_times = PullTimes::default();
        pull_times.record(&name, &digest(1));
        pull_times.flush(&layout, |_| Ok(index([1]))).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"half");
        std::fs::remove_file(&path).unwrap();
        pull_times.flush(&layout, |_| Ok(index([1]))).unwrap();
        assert_eq!(read(&layout, &name).unwrap().len(), 1);
    }

    #[test]
    fn two_processes_lose_no_pulls_of_each_other() {
        let (_directory, layout, name) = layout();
        std::thread::scope(|scope| {
            for process in 0..2 {
                let (layout, name) = (&layout, &name);
                scope.spawn(move || {
                    let pull_times = PullTimes::default();
                    for n in 0..50 {
                        pull_times.record(name, &digest(2 * n + process));
                        pull_times.flush(layout, |_| Ok(index(0..100))).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&layout, &name).unwrap().len(), 100);
    }
}
