//! One repository: its manifests and its index. The index is cached in memory, read again when the
//! file has changed, and written only under the repository's lock.

mod blob_directories;
mod new_manifest;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::blobs;
use super::error::StoreError;
use super::files::{self, FileStatus};
use super::hash;
use super::index::{self, ManifestEntry, RepositoryIndex};
use super::layout::{INDEX_FILE, RepositoryLock, StoreLayout, if_exists};
use super::manifest::{self, Descriptor, ParsedManifest};
use crate::config::vhost::MissingContent;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::state_file::Fingerprint;
use new_manifest::{CheckedManifest, check_reference};

pub(super) use blob_directories::BlobDirectories;

pub(crate) use new_manifest::{NewManifest, PutOutcome, WrongSize};

/// A repository on the disk.
#[derive(Debug)]
pub(super) struct StoredRepository {
    layout: StoreLayout,
    name: RepositoryName,
    read: Mutex<Option<(Fingerprint, Arc<RepositoryIndex>)>>,
    /// By the digest of the manifest; `None` for manifests without a subject.
    referrers: Mutex<HashMap<Digest, Option<Arc<Referrer>>>>,
}

/// A manifest that was found.
pub(super) struct FoundManifest {
    pub(super) index: Arc<RepositoryIndex>,
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
}

/// The tags of a manifest that was put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestoredTags {
    pub(crate) set: Vec<Tag>,
    /// Those that lead to another manifest.
    pub(crate) taken: Vec<Tag>,
}

/// A manifest with a subject.
#[derive(Debug)]
pub(super) struct Referrer {
    pub(super) subject: Digest,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

impl StoredRepository {
    pub(super) fn new(layout: StoreLayout, name: RepositoryName) -> Self {
        Self {
            layout,
            name,
            read: Mutex::default(),
            referrers: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &RepositoryName {
        &self.name
    }

    fn path(&self) -> std::path::PathBuf {
        self.layout.repository(&self.name)
    }

    /// The size in bytes of the cached index file; 0 while it is being read.
    pub(super) fn index_bytes(&self) -> u64 {
        let read = self.read.try_lock().ok();
        read.and_then(|read| read.as_ref().map(|(fingerprint, _)| fingerprint.size()))
            .unwrap_or_default()
    }

    /// Whether the index lists nothing. Does not cache an index that was not cached.
    ///
    /// Errors: as of [`Self::index`].
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        if lock(&self.read).is_some() {
            return Ok(self.index()?.is_empty());
        }
        let path = self.path().join(INDEX_FILE);
        let file = if_exists(files::open(&path))?.ok_or(StoreError::RepositoryUnknown)?;
        index::is_empty_file(io::BufReader::new(file)).map_err(|error| self.damaged(&path, error))
    }

    /// The current index. Errors: `RepositoryUnknown` if there is no index file;
    /// `IndexDamaged`.
    pub(super) fn index(&self) -> Result<Arc<RepositoryIndex>, StoreError> {
        let path = self.path().join(INDEX_FILE);
        let mut read = lock(&self.read);
        let Some(file) = if_exists(files::open(&path))? else {
            *read = None;
            return Err(StoreError::RepositoryUnknown);
        };
        let fingerprint = Fingerprint::from_metadata(&file.metadata()?);
        if let Some((then, index)) = &*read
            && fingerprint == *then
        {
            return Ok(index.clone());
        }
        let mut index = RepositoryIndex::read(io::BufReader::with_capacity(INDEX_BUFFER, &file))
            .map_err(|error| self.damaged(&path, error))?;
        self.layout.damage.mended(&path);
        self.list_children(&mut index)?;
        let index = Arc::new(index);
        // Cached only if nobody wrote to the file meanwhile. One that replaces it has another inode.
        let is_same = Fingerprint::from_metadata(&file.metadata()?) == fingerprint;
        *read = is_same.then(|| (fingerprint, index.clone()));
        Ok(index)
    }

    fn damaged(&self, index: &Path, error: serde_json::Error) -> StoreError {
        if error.is_io() {
            return io::Error::from(error).into();
        }
        let what = format!("{error}; restore it from a backup");
        self.layout.damage.found(index, &what);
        StoreError::IndexDamaged(self.name.clone())
    }

    /// Adds the manifests of image indexes: other tools list only the image index itself. Its
    /// entries may also be blobs.
    fn list_children(&self, index: &mut RepositoryIndex) -> Result<(), StoreError> {
        let mut waiting: Vec<(Digest, ManifestEntry)> = index
            .manifests()
            .filter(|(_, entry)| manifest::is_index(&entry.media_type))
            .map(|(digest, entry)| (digest.clone(), entry.clone()))
            .collect();
        while let Some((digest, entry)) = waiting.pop() {
            let children = self
                .document(&digest, &entry)?
                .map(|document| document.manifests);
            for child in children.into_iter().flatten() {
                if index.manifest(&child.digest).is_some() {
                    continue;
                }
                let Some(entry) = self.unlisted_manifest(&child)? else {
                    continue;
                };
                index.insert(&child.digest, entry.clone());
                waiting.push((child.digest, entry));
            }
        }
        Ok(())
    }

    /// The entry of a manifest that only an image index lists. `None`: it is missing, or a blob.
    fn unlisted_manifest(&self, child: &Descriptor) -> Result<Option<ManifestEntry>, StoreError> {
        let Some(size) = BlobDirectories::new(self).size(&child.digest)? else {
            return Ok(None);
        };
        let media_type = if manifest::is_manifest(&child.media_type) {
            child.media_type.clone()
        } else if child.media_type.is_empty() && size <= MAX_UNTYPED_MANIFEST {
            let entry = ManifestEntry::new("", size, None);
            match self.document(&child.digest, &entry)? {
                Some(document) => document.media_type,
                None => return Ok(None),
            }
        } else {
            return Ok(None);
        };
        Ok(Some(ManifestEntry::new(&media_type, size, None)))
    }

    /// Replaces the index. `_lock` must be exclusive.
    pub(super) fn write(
        &self,
        index: RepositoryIndex,
        _lock: &RepositoryLock,
    ) -> Result<(), StoreError> {
        let path = self.path().join(INDEX_FILE);
        files::replace_with(&path, |file| {
            let mut file = io::BufWriter::with_capacity(INDEX_BUFFER, file);
            index.write(&mut file)?;
            file.flush()
        })?;
        let written = files::metadata(&path).ok();
        *lock(&self.read) =
            written.map(|data| (Fingerprint::from_metadata(&data), Arc::new(index)));
        Ok(())
    }

    /// The index, or an empty one if there is no file. `_lock` must be exclusive.
    pub(super) fn index_or_empty(
        &self,
        _lock: &RepositoryLock,
    ) -> Result<RepositoryIndex, StoreError> {
        match self.index() {
            Ok(index) => Ok(RepositoryIndex::clone(&index)),
            Err(StoreError::RepositoryUnknown) => Ok(RepositoryIndex::default()),
            Err(error) => Err(error),
        }
    }

    /// Stores a manifest under its digest and points its tags at it, if all preconditions hold.
    /// `lock` must be exclusive.
    pub(super) fn put(
        &self,
        checked: CheckedManifest,
        lock: &RepositoryLock,
    ) -> Result<PutOutcome, StoreError> {
        let mut index = self.index_or_empty(lock)?;
        checked.check_preconditions(&index)?;
        let CheckedManifest {
            new,
            parsed,
            digest,
        } = checked;
        let wrong_size = self.check_references(&parsed, &index, new.missing)?;
        let mut changed = self.add_manifest(&digest, &parsed, &new.bytes, &mut index)?;
        let tag = match new.reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let mut moved = Vec::new();
        for tag in tag.into_iter().chain(new.tags) {
            if index.point(tag.clone(), &digest) {
                moved.push(tag);
            }
        }
        changed |= !moved.is_empty();
        if changed {
            self.write(index, lock)?;
        }
        Ok(PutOutcome {
            digest,
            subject: parsed.subject,
            moved,
            wrong_size,
        })
    }

    /// Stores a manifest that was removed, and points those of its tags at it that lead nowhere.
    /// `lock` must be exclusive.
    pub(super) fn restore(
        &self,
        checked: CheckedManifest,
        lock: &RepositoryLock,
    ) -> Result<RestoredTags, StoreError> {
        let mut index = self.index_or_empty(lock)?;
        let CheckedManifest {
            new,
            parsed,
            digest,
        } = checked;
        self.check_references(&parsed, &index, new.missing)?;
        let mut changed = self.add_manifest(&digest, &parsed, &new.bytes, &mut index)?;
        let mut restored = RestoredTags::default();
        for tag in new.tags {
            match index.tag(&tag) {
                Some(now) if *now != digest => restored.taken.push(tag),
                Some(_) => restored.set.push(tag),
                None => {
                    changed |= index.point(tag.clone(), &digest);
                    restored.set.push(tag);
                }
            }
        }
        if changed {
            self.write(index, lock)?;
        }
        Ok(restored)
    }

    /// Writes a manifest, and lists it in the index. Returns whether that changed the index.
    fn add_manifest(
        &self,
        digest: &Digest,
        parsed: &ParsedManifest,
        bytes: &[u8],
        index: &mut RepositoryIndex,
    ) -> Result<bool, StoreError> {
        self.write_manifest(digest, bytes)?;
        let is_new = index.manifest(digest).is_none();
        let artifact_type = parsed.artifact_type.as_deref();
        let artifact_type = artifact_type.filter(|_| parsed.subject.is_some());
        let entry = ManifestEntry::new(&parsed.media_type, bytes.len() as u64, artifact_type);
        index.insert(digest, entry);
        Ok(is_new)
    }

    /// Checks that what a manifest references exists with the given sizes. Returns the first wrong
    /// size, if they are allowed.
    fn check_references(
        &self,
        document: &ParsedManifest,
        index: &RepositoryIndex,
        missing: MissingContent,
    ) -> Result<Option<WrongSize>, StoreError> {
        let mut first_wrong = None;
        let mut blobs = BlobDirectories::new(self);
        for blob in document.blobs.iter().filter(|blob| !blob.has_urls) {
            let wrong = check_reference(blob, blobs.size(&blob.digest)?, missing)?;
            first_wrong = first_wrong.or(wrong);
        }
        for entry in &document.manifests {
            let size = match index.manifest(&entry.digest) {
                // One that is both a manifest and a blob counts as a manifest.
                Some(manifest) => Some(manifest.size),
                None if manifest::is_manifest(&entry.media_type) => None,
                None => blobs.size(&entry.digest)?,
            };
            let wrong = check_reference(entry, size, missing)?;
            first_wrong = first_wrong.or(wrong);
        }
        Ok(first_wrong)
    }

    /// Writes the bytes of a manifest as a blob. The caller has the exclusive lock.
    fn write_manifest(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.layout.blob(&self.name, digest)?;
        let (parent, name) = files::split(&path)?;
        // Other tools create only the directories that they need.
        let directory = files::private_directory(parent)?;
        let existing = match directory.file(name) {
            Err(error) if files::link_in(&error).is_some() => None,
            opened => if_exists(opened)?,
        };
        if let Some(file) = existing.filter(|file| has_content(file, bytes)) {
            blobs::touch(&file)?;
            return Ok(());
        }
        directory.replace(name, bytes)?;
        lock(&self.referrers).remove(digest);
        self.layout.damage.mended(&path);
        Ok(())
    }

    /// The manifest that a reference resolves to. Collections keep it for their grace period from
    /// now on: the client may be about to push an index that lists it.
    ///
    /// Errors: as of [`Self::bytes`].
    pub(super) fn find(&self, reference: &Reference) -> Result<FoundManifest, StoreError> {
        let (mut index, mut digest) = self.resolve(reference)?;
        let (file, data) = self.open_manifest(&digest)?;
        let bytes = if blobs::touch_known(&file, &data)? {
            // A collection may have removed an old manifest meanwhile; the index shows it.
            (index, digest) = self.resolve(reference)?;
            self.bytes(&digest)?
        } else {
            self.read_manifest(&digest, &file, data.size)?
        };
        Ok(FoundManifest {
            index,
            digest,
            bytes,
        })
    }

    fn resolve(&self, reference: &Reference) -> Result<(Arc<RepositoryIndex>, Digest), StoreError> {
        let index = self.index()?;
        let digest = match reference {
            Reference::Tag(tag) => index.tag(tag).ok_or(StoreError::ManifestUnknown)?,
            Reference::Digest(digest) => digest,
        };
        if index.manifest(digest).is_none() {
            return Err(StoreError::ManifestUnknown);
        }
        let digest = digest.clone();
        Ok((index, digest))
    }

    /// Whether there is a file of a manifest, if only a symbolic link.
    pub(super) fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(BlobDirectories::new(self).status(digest)?.is_some())
    }

    /// Whether a manifest was used within the last `than`.
    pub(super) fn is_younger(&self, digest: &Digest, than: Duration) -> Result<bool, StoreError> {
        let status = BlobDirectories::new(self).status(digest)?;
        Ok(status.is_some_and(|status| !blobs::is_older(&status, than)))
    }

    /// Opens a blob.
    ///
    /// Errors: `BlobUnknown`; `Damaged` if it does not have the size that was recorded.
    pub(super) fn blob(&self, digest: &Digest) -> Result<blobs::OpenBlob, StoreError> {
        blobs::open(&self.layout, &self.name, digest)
    }

    /// The bytes of a manifest.
    ///
    /// Errors: `ManifestUnknown`; `Damaged` if they are not those of the digest.
    pub(super) fn bytes(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let (file, data) = self.open_manifest(digest)?;
        self.read_manifest(digest, &file, data.size)
    }

    fn open_manifest(&self, digest: &Digest) -> Result<(File, FileStatus), StoreError> {
        let path = self.layout.blob(&self.name, digest)?;
        let file = blobs::open_own(&self.layout, &path, digest)?;
        let file = file.ok_or(StoreError::ManifestUnknown)?;
        let data = FileStatus::from(&file.metadata()?);
        Ok((file, data))
    }

    fn read_manifest(
        &self,
        digest: &Digest,
        file: &File,
        size: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let bytes = files::read_all(file, size)?;
        if !hash::is_digest_of(digest, &bytes) {
            let path = self.layout.blob(&self.name, digest)?;
            let what = "the manifest does not match its digest; a push of it mends it";
            self.layout.damage.found(&path, what);
            return Err(StoreError::Damaged(digest.clone()));
        }
        Ok(bytes)
    }

    /// Deletes a tag, or a manifest with its tags. `lock` must be exclusive.
    pub(super) fn delete(
        &self,
        reference: &Reference,
        lock: &RepositoryLock,
    ) -> Result<(), StoreError> {
        let mut index = self.index_or_empty(lock)?;
        match reference {
            Reference::Tag(tag) => {
                if !index.untag(tag) {
                    return Err(StoreError::ManifestUnknown);
                }
            }
            Reference::Digest(digest) => {
                if index.manifest(digest).is_none() {
                    return Err(StoreError::ManifestUnknown);
                }
                let needs = |document: &ParsedManifest| {
                    document.manifests.iter().any(|d| d.digest == *digest)
                };
                if let Some(user) = self.first_manifest_where(&index, needs)? {
                    return Err(StoreError::ManifestInUse(user));
                }
                index.remove(|removed| removed == digest);
            }
        }
        self.write(index, lock)
    }

    /// Deletes a blob that no manifest references. `lock` must be exclusive.
    pub(super) fn delete_blob(
        &self,
        digest: &Digest,
        lock: &RepositoryLock,
    ) -> Result<(), StoreError> {
        let path = self.layout.blob(&self.name, digest)?;
        let index = self.index_or_empty(lock)?;
        if index.manifest(digest).is_some() {
            return Err(StoreError::BlobInUse(digest.clone()));
        }
        let needs = |document: &ParsedManifest| document.references().any(|d| d.digest == *digest);
        if let Some(user) = self.first_manifest_where(&index, needs)? {
            return Err(StoreError::BlobInUse(user));
        }
        if_exists(files::remove_file(&path))?.ok_or(StoreError::BlobUnknown)
    }

    fn first_manifest_where(
        &self,
        index: &RepositoryIndex,
        needs: impl Fn(&ParsedManifest) -> bool,
    ) -> Result<Option<Digest>, StoreError> {
        for (digest, entry) in index.manifests() {
            if self
                .document(digest, entry)?
                .is_some_and(|document| needs(&document))
            {
                return Ok(Some(digest.clone()));
            }
        }
        Ok(None)
    }

    /// The parsed manifest. `None`: another tool listed it, but it is missing or not valid, or it is
    /// damaged.
    pub(super) fn document(
        &self,
        digest: &Digest,
        entry: &ManifestEntry,
    ) -> Result<Option<ParsedManifest>, StoreError> {
        self.document_of(digest, &entry.media_type)
    }

    /// As [`Self::document`], of a manifest that the index lists with this media type.
    pub(super) fn document_of(
        &self,
        digest: &Digest,
        media_type: &str,
    ) -> Result<Option<ParsedManifest>, StoreError> {
        match self.bytes(digest) {
            Ok(bytes) => Ok(ParsedManifest::read(Some(media_type), &bytes).ok()),
            Err(
                StoreError::ManifestUnknown
                | StoreError::DigestUnsupported
                | StoreError::Damaged(_),
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The manifest as a referrer, if it has a subject.
    pub(super) fn referrer(
        &self,
        digest: &Digest,
        entry: &ManifestEntry,
    ) -> Result<Option<Arc<Referrer>>, StoreError> {
        if let Some(known) = lock(&self.referrers).get(digest) {
            return Ok(known.clone());
        }
        let referrer = self.document(digest, entry)?.and_then(|document| {
            let ParsedManifest {
                subject,
                artifact_type,
                annotations,
                ..
            } = document;
            Some(Arc::new(Referrer {
                subject: subject?,
                artifact_type,
                annotations,
            }))
        });
        lock(&self.referrers).insert(digest.clone(), referrer.clone());
        Ok(referrer)
    }

    /// Drops the cached referrers that the index no longer has.
    pub(super) fn forget_removed(&self, index: &RepositoryIndex) {
        lock(&self.referrers).retain(|digest, _| index.manifest(digest).is_some());
    }
}

fn has_content(file: &File, content: &[u8]) -> bool {
    // A disk error in the existing content is damage.
    let data = file.metadata();
    let data = data.ok().filter(|data| data.len() == content.len() as u64);
    data.and_then(|data| files::read_all(file, data.len()).ok())
        .is_some_and(|existing| existing == content)
}

/// The largest file that is read to see whether it is a manifest where no media type says so: that
/// of the largest manifest that common clients pull.
const MAX_UNTYPED_MANIFEST: u64 = 4 << 20;

/// For the file of an index: large ones are read and written in few calls.
const INDEX_BUFFER: usize = 64 * 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves no partial value: values are inserted as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
