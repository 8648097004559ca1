//! Publishes verified content in a repository. A blob that several repositories have is one file
//! with several names (hard links): existing content is compared before a name is added to it, so
//! that damage does not spread, and pushing the right content mends it in all repositories.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::blobs::{self, finish, link};
use super::error::StoreError;
use super::layout::{RepositoryLock, StoreLayout, if_exists, repository_of};
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
    let blob = layout.blob(name, digest)?;
    let shared = layout.shared_blob(digest)?;
    let replaced = share(file, &shared)?;
    // The file itself is moved if there is no shared link (a collection removed it, or the file
    // system has no hard links), or if the repository has another file that is not right.
    if !link(&shared, &blob)? || !(is_same_file(&shared, &blob)? || has_content_of(&blob, file)?) {
        std::fs::rename(file, &blob)?;
    }
    finish(&blob)?;
    if_exists(std::fs::remove_file(file))?;
    layout.damage.mended(&blob);
    if let Some(damaged) = replaced {
        // The push itself has succeeded.
        if let Err(error) = relink(layout, digest, &damaged) {
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
    let blob = layout.blob(to, digest)?;
    if let Err(StoreError::Damaged(_)) = blobs::open(layout, to, digest) {
        replace_name(&source, &blob)?;
        layout.damage.mended(&blob);
    }
    let linked = link(&source, &blob)?;
    if linked {
        finish(&blob)?;
    }
    Ok(linked)
}

/// Links the content below `blobs/`, unless a link with the same content exists. Returns the file
/// that the link led to before, if that was not right.
fn share(file: &Path, shared: &Path) -> io::Result<Option<Metadata>> {
    if !link(file, shared)? || is_same_file(file, shared)? {
        return Ok(None);
    }
    let existing = if_exists(std::fs::metadata(shared))?;
    if has_content_of(shared, file)? {
        return Ok(None);
    }
    if_exists(std::fs::remove_file(shared))?;
    link(file, shared)?;
    Ok(existing)
}

/// Replaces a damaged file in all repositories by the shared one. Repositories that a writer has
/// locked keep theirs.
fn relink(layout: &StoreLayout, digest: &Digest, damaged: &Metadata) -> Result<(), StoreError> {
    let shared = layout.shared_blob(digest)?;
    for entry in std::fs::read_dir(layout.repositories())? {
        let Some(name) = repository_of(&entry?.file_name().to_string_lossy()) else {
            continue;
        };
        let blob = layout.blob(&name, digest)?;
        let is_damaged = |data: Metadata| identity(&data) == identity(damaged);
        if !if_exists(std::fs::metadata(&blob))?.is_some_and(is_damaged) {
            continue;
        }
        if let Some(_lock) = layout.try_lock_shared(&name)? {
            replace_name(&shared, &blob)?;
            finish(&blob)?;
            layout.damage.mended(&blob);
        }
    }
    Ok(())
}

/// Makes `name` a link to another file, in one step.
pub(super) fn replace_name(file: &Path, name: &Path) -> io::Result<()> {
    let directory = name.parent().unwrap_or(Path::new("/"));
    let temporary = tempfile::Builder::new()
        .prefix(crate::state_file::TEMPORARY_PREFIX)
        .make_in(directory, |path| std::fs::hard_link(file, path))?;
    temporary.into_temp_path().persist(name)?;
    Ok(())
}

fn identity(data: &Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}

/// Whether two names lead to one file.
fn is_same_file(one: &Path, other: &Path) -> io::Result<bool> {
    let one = if_exists(std::fs::metadata(one))?;
    let other = if_exists(std::fs::metadata(other))?;
    Ok(one
        .zip(other)
        .is_some_and(|(one, other)| identity(&one) == identity(&other)))
}

/// Whether the file of a name has the content of another file, or is gone.
fn has_content_of(name: &Path, file: &Path) -> io::Result<bool> {
    let Some(mut existing) = if_exists(File::open(name))? else {
        return Ok(true);
    };
    let mut file = File::open(file)?;
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
