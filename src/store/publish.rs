//! Publishes verified content in a repository. A blob that several repositories have is one file
//! with several names (hard links): existing content is compared before a name is added to it, so
//! that damage does not spread, and pushing the right content mends it in all repositories.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use super::blobs::{self, TOUCH_INTERVAL, is_older, touch};
use super::error::StoreError;
use super::files::{self, FileIdentity, FileStatus, OpenDirectory};
use super::layout::{RepositoryLock, StoreLayout, if_exists, repository_of};
use super::promised_size;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;

/// The time for comparing a push with the content that exists. Content that was not compared in time
/// is replaced, so that a slow disk cannot hold up the answer.
const COMPARISON_TIMEOUT: Duration = Duration::from_secs(5);

/// Moves a complete, verified and synced file into a repository. `_lock` may be shared.
pub(super) fn publish(
    layout: &StoreLayout,
    name: &RepositoryName,
    digest: &Digest,
    file: &Path,
    _lock: &RepositoryLock,
) -> Result<(), StoreError> {
    let path = layout.blob(name, digest)?;
    let shared = layout.shared_blob(digest)?;
    let upload = NamedFile::at(file)?;
    let shared = NamedFile::at(&shared)?;
    let blob = NamedFile::at(&path)?;
    let replaced = share(&upload, &shared)?;
    let is_right = match shared.link_as(&blob)? {
        LinkOutcome::New => true,
        LinkOutcome::Existing => is_same_file(&shared, &blob)? || has_content_of(&blob, &upload)?,
        LinkOutcome::Impossible => false,
    };
    // The file itself is moved if there is no shared link (a collection removed it, or the file
    // system has no hard links), or if the repository has another file that is not right.
    if !is_right {
        upload.move_to(&blob)?;
    }
    blob.finish()?;
    if_exists(upload.directory.remove_file(upload.name))?;
    layout.damage.mended(&path);
    if let Some(damaged) = replaced {
        // The push itself has succeeded.
        if let Err(error) = relink(layout, digest, damaged) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                digest = digest.as_str(),
                error,
                "damaged content stays in other repositories"
            );
        }
    }
    Ok(())
}

/// Links a blob of one repository into another, whose `_lock` may be shared. Returns whether the
/// blob exists.
pub(super) fn mount(
    layout: &StoreLayout,
    from: &RepositoryName,
    to: &RepositoryName,
    digest: &Digest,
    _lock: &RepositoryLock,
) -> Result<bool, StoreError> {
    let source = layout.blob(from, digest)?;
    let path = layout.blob(to, digest)?;
    if let Err(StoreError::Damaged(_)) = blobs::open(layout, to, digest) {
        match replace_name(&source, &path) {
            // Then the client pushes it.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Ok(false),
            replaced => replaced?,
        }
        layout.damage.mended(&path);
    }
    let blob = NamedFile::at(&path)?;
    let linked = match if_exists(NamedFile::at(&source))? {
        Some(source) => source.link_as(&blob)?,
        None => LinkOutcome::Impossible,
    };
    if linked == LinkOutcome::Impossible {
        return Ok(false);
    }
    blob.finish()?;
    Ok(true)
}

/// Links the content below `blobs/`, unless a link with the same content exists. Returns the file
/// that the link led to before, if that was not right.
fn share(upload: &NamedFile, shared: &NamedFile) -> io::Result<Option<FileIdentity>> {
    if upload.link_as(shared)? != LinkOutcome::Existing || is_same_file(upload, shared)? {
        return Ok(None);
    }
    let existing = shared.status()?;
    if has_content_of(shared, upload)? {
        return Ok(None);
    }
    if_exists(shared.directory.remove_file(shared.name))?;
    upload.link_as(shared)?;
    Ok(existing.map(|existing| existing.identity))
}

/// Replaces a damaged file in all repositories by the shared one. Repositories that a writer has
/// locked keep theirs.
fn relink(layout: &StoreLayout, digest: &Digest, damaged: FileIdentity) -> Result<(), StoreError> {
    let shared = layout.shared_blob(digest)?;
    for name in OpenDirectory::open(&layout.repositories())?.names()? {
        let Some(name) = repository_of(&name?.to_string_lossy()) else {
            continue;
        };
        let path = layout.blob(&name, digest)?;
        if files::identity(&path)? != Some(damaged) {
            continue;
        }
        if let Some(_lock) = layout.try_lock_shared(&name)? {
            replace_name(&shared, &path)?;
            NamedFile::at(&path)?.finish()?;
            layout.damage.mended(&path);
        }
    }
    Ok(())
}

/// Makes `name` a link to another file, in one step.
pub(super) fn replace_name(file: &Path, name: &Path) -> io::Result<()> {
    let file = NamedFile::at(file)?;
    let name = NamedFile::at(name)?;
    let directory = &name.directory;
    directory.replace_by_link(name.name, &file.directory, file.name)
}

/// A name in a directory, whether there is a file or not.
struct NamedFile<'a> {
    directory: OpenDirectory,
    name: &'a OsStr,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkOutcome {
    New,
    /// The name is in use.
    Existing,
    /// There are too many links, the file system has none, it is another one, or the file is gone.
    Impossible,
}

impl<'a> NamedFile<'a> {
    fn at(path: &'a Path) -> io::Result<Self> {
        let (directory, name) = files::parent_of(path)?;
        Ok(Self { directory, name })
    }

    fn status(&self) -> io::Result<Option<FileStatus>> {
        if_exists(self.directory.status(self.name))
    }

    fn open(&self) -> io::Result<File> {
        self.directory.file(self.name)
    }

    /// Makes another name for the file.
    fn link_as(&self, new: &NamedFile) -> io::Result<LinkOutcome> {
        use io::ErrorKind::{
            AlreadyExists, CrossesDevices, NotFound, PermissionDenied, TooManyLinks, Unsupported,
        };
        match self.directory.link(self.name, &new.directory, new.name) {
            Ok(()) => Ok(LinkOutcome::New),
            Err(error) => match error.kind() {
                AlreadyExists => Ok(LinkOutcome::Existing),
                TooManyLinks | Unsupported | PermissionDenied | NotFound | CrossesDevices => {
                    Ok(LinkOutcome::Impossible)
                }
                _ => Err(error),
            },
        }
    }

    /// Gives the file another name, or another file system a copy of it.
    fn move_to(&self, new: &NamedFile) -> io::Result<()> {
        match self.directory.rename(self.name, &new.directory, new.name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let mut content = self.open()?;
                let copy = |mut copy: &File| {
                    io::copy(&mut content, &mut copy)?;
                    promised_size::record(copy)
                };
                new.directory.replace_with(new.name, copy)
            }
            renamed => renamed,
        }
    }

    /// Syncs the name of a blob that was just made, and its modification time.
    fn finish(&self) -> io::Result<()> {
        if is_older(&self.directory.status(self.name)?, TOUCH_INTERVAL) {
            touch(&self.open()?)?;
        }
        self.directory.sync()
    }
}

/// Whether two names lead to one file.
fn is_same_file(one: &NamedFile, other: &NamedFile) -> io::Result<bool> {
    let both = one.status()?.zip(other.status()?);
    Ok(both.is_some_and(|(one, other)| one.identity == other.identity))
}

/// Whether a name has the content of another file, or nothing.
fn has_content_of(existing: &NamedFile, file: &NamedFile) -> io::Result<bool> {
    let mut existing = match existing.open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) if files::link_in(&error).is_some() => return Ok(false),
        opened => opened?,
    };
    let mut file = file.open()?;
    if existing.metadata()?.len() != file.metadata()?.len() {
        return Ok(false);
    }
    let deadline = Instant::now() + COMPARISON_TIMEOUT;
    let mut ours = Vec::with_capacity(COMPARED_BYTES);
    let mut theirs = Vec::with_capacity(COMPARED_BYTES);
    while Instant::now() < deadline {
        ours.clear();
        theirs.clear();
        (&mut file)
            .take(COMPARED_BYTES as u64)
            .read_to_end(&mut ours)?;
        // A disk error in the existing content is damage.
        let read = (&mut existing)
            .take(COMPARED_BYTES as u64)
            .read_to_end(&mut theirs);
        if read.is_err() || ours != theirs {
            return Ok(false);
        }
        if ours.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

const COMPARED_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests;
