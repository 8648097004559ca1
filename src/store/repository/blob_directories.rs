//! Sizes and times of many blobs of a repository.

use super::StoredRepository;
use crate::registry::digest::Digest;
use crate::store::error::StoreError;
use crate::store::files::{self, FileStatus, OpenDirectory};
use crate::store::layout::if_exists;

/// The directories of the blobs of a repository, each opened once.
pub(in crate::store) struct BlobDirectories<'a> {
    repository: &'a StoredRepository,
    opened: Vec<OpenDirectory>,
}

impl<'a> BlobDirectories<'a> {
    pub(in crate::store) fn new(repository: &'a StoredRepository) -> Self {
        Self {
            repository,
            opened: Vec::new(),
        }
    }

    /// The size of a blob or of the bytes of a manifest, if they exist.
    pub(in crate::store) fn size(&mut self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let status = self.status(digest)?;
        Ok(status.filter(FileStatus::is_file).map(|status| status.size))
    }

    pub(in crate::store) fn status(
        &mut self,
        digest: &Digest,
    ) -> Result<Option<FileStatus>, StoreError> {
        let StoredRepository { layout, name, .. } = self.repository;
        let Ok(path) = layout.blob(name, digest) else {
            return Ok(None);
        };
        let (parent, file) = files::split(&path)?;
        if let Some(known) = self.opened.iter().find(|known| known.path() == parent) {
            return Ok(if_exists(known.status(file))?);
        }
        let Some(directory) = if_exists(OpenDirectory::open(parent))? else {
            return Ok(None);
        };
        let status = if_exists(directory.status(file))?;
        self.opened.push(directory);
        Ok(status)
    }
}
