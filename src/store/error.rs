//! Errors of the store.

use std::borrow::Cow;
use std::io;

use super::files;
use super::quota::excess::QuotaExcess;
use crate::journal::JournalError;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// An error of the store. Clients see its text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("repository not found")]
    RepositoryUnknown,
    #[error("blob not found")]
    BlobUnknown,
    #[error("manifest not found")]
    ManifestUnknown,
    /// The repository has no such session: it was committed, cancelled or expired.
    #[error("upload not found: start it again")]
    UploadUnknown,
    #[error("the content does not match the digest")]
    DigestMismatch,
    #[error("only sha256 and sha512 digests are supported")]
    DigestUnsupported,
    /// A chunk does not begin at the end of the upload.
    #[error("the next chunk of the upload begins at byte {at}")]
    OutOfOrder {
        /// The number of bytes received so far.
        at: u64,
    },
    /// The length of a chunk differs from its `Content-Range`, or that header is malformed.
    #[error("the Content-Range does not match the body")]
    BadRange,
    /// Deleting the blob would break a manifest.
    #[error("the blob is referenced by the manifest {0}: delete that first")]
    BlobInUse(Digest),
    /// Deleting the manifest would break an index.
    #[error("the manifest is referenced by the index {0}: delete that first")]
    ManifestInUse(Digest),
    #[error("{0}")]
    ManifestInvalid(Cow<'static, str>),
    /// The repository lacks something that the manifest references.
    #[error("the manifest references {0}, which is not in this repository: push it first")]
    Missing(Digest),
    #[error("the tag {0} is not in the state that this write requires")]
    PreconditionFailed(Tag),
    #[error("the request body ended early")]
    BodyCut,
    #[error("the request body stopped coming")]
    BodyStalled,
    /// Another request continues the same upload.
    #[error("another request has taken over this upload")]
    Superseded,
    /// Another request, a collection or another process has the repository locked.
    #[error("the repository is locked by another operation")]
    Locked,
    /// The queue for disk work is full.
    #[error("the registry is overloaded")]
    Overloaded,
    /// What is on the disk is not what its digest or its recorded size promises.
    #[error("the stored content of {0} is damaged: push it again")]
    Damaged(Digest),
    #[error("the index of the repository {0} is damaged")]
    IndexDamaged(RepositoryName),
    /// Something in the store is a symbolic link.
    #[error("the storage of the registry has a symbolic link, which is not followed")]
    Linked(#[source] io::Error),
    /// The directory of the store has gone, or its file system is not mounted.
    #[error("the storage of the registry is not there")]
    StorageMissing,
    /// The user has the maximum number of open upload sessions.
    #[error("too many open uploads: finish or cancel some of them")]
    TooManyUploads,
    /// The push does not fit into an area of repositories that has a quota.
    #[error("{0}")]
    OverQuota(Box<QuotaExcess>),
    /// The room for uploads in chunks is used up.
    #[error("the room for uploads in chunks is used up: try again later")]
    SpoolFull,
    /// The disk is full, or a quota is used up.
    #[error("the disk of the registry is full")]
    Full(#[source] io::Error),
    #[error("the disk of the registry failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded) {
            Self::Full(error)
        } else if files::link_in(&error).is_some() {
            Self::Linked(error)
        } else {
            Self::Io(error)
        }
    }
}

impl From<JournalError> for StoreError {
    fn from(error: JournalError) -> Self {
        Self::Io(io::Error::other(error))
    }
}

impl StoreError {
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::ManifestInvalid(message.into())
    }
}
