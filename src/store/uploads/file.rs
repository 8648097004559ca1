//! What of an upload has been written, and its hash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::UploadSession;
use crate::registry::digest::Digest;
use crate::store::error::StoreError;
use crate::store::hash::{ContentHasher, DigestAlgorithm};
use crate::store::layout::if_exists;

/// What has come, and its hash. Whoever writes owns the lock until the write has ended, also where
/// the request that wanted it is gone.
pub(super) struct UploadFile {
    session: Weak<UploadSession>,
    pub(super) length: u64,
    /// `None`: somebody else wrote some of it, and it has to be hashed again.
    hasher: Option<ContentHasher>,
}

impl UploadFile {
    /// Of a file that has this length already.
    pub(super) fn new(session: Weak<UploadSession>, length: u64) -> Self {
        Self {
            session,
            length,
            hasher: hasher_of(length),
        }
    }

    /// Writes and hashes; whatever fails, length and hash are those of what is in the file.
    pub(super) fn add(&mut self, path: &Path, batch: &Batch) -> Result<(), StoreError> {
        let file =
            if_exists(File::options().write(true).open(path))?.ok_or(StoreError::UploadUnknown)?;
        let written = self.write(&file, batch);
        if written.is_err() {
            // What was written of a part would be in the way of nothing, but it takes room.
            let _ = file.set_len(self.length);
        }
        self.tell();
        Ok(written?)
    }

    fn write(&mut self, file: &File, batch: &Batch) -> io::Result<()> {
        for part in &batch.parts {
            file.write_all_at(part, self.length)?;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(part);
            }
            self.length += part.len() as u64;
        }
        Ok(())
    }

    fn tell(&self) {
        if let Some(session) = self.session.upgrade() {
            session.length.store(self.length, Ordering::Release);
        }
    }

    /// Another process may have added to the file, or may have taken a part of it back.
    pub(super) fn follow(&mut self, length: u64) {
        if self.length == length {
            return;
        }
        self.length = length;
        self.hasher = hasher_of(length);
        self.tell();
    }

    /// The digest of all that is in the file, also where another process wrote some of it
    /// meanwhile.
    pub(super) fn finish(&mut self, algorithm: DigestAlgorithm, file: &File) -> io::Result<Digest> {
        let is_ours = file.metadata()?.len() == self.length;
        let kept = self
            .hasher
            .take()
            .filter(|hasher| is_ours && hasher.algorithm() == algorithm);
        match kept {
            Some(hasher) => Ok(hasher.finish()),
            None => algorithm.digest_file(file),
        }
    }
}

/// Only of nothing is the hash known.
fn hasher_of(length: u64) -> Option<ContentHasher> {
    (length == 0).then(|| DigestAlgorithm::Sha256.hasher())
}

/// Parts of a body that are written together.
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
