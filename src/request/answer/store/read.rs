//! Pulls: manifests, and blobs or ranges of them.

use http::{HeaderValue, Response, StatusCode, header};

use super::conditions::{self, Wanted};
use super::{Answered, ResponseBody, StoreRequest, empty, value};
use crate::registry::call::Read;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Reference;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::rejection::Rejection;
use crate::request::respond;
use crate::store::file_body::FileBody;

pub(super) async fn manifest(
    request: &StoreRequest<'_>,
    name: &RepositoryName,
    reference: &Reference,
    read: Read,
) -> Answered {
    let found = request
        .store
        .manifest(name, reference, read == Read::Get)
        .await;
    let manifest = found.map_err(|error| request.rejection(error))?;
    let tag = entity_tag(&manifest.digest);
    let size = manifest.bytes.len() as u64;
    let mut response = match conditions::wanted(request.headers, &tag, size) {
        Wanted::Nothing => empty(StatusCode::NOT_MODIFIED),
        // Manifests are small: ranges of them are not supported.
        Wanted::Whole | Wanted::Part { .. } | Wanted::Unsatisfiable => {
            respond::json(manifest.bytes, &manifest.media_type, read)
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(manifest.digest.as_str()));
    headers.insert(header::ETAG, value(tag));
    Ok(response)
}

pub(super) async fn blob(
    request: &StoreRequest<'_>,
    name: &RepositoryName,
    digest: &Digest,
    read: Read,
) -> Answered {
    let found = request.store.blob(name, digest, read == Read::Head).await;
    let blob = found.map_err(|error| request.rejection(error))?;
    let tag = entity_tag(digest);
    let wanted = match (conditions::wanted(request.headers, &tag, blob.size), read) {
        (Wanted::Part { .. } | Wanted::Unsatisfiable, Read::Head) => Wanted::Whole,
        (wanted, _) => wanted,
    };
    let (status, begin, end) = match wanted {
        Wanted::Nothing => (StatusCode::NOT_MODIFIED, 0, 0),
        Wanted::Whole => (StatusCode::OK, 0, blob.size),
        Wanted::Part { begin, end } => (StatusCode::PARTIAL_CONTENT, begin, end),
        Wanted::Unsatisfiable => {
            return Err(Rejection::range_not_satisfiable(value(format!(
                "bytes */{}",
                blob.size
            ))));
        }
    };
    let body = match (wanted, read) {
        (Wanted::Nothing, _) | (_, Read::Head) => ResponseBody::own("", true),
        _ => ResponseBody::stored(FileBody::new(blob.file, begin, end)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(digest.as_str()));
    headers.insert(header::ETAG, value(tag));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // The content of a digest never changes, but the set of users who may read it does.
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    if wanted != Wanted::Nothing {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - begin));
    }
    if matches!(wanted, Wanted::Part { .. }) {
        let range = format!("bytes {begin}-{}/{}", end - 1, blob.size);
        headers.insert(header::CONTENT_RANGE, value(range));
    }
    Ok(response)
}

fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}
