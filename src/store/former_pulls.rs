//! The pulls that older versions have recorded in `pulled/`, in a file for each repository. The
//! journal takes them over.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::error::StoreError;
use super::files::{self, OpenDirectory};
use super::layout::{self, StoreLayout, if_exists};
use crate::journal::{ImportedPull, Journal};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::state_file::{FileLock, LOCK_TIMEOUT, LockMode};

/// Takes over what is there, and removes it. Blocks on the disk.
pub(super) fn import(layout: &StoreLayout, journal: &Journal) -> Result<(), StoreError> {
    let path = layout.former_pulls();
    let Some(directory) = if_exists(OpenDirectory::open(&path))? else {
        return Ok(());
    };
    // A process of an older version may write there until it has drained.
    let locked = OpenDirectory::open(&path)?.into_file();
    let _lock = FileLock::acquire_open(locked, LockMode::Exclusive, LOCK_TIMEOUT)?;
    let files = repositories(&directory)?;
    if files.is_empty() && journal.path().exists() {
        return remove_if_old(&path);
    }
    let mut pulls = Vec::new();
    let mut is_complete = true;
    for (file, repository) in &files {
        match parse(&files::read(&path.join(file))?, repository) {
            Ok(more) => pulls.extend(more),
            Err(error) => {
                is_complete = false;
                let path = path.join(file);
                tracing::error!(path = %path.display(), %error, "recorded pulls are damaged and lost");
            }
        }
    }
    journal.import(&pulls, is_complete)?;
    for (file, _) in &files {
        directory.remove_file(file)?;
    }
    Ok(directory.sync()?)
}

fn repositories(directory: &OpenDirectory) -> io::Result<Vec<(OsString, RepositoryName)>> {
    let mut found = Vec::new();
    for name in directory.names()? {
        let name = name?;
        if let Some(repository) = layout::repository_of(&name.to_string_lossy()) {
            found.push((name, repository));
        }
    }
    Ok(found)
}

/// Times in seconds since 1970 by digest.
fn parse(bytes: &[u8], repository: &RepositoryName) -> serde_json::Result<Vec<ImportedPull>> {
    let times: BTreeMap<String, u64> = serde_json::from_slice(bytes)?;
    let pulls = times.into_iter().filter_map(|(digest, at)| {
        Some(ImportedPull {
            repository: repository.clone(),
            digest: Digest::parse(&digest).ok()?,
            at,
        })
    });
    Ok(pulls.collect())
}

/// Removes the directory when no process of an older version can be left.
fn remove_if_old(path: &Path) -> Result<(), StoreError> {
    let changed = files::metadata(path)?.modified()?;
    if changed.elapsed().is_ok_and(|age| age > MAX_DRAIN) {
        let (parent, name) = files::parent_of(path)?;
        match parent.remove_directory(name) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Longer than a process serves after another has taken its place.
const MAX_DRAIN: Duration = Duration::from_hours(48);
