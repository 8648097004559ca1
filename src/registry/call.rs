//! Calls: what a request under `/v2/` means. A request that is not one of them is never forwarded,
//! and everything after parsing speaks of calls, never of paths.

mod about;
mod endpoint;
mod error;
mod kind;
mod print;
mod query;

#[cfg(test)]
mod tests;

use http::Method;

use self::endpoint::Endpoint;
use self::query::Parameters;
use super::digest::Digest;
use super::name::RepositoryName;
use super::reference::{InvalidReference, Reference, Tag};
use super::upload_id::UploadId;

pub use self::error::CallError;
pub use self::kind::CallKind;
pub use self::query::{Pagination, Parameter, QueryError, QueryText, pairs, without_parameters};

/// One variant for each endpoint and method of the distribution specification 1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET /v2/`: is this a registry, and am I logged in?
    Ping {
        /// GET or HEAD.
        read: Read,
    },
    /// `GET /v2/_catalog`: the repositories.
    Catalog {
        /// Which part of the list.
        page: Pagination,
    },
    /// `GET /v2/<name>/tags/list`: the tags of a repository.
    TagsList {
        /// Whose tags.
        repository: RepositoryName,
        /// Which part of the list.
        page: Pagination,
    },
    /// `GET /v2/<name>/manifests/<reference>`.
    ManifestRead {
        /// Where.
        repository: RepositoryName,
        /// Which.
        reference: Reference,
        /// GET or HEAD.
        read: Read,
    },
    /// `PUT /v2/<name>/manifests/<reference>`.
    ManifestWrite {
        /// Where.
        repository: RepositoryName,
        /// The tag that is moved, or the manifest's own digest.
        reference: Reference,
        /// Further tags that are moved (`?tag=`, given with a digest). Each is written to.
        tags: Vec<Tag>,
    },
    /// `DELETE /v2/<name>/manifests/<reference>`.
    ManifestDelete {
        /// Where.
        repository: RepositoryName,
        /// Which.
        reference: Reference,
    },
    /// `GET /v2/<name>/blobs/<digest>`.
    BlobRead {
        /// Where.
        repository: RepositoryName,
        /// Which.
        digest: Digest,
        /// GET or HEAD.
        read: Read,
    },
    /// `DELETE /v2/<name>/blobs/<digest>`.
    BlobDelete {
        /// Where.
        repository: RepositoryName,
        /// Which.
        digest: Digest,
    },
    /// `POST /v2/<name>/blobs/uploads/`: opens an upload session.
    UploadStart {
        /// Where.
        repository: RepositoryName,
        /// With a digest the body is the whole blob, and the upload is finished at once.
        digest: Option<Digest>,
    },
    /// `POST /v2/<name>/blobs/uploads/?mount=<digest>`: takes a blob over from another repository.
    Mount {
        /// Where it shall be.
        repository: RepositoryName,
        /// Which blob.
        digest: Digest,
        /// Where it is. Without it the registry looks through all repositories.
        from: Option<RepositoryName>,
    },
    /// `GET /v2/<name>/blobs/uploads/<session>`: how far the upload is.
    UploadStatus {
        /// Where.
        repository: RepositoryName,
        /// The session.
        upload: UploadId,
        /// GET or HEAD.
        read: Read,
    },
    /// `PATCH /v2/<name>/blobs/uploads/<session>`: a piece of the blob.
    UploadChunk {
        /// Where.
        repository: RepositoryName,
        /// The session.
        upload: UploadId,
    },
    /// `PUT /v2/<name>/blobs/uploads/<session>?digest=<digest>`: the rest of the blob, which is
    /// then complete.
    UploadCommit {
        /// Where.
        repository: RepositoryName,
        /// The session.
        upload: UploadId,
        /// What the content must be.
        digest: Digest,
    },
    /// `DELETE /v2/<name>/blobs/uploads/<session>`.
    UploadCancel {
        /// Where.
        repository: RepositoryName,
        /// The session.
        upload: UploadId,
    },
    /// `GET /v2/<name>/referrers/<digest>`: the manifests whose subject this is.
    Referrers {
        /// Where.
        repository: RepositoryName,
        /// The subject.
        digest: Digest,
        /// Only those of this type (`?artifactType=`).
        artifact_type: Option<QueryText>,
    },
}

/// Which of the two reading methods: they mean the same, but HEAD is answered without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// With the content.
    Get,
    /// Only what the head says about it.
    Head,
}

impl Call {
    /// Reads a request target as it stands in the request, percent-encoding included; `query` is
    /// what follows the `?`. The path must be in its one plain form: nothing is normalised here, so
    /// that moorgate and the upstream cannot read two different things into it.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, CallError> {
        let path = endpoint::plain_path(path)?;
        let endpoint = Endpoint::parse(&path)?;
        let parameters = Parameters::parse(query)?;
        match endpoint {
            Endpoint::Base => Ok(Self::Ping {
                read: Read::parse(method).ok_or(not_allowed("GET, HEAD"))?,
            }),
            Endpoint::Catalog => {
                get_only(method)?;
                Ok(Self::Catalog {
                    page: parameters.page()?,
                })
            }
            Endpoint::Tags(repository) => {
                get_only(method)?;
                Ok(Self::TagsList {
                    repository,
                    page: parameters.page()?,
                })
            }
            Endpoint::Manifest(repository, text) => {
                Self::manifest(method, repository, text, &parameters)
            }
            Endpoint::Blob(repository, digest) => Self::blob(method, repository, digest),
            Endpoint::Uploads(repository) => match *method {
                Method::POST => Self::upload_start(repository, &parameters),
                _ => Err(not_allowed("POST")),
            },
            Endpoint::Upload(repository, upload) => {
                Self::upload(method, repository, upload, &parameters)
            }
            Endpoint::Referrers(repository, digest) => {
                get_only(method)?;
                Ok(Self::Referrers {
                    repository,
                    digest,
                    artifact_type: parameters.artifact_type()?,
                })
            }
        }
    }

    fn manifest(
        method: &Method,
        repository: RepositoryName,
        text: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Self, CallError> {
        let reference = Reference::parse(text).map_err(|error| match error {
            InvalidReference::Digest => CallError::DigestInvalid,
            InvalidReference::Tag if *method == Method::PUT => CallError::TagInvalid,
            InvalidReference::Tag => CallError::ManifestUnknown,
        })?;
        match *method {
            Method::GET => Ok(Self::ManifestRead {
                repository,
                reference,
                read: Read::Get,
            }),
            Method::HEAD => Ok(Self::ManifestRead {
                repository,
                reference,
                read: Read::Head,
            }),
            Method::PUT => Ok(Self::ManifestWrite {
                repository,
                reference,
                tags: parameters.tags()?,
            }),
            Method::DELETE => Ok(Self::ManifestDelete {
                repository,
                reference,
            }),
            _ => Err(not_allowed("DELETE, GET, HEAD, PUT")),
        }
    }

    fn blob(
        method: &Method,
        repository: RepositoryName,
        digest: Digest,
    ) -> Result<Self, CallError> {
        match *method {
            Method::GET => Ok(Self::BlobRead {
                repository,
                digest,
                read: Read::Get,
            }),
            Method::HEAD => Ok(Self::BlobRead {
                repository,
                digest,
                read: Read::Head,
            }),
            Method::DELETE => Ok(Self::BlobDelete { repository, digest }),
            _ => Err(not_allowed("DELETE, GET, HEAD")),
        }
    }

    fn upload_start(
        repository: RepositoryName,
        parameters: &Parameters<'_>,
    ) -> Result<Self, CallError> {
        match (parameters.digest()?, parameters.mount()?) {
            (digest, None) => Ok(Self::UploadStart { repository, digest }),
            (None, Some(digest)) => Ok(Self::Mount {
                repository,
                digest,
                from: parameters.from()?,
            }),
            // Registries disagree on which of the two counts.
            (Some(_), Some(_)) => Err(QueryError::Contradiction.into()),
        }
    }

    fn upload(
        method: &Method,
        repository: RepositoryName,
        upload: UploadId,
        parameters: &Parameters<'_>,
    ) -> Result<Self, CallError> {
        match *method {
            Method::GET => Ok(Self::UploadStatus {
                repository,
                upload,
                read: Read::Get,
            }),
            Method::HEAD => Ok(Self::UploadStatus {
                repository,
                upload,
                read: Read::Head,
            }),
            Method::PATCH => Ok(Self::UploadChunk { repository, upload }),
            Method::PUT => {
                let digest = parameters
                    .digest()?
                    .ok_or(QueryError::Missing(Parameter::Digest))?;
                Ok(Self::UploadCommit {
                    repository,
                    upload,
                    digest,
                })
            }
            Method::DELETE => Ok(Self::UploadCancel { repository, upload }),
            _ => Err(not_allowed("DELETE, GET, HEAD, PATCH, PUT")),
        }
    }

    /// Whether something becomes visible with it. The upstream may take minutes to answer these.
    pub fn is_commit(&self) -> bool {
        matches!(
            self,
            Self::UploadCommit { .. }
                | Self::ManifestWrite { .. }
                | Self::UploadStart {
                    digest: Some(_),
                    ..
                }
        )
    }

    /// Whether the request's body is a blob or a piece of one (it may still be empty).
    pub fn is_upload_body(&self) -> bool {
        matches!(
            self,
            Self::UploadChunk { .. }
                | Self::UploadCommit { .. }
                | Self::UploadStart {
                    digest: Some(_),
                    ..
                }
        )
    }

    /// Whether it is a step of an upload that sends: one at which a registry may read a form.
    pub fn is_upload(&self) -> bool {
        matches!(
            self,
            Self::UploadStart { .. }
                | Self::Mount { .. }
                | Self::UploadChunk { .. }
                | Self::UploadCommit { .. }
        )
    }

    /// Whether the request's body is a manifest.
    pub fn is_manifest_write(&self) -> bool {
        matches!(self, Self::ManifestWrite { .. })
    }
}

impl Read {
    fn parse(method: &Method) -> Option<Self> {
        match *method {
            Method::GET => Some(Self::Get),
            Method::HEAD => Some(Self::Head),
            _ => None,
        }
    }

    /// The method itself.
    pub fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
        }
    }
}

/// For the endpoints where no registry answers HEAD.
fn get_only(method: &Method) -> Result<(), CallError> {
    if *method == Method::GET {
        Ok(())
    } else {
        Err(not_allowed("GET"))
    }
}

fn not_allowed(allow: &'static str) -> CallError {
    CallError::MethodNotAllowed { allow }
}
