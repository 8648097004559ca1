//! Pulls: manifests, and blobs or ranges of them.

use std::ops::Range;

use http::{HeaderValue, Response, StatusCode, header};

use super::conditions::{self, Wanted};
use super::{Answered, MultipartBody, ResponseBody, StoreRequest, value};
use crate::registry::call::Read;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Reference;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::rejection::Rejection;
use crate::request::respond;
use crate::state_file::FileBody;
use crate::store::OpenBlob;

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
        Wanted::Nothing => respond::empty(StatusCode::NOT_MODIFIED),
        // Manifests are small: ranges of them are not supported.
        Wanted::Whole | Wanted::Part { .. } | Wanted::Parts(_) | Wanted::Unsatisfiable => {
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
    let mut response = match (conditions::wanted(request.headers, &tag, blob.size), read) {
        (Wanted::Nothing, _) => respond::empty(StatusCode::NOT_MODIFIED),
        // HEAD has no ranges (RFC 9110 §14.2).
        (_, Read::Head) => content(StatusCode::OK, blob.size, ResponseBody::own("", true)),
        (Wanted::Whole, Read::Get) => whole(blob),
        (Wanted::Part { begin, end }, Read::Get) => part(blob, begin, end),
        (Wanted::Parts(ranges), Read::Get) => parts(blob, ranges),
        (Wanted::Unsatisfiable, Read::Get) => {
            let range = format!("bytes */{}", blob.size);
            return Err(Rejection::range_not_satisfiable(value(range)));
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(digest.as_str()));
    headers.insert(header::ETAG, value(tag));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // The content of a digest never changes, but the set of users who may read it does.
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    Ok(response)
}

fn whole(blob: OpenBlob) -> Response<ResponseBody> {
    let size = blob.size;
    let body = ResponseBody::stored(FileBody::new(blob.file, 0, size));
    content(StatusCode::OK, size, body)
}

fn part(blob: OpenBlob, begin: u64, end: u64) -> Response<ResponseBody> {
    let range = format!("bytes {begin}-{}/{}", end - 1, blob.size);
    let body = ResponseBody::stored(FileBody::new(blob.file, begin, end));
    let mut response = content(StatusCode::PARTIAL_CONTENT, end - begin, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_RANGE, value(range));
    response
}

fn parts(blob: OpenBlob, ranges: Vec<Range<u64>>) -> Response<ResponseBody> {
    let Ok(random) = crate::crypto::random::<16>() else {
        // Without an unpredictable boundary: a server may ignore ranges (RFC 9110 §14.2).
        return whole(blob);
    };
    let body = MultipartBody::new(blob, ranges, crate::crypto::hex(&random));
    let (length, content_type) = (body.length(), body.content_type());
    let body = ResponseBody::stored_parts(body);
    let mut response = content(StatusCode::PARTIAL_CONTENT, length, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value(content_type));
    response
}

fn content(status: StatusCode, length: u64, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}
