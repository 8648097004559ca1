//! The files of a store's directory, and the locks of its repositories. `repositories/base+app/` is
//! an OCI image layout (`+` stands for `/`: names cannot contain a `+`); `blobs/` has a hard link
//! to every blob, so that a blob in several repositories takes its space once; `uploads/`,
//! `removed/`, `quota/` and the journal hold what an image layout cannot express.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::damage::DamageReports;
use super::error::StoreError;
use super::files::{self, OpenDirectory};
use super::hash::DigestAlgorithm;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::state_file::{FileLock, LOCK_TIMEOUT, LockMode};

/// The directory of a store.
#[derive(Clone, Debug)]
pub(super) struct StoreLayout {
    /// Without symbolic links.
    root: PathBuf,
    pub(super) damage: DamageReports,
}

/// The file that every image layout has (OCI image specification, "Image Layout").
const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT_FILE_CONTENT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}\n";
pub(super) const REPOSITORIES: &str = "repositories";
pub(super) const INDEX_FILE: &str = "index.json";

impl StoreLayout {
    /// Creates the directory if it does not exist. It may itself be a symbolic link; one in it makes
    /// the calls fail that need what it stands for.
    pub(super) fn create(root: &Path) -> io::Result<Self> {
        let root = files::create_root(root)?;
        let damage = DamageReports::default();
        let layout = Self { root, damage };
        let blobs = layout.root.join("blobs");
        let blobs = DigestAlgorithm::ALL.map(|algorithm| blobs.join(algorithm.name()));
        let others = [layout.repositories(), layout.uploads()];
        for directory in others.iter().chain(&blobs) {
            match files::private_directory(directory) {
                Err(error) if files::link_in(&error).is_some() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "a part of the store cannot be used");
                }
                created => {
                    created?;
                }
            }
        }
        Ok(layout)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the directory is there: it may be a mount point of a file system that is not mounted.
    pub(super) fn exists(&self) -> bool {
        files::leads_to_directory(&self.repositories())
    }

    /// The reason why something is not there: perhaps all of the store has gone.
    pub(super) fn explain(&self, error: StoreError) -> StoreError {
        let is_missing = match &error {
            StoreError::RepositoryUnknown
            | StoreError::BlobUnknown
            | StoreError::ManifestUnknown
            | StoreError::UploadUnknown
            | StoreError::Missing(_) => true,
            StoreError::Io(error) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        };
        if is_missing && !self.exists() {
            return StoreError::StorageMissing;
        }
        error
    }

    pub(super) fn repositories(&self) -> PathBuf {
        self.root.join(REPOSITORIES)
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

    /// The directory by which processes share what counts for quotas.
    pub(super) fn quotas(&self) -> PathBuf {
        self.root.join("quota")
    }

    /// When each tag and each manifest was last pushed and pulled.
    pub(super) fn journal(&self) -> PathBuf {
        self.root.join("journal.redb")
    }

    /// Where older versions have recorded pulls: a file for each repository.
    pub(super) fn former_pulls(&self) -> PathBuf {
        self.root.join("pulled")
    }

    /// The record of the manifests that retention has removed from a repository.
    pub(super) fn removed_of(&self, name: &RepositoryName) -> PathBuf {
        self.root.join("removed").join(file_name(name))
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
            DigestAlgorithm::from_digest(digest)?,
        ))
    }

    /// The link of a blob that is shared by all repositories.
    pub(super) fn shared_blob(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        Ok(blob_in(
            &self.root,
            digest,
            DigestAlgorithm::from_digest(digest)?,
        ))
    }

    /// Locks a repository for adding blobs: others may add blobs, too, but nobody changes the index
    /// or removes blobs. Creates the repository if it does not exist. Blocks for `timeout` at most.
    ///
    /// Errors: `TimedOut`; those of the file system.
    pub(super) fn lock_shared(
        &self,
        name: &RepositoryName,
        timeout: Duration,
    ) -> io::Result<RepositoryLock> {
        self.lock_or_create(name, LockMode::Shared, timeout)
    }

    /// As [`Self::lock_shared`], but returns `None` for a repository that does not exist or is
    /// locked by a writer.
    pub(super) fn try_lock_shared(
        &self,
        name: &RepositoryName,
    ) -> io::Result<Option<RepositoryLock>> {
        match lock(&self.repository(name), LockMode::Shared, Instant::now()) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            locked => locked,
        }
    }

    /// As [`Self::lock_shared`], for any change: nobody else has a lock.
    pub(super) fn lock_exclusive(
        &self,
        name: &RepositoryName,
        timeout: Duration,
    ) -> io::Result<RepositoryLock> {
        self.lock_or_create(name, LockMode::Exclusive, timeout)
    }

    /// As [`Self::lock_exclusive`], but returns `None` for a repository that does not exist.
    pub(super) fn lock_existing(
        &self,
        name: &RepositoryName,
        timeout: Duration,
    ) -> io::Result<Option<RepositoryLock>> {
        let deadline = Instant::now() + timeout;
        lock(&self.repository(name), LockMode::Exclusive, deadline)
    }

    fn lock_or_create(
        &self,
        name: &RepositoryName,
        mode: LockMode,
        timeout: Duration,
    ) -> io::Result<RepositoryLock> {
        let deadline = Instant::now() + timeout;
        let path = self.repository(name);
        loop {
            // Other tools create only the directories that they need.
            if let Some(lock) = lock(&path, mode, deadline)?.filter(|_| has_all_directories(&path))
            {
                return Ok(lock);
            }
            self.create_repository(&path, deadline)?;
        }
    }

    fn create_repository(&self, path: &Path, deadline: Instant) -> io::Result<()> {
        let _parent = lock_parent(path, deadline)?;
        for algorithm in DigestAlgorithm::ALL {
            files::private_directory(&path.join("blobs").join(algorithm.name()))?;
        }
        files::sync_directory(&path.join("blobs"))?;
        let layout_file = path.join(LAYOUT_FILE);
        // From then on the repository's own lock applies, and a collection removes temporary files.
        if !files::exists(&layout_file) {
            files::replace(&layout_file, LAYOUT_FILE_CONTENT.as_bytes())?;
        }
        files::sync_directory(&self.repositories())
    }
}

fn has_all_directories(repository: &Path) -> bool {
    DigestAlgorithm::ALL
        .iter()
        .all(|algorithm| files::exists(&repository.join("blobs").join(algorithm.name())))
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

/// The repository with this directory name.
pub(super) fn repository_of(file_name: &str) -> Option<RepositoryName> {
    RepositoryName::parse(&file_name.replace('+', "/")).ok()
}

/// The lock of a repository, released on drop. It excludes other processes and other callers in
/// this process; the kernel releases the locks of a process that dies.
#[derive(Debug)]
pub(super) struct RepositoryLock {
    _directory: FileLock,
}

/// Locks a directory. It is a repository only if it has a layout file: creating and removing one
/// takes several steps.
fn lock(path: &Path, mode: LockMode, deadline: Instant) -> io::Result<Option<RepositoryLock>> {
    loop {
        let Some(directory) = if_exists(OpenDirectory::open(path))? else {
            return Ok(None);
        };
        let locked = directory.identity()?;
        let directory = directory.into_file();
        let lock = FileLock::acquire_open(directory, mode, remaining(deadline))?;
        // It may have been removed and created again during the wait.
        let Some(current) = files::identity(path)? else {
            return Ok(None);
        };
        if locked == current {
            let is_repository = files::exists(&path.join(LAYOUT_FILE));
            return Ok(is_repository.then_some(RepositoryLock { _directory: lock }));
        }
    }
}

/// Creating and removing a repository takes several steps, which this lock makes atomic. A caller
/// that removes a repository already has its lock; one that creates it has no other lock.
fn lock_parent(repository: &Path, deadline: Instant) -> io::Result<FileLock> {
    let parent = OpenDirectory::open(repository.parent().unwrap_or(Path::new("/")))?;
    FileLock::acquire_open(parent.into_file(), LockMode::Exclusive, remaining(deadline))
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// `None` for a file that does not exist.
pub(super) fn if_exists<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the directory of a repository without blobs. `_lock` must be exclusive.
pub(super) fn remove_if_empty(path: &Path, _lock: &RepositoryLock) -> io::Result<bool> {
    let _parent = lock_parent(path, Instant::now() + LOCK_TIMEOUT)?;
    let directories =
        DigestAlgorithm::ALL.map(|algorithm| path.join("blobs").join(algorithm.name()));
    for directory in &directories {
        if let Some(directory) = if_exists(OpenDirectory::open(directory))?
            && directory.names()?.next().is_some()
        {
            return Ok(false);
        }
    }
    // First the layout file: without it, an interrupted removal leaves no repository.
    for file in [LAYOUT_FILE, INDEX_FILE] {
        if_exists(files::remove_file(&path.join(file)))?;
    }
    let [one, other] = directories;
    for directory in [&one, &other, &path.join("blobs"), path] {
        match files::remove_directory(directory) {
            // Files of another tool.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => {
                if_exists(removed)?;
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn layout() -> (tempfile::TempDir, StoreLayout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = StoreLayout::create(&directory.path().join("ci")).unwrap();
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
        assert!(layout.lock_existing(&name, TIMEOUT).unwrap().is_none());
        drop(layout.lock_shared(&name, TIMEOUT).unwrap());
        let path = layout.repository(&name);
        let blob = path.join("blobs/sha256/x");
        std::fs::write(&blob, "x").unwrap();
        let locked = layout.lock_existing(&name, TIMEOUT).unwrap().unwrap();
        assert!(!remove_if_empty(&path, &locked).unwrap());
        assert_eq!(
            std::fs::read(path.join("oci-layout")).unwrap(),
            LAYOUT_FILE_CONTENT.as_bytes()
        );
        std::fs::remove_file(&blob).unwrap();
        assert!(remove_if_empty(&path, &locked).unwrap());
        assert!(!path.exists());
        drop(locked);
        layout.lock_shared(&name, TIMEOUT).unwrap();
        assert!(path.join("oci-layout").exists());
    }

    #[test]
    fn who_waited_for_a_repository_that_was_removed_makes_it_again() {
        let (_directory, layout) = layout();
        let name = RepositoryName::parse("base/app").unwrap();
        drop(layout.lock_shared(&name, TIMEOUT).unwrap());
        let locked = layout.lock_existing(&name, TIMEOUT).unwrap().unwrap();
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| layout.lock_shared(&name, TIMEOUT).map(|_| ()));
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
                        let _locked = layout.lock_shared(name, TIMEOUT)?;
                        let blob = path.join(format!("blobs/sha512/{n}"));
                        std::fs::write(&blob, "x")?;
                        std::fs::remove_file(&blob)?;
                    }
                    Ok(())
                }
            };
            let removing = || -> io::Result<()> {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Some(locked) = layout.lock_existing(&name, TIMEOUT)? {
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
        layout.lock_shared(&name, TIMEOUT).unwrap();
        assert!(path.join("blobs/sha256").exists() && path.join("blobs/sha512").exists());
    }
}
