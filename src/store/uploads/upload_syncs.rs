//! Syncs an upload in pieces while it is received, so that a slow disk has little left to do when
//! the client waits for its answer: Docker gives up after 30 s.

use std::path::{Path, PathBuf};

use crate::store::error::StoreError;
use crate::store::files;
use crate::store::lanes::{DiskJob, Lane};
use crate::store::layout::if_exists;

/// The sync of one upload. It has at most two pieces that are not on the disk: the one that is being
/// synced, and the one that is being received.
#[derive(Debug, Default)]
pub(super) struct UploadSyncs {
    /// The bytes that were written since the last sync began.
    unsynced: u64,
    pub(super) syncing: Option<DiskJob<()>>,
}

/// The bytes that all uploads of a store together may have received but not synced, as long as their
/// pieces are not smaller than [`MIN_BYTES_PER_SYNC`]: 6 s of a disk that writes 10 MB/s.
const MAX_UNSYNCED: u64 = 64 << 20;
/// A fast disk syncs that much while as much is received.
const MAX_BYTES_PER_SYNC: u64 = 8 << 20;
/// Less would cost a slow disk more for its own records than for the content.
const MIN_BYTES_PER_SYNC: u64 = 1 << 20;

/// The size of a piece while so many uploads are received.
pub(super) fn bytes_per_sync(uploads: usize) -> u64 {
    let uploads = u64::try_from(uploads).unwrap_or(u64::MAX).max(1);
    (MAX_UNSYNCED / 2 / uploads).clamp(MIN_BYTES_PER_SYNC, MAX_BYTES_PER_SYNC)
}

impl UploadSyncs {
    pub(super) fn written(&mut self, bytes: usize) {
        self.unsynced += bytes as u64;
    }

    /// Starts to sync what was written, if that is a whole piece. Waits for the previous piece
    /// before: the client sends no faster than the disk writes.
    ///
    /// Errors: as of [`Self::end`].
    pub(super) async fn next(
        &mut self,
        lane: &Lane,
        path: &Path,
        bytes_per_sync: u64,
    ) -> Result<(), StoreError> {
        if self.unsynced < bytes_per_sync {
            return Ok(());
        }
        self.end().await?;
        let path = PathBuf::from(path);
        self.syncing = Some(lane.start_job(move || {
            // It may have been cancelled.
            if let Some(file) = if_exists(files::open(&path))? {
                file.sync_data()?;
            }
            Ok(())
        })?);
        self.unsynced = 0;
        Ok(())
    }

    /// Waits for the sync that was begun. Cancel-safe: it is waited for again.
    ///
    /// Errors: `Io` if the disk failed. The kernel reports such an error once, and no later sync
    /// tells that bytes were lost.
    pub(super) async fn end(&mut self) -> Result<(), StoreError> {
        let Some(syncing) = &mut self.syncing else {
            return Ok(());
        };
        let ended = syncing.end().await;
        self.syncing = None;
        ended
    }

    #[cfg(test)]
    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.unsynced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_uploads_together_leave_little_to_sync() {
        assert_eq!(bytes_per_sync(0), MAX_BYTES_PER_SYNC);
        for uploads in 1..=32 {
            let left = 2 * bytes_per_sync(uploads) * uploads as u64;
            assert!(left <= MAX_UNSYNCED, "{uploads} uploads: {left}");
        }
        assert_eq!(bytes_per_sync(10_000), MIN_BYTES_PER_SYNC);
    }
}
