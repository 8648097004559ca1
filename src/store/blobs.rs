//! Blobs: complete content under its digest. A blob appears in one step, after its bytes were
//! verified and synced; they never change.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::StoreError;
use super::files::{self, FileStatus, OpenDirectory};
use super::hash::DigestAlgorithm;
use super::layout::{RepositoryLock, StoreLayout, if_exists};
use super::promised_size;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;

/// An open blob.
#[derive(Debug)]
pub(crate) struct OpenBlob {
    pub(crate) file: File,
    pub(crate) size: u64,
}

/// The file name extension of a blob while a collection decides whether to remove it.
pub(super) const REMOVED_EXTENSION: &str = "removed";

/// The age at which a use updates the modification time of a blob: far below any grace period of
/// the collection, and high enough that reads rarely write.
pub(super) const TOUCH_INTERVAL: Duration = Duration::from_hours(1);

/// Opens a blob of a repository.
pub(super) fn open(
    layout: &StoreLayout,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<OpenBlob, StoreError> {
    let path = layout.blob(name, digest)?;
    let file = open_own(layout, &path, digest)?.ok_or(StoreError::BlobUnknown)?;
    let size = file.metadata()?.len();
    if let Some(promised) = promised_size::read(&file).filter(|promised| *promised != size) {
        let what = format!("it has {size} bytes instead of {promised}; a push of it mends it");
        layout.damage.found(&path, &what);
        return Err(StoreError::Damaged(digest.clone()));
    }
    Ok(OpenBlob { file, size })
}

/// Opens the file of a blob or manifest. A symbolic link in its place is damage.
pub(super) fn open_own(
    layout: &StoreLayout,
    path: &Path,
    digest: &Digest,
) -> Result<Option<File>, StoreError> {
    let opened = files::open(path);
    if let Err(error) = &opened
        && files::link_in(error).is_some_and(|link| link.is_at(path))
    {
        let what = "it is a symbolic link, which is not followed; a push of it mends it";
        layout.damage.found(path, what);
        return Err(StoreError::Damaged(digest.clone()));
    }
    Ok(if_exists(opened)?)
}

/// Opens a blob for a client that does not push it if it exists: collections keep it for their
/// grace period from now on.
pub(super) fn open_for_push(
    layout: &StoreLayout,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<OpenBlob, StoreError> {
    let blob = match open(layout, name, digest) {
        // The client must push it.
        Err(StoreError::Damaged(_)) => return Err(StoreError::BlobUnknown),
        blob => blob?,
    };
    if touch(&blob.file)? && !files::exists(&layout.blob(name, digest)?) {
        // A collection renamed it before it could see the new modification time.
        return Err(StoreError::BlobUnknown);
    }
    Ok(blob)
}

/// Records a use of a blob: sets its modification time, unless that is recent. Returns whether it
/// was set.
pub(super) fn touch(file: &File) -> io::Result<bool> {
    touch_known(file, &FileStatus::from(&file.metadata()?))
}

/// As [`touch`], for a file whose status is known.
pub(super) fn touch_known(file: &File, now: &FileStatus) -> io::Result<bool> {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    if !is_older(now, TOUCH_INTERVAL) {
        return Ok(false);
    }
    match file.set_modified(SystemTime::now()) {
        Ok(()) => Ok(true),
        // It belongs to another user, or the disk is read-only: no collection removes it.
        Err(error) if matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a blob was last used at least `than` ago. A time in the future counts as now.
pub(super) fn is_older(data: &FileStatus, than: Duration) -> bool {
    data.modified.elapsed().unwrap_or_default() >= than
}

/// A file in a directory of blobs.
pub(super) struct BlobFile {
    pub(super) digest: Digest,
    pub(super) path: std::path::PathBuf,
    pub(super) data: FileStatus,
}

impl BlobFile {
    /// Errors: a symbolic link.
    pub(super) fn check_kind(&self) -> io::Result<()> {
        if self.data.is_symbolic_link() {
            return Err(files::link_at(&self.path));
        }
        Ok(())
    }
}

/// All blobs of a repository.
pub(super) fn list(directory: &Path) -> io::Result<Vec<BlobFile>> {
    let mut all = Vec::new();
    each(directory, |blob| {
        all.push(blob);
        Ok::<_, io::Error>(())
    })?;
    Ok(all)
}

/// Visits all blobs of a repository, or, given the root, of the store.
pub(super) fn each<E: From<io::Error>>(
    directory: &Path,
    mut visit: impl FnMut(BlobFile) -> Result<(), E>,
) -> Result<(), E> {
    for algorithm in DigestAlgorithm::ALL {
        let path = directory.join("blobs").join(algorithm.name());
        let Some(blobs) = if_exists(OpenDirectory::open(&path))? else {
            continue;
        };
        for name in blobs.names()? {
            let name = name?;
            let text = format!("{}:{}", algorithm.name(), name.to_string_lossy());
            let Ok(digest) = Digest::parse(&text) else {
                continue;
            };
            if let Some(data) = if_exists(blobs.status(&name))? {
                let path = path.join(name);
                visit(BlobFile { digest, path, data })?;
            }
        }
    }
    Ok(())
}

/// Removes a blob that was not used for `grace`. Returns whether it was removed.
///
/// It is renamed before its modification time is read. A user of the blob sets that time before it
/// checks the name ([`open_for_push`]), so that at least one of the two sees the other.
pub(super) fn remove_unused(found: &BlobFile, grace: Duration) -> io::Result<bool> {
    let (directory, name) = files::parent_of(&found.path)?;
    let mut aside = OsString::from(name);
    aside.push(".");
    aside.push(REMOVED_EXTENSION);
    directory.rename(name, &directory, &aside)?;
    if is_older(&directory.status(&aside)?, grace) {
        directory.remove_file(&aside)?;
        return Ok(true);
    }
    directory.rename(&aside, &directory, name)?;
    Ok(false)
}

/// Cleans up after killed processes: removes their temporary files, and restores the names of blobs
/// that they were about to remove. `_lock` must be exclusive: no living process has such files.
pub(super) fn recover(repository: &Path, _lock: &RepositoryLock) -> io::Result<()> {
    let blobs =
        DigestAlgorithm::ALL.map(|algorithm| repository.join("blobs").join(algorithm.name()));
    for directory in blobs.iter().map(|path| path.as_path()).chain([repository]) {
        let Some(directory) = if_exists(OpenDirectory::open(directory))? else {
            continue;
        };
        for name in directory.names()? {
            let name = name?;
            let as_path = Path::new(&name);
            let is_removed = as_path.extension() == Some(OsStr::new(REMOVED_EXTENSION));
            let prefix = crate::state_file::TEMPORARY_PREFIX;
            if name.to_string_lossy().starts_with(prefix) {
                if_exists(directory.remove_file(&name))?;
            } else if is_removed && let Some(stem) = as_path.file_stem() {
                directory.rename(&name, &directory, stem)?;
            }
        }
    }
    Ok(())
}

/// Whether a blob has only one hard link.
pub(super) fn has_one_name(data: &FileStatus) -> bool {
    data.links == 1
}
