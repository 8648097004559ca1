//! Manifests to be stored: what is checked of them alone, and against what they reference.

use bytes::Bytes;

use crate::config::vhost::MissingContent;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::store::error::StoreError;
use crate::store::hash::DigestAlgorithm;
use crate::store::index::RepositoryIndex;
use crate::store::manifest::{self, Descriptor, ParsedManifest};
use crate::store::precondition::Precondition;
use crate::store::quota::reservation::PublishedContent;

/// A manifest to be stored.
#[derive(Debug)]
pub(crate) struct NewManifest {
    pub(crate) reference: Reference,
    /// Further tags that will point at it.
    pub(crate) tags: Vec<Tag>,
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Bytes,
    pub(crate) missing: MissingContent,
}

/// A manifest that is valid in itself. The blobs that it references may be missing.
#[derive(Debug)]
pub(in crate::store) struct CheckedManifest {
    pub(super) new: NewManifest,
    pub(super) parsed: ParsedManifest,
    pub(super) digest: Digest,
}

/// A manifest that was stored.
#[derive(Debug)]
pub(crate) struct PutOutcome {
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
    /// The tags that did not lead to it before.
    pub(crate) moved: Vec<Tag>,
    /// The first wrong size in it, if wrong sizes are allowed.
    pub(crate) wrong_size: Option<WrongSize>,
}

/// A size in a manifest that is not that of what it references.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the manifest gives the size of {digest} as {given} bytes, but it has {actual}")]
pub(crate) struct WrongSize {
    pub(crate) digest: Digest,
    pub(crate) given: i64,
    pub(crate) actual: u64,
}

impl NewManifest {
    /// Parses the manifest and computes its digest.
    ///
    /// Errors: `ManifestInvalid`, `DigestMismatch`, `DigestUnsupported`.
    pub(in crate::store) fn check(self) -> Result<CheckedManifest, StoreError> {
        let parsed = ParsedManifest::read(self.content_type.as_deref(), &self.bytes)?;
        manifest::check_names(&parsed, &self.bytes)?;
        let digest = match &self.reference {
            Reference::Tag(_) => DigestAlgorithm::Sha256.digest(&self.bytes),
            Reference::Digest(digest) => DigestAlgorithm::from_digest(digest)?.digest(&self.bytes),
        };
        if matches!(&self.reference, Reference::Digest(claimed) if *claimed != digest) {
            return Err(StoreError::DigestMismatch);
        }
        Ok(CheckedManifest {
            new: self,
            parsed,
            digest,
        })
    }
}

impl CheckedManifest {
    /// Its bytes as content of a repository.
    pub(in crate::store) fn content<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> PublishedContent<'a> {
        PublishedContent {
            repository,
            digest: &self.digest,
            size: self.new.bytes.len() as u64,
            upload: None,
        }
    }

    /// Something that it references and that must exist.
    pub(in crate::store) fn first_required(&self) -> Option<&Digest> {
        if self.new.missing == MissingContent::Allow {
            return None;
        }
        let ParsedManifest {
            blobs, manifests, ..
        } = &self.parsed;
        let mut required = blobs.iter().filter(|blob| !blob.has_urls).chain(manifests);
        required.next().map(|descriptor| &descriptor.digest)
    }

    pub(in crate::store) fn check_preconditions(
        &self,
        index: &RepositoryIndex,
    ) -> Result<(), StoreError> {
        let NewManifest {
            preconditions,
            bytes,
            ..
        } = &self.new;
        preconditions
            .iter()
            .try_for_each(|precondition| precondition.check(index, bytes))
    }
}

/// Returns a size that is wrong, if that is allowed.
pub(super) fn check_reference(
    descriptor: &Descriptor,
    found: Option<u64>,
    missing: MissingContent,
) -> Result<Option<WrongSize>, StoreError> {
    let Descriptor { digest, size, .. } = descriptor;
    let wrong = match (found, *size) {
        (None, _) if missing == MissingContent::Refuse => {
            return Err(StoreError::Missing(digest.clone()));
        }
        (Some(actual), Some(given)) if u64::try_from(given) != Ok(actual) => WrongSize {
            digest: digest.clone(),
            given,
            actual,
        },
        _ => return Ok(None),
    };
    match missing {
        MissingContent::Refuse => Err(StoreError::invalid(wrong.to_string())),
        MissingContent::Allow => Ok(Some(wrong)),
    }
}
