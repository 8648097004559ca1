//! What a call is about: its repository, its tag or digest, its upload session.

use super::Call;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;

impl Call {
    /// The repository that the call is about; of a mount, the one that receives.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Ping { .. } | Self::Catalog { .. } => None,
            Self::TagsList { repository, .. }
            | Self::ManifestRead { repository, .. }
            | Self::ManifestWrite { repository, .. }
            | Self::ManifestDelete { repository, .. }
            | Self::BlobRead { repository, .. }
            | Self::BlobDelete { repository, .. }
            | Self::UploadStart { repository, .. }
            | Self::Mount { repository, .. }
            | Self::UploadStatus { repository, .. }
            | Self::UploadChunk { repository, .. }
            | Self::UploadCommit { repository, .. }
            | Self::UploadCancel { repository, .. }
            | Self::Referrers { repository, .. } => Some(repository),
        }
    }

    /// The upload session that the call goes on with.
    pub fn session(&self) -> Option<&UploadId> {
        match self {
            Self::UploadStatus { upload, .. }
            | Self::UploadChunk { upload, .. }
            | Self::UploadCommit { upload, .. }
            | Self::UploadCancel { upload, .. } => Some(upload),
            Self::Ping { .. }
            | Self::Catalog { .. }
            | Self::TagsList { .. }
            | Self::ManifestRead { .. }
            | Self::ManifestWrite { .. }
            | Self::ManifestDelete { .. }
            | Self::BlobRead { .. }
            | Self::BlobDelete { .. }
            | Self::UploadStart { .. }
            | Self::Mount { .. }
            | Self::Referrers { .. } => None,
        }
    }

    /// Makes it a call about another repository. A ping and the catalog are about none.
    pub fn set_repository(&mut self, name: RepositoryName) {
        match self {
            Self::Ping { .. } | Self::Catalog { .. } => {}
            Self::TagsList { repository, .. }
            | Self::ManifestRead { repository, .. }
            | Self::ManifestWrite { repository, .. }
            | Self::ManifestDelete { repository, .. }
            | Self::BlobRead { repository, .. }
            | Self::BlobDelete { repository, .. }
            | Self::UploadStart { repository, .. }
            | Self::Mount { repository, .. }
            | Self::UploadStatus { repository, .. }
            | Self::UploadChunk { repository, .. }
            | Self::UploadCommit { repository, .. }
            | Self::UploadCancel { repository, .. }
            | Self::Referrers { repository, .. } => *repository = name,
        }
    }

    /// The tag or digest that the call is about, for the log. Never an upload session: its name is
    /// as good as a password at some registries.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::ManifestRead { reference, .. }
            | Self::ManifestWrite { reference, .. }
            | Self::ManifestDelete { reference, .. } => Some(reference.as_str()),
            Self::BlobRead { digest, .. }
            | Self::BlobDelete { digest, .. }
            | Self::Mount { digest, .. }
            | Self::UploadCommit { digest, .. }
            | Self::Referrers { digest, .. } => Some(digest.as_str()),
            Self::UploadStart { digest, .. } => digest.as_ref().map(Digest::as_str),
            Self::Ping { .. }
            | Self::Catalog { .. }
            | Self::TagsList { .. }
            | Self::UploadStatus { .. }
            | Self::UploadChunk { .. }
            | Self::UploadCancel { .. } => None,
        }
    }
}
