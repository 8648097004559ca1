//! Why a request is not a call, and the response for the client.

use super::query::{Parameter, QueryError};
use crate::registry::error_code::ErrorCode;

/// Why a request is not a call. It is always the client's fault. The messages are for the client;
/// they never repeat what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// 400: a path that two programs could read in two ways.
    #[error(
        "the path must be plain: no dot segments, empty segments, percent-encoding or special characters"
    )]
    BadPath,
    /// 404: not an endpoint of the protocol.
    #[error("there is no such endpoint in the registry protocol")]
    Unknown,
    /// 404: the protocol before 2015. Old clients then use version 2.
    #[error("version 1 of the registry protocol is not served")]
    V1,
    /// 400: the part before the endpoint is not a repository name.
    #[error(
        "the repository name must be lower-case letters and digits, with single separators, joined by slashes"
    )]
    NameInvalid,
    /// 400: a blob, a subject or a manifest by digest, but not a digest.
    #[error("the digest must be like sha256: and 64 lower-case hexadecimal digits")]
    DigestInvalid,
    /// 404: no manifest can have this tag. A 404 and not a 400, because clients ask whether a
    /// manifest is there, and the conformance suite does it with a name that is not a tag.
    #[error("there is no such manifest: the tag is not valid")]
    ManifestUnknown,
    /// 400: a manifest is written under an invalid tag.
    #[error("the tag must be letters, digits, underscores, dots and hyphens, at most 128")]
    TagInvalid,
    /// 404: no session can have this name. Clients start the upload again.
    #[error("there is no such upload session")]
    UploadUnknown,
    /// 405: the endpoint exists, but not with this method.
    #[error("the method is not supported here; these are: {allow}")]
    MethodNotAllowed {
        /// The value of the `Allow` header (RFC 9110 §10.2.1).
        allow: &'static str,
    },
    /// 400: something is wrong with the query.
    #[error(transparent)]
    BadQuery(#[from] QueryError),
}

impl CallError {
    /// The code for the error document.
    pub fn code(&self) -> ErrorCode {
        match self {
            // Docker retries a push on most codes, but not on this one. A retry never helps.
            Self::BadPath | Self::Unknown | Self::V1 | Self::MethodNotAllowed { .. } => {
                ErrorCode::Unsupported
            }
            Self::NameInvalid => ErrorCode::NameInvalid,
            Self::DigestInvalid => ErrorCode::DigestInvalid,
            Self::ManifestUnknown => ErrorCode::ManifestUnknown,
            Self::TagInvalid => ErrorCode::TagInvalid,
            Self::UploadUnknown => ErrorCode::BlobUploadUnknown,
            Self::BadQuery(error) => match error.parameter() {
                Some(Parameter::Digest | Parameter::Mount) => ErrorCode::DigestInvalid,
                Some(Parameter::From) => ErrorCode::NameInvalid,
                Some(Parameter::Tag) => ErrorCode::TagInvalid,
                Some(Parameter::N) => ErrorCode::PaginationNumberInvalid,
                Some(Parameter::Last | Parameter::ArtifactType) | None => ErrorCode::Unsupported,
            },
        }
    }
}
