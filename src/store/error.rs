//! Why the store cannot do what it is asked for.

use std::borrow::Cow;
use std::io;

use crate::registry::digest::Digest;
use crate::registry::reference::Tag;

/// Why the store cannot do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// There is no repository of this name.
    #[error("the repository is not here")]
    RepositoryUnknown,
    /// The repository has no such blob.
    #[error("the blob is not here")]
    BlobUnknown,
    /// The repository has no such manifest.
    #[error("the manifest is not here")]
    ManifestUnknown,
    /// There is no such upload session in this repository: finished, cancelled or expired.
    #[error("the upload is not here: start it again")]
    UploadUnknown,
    /// The content is not what its digest says.
    #[error("the content is not what the digest says")]
    DigestMismatch,
    /// A digest by which nothing is kept.
    #[error("only sha256 and sha512 digests are kept here")]
    DigestUnsupported,
    /// A chunk does not begin where the upload stands.
    #[error("the upload stands at byte {at}")]
    OutOfOrder {
        /// Bytes that are here.
        at: u64,
    },
    /// A chunk is not as long as its `Content-Range` says, or that says nothing that can be read.
    #[error("the Content-Range does not fit the body")]
    BadRange,
    /// Deleting the blob would break a manifest.
    #[error("the blob is part of the manifest {0}: delete that first")]
    BlobInUse(Digest),
    /// Deleting the manifest would break an index.
    #[error("the manifest is part of the index {0}: delete that first")]
    ManifestInUse(Digest),
    /// The manifest is not one.
    #[error("{0}")]
    ManifestInvalid(Cow<'static, str>),
    /// The manifest needs this, and it is not here.
    #[error("the manifest needs {0}, which is not in this repository: push it first")]
    Missing(Digest),
    /// The tag is there, or is not, or leads to another manifest: not what the write expects.
    #[error("the tag {0} is not as this write expects it")]
    PreconditionFailed(Tag),
    /// The body did not come whole.
    #[error("the request body ended early")]
    BodyCut,
    /// The body stopped coming.
    #[error("the request body stopped coming")]
    BodyStalled,
    /// Another request continues the same upload.
    #[error("another request continues this upload")]
    Superseded,
    /// The disk or a quota is full.
    #[error("the disk of the registry is full")]
    Full(#[source] io::Error),
    /// The disk fails.
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
