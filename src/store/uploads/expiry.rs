//! The end of sessions that nobody continues.

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use super::{SESSION_LIFETIME, Uploads};
use crate::registry::upload_id::UploadId;
use crate::state_file::{FileLock, LockMode};
use crate::store::blobs;
use crate::store::files::{self, FileStatus, OpenDirectory};
use crate::store::layout::if_exists;

impl Uploads {
    /// Removes the sessions that had no request for [`SESSION_LIFETIME`]. Returns their number.
    pub(in crate::store) fn expire(&self) -> io::Result<usize> {
        self.expire_after(SESSION_LIFETIME)
    }

    /// Removes the sessions that had no request for so long and that no request, of any process, is
    /// adding to. Returns their number.
    pub(in crate::store) fn expire_after(&self, lifetime: Duration) -> io::Result<usize> {
        // Another process has removed the files of these.
        self.sessions
            .retain(|_, session| files::exists(&session.path));
        self.each_expired(lifetime, |directory, file| {
            if let Ok(id) = UploadId::parse(&file.to_string_lossy()) {
                self.sessions.remove(&id);
            }
            if_exists(directory.remove_file(file)).map(drop)
        })
    }

    /// The number of sessions that [`Self::expire_after`] would remove.
    pub(in crate::store) fn count_expired(&self, lifetime: Duration) -> io::Result<usize> {
        self.each_expired(lifetime, |_, _| Ok(()))
    }

    fn each_expired(
        &self,
        lifetime: Duration,
        mut work: impl FnMut(&OpenDirectory, &OsStr) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let uploads = OpenDirectory::open(&self.layout.uploads())?;
        for repository in uploads.names()? {
            let repository = repository?;
            let opened = OpenDirectory::open(&uploads.path().join(&repository));
            if let Some(link) = opened.as_ref().err().and_then(files::link_in) {
                tracing::warn!(
                    error = link as &dyn std::error::Error,
                    "uploads passed over"
                );
                continue;
            }
            // Another process may remove it at the same time.
            let Some(directory) = if_exists(opened)? else {
                continue;
            };
            for file in directory.names()? {
                let file = file?;
                if let Some(_unused) = lock_expired(&directory, &file, lifetime)? {
                    work(&directory, &file)?;
                    count += 1;
                }
            }
            // Fails if it still has sessions.
            let _ = uploads.remove_directory(&repository);
        }
        Ok(count)
    }
}

/// Locks the file of a session that had no request for so long and that no request is adding to.
fn lock_expired(
    directory: &OpenDirectory,
    name: &OsStr,
    lifetime: Duration,
) -> io::Result<Option<FileLock>> {
    let status = if_exists(directory.status(name))?;
    let is_expired = |status: &FileStatus| status.is_file() && blobs::is_older(status, lifetime);
    if !status.as_ref().is_some_and(is_expired) {
        return Ok(None);
    }
    let Some(file) = if_exists(directory.file(name))? else {
        return Ok(None);
    };
    Ok(FileLock::acquire_open(file, LockMode::Exclusive, Duration::ZERO).ok())
}
