//! What retention reads of a repository: its tags and manifests as they are at one time, what each
//! manifest references, and whether all of it is there. Nothing of it counts as a use.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::StoreError;
use super::index::RepositoryIndex;
use super::manifest::{self, Descriptor, ParsedManifest};
use super::repository::StoredRepository;
use super::{Store, StoredManifest, blobs, files};
use crate::config::vhost::MissingContent;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// The tags and manifests of a repository at one time.
#[derive(Debug)]
pub(crate) struct RepositoryContents {
    index: Arc<RepositoryIndex>,
}

/// Reads the manifests of a repository without its index, so that this takes no memory meanwhile.
#[derive(Debug)]
pub(crate) struct ManifestReader {
    repository: StoredRepository,
}

/// A repository whose index stays in memory while it is in use here, whatever clients use
/// meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct RepositoryHandle(pub(super) Arc<StoredRepository>);

/// The names of all repositories, in order. Blocks on the disk.
pub(crate) fn repository_names(store: &Store) -> Result<Vec<RepositoryName>, StoreError> {
    let mut names = store.names()?;
    names.sort_unstable();
    Ok(names)
}

impl RepositoryContents {
    /// `None`: the repository does not exist. Blocks on the disk.
    pub(crate) fn read(store: &Store, name: &RepositoryName) -> Result<Option<Self>, StoreError> {
        Self::of(store, &store.repository_uncached(name))
    }

    /// As [`Self::read`], and the index stays in memory for the calls that follow.
    pub(crate) fn read_cached(
        store: &Store,
        name: &RepositoryName,
    ) -> Result<Option<Self>, StoreError> {
        Self::of(store, &store.repository(name))
    }

    fn of(store: &Store, repository: &StoredRepository) -> Result<Option<Self>, StoreError> {
        match repository.index() {
            Err(StoreError::RepositoryUnknown) if store.exists() => Ok(None),
            index => Ok(Some(Self { index: index? })),
        }
    }

    /// All tags, in order, with the manifests that they point at.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (&Tag, &Digest)> {
        self.index.tags()
    }

    /// All manifests, in the order of their digests, with their media types and sizes.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = (&Digest, &Arc<str>, u64)> {
        let entries = self.index.manifests();
        entries.map(|(digest, entry)| (digest, &entry.media_type, entry.size))
    }
}

impl ManifestReader {
    pub(crate) fn new(store: &Store, name: &RepositoryName) -> Self {
        Self {
            repository: StoredRepository::new(store.layout.clone(), name.clone()),
        }
    }

    /// A parsed manifest. `None`: it is missing. Blocks on the disk.
    ///
    /// Errors: `Damaged` if it cannot be read and may list other manifests, which would then seem to
    /// be unused.
    pub(crate) fn document(
        &self,
        digest: &Digest,
        media_type: &str,
    ) -> Result<Option<ParsedManifest>, StoreError> {
        let document = self.repository.document_of(digest, media_type)?;
        if document.is_none()
            && manifest::may_have_entries(media_type)
            && self.repository.has(digest)?
        {
            return Err(StoreError::Damaged(digest.clone()));
        }
        Ok(document)
    }

    /// The content of a blob of at most `max` bytes. `None`: it is missing, damaged or larger.
    /// Blocks on the disk.
    pub(crate) fn small_blob(
        &self,
        digest: &Digest,
        max: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let blob = match self.repository.blob(digest) {
            Err(
                StoreError::BlobUnknown | StoreError::DigestUnsupported | StoreError::Damaged(_),
            ) => return Ok(None),
            blob => blob?,
        };
        if blob.size > max {
            return Ok(None);
        }
        Ok(Some(files::read_all(&blob.file, blob.size)?))
    }
}

impl RepositoryHandle {
    pub(crate) fn new(store: &Store, name: &RepositoryName) -> Self {
        Self(store.repository(name))
    }

    pub(crate) fn name(&self) -> &RepositoryName {
        self.0.name()
    }

    /// A manifest of the index, byte for byte. `None`: there is none. Blocks on the disk.
    pub(crate) fn manifest(&self, digest: &Digest) -> Result<Option<StoredManifest>, StoreError> {
        let read = self.0.index().and_then(|index| {
            let entry = index.manifest(digest).ok_or(StoreError::ManifestUnknown)?;
            Ok(StoredManifest {
                digest: digest.clone(),
                media_type: entry.media_type.to_string(),
                bytes: self.0.bytes(digest)?,
            })
        });
        match read {
            Err(StoreError::ManifestUnknown | StoreError::RepositoryUnknown) => Ok(None),
            read => read.map(Some),
        }
    }

    /// The first thing that is missing, or does not have the size that is given for it, of what a
    /// tag's image consists of. `None`: it is whole, or there is no such tag. Blocks on the disk.
    ///
    /// Where content may be missing, only manifests that the repository lists must be there.
    pub(crate) fn missing_of(
        &self,
        tag: &Tag,
        missing: MissingContent,
    ) -> Result<Option<Digest>, StoreError> {
        let index = match self.0.index() {
            Err(StoreError::RepositoryUnknown) => return Ok(None),
            index => index?,
        };
        let Some(digest) = index.tag(tag) else {
            return Ok(None);
        };
        let check = WholeImage {
            repository: &self.0,
            index: &index,
            missing,
        };
        check.first_missing(digest)
    }
}

/// The check of all that an image consists of.
struct WholeImage<'a> {
    repository: &'a StoredRepository,
    index: &'a RepositoryIndex,
    missing: MissingContent,
}

impl WholeImage<'_> {
    fn first_missing(&self, image: &Digest) -> Result<Option<Digest>, StoreError> {
        let mut pending = vec![image.clone()];
        let mut seen = HashSet::new();
        while let Some(digest) = pending.pop() {
            let Some(entry) = self.index.manifest(&digest) else {
                return Ok(Some(digest));
            };
            let Some(document) = self.repository.document(&digest, entry)? else {
                // Not valid, as another tool listed it: then it is there at least.
                match self.repository.bytes(&digest) {
                    Ok(_) => continue,
                    Err(
                        StoreError::ManifestUnknown
                        | StoreError::Damaged(_)
                        | StoreError::DigestUnsupported,
                    ) => return Ok(Some(digest)),
                    Err(error) => return Err(error),
                }
            };
            if let Some(missing) = self.missing_reference(&document)? {
                return Ok(Some(missing));
            }
            let listed = document.manifests.into_iter().map(|child| child.digest);
            let listed = listed.filter(|child| self.index.manifest(child).is_some());
            pending.extend(listed.filter(|child| seen.insert(child.clone())));
        }
        Ok(None)
    }

    /// The first blob that is not there as the manifest says, or manifest that is not listed.
    fn missing_reference(&self, document: &ParsedManifest) -> Result<Option<Digest>, StoreError> {
        match self.missing {
            MissingContent::Allow => return Ok(None),
            MissingContent::Refuse => {}
        }
        let needed = document.references().filter(|needed| !needed.has_urls);
        for Descriptor {
            media_type,
            digest,
            size,
            has_urls: _,
        } in needed
        {
            let found = match self.index.manifest(digest) {
                Some(listed) => Some(listed.size),
                None if manifest::is_manifest(media_type) => None,
                None => self.blob_size(digest)?,
            };
            let is_right = |found| size.is_none_or(|size| u64::try_from(size) == Ok(found));
            if !found.is_some_and(is_right) {
                return Ok(Some(digest.clone()));
            }
        }
        Ok(None)
    }

    fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        match self.repository.blob(digest) {
            Ok(blobs::OpenBlob { file: _, size }) => Ok(Some(size)),
            Err(
                StoreError::BlobUnknown | StoreError::Damaged(_) | StoreError::DigestUnsupported,
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
