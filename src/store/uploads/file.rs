//! The file of an upload and its running hash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::UploadSession;
use super::upload_syncs::UploadSyncs;
use crate::registry::digest::Digest;
use crate::store::error::StoreError;
use crate::store::files;
use crate::store::hash::{ContentHasher, DigestAlgorithm};
use crate::store::layout::if_exists;

/// The written bytes and their hash. A disk job owns the lock until it ends, even if its request is
/// gone.
pub(super) struct UploadFile {
    session: Weak<UploadSession>,
    pub(super) length: u64,
    /// `None`: another process wrote a part of the file, so that it must be hashed as a whole.
    hasher: Option<ContentHasher>,
    pub(super) syncs: UploadSyncs,
}

impl UploadFile {
    /// For a file of this length.
    pub(super) fn new(session: Weak<UploadSession>, length: u64) -> Self {
        Self {
            session,
            length,
            hasher: empty_hasher(length),
            syncs: UploadSyncs::default(),
        }
    }

    /// Writes and hashes a batch. If that fails, length and hash still match the file.
    pub(super) fn add(&mut self, path: &Path, batch: &Batch) -> Result<(), StoreError> {
        let file = if_exists(files::open_to_write(path))?.ok_or(StoreError::UploadUnknown)?;
        let written = self.write(&file, batch);
        if written.is_err() {
            // Half a batch is harmless, but it takes space.
            let _ = file.set_len(self.length);
        }
        self.publish_length();
        Ok(written?)
    }

    fn write(&mut self, file: &File, batch: &Batch) -> io::Result<()> {
        for part in &batch.parts {
            file.write_all_at(part, self.length)?;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(part);
            }
            self.length += part.len() as u64;
            self.syncs.written(part.len());
        }
        Ok(())
    }

    fn publish_length(&self) {
        if let Some(session) = self.session.upgrade() {
            session.length.store(self.length, Ordering::Release);
        }
    }

    /// Follows another process, which may have added to the file or truncated it.
    pub(super) fn follow(&mut self, length: u64) {
        if self.length == length {
            return;
        }
        self.length = length;
        self.hasher = empty_hasher(length);
        self.publish_length();
    }

    /// Hashes by this algorithm, if nothing has been hashed yet.
    pub(super) fn hash_by(&mut self, algorithm: DigestAlgorithm) {
        if self.length == 0 {
            self.hasher = Some(algorithm.hasher());
        }
    }

    /// The digest of the whole content, if it was hashed as it arrived. `None`: the file must be
    /// read, because another process wrote a part of it, or it was hashed by another algorithm.
    pub(super) fn running_digest(
        &self,
        algorithm: DigestAlgorithm,
        file: &File,
    ) -> io::Result<Option<Digest>> {
        let is_ours = file.metadata()?.len() == self.length;
        let hasher = self.hasher.as_ref();
        let hasher = hasher.filter(|hasher| is_ours && hasher.algorithm() == algorithm);
        Ok(hasher.map(|hasher| hasher.clone().finish()))
    }
}

/// A running hash must see the first byte.
fn empty_hasher(length: u64) -> Option<ContentHasher> {
    (length == 0).then(|| DigestAlgorithm::Sha256.hasher())
}

/// Parts of a body that one disk job writes.
#[derive(Default)]
pub(super) struct Batch {
    parts: Vec<Bytes>,
    pub(super) bytes: usize,
}

impl Batch {
    pub(super) fn push(&mut self, part: Bytes) {
        self.bytes += part.len();
        if !part.is_empty() {
            self.parts.push(part);
        }
    }
}
