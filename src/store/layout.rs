//! Where things lie in a store's directory, and who may change a repository's part of it at a time.
//!
//! `repositories/base+app/` is an OCI image layout, `blobs/` has every blob of all of them under a
//! second name, so that one that comes again takes no room. `uploads/` and `pulled/` hold what the
//! layout cannot say. A repository's name has no `+`, which stands for its `/`.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::StoreError;
use super::hash::DigestAlgorithm;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::state_file::{Access, atomic_write, private_directory};

/// The directory of a store.
#[derive(Clone, Debug)]
pub(super) struct StoreLayout {
    root: PathBuf,
}

/// The file that every image layout has (OCI image specification, "Image Layout").
const MARK: (&str, &str) = ("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}\n");
pub(super) const INDEX: &str = "index.json";

impl StoreLayout {
    /// Makes the directory if it is not there.
    pub(super) fn create(root: PathBuf) -> io::Result<Self> {
        let layout = Self { root };
        for directory in [
            layout.repositories(),
            layout.root.join("uploads"),
            layout.root.join("pulled"),
        ] {
            private_directory(&directory)?;
        }
        for algorithm in DigestAlgorithm::ALL {
            private_directory(&layout.root.join("blobs").join(algorithm.name()))?;
        }
        Ok(layout)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    pub(super) fn repository(&self, name: &RepositoryName) -> PathBuf {
        self.repositories().join(file_name(name))
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(super) fn uploads_of(&self, name: &RepositoryName) -> PathBuf {
        self.uploads().join(file_name(name))
    }

    pub(super) fn pulled(&self, name: &RepositoryName) -> PathBuf {
        // Nothing is added to the name: that may be as long as a file's may be.
        self.root.join("pulled").join(file_name(name))
    }

    /// A blob of a repository.
    pub(super) fn blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<PathBuf, StoreError> {
        Ok(blob_in(
            &self.repository(name),
            digest,
            DigestAlgorithm::of(digest)?,
        ))
    }

    /// The name that a blob has beside those in repositories.
    pub(super) fn shared_blob(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        Ok(blob_in(&self.root, digest, DigestAlgorithm::of(digest)?))
    }

    /// Waits until nobody changes the repository's index or takes blobs away; others may add blobs
    /// too. Makes the repository if it is not there.
    pub(super) fn lock_shared(&self, name: &RepositoryName) -> io::Result<RepositoryLock> {
        self.lock_or_make(name, FlockOperation::LockShared)
    }

    /// Waits until nobody else changes anything in the repository. Makes it if it is not there.
    pub(super) fn lock_exclusive(&self, name: &RepositoryName) -> io::Result<RepositoryLock> {
        self.lock_or_make(name, FlockOperation::LockExclusive)
    }

    fn lock_or_make(
        &self,
        name: &RepositoryName,
        operation: FlockOperation,
    ) -> io::Result<RepositoryLock> {
        let path = self.repository(name);
        loop {
            // Other tools make only the directories that they need.
            if let Some(locked) = lock(&path, operation)?.filter(|_| has_all_directories(&path)) {
                return Ok(locked);
            }
            self.make_repository(&path)?;
        }
    }

    /// Waits until nobody else changes anything in the repository. `None`: it is not there.
    pub(super) fn lock_existing(
        &self,
        name: &RepositoryName,
    ) -> io::Result<Option<RepositoryLock>> {
        lock(&self.repository(name), FlockOperation::LockExclusive)
    }

    fn make_repository(&self, path: &Path) -> io::Result<()> {
        let _alone = lock_parent(path)?;
        for algorithm in DigestAlgorithm::ALL {
            private_directory(&path.join("blobs").join(algorithm.name()))?;
        }
        sync_directory(&path.join("blobs"))?;
        let mark = path.join(MARK.0);
        // Where it is, the repository's own lock counts, and a collection takes unfinished files
        // away.
        if !mark.exists() {
            atomic_write(&mark, MARK.1.as_bytes(), Access::Private)?;
        }
        sync_directory(&self.repositories())
    }
}

fn has_all_directories(repository: &Path) -> bool {
    DigestAlgorithm::ALL
        .iter()
        .all(|algorithm| repository.join("blobs").join(algorithm.name()).exists())
}

fn blob_in(directory: &Path, digest: &Digest, algorithm: DigestAlgorithm) -> PathBuf {
    directory
        .join("blobs")
        .join(algorithm.name())
        .join(digest.encoded())
}

pub(super) fn file_name(name: &RepositoryName) -> String {
    name.as_str().replace('/', "+")
}

/// The repository whose directory has this name.
pub(super) fn repository_of(file_name: &str) -> Option<RepositoryName> {
    RepositoryName::parse(&file_name.replace('+', "/")).ok()
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A repository's directory, locked among all processes and threads until this is dropped; the
/// system takes the lock of a process that dies.
#[derive(Debug)]
pub(super) struct RepositoryLock {
    _directory: File,
}

/// Only a directory that has its mark is a repository: one is made or removed in several steps.
fn lock(path: &Path, operation: FlockOperation) -> io::Result<Option<RepositoryLock>> {
    loop {
        let Some(directory) = if_exists(File::open(path))? else {
            return Ok(None);
        };
        wait_for(&directory, operation)?;
        // It may have been removed, and made again, while this waited.
        let Some(now) = if_exists(std::fs::metadata(path))? else {
            return Ok(None);
        };
        let is_same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        if is_same(&directory.metadata()?, &now) {
            let marked = if_exists(std::fs::metadata(path.join(MARK.0)))?.is_some();
            return Ok(marked.then_some(RepositoryLock {
                _directory: directory,
            }));
        }
    }
}

/// Only one at a time makes or removes a repository, in steps that nobody else may get between. Who
/// removes one holds its own lock before this one, who makes one has none.
fn lock_parent(repository: &Path) -> io::Result<File> {
    let siblings = File::open(repository.parent().unwrap_or(Path::new("/")))?;
    wait_for(&siblings, FlockOperation::LockExclusive)?;
    Ok(siblings)
}

fn wait_for(directory: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(directory, operation) {
            Err(rustix::io::Errno::INTR) => {}
            ended => return Ok(ended?),
        }
    }
}

/// `None` for what is not there.
pub(super) fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a repository's directory if no blob is in it; the exclusive lock is the caller's.
pub(super) fn remove_if_empty(path: &Path, _locked: &RepositoryLock) -> io::Result<bool> {
    let _alone = lock_parent(path)?;
    let directories =
        DigestAlgorithm::ALL.map(|algorithm| path.join("blobs").join(algorithm.name()));
    for directory in &directories {
        if if_exists(std::fs::read_dir(directory))?
            .is_some_and(|mut entries| entries.next().is_some())
        {
            return Ok(false);
        }
    }
    // From here on it is no repository, wherever this is interrupted.
    for file in [MARK.0, INDEX] {
        if_exists(std::fs::remove_file(path.join(file)))?;
    }
    let [one, other] = directories;
    for directory in [&one, &other, &path.join("blobs"), path] {
        match std::fs::remove_dir(directory) {
            // Something else that somebody has put there.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => drop(if_exists(removed)?),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, StoreLayout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = StoreLayout::create(directory.path().join("ci")).unwrap();
        (directory, layout)
    }

    #[test]
    fn every_repository_has_one_directory_and_no_two_share_it() {
        let (_directory, layout) = layout();
        for name in ["a", "a/b", "blobs/sha256", "index.json", "a.b_c--d/e"] {
            let name = RepositoryName::parse(name).unwrap();
            let path = layout.repository(&name);
            assert_eq!(path.parent(), Some(layout.repositories().as_path()));
            assert_eq!(
                repository_of(path.file_name().unwrap().to_str().unwrap()),
                Some(name)
            );
        }
        assert_eq!(repository_of("A"), None);
    }

    #[test]
    fn a_repository_is_made_when_something_is_added_and_goes_when_it_is_empty() {
        let (_directory, layout) = layout();
        let name = RepositoryName::parse("base/app").unwrap();
        assert!(layout.lock_existing(&name).unwrap().is_none());
        drop(layout.lock_shared(&name).unwrap());
        let path = layout.repository(&name);
        let blob = path.join("blobs/sha256/x");
        std::fs::write(&blob, "x").unwrap();
        let locked = layout.lock_existing(&name).unwrap().unwrap();
        assert!(!remove_if_empty(&path, &locked).unwrap());
        assert_eq!(
            std::fs::read(path.join("oci-layout")).unwrap(),
            MARK.1.as_bytes()
        );
        std::fs::remove_file(&blob).unwrap();
        assert!(remove_if_empty(&path, &locked).unwrap());
        assert!(!path.exists());
        drop(locked);
        layout.lock_shared(&name).unwrap();
        assert!(path.join("oci-layout").exists());
    }

    #[test]
    fn who_waited_for_a_repository_that_was_removed_makes_it_again() {
        let (_directory, layout) = layout();
        let name = RepositoryName::parse("base/app").unwrap();
        drop(layout.lock_shared(&name).unwrap());
        let locked = layout.lock_existing(&name).unwrap().unwrap();
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| layout.lock_shared(&name).map(|_| ()));
            assert!(remove_if_empty(&layout.repository(&name), &locked).unwrap());
            drop(locked);
            adding.join().unwrap().unwrap();
        });
        assert!(layout.repository(&name).join("oci-layout").exists());
    }

    #[test]
    fn a_repository_is_made_and_removed_by_many_at_once() {
        let (_directory, layout) = layout();
        let name = RepositoryName::parse("base/app").unwrap();
        let path = layout.repository(&name);
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let adding = |n: usize| {
                let (layout, name, path) = (&layout, &name, &path);
                move || -> io::Result<()> {
                    for _ in 0..1000 {
                        let _locked = layout.lock_shared(name)?;
                        let blob = path.join(format!("blobs/sha512/{n}"));
                        std::fs::write(&blob, "x")?;
                        std::fs::remove_file(&blob)?;
                    }
                    Ok(())
                }
            };
            let removing = || -> io::Result<()> {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Some(locked) = layout.lock_existing(&name)? {
                        crate::store::blobs::recover(&path, &locked)?;
                        remove_if_empty(&path, &locked)?;
                    }
                }
                Ok(())
            };
            let removing = scope.spawn(removing);
            let adding = [1, 2, 3].map(|n| scope.spawn(adding(n)));
            let added = adding.map(|thread| thread.join().unwrap());
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            let removed = removing.join().unwrap();
            added
                .into_iter()
                .chain([removed])
                .collect::<io::Result<Vec<()>>>()
                .unwrap();
        });
        layout.lock_shared(&name).unwrap();
        assert!(path.join("blobs/sha256").exists() && path.join("blobs/sha512").exists());
    }
}
