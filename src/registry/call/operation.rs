//! What a call does in its repository.

use http::Method;

use super::endpoint::RepositoryResource;
use super::query::Parameters;
use super::{CallError, Pagination, Parameter, QueryError, QueryText, Read, get_only, not_allowed};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{InvalidReference, Reference, Tag};
use crate::registry::upload_id::UploadId;

/// One variant for each endpoint below `/v2/<name>/` and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryCall {
    /// `GET /v2/<name>/tags/list`
    TagsList { page: Pagination },
    /// `GET /v2/<name>/manifests/<reference>`
    ManifestRead { reference: Reference, read: Read },
    /// `PUT /v2/<name>/manifests/<reference>`
    ManifestWrite {
        /// The tag that is written, or the manifest's own digest.
        reference: Reference,
        /// Further tags that are written (`?tag=`, given with a digest).
        tags: Vec<Tag>,
    },
    /// `DELETE /v2/<name>/manifests/<reference>`
    ManifestDelete { reference: Reference },
    /// `GET /v2/<name>/blobs/<digest>`
    BlobRead { digest: Digest, read: Read },
    /// `DELETE /v2/<name>/blobs/<digest>`
    BlobDelete { digest: Digest },
    /// `POST /v2/<name>/blobs/uploads/`: opens an upload session.
    UploadStart {
        /// With a digest the body is the whole blob, and the upload is finished at once.
        digest: Option<Digest>,
    },
    /// `POST /v2/<name>/blobs/uploads/?mount=<digest>`: takes a blob over from another repository.
    Mount {
        digest: Digest,
        /// The repository that has the blob. Without it the registry searches all repositories.
        from: Option<RepositoryName>,
    },
    /// `/v2/<name>/blobs/uploads/<session>`: continues an upload session.
    Upload { session: UploadId, step: UploadStep },
    /// `GET /v2/<name>/referrers/<digest>`: lists the manifests whose subject is this digest.
    Referrers {
        digest: Digest,
        /// Only those of this type (`?artifactType=`).
        artifact_type: Option<QueryText>,
    },
}

/// The steps of an upload session, by their methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadStep {
    /// `GET`: asks how far the upload is.
    Status { read: Read },
    /// `PATCH`: a chunk of the blob.
    Chunk,
    /// `PUT` with `?digest=`: the rest of the blob, which is then complete.
    Commit { digest: Digest },
    /// `DELETE`
    Cancel,
}

impl RepositoryCall {
    pub(super) fn parse(
        method: &Method,
        resource: RepositoryResource<'_>,
        parameters: &Parameters<'_>,
    ) -> Result<Self, CallError> {
        match resource {
            RepositoryResource::Tags => {
                get_only(method)?;
                let page = parameters.page()?;
                Ok(Self::TagsList { page })
            }
            RepositoryResource::Manifest(text) => Self::manifest(method, text, parameters),
            RepositoryResource::Blob(digest) => Self::blob(method, digest),
            RepositoryResource::Uploads if *method == Method::POST => {
                Self::upload_start(parameters)
            }
            RepositoryResource::Uploads => Err(not_allowed("POST")),
            RepositoryResource::Upload(session) => Ok(Self::Upload {
                session,
                step: UploadStep::parse(method, parameters)?,
            }),
            RepositoryResource::Referrers(digest) => {
                get_only(method)?;
                let artifact_type = parameters.artifact_type()?;
                Ok(Self::Referrers {
                    digest,
                    artifact_type,
                })
            }
        }
    }

    fn manifest(
        method: &Method,
        text: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Self, CallError> {
        let reference = Reference::parse(text).map_err(|error| match error {
            InvalidReference::Digest => CallError::DigestInvalid,
            InvalidReference::Tag if *method == Method::PUT => CallError::TagInvalid,
            InvalidReference::Tag => CallError::ManifestUnknown,
        })?;
        if let Some(read) = Read::parse(method) {
            return Ok(Self::ManifestRead { reference, read });
        }
        match *method {
            Method::PUT => {
                let tags = parameters.tags()?;
                Ok(Self::ManifestWrite { reference, tags })
            }
            Method::DELETE => Ok(Self::ManifestDelete { reference }),
            _ => Err(not_allowed("DELETE, GET, HEAD, PUT")),
        }
    }

    fn blob(method: &Method, digest: Digest) -> Result<Self, CallError> {
        if let Some(read) = Read::parse(method) {
            return Ok(Self::BlobRead { digest, read });
        }
        match *method {
            Method::DELETE => Ok(Self::BlobDelete { digest }),
            _ => Err(not_allowed("DELETE, GET, HEAD")),
        }
    }

    fn upload_start(parameters: &Parameters<'_>) -> Result<Self, CallError> {
        match (parameters.digest()?, parameters.mount()?) {
            (digest, None) => Ok(Self::UploadStart { digest }),
            (None, Some(digest)) => {
                let from = parameters.from()?;
                Ok(Self::Mount { digest, from })
            }
            // Registries disagree on which of the two counts.
            (Some(_), Some(_)) => Err(QueryError::Contradiction.into()),
        }
    }

    /// The upload session that the call continues.
    pub fn session(&self) -> Option<&UploadId> {
        match self {
            Self::Upload { session, .. } => Some(session),
            _ => None,
        }
    }

    /// Which of the reading methods it is, of a manifest or a blob.
    pub fn content_read(&self) -> Option<Read> {
        match self {
            Self::ManifestRead { read, .. } | Self::BlobRead { read, .. } => Some(*read),
            _ => None,
        }
    }

    pub(super) fn reference(&self) -> Option<&str> {
        match self {
            Self::ManifestRead { reference, .. }
            | Self::ManifestWrite { reference, .. }
            | Self::ManifestDelete { reference } => Some(reference.as_str()),
            Self::BlobRead { digest, .. }
            | Self::BlobDelete { digest }
            | Self::Mount { digest, .. }
            | Self::Upload {
                step: UploadStep::Commit { digest },
                ..
            }
            | Self::Referrers { digest, .. } => Some(digest.as_str()),
            Self::UploadStart { digest } => digest.as_ref().map(Digest::as_str),
            Self::TagsList { .. } | Self::Upload { .. } => None,
        }
    }

    pub(super) fn is_commit(&self) -> bool {
        matches!(
            self,
            Self::Upload {
                step: UploadStep::Commit { .. },
                ..
            } | Self::ManifestWrite { .. }
                | Self::UploadStart { digest: Some(_) }
        )
    }

    pub(super) fn is_upload_body(&self) -> bool {
        matches!(
            self,
            Self::Upload {
                step: UploadStep::Chunk | UploadStep::Commit { .. },
                ..
            } | Self::UploadStart { digest: Some(_) }
        )
    }

    pub(super) fn is_upload(&self) -> bool {
        matches!(
            self,
            Self::UploadStart { .. }
                | Self::Mount { .. }
                | Self::Upload {
                    step: UploadStep::Chunk | UploadStep::Commit { .. },
                    ..
                }
        )
    }
}

impl UploadStep {
    fn parse(method: &Method, parameters: &Parameters<'_>) -> Result<Self, CallError> {
        if let Some(read) = Read::parse(method) {
            return Ok(Self::Status { read });
        }
        match *method {
            Method::PATCH => Ok(Self::Chunk),
            Method::PUT => {
                let digest = parameters.digest()?;
                let digest = digest.ok_or(QueryError::Missing(Parameter::Digest))?;
                Ok(Self::Commit { digest })
            }
            Method::DELETE => Ok(Self::Cancel),
            _ => Err(not_allowed("DELETE, GET, HEAD, PATCH, PUT")),
        }
    }
}
