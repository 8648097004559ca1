//! Prints a call as its canonical request target.

use std::fmt;

use http::Method;

use super::{Call, Pagination, Parameter, QueryText, RepositoryCall, UploadStep, encode_value};
use crate::registry::digest::Digest;

impl Call {
    /// The method, and the path with its query. Parsing them gives the same call. Parameters that
    /// the parser ignored are not in it.
    pub fn print(&self) -> (Method, String) {
        (self.method(), PrintedTarget(self).to_string())
    }

    fn method(&self) -> Method {
        match self {
            Self::Ping { read } => read.method(),
            Self::Catalog { .. } => Method::GET,
            Self::Repository { operation, .. } => operation.method(),
        }
    }
}

impl RepositoryCall {
    fn method(&self) -> Method {
        match self {
            Self::ManifestRead { read, .. } | Self::BlobRead { read, .. } => read.method(),
            Self::TagsList { .. } | Self::Referrers { .. } => Method::GET,
            Self::ManifestWrite { .. } => Method::PUT,
            Self::ManifestDelete { .. } | Self::BlobDelete { .. } => Method::DELETE,
            Self::UploadStart { .. } | Self::Mount { .. } => Method::POST,
            Self::Upload { step, .. } => match step {
                UploadStep::Status { read } => read.method(),
                UploadStep::Chunk => Method::PATCH,
                UploadStep::Commit { .. } => Method::PUT,
                UploadStep::Cancel => Method::DELETE,
            },
        }
    }

    /// Writes what follows `/v2/<name>/`.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TagsList { page } => {
                f.write_str("tags/list")?;
                write_page(f, page)
            }
            Self::ManifestRead { reference, .. } | Self::ManifestDelete { reference } => {
                write!(f, "manifests/{reference}")
            }
            Self::ManifestWrite { reference, tags } => {
                write!(f, "manifests/{reference}")?;
                write_query(f, tags.iter().map(|tag| (Parameter::Tag, tag.as_str())))
            }
            Self::BlobRead { digest, .. } | Self::BlobDelete { digest } => {
                write!(f, "blobs/{digest}")
            }
            Self::UploadStart { digest } => {
                f.write_str("blobs/uploads/")?;
                let digest = digest.iter().map(Digest::as_str);
                write_query(f, digest.map(|digest| (Parameter::Digest, digest)))
            }
            Self::Mount { digest, from } => {
                f.write_str("blobs/uploads/")?;
                let mount = std::iter::once((Parameter::Mount, digest.as_str()));
                let from = from.iter().map(|from| (Parameter::From, from.as_str()));
                write_query(f, mount.chain(from))
            }
            Self::Upload { session, step } => {
                write!(f, "blobs/uploads/{session}")?;
                match step {
                    UploadStep::Commit { digest } => {
                        write_query(f, [(Parameter::Digest, digest.as_str())])
                    }
                    UploadStep::Status { .. } | UploadStep::Chunk | UploadStep::Cancel => Ok(()),
                }
            }
            Self::Referrers {
                digest,
                artifact_type,
            } => {
                write!(f, "referrers/{digest}")?;
                let artifact_type = artifact_type.iter().map(QueryText::as_str);
                write_query(f, artifact_type.map(|text| (Parameter::ArtifactType, text)))
            }
        }
    }
}

struct PrintedTarget<'a>(&'a Call);

impl fmt::Display for PrintedTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Call::Ping { .. } => f.write_str("/v2/"),
            Call::Catalog { page } => {
                f.write_str("/v2/_catalog")?;
                write_page(f, page)
            }
            Call::Repository { name, operation } => {
                write!(f, "/v2/{name}/")?;
                operation.write(f)
            }
        }
    }
}

fn write_page(f: &mut fmt::Formatter<'_>, page: &Pagination) -> fmt::Result {
    let n = page.n.map(|n| n.to_string());
    let n = n.iter().map(|n| (Parameter::N, n.as_str()));
    write_query(
        f,
        n.chain(
            page.last
                .iter()
                .map(|last| (Parameter::Last, last.as_str())),
        ),
    )
}

fn write_query<'a>(
    f: &mut fmt::Formatter<'_>,
    parameters: impl IntoIterator<Item = (Parameter, &'a str)>,
) -> fmt::Result {
    let mut separator = '?';
    for (parameter, value) in parameters {
        let (name, value) = (parameter.as_str(), encode_value(value));
        write!(f, "{separator}{name}={value}")?;
        separator = '&';
    }
    Ok(())
}
