//! Blobs: complete content under its digest. A blob appears in one step, after its bytes were
//! verified and synced; they never change.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::StoreError;
use super::hash::DigestAlgorithm;
use super::layout::{RepositoryLock, StoreLayout, if_exists, sync_directory};
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
const TOUCH_INTERVAL: Duration = Duration::from_hours(1);

/// Opens a blob of a repository.
pub(super) fn open(
    layout: &StoreLayout,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<OpenBlob, StoreError> {
    let path = layout.blob(name, digest)?;
    let file = if_exists(File::open(&path))?.ok_or(StoreError::BlobUnknown)?;
    let size = file.metadata()?.len();
    if let Some(promised) = promised_size::read(&file).filter(|promised| *promised != size) {
        let what = format!("it has {size} bytes instead of {promised}; a push of it mends it");
        layout.damage.found(&path, &what);
        return Err(StoreError::Damaged(digest.clone()));
    }
    Ok(OpenBlob { file, size })
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
    if touch(&blob.file)? && if_exists(std::fs::metadata(layout.blob(name, digest)?))?.is_none() {
        // A collection renamed it before it could see the new modification time.
        return Err(StoreError::BlobUnknown);
    }
    Ok(blob)
}

/// Records a use of a blob: sets its modification time, unless that is recent. Returns whether it
/// was set.
pub(super) fn touch(file: &File) -> io::Result<bool> {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    if !is_older(&file.metadata()?, TOUCH_INTERVAL) {
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
pub(super) fn is_older(data: &Metadata, than: Duration) -> bool {
    data.modified()
        .is_ok_and(|at| at.elapsed().unwrap_or_default() >= than)
}

/// Creates a hard link. Returns whether the link exists, new or not.
pub(super) fn link(file: &Path, name: &Path) -> io::Result<bool> {
    match std::fs::hard_link(file, name) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(true),
            // The maximum number of links, no support for links, or no such file.
            io::ErrorKind::TooManyLinks
            | io::ErrorKind::Unsupported
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

/// Syncs the link and the modification time of a blob that was just linked.
pub(super) fn finish(blob: &Path) -> io::Result<()> {
    touch(&File::open(blob)?)?;
    sync_directory(blob.parent().unwrap_or(Path::new("/")))
}

/// A file in a directory of blobs.
pub(super) struct BlobFile {
    pub(super) digest: Digest,
    pub(super) path: std::path::PathBuf,
    pub(super) data: Metadata,
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
        let entries = if_exists(std::fs::read_dir(
            directory.join("blobs").join(algorithm.name()),
        ))?;
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            let text = format!(
                "{}:{}",
                algorithm.name(),
                entry.file_name().to_string_lossy()
            );
            let Ok(digest) = Digest::parse(&text) else {
                continue;
            };
            if let Some(data) = if_exists(entry.metadata())? {
                visit(BlobFile {
                    digest,
                    path: entry.path(),
                    data,
                })?;
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
    let aside = found.path.with_extension(REMOVED_EXTENSION);
    std::fs::rename(&found.path, &aside)?;
    if is_older(&std::fs::metadata(&aside)?, grace) {
        std::fs::remove_file(&aside)?;
        return Ok(true);
    }
    std::fs::rename(&aside, &found.path)?;
    Ok(false)
}

/// Cleans up after killed processes: removes their temporary files, and restores the names of blobs
/// that they were about to remove. `_lock` must be exclusive: no living process has such files.
pub(super) fn recover(repository: &Path, _lock: &RepositoryLock) -> io::Result<()> {
    let blobs =
        DigestAlgorithm::ALL.map(|algorithm| repository.join("blobs").join(algorithm.name()));
    for directory in blobs.iter().map(|path| path.as_path()).chain([repository]) {
        for entry in if_exists(std::fs::read_dir(directory))?
            .into_iter()
            .flatten()
        {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(crate::state_file::TEMPORARY_PREFIX) {
                if_exists(std::fs::remove_file(&path))?;
            } else if path
                .extension()
                .is_some_and(|extension| extension == REMOVED_EXTENSION)
            {
                std::fs::rename(&path, path.with_extension(""))?;
            }
        }
    }
    Ok(())
}

/// Whether a blob has only one hard link.
pub(super) fn has_one_name(data: &Metadata) -> bool {
    data.nlink() == 1
}
