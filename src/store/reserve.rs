//! Space that is kept for deletions and collections: on a full disk they could not write the new
//! index otherwise, and nothing would ever free space again.

use std::io::{self, Write};
use std::path::PathBuf;

use super::error::StoreError;
use super::files;
use super::layout::if_exists;

/// A file that takes space until a deletion needs it.
#[derive(Debug)]
pub(super) struct SpaceReserve {
    path: PathBuf,
}

/// An index of about 4,000 manifests. Larger ones are written once other deletions freed space.
const RESERVED_BYTES: usize = 1024 * 1024;

impl SpaceReserve {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reserves the space, unless it is reserved. A disk that is too full for it is left as it is.
    pub(super) fn restore(&self) {
        let reserved = files::metadata(&self.path);
        if reserved.is_ok_and(|data| data.len() == RESERVED_BYTES as u64) {
            return;
        }
        if let Err(error) = self.write() {
            tracing::debug!(%error, "no space to reserve for deletions");
            let _ = files::remove_file(&self.path);
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut file = files::create(&self.path)?;
        file.write_all(&vec![0; RESERVED_BYTES])?;
        file.sync_all()
    }

    /// Runs work that frees space. On a full disk, frees the reserve and runs it once more.
    pub(super) fn run<T>(
        &self,
        mut work: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match work() {
            Err(StoreError::Full(error)) => {
                if if_exists(files::remove_file(&self.path))?.is_none() {
                    return Err(StoreError::Full(error));
                }
                work()
            }
            done => done,
        }
    }
}
