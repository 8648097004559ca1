//! The kinds of calls, and their names in logs and metrics.

use super::{Call, RepositoryCall, UploadStep};

/// A call without its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallKind {
    Ping,
    Catalog,
    TagsList,
    ManifestRead,
    ManifestWrite,
    ManifestDelete,
    BlobRead,
    BlobDelete,
    UploadStart,
    Mount,
    UploadStatus,
    UploadChunk,
    UploadCommit,
    UploadCancel,
    Referrers,
}

impl CallKind {
    /// All kinds, each at the index of its discriminant.
    pub const ALL: [Self; 15] = [
        Self::Ping,
        Self::Catalog,
        Self::TagsList,
        Self::ManifestRead,
        Self::ManifestWrite,
        Self::ManifestDelete,
        Self::BlobRead,
        Self::BlobDelete,
        Self::UploadStart,
        Self::Mount,
        Self::UploadStatus,
        Self::UploadChunk,
        Self::UploadCommit,
        Self::UploadCancel,
        Self::Referrers,
    ];

    /// The name in logs and metrics. It never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Catalog => "catalog",
            Self::TagsList => "tags.list",
            Self::ManifestRead => "manifest.read",
            Self::ManifestWrite => "manifest.write",
            Self::ManifestDelete => "manifest.delete",
            Self::BlobRead => "blob.read",
            Self::BlobDelete => "blob.delete",
            Self::UploadStart => "upload.start",
            Self::Mount => "upload.mount",
            Self::UploadStatus => "upload.status",
            Self::UploadChunk => "upload.chunk",
            Self::UploadCommit => "upload.commit",
            Self::UploadCancel => "upload.cancel",
            Self::Referrers => "referrers",
        }
    }
}

impl Call {
    pub fn kind(&self) -> CallKind {
        match self {
            Self::Ping { .. } => CallKind::Ping,
            Self::Catalog { .. } => CallKind::Catalog,
            Self::Repository { operation, .. } => operation.kind(),
        }
    }

    /// The name of the call in logs and metrics. It never changes.
    pub fn name(&self) -> &'static str {
        self.kind().as_str()
    }
}

impl RepositoryCall {
    fn kind(&self) -> CallKind {
        match self {
            Self::TagsList { .. } => CallKind::TagsList,
            Self::ManifestRead { .. } => CallKind::ManifestRead,
            Self::ManifestWrite { .. } => CallKind::ManifestWrite,
            Self::ManifestDelete { .. } => CallKind::ManifestDelete,
            Self::BlobRead { .. } => CallKind::BlobRead,
            Self::BlobDelete { .. } => CallKind::BlobDelete,
            Self::UploadStart { .. } => CallKind::UploadStart,
            Self::Mount { .. } => CallKind::Mount,
            Self::Upload { step, .. } => match step {
                UploadStep::Status { .. } => CallKind::UploadStatus,
                UploadStep::Chunk => CallKind::UploadChunk,
                UploadStep::Commit { .. } => CallKind::UploadCommit,
                UploadStep::Cancel => CallKind::UploadCancel,
            },
            Self::Referrers { .. } => CallKind::Referrers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_at_the_index_that_it_is() {
        for (index, kind) in CallKind::ALL.into_iter().enumerate() {
            assert_eq!(index, kind as usize, "{kind:?}");
        }
    }
}
