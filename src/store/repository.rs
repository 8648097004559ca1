//! One repository: its index in memory, read again whenever the file has changed, and changed under
//! the repository's lock; what its manifests say.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::blobs;
use super::error::StoreError;
use super::hash::DigestAlgorithm;
use super::index::{ManifestEntry, RepositoryIndex};
use super::layout::{INDEX, RepositoryLock, StoreLayout, if_exists};
use super::manifest::{self, ParsedManifest};
use super::precondition::Precondition;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::state_file::{Access, Fingerprint, atomic_write};

/// A repository that was seen on the disk.
#[derive(Debug)]
pub(super) struct StoredRepository {
    layout: StoreLayout,
    name: RepositoryName,
    read: Mutex<Option<(Fingerprint, Arc<RepositoryIndex>)>>,
    /// What manifests say that have a subject. Those without one are here too, without a word.
    referrers: Mutex<HashMap<Digest, Option<Arc<Referrer>>>>,
}

/// A manifest that says something about another one.
#[derive(Debug)]
pub(super) struct Referrer {
    pub(super) subject: Digest,
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

/// A manifest that was accepted.
#[derive(Debug)]
pub(crate) struct PutOutcome {
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
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

    fn path(&self) -> std::path::PathBuf {
        self.layout.repository(&self.name)
    }

    /// The index as it is now. `RepositoryUnknown`: no manifest was ever pushed, or all are gone.
    pub(super) fn index(&self) -> Result<Arc<RepositoryIndex>, StoreError> {
        let path = self.path().join(INDEX);
        let mut read = lock(&self.read);
        let fingerprint = Fingerprint::from_path(&path);
        if let (Some(now), Some((then, index))) = (&fingerprint, &*read)
            && now == then
        {
            return Ok(index.clone());
        }
        let Some(bytes) = if_exists(std::fs::read(&path))? else {
            *read = None;
            return Err(StoreError::RepositoryUnknown);
        };
        let mut index = RepositoryIndex::parse(&bytes).map_err(|error| {
            let message = format!("{} is damaged: {error}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        self.list_children(&mut index)?;
        let index = Arc::new(index);
        // Read between two looks that saw the same file: a replaced one is another inode.
        *read = fingerprint
            .filter(|before| Fingerprint::from_path(&path) == Some(*before))
            .map(|f| (f, index.clone()));
        Ok(index)
    }

    /// Other tools list an image index alone, and the manifests that it lists lie among the blobs.
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
                if index.manifest(&child.digest).is_some() || !self.has(&child.digest)? {
                    continue;
                }
                let entry = ManifestEntry::new(child.media_type, child.size, None);
                index.insert(&child.digest, entry.clone());
                waiting.push((child.digest, entry));
            }
        }
        Ok(())
    }

    /// Writes an index; the exclusive lock is the caller's.
    pub(super) fn write(
        &self,
        index: RepositoryIndex,
        _locked: &RepositoryLock,
    ) -> Result<(), StoreError> {
        let path = self.path().join(INDEX);
        atomic_write(&path, index.print().as_bytes(), Access::Private)?;
        *lock(&self.read) =
            Fingerprint::from_path(&path).map(|fingerprint| (fingerprint, Arc::new(index)));
        Ok(())
    }

    /// Takes the exclusive lock and the index under it, an empty one if there is none yet.
    pub(super) fn lock_existing(&self) -> Result<(RepositoryLock, RepositoryIndex), StoreError> {
        let locked = self
            .layout
            .lock_existing(&self.name)?
            .ok_or(StoreError::RepositoryUnknown)?;
        Ok((locked, self.index_or_empty()?))
    }

    /// For those who hold the lock.
    fn index_or_empty(&self) -> Result<RepositoryIndex, StoreError> {
        match self.index() {
            Ok(index) => Ok(RepositoryIndex::clone(&index)),
            Err(StoreError::RepositoryUnknown) => Ok(RepositoryIndex::default()),
            Err(error) => Err(error),
        }
    }

    /// Takes in a manifest under its digest and these tags, if all of them are as expected.
    pub(super) fn accept(
        &self,
        reference: &Reference,
        tags: &[Tag],
        expected: &[Precondition],
        content_type: Option<&str>,
        bytes: &[u8],
    ) -> Result<PutOutcome, StoreError> {
        let document = ParsedManifest::read(content_type, bytes)?;
        let digest = match reference {
            Reference::Tag(_) => DigestAlgorithm::Sha256.digest(bytes),
            Reference::Digest(digest) => DigestAlgorithm::of(digest)?.digest(bytes),
        };
        if matches!(reference, Reference::Digest(claimed) if *claimed != digest) {
            return Err(StoreError::DigestMismatch);
        }
        // A repository without a blob has nothing that a manifest could need.
        let first = document.blobs.first();
        let locked = match first {
            None => self.layout.lock_exclusive(&self.name)?,
            Some(blob) => match self.layout.lock_existing(&self.name)? {
                Some(locked) => locked,
                None => {
                    expected.iter().try_for_each(|expected| {
                        expected.check(&RepositoryIndex::default(), bytes)
                    })?;
                    return Err(StoreError::Missing(blob.digest.clone()));
                }
            },
        };
        let mut index = self.index_or_empty()?;
        expected
            .iter()
            .try_for_each(|expected| expected.check(&index, bytes))?;
        self.check_needs(&document, &index)?;
        self.keep(&digest, bytes)?;
        let size = bytes.len() as u64;
        let artifact_type = document
            .artifact_type
            .filter(|_| document.subject.is_some());
        let mut changed = index.manifest(&digest).is_none();
        index.insert(
            &digest,
            ManifestEntry::new(document.media_type, size, artifact_type),
        );
        let tag = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        for tag in tag.into_iter().chain(tags) {
            changed |= index.point(tag.clone(), &digest);
        }
        if changed {
            self.write(index, &locked)?;
        }
        Ok(PutOutcome {
            digest,
            subject: document.subject,
        })
    }

    /// Everything that a manifest needs is here, and is as long as the manifest says.
    fn check_needs(
        &self,
        document: &ParsedManifest,
        index: &RepositoryIndex,
    ) -> Result<(), StoreError> {
        for blob in &document.blobs {
            let Ok(path) = self.layout.blob(&self.name, &blob.digest) else {
                return Err(StoreError::Missing(blob.digest.clone()));
            };
            let found = if_exists(std::fs::metadata(path))?;
            let size = found
                .ok_or_else(|| StoreError::Missing(blob.digest.clone()))?
                .len();
            check_size(&blob.digest, blob.size, size)?;
        }
        for manifest in &document.manifests {
            let found = index.manifest(&manifest.digest);
            let size = found
                .ok_or_else(|| StoreError::Missing(manifest.digest.clone()))?
                .size;
            check_size(&manifest.digest, manifest.size, size)?;
        }
        Ok(())
    }

    /// Writes the manifest's bytes as a blob; the exclusive lock is the caller's.
    fn keep(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.layout.blob(&self.name, digest)?;
        if let Some(file) = if_exists(File::open(&path))?
            && file.metadata()?.len() == bytes.len() as u64
        {
            blobs::touch(&file)?;
            return Ok(());
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        // Other tools make only the one that they need.
        crate::state_file::private_directory(directory)?;
        let mut file = tempfile::Builder::new()
            .prefix(crate::state_file::TEMPORARY_PREFIX)
            .tempfile_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(super::layout::sync_directory(directory)?)
    }

    /// The index and what a reference leads to in it. The collection leaves that alone from now on
    /// for its grace period: it may be about to become a part of an index.
    pub(super) fn find(
        &self,
        reference: &Reference,
    ) -> Result<(Arc<RepositoryIndex>, Digest), StoreError> {
        let (index, digest) = self.look_up(reference)?;
        let file = if_exists(File::open(self.layout.blob(&self.name, &digest)?))?;
        // One that was old may have gone while it was renewed. Then the index knows.
        match blobs::touch(&file.ok_or(StoreError::ManifestUnknown)?)? {
            true => self.look_up(reference),
            false => Ok((index, digest)),
        }
    }

    fn look_up(&self, reference: &Reference) -> Result<(Arc<RepositoryIndex>, Digest), StoreError> {
        let index = self.index()?;
        let digest = Self::resolve(&index, reference)?;
        Ok((index, digest))
    }

    /// The digest that a reference leads to.
    fn resolve(index: &RepositoryIndex, reference: &Reference) -> Result<Digest, StoreError> {
        let digest = match reference {
            Reference::Tag(tag) => index.tag(tag).ok_or(StoreError::ManifestUnknown)?,
            Reference::Digest(digest) => digest,
        };
        index
            .manifest(digest)
            .map(|_| digest.clone())
            .ok_or(StoreError::ManifestUnknown)
    }

    /// Whether the bytes of a manifest are here.
    pub(super) fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        let Ok(path) = self.layout.blob(&self.name, digest) else {
            return Ok(false);
        };
        Ok(if_exists(std::fs::metadata(path))?.is_some())
    }

    /// Whether a manifest has had a sign of use since then.
    pub(super) fn is_younger(&self, digest: &Digest, than: Duration) -> Result<bool, StoreError> {
        let Ok(path) = self.layout.blob(&self.name, digest) else {
            return Ok(false);
        };
        Ok(if_exists(std::fs::metadata(path))?.is_some_and(|data| !blobs::is_older(&data, than)))
    }

    /// The bytes of a manifest.
    pub(super) fn bytes(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.layout.blob(&self.name, digest)?;
        if_exists(std::fs::read(path))?.ok_or(StoreError::ManifestUnknown)
    }

    /// Takes a tag away, or a manifest with its tags.
    pub(super) fn delete(&self, reference: &Reference) -> Result<(), StoreError> {
        let (locked, mut index) = self.lock_existing()?;
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
                if let Some(user) = self.first_that(&index, needs)? {
                    return Err(StoreError::ManifestInUse(user));
                }
                index.remove(digest);
            }
        }
        self.write(index, &locked)
    }

    /// Takes a blob away that no manifest needs.
    pub(super) fn delete_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.layout.blob(&self.name, digest)?;
        let (_locked, index) = self.lock_existing().map_err(|error| match error {
            StoreError::RepositoryUnknown => StoreError::BlobUnknown,
            error => error,
        })?;
        if index.manifest(digest).is_some() {
            return Err(StoreError::BlobInUse(digest.clone()));
        }
        let needs =
            |document: &ParsedManifest| document.blobs.iter().any(|blob| blob.digest == *digest);
        if let Some(user) = self.first_that(&index, needs)? {
            return Err(StoreError::BlobInUse(user));
        }
        if_exists(std::fs::remove_file(path))?.ok_or(StoreError::BlobUnknown)
    }

    fn first_that(
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

    /// What a manifest says; nothing, if another tool listed one that is not here or cannot be
    /// read.
    pub(super) fn document(
        &self,
        digest: &Digest,
        entry: &ManifestEntry,
    ) -> Result<Option<ParsedManifest>, StoreError> {
        match self.bytes(digest) {
            Ok(bytes) => Ok(ParsedManifest::read(Some(&entry.media_type), &bytes).ok()),
            Err(StoreError::ManifestUnknown | StoreError::DigestUnsupported) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a manifest says about another one, if it does.
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

    /// Forgets what removed manifests said.
    pub(super) fn forget_removed(&self, index: &RepositoryIndex) {
        lock(&self.referrers).retain(|digest, _| index.manifest(digest).is_some());
    }
}

fn check_size(digest: &Digest, said: u64, size: u64) -> Result<(), StoreError> {
    if said == size {
        return Ok(());
    }
    Err(StoreError::invalid(format!(
        "the manifest says that {digest} has {said} bytes, and it has {size}"
    )))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whole values are put in at once: a panic elsewhere leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
