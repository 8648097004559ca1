//! Printing: the one request target that stands for a call.

use std::fmt::{self, Write as _};

use http::Method;

use super::{Call, Pagination, Parameter};

impl Call {
    /// The method, and the path with its query. Reading them gives the same call again. Only what
    /// the call knows is in it: parameters that were ignored when it was read are not.
    pub fn print(&self) -> (Method, String) {
        (self.method(), Target(self).to_string())
    }

    fn method(&self) -> Method {
        match self {
            Self::Ping { read }
            | Self::ManifestRead { read, .. }
            | Self::BlobRead { read, .. }
            | Self::UploadStatus { read, .. } => read.method(),
            Self::Catalog { .. } | Self::TagsList { .. } | Self::Referrers { .. } => Method::GET,
            Self::ManifestWrite { .. } | Self::UploadCommit { .. } => Method::PUT,
            Self::ManifestDelete { .. } | Self::BlobDelete { .. } | Self::UploadCancel { .. } => {
                Method::DELETE
            }
            Self::UploadStart { .. } | Self::Mount { .. } => Method::POST,
            Self::UploadChunk { .. } => Method::PATCH,
        }
    }
}

struct Target<'a>(&'a Call);

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Call::Ping { .. } => f.write_str("/v2/"),
            Call::Catalog { page } => {
                f.write_str("/v2/_catalog")?;
                write_page(f, page)
            }
            Call::TagsList { repository, page } => {
                write!(f, "/v2/{repository}/tags/list")?;
                write_page(f, page)
            }
            Call::ManifestRead {
                repository,
                reference,
                ..
            }
            | Call::ManifestDelete {
                repository,
                reference,
            } => {
                write!(f, "/v2/{repository}/manifests/{reference}")
            }
            Call::ManifestWrite {
                repository,
                reference,
                tags,
            } => {
                write!(f, "/v2/{repository}/manifests/{reference}")?;
                write_query(f, tags.iter().map(|tag| (Parameter::Tag, tag.as_str())))
            }
            Call::BlobRead {
                repository, digest, ..
            }
            | Call::BlobDelete { repository, digest } => {
                write!(f, "/v2/{repository}/blobs/{digest}")
            }
            Call::UploadStart { repository, digest } => {
                write!(f, "/v2/{repository}/blobs/uploads/")?;
                write_query(
                    f,
                    digest
                        .iter()
                        .map(|digest| (Parameter::Digest, digest.as_str())),
                )
            }
            Call::Mount {
                repository,
                digest,
                from,
            } => {
                write!(f, "/v2/{repository}/blobs/uploads/")?;
                let from = from.iter().map(|from| (Parameter::From, from.as_str()));
                write_query(
                    f,
                    std::iter::once((Parameter::Mount, digest.as_str())).chain(from),
                )
            }
            Call::UploadStatus {
                repository, upload, ..
            }
            | Call::UploadChunk { repository, upload }
            | Call::UploadCancel { repository, upload } => {
                write!(f, "/v2/{repository}/blobs/uploads/{upload}")
            }
            Call::UploadCommit {
                repository,
                upload,
                digest,
            } => {
                write!(f, "/v2/{repository}/blobs/uploads/{upload}")?;
                write_query(f, [(Parameter::Digest, digest.as_str())])
            }
            Call::Referrers {
                repository,
                digest,
                artifact_type,
            } => {
                write!(f, "/v2/{repository}/referrers/{digest}")?;
                write_query(
                    f,
                    artifact_type
                        .iter()
                        .map(|text| (Parameter::ArtifactType, text.as_str())),
                )
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
        write!(f, "{separator}{}=", parameter.as_str())?;
        write_encoded(f, value)?;
        separator = '&';
    }
    Ok(())
}

/// Everything but RFC 3986's unreserved characters, and `:` and `/`, which need no encoding in a
/// query (§3.4).
fn write_encoded(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            f.write_char(byte.into())?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}
