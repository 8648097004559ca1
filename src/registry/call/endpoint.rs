//! Paths: which endpoint of which repository a path names.

use std::borrow::Cow;

use super::error::CallError;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;

/// What a path names, whatever the method.
pub(super) enum Endpoint<'a> {
    Base,
    Catalog,
    Repository(RepositoryName, RepositoryResource<'a>),
}

/// What a path names in a repository.
pub(super) enum RepositoryResource<'a> {
    Tags,
    /// The reference is still text: what a bad tag means depends on the method.
    Manifest(&'a str),
    Blob(Digest),
    Uploads,
    Upload(UploadId),
    Referrers(Digest),
}

impl<'a> Endpoint<'a> {
    /// Reads a plain path. A repository name may itself have components called `blobs`,
    /// `manifests`, `tags`, `uploads` or `referrers`, so the path is read from its end. That is
    /// unambiguous, because references, digests and session names have no slash: the endpoint is
    /// the last segment but one, and where that is `uploads` the one before must be `blobs`. It is
    /// also what the anchored patterns of Go's `distribution` with their greedy name come to.
    pub(super) fn parse(path: &'a str) -> Result<Self, CallError> {
        let Some(below) = path.strip_prefix("/v2") else {
            let v1 = path == "/v1" || path.starts_with("/v1/");
            return Err(if v1 {
                CallError::V1
            } else {
                CallError::Unknown
            });
        };
        match below {
            "" | "/" => return Ok(Self::Base),
            "/_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let (head, last) = below
            .strip_prefix('/')
            .and_then(|text| text.rsplit_once('/'))
            .ok_or(CallError::Unknown)?;
        let (name, kind) = head.rsplit_once('/').ok_or(CallError::Unknown)?;
        let name = match (kind, last) {
            ("manifests" | "referrers" | "blobs", text) if !text.is_empty() => name,
            ("tags", "list") => name,
            ("uploads", _) => name.strip_suffix("/blobs").ok_or(CallError::Unknown)?,
            _ => return Err(CallError::Unknown),
        };
        let name = RepositoryName::parse(name).map_err(|_| CallError::NameInvalid)?;
        let resource = match (kind, last) {
            ("manifests", reference) => RepositoryResource::Manifest(reference),
            ("tags", _) => RepositoryResource::Tags,
            ("referrers", text) => RepositoryResource::Referrers(digest(text)?),
            // Without its trailing slash it still cannot be a blob: `uploads` is no digest.
            ("blobs", "uploads") | ("uploads", "") => RepositoryResource::Uploads,
            ("blobs", text) => RepositoryResource::Blob(digest(text)?),
            (_, session) => RepositoryResource::Upload(upload(session)?),
        };
        Ok(Self::Repository(name, resource))
    }
}

fn digest(text: &str) -> Result<Digest, CallError> {
    Digest::parse(text).map_err(|_| CallError::DigestInvalid)
}

fn upload(text: &str) -> Result<UploadId, CallError> {
    UploadId::parse(text).map_err(|_| CallError::UploadUnknown)
}

/// The path in its one plain form. The only percent-encoding that clients really use in paths is
/// that of a digest's colon; any other could mean something else to the upstream than it does here.
pub(super) fn plain_path(path: &str) -> Result<Cow<'_, str>, CallError> {
    let path = match path.split_once('%') {
        None => Cow::Borrowed(path),
        Some((before, encoded)) => {
            let after = encoded
                .strip_prefix("3A")
                .or_else(|| encoded.strip_prefix("3a"))
                .ok_or(CallError::BadPath)?;
            if after.contains('/') {
                return Err(CallError::BadPath);
            }
            Cow::Owned(format!("{before}:{after}"))
        }
    };
    if is_plain(&path) {
        Ok(path)
    } else {
        Err(CallError::BadPath)
    }
}

/// Whether everyone reads the path alike: printable ASCII, and nothing that some server decodes,
/// cuts off, folds or takes for a separator. Whether it is an endpoint is for the grammar to say.
fn is_plain(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'\\' | b'#' | b';' | b'?');
    let path = path.as_bytes();
    // Folded and not `all`: without an early exit it is several bytes a step.
    path.iter().fold(true, |so_far, b| so_far & plain(*b))
        && !path
            .windows(2)
            .fold(false, |so_far, pair| so_far | (pair == b"//"))
        && !path
            .split(|b| *b == b'/')
            .any(|segment| matches!(segment, b"." | b".."))
}
