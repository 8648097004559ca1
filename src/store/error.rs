//! The errors of the store.

use std::borrow::Cow;
use std::io;

use crate::registry::digest::Digest;
use crate::registry::reference::Tag;

/// An error of the store. Its text is for clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the repository is not here")]
    RepositoryUnknown,
    #[error("the blob is not here")]
    BlobUnknown,
    #[error("the manifest is not here")]
    ManifestUnknown,
    /// The session does not exist in this repository: finished, cancelled or expired.
    #[error("the upload is not here: start it again")]
    UploadUnknown,
    #[error("the content is not what the digest says")]
    DigestMismatch,
    #[error("only sha256 and sha512 digests are kept here")]
    DigestUnsupported,
    /// A chunk does not begin at the end of the upload.
    #[error("the upload stands at byte {at}")]
    OutOfOrder {
        /// Bytes received so far.
        at: u64,
    },
    /// A chunk is not as long as its `Content-Range` says, or that header is malformed.
    #[error("the Content-Range does not fit the body")]
    BadRange,
    /// Deleting the blob would break a manifest.
    #[error("the blob is part of the manifest {0}: delete that first")]
    BlobInUse(Digest),
    /// Deleting the manifest would break an index.
    #[error("the manifest is part of the index {0}: delete that first")]
    ManifestInUse(Digest),
    #[error("{0}")]
    ManifestInvalid(Cow<'static, str>),
    /// The repository lacks something that the manifest references.
    #[error("the manifest needs {0}, which is not in this repository: push it first")]
    Missing(Digest),
    #[error("the tag {0} is not as this write expects it")]
    PreconditionFailed(Tag),
    #[error("the request body ended early")]
    BodyCut,
    #[error("the request body stopped coming")]
    BodyStalled,
    /// Another request continues the same upload.
    #[error("another request continues this upload")]
    Superseded,
    /// Another request, a collection or another process has the repository locked.
    #[error("the repository is locked by another operation")]
    Locked,
    /// More disk work is queued than the store takes.
    #[error("the registry has too much to do")]
    Overloaded,
    /// The user has as many open upload sessions as one may have.
    #[error("too many open uploads: finish or cancel some of them")]
    TooManyUploads,
    /// The disk or a quota is full.
    #[error("the disk of the registry is full")]
    Full(#[source] io::Error),
    #[error("the disk of the registry fails")]
    Io(#[source] io::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded) {
            Self::Full(error)
        } else {
            Self::Io(error)
        }
    }
}

impl StoreError {
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::ManifestInvalid(message.into())
    }
}
