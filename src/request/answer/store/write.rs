//! Pushes: uploads in all their forms, mounts, manifests.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;

use super::{Answered, Asked, ResponseBody, conditions, empty, value};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::registry::upload_id::UploadId;
use crate::request::answer::manifest_budget::Room;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::rejection::Rejection;
use crate::store::{BodyTimeouts, ContentRange, PutOutcome, StoreError};
use crate::upstream::body::RequestBody;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

type Session<'a> = (&'a RepositoryName, &'a UploadId);

/// Opens a session, or with a digest takes in the whole blob at once.
pub(super) async fn start(
    asked: &Asked<'_>,
    name: &RepositoryName,
    digest: Option<&Digest>,
    body: RequestBody,
) -> Answered {
    let opened = asked.store.start_upload(name).await;
    let id = opened.map_err(|error| asked.rejection(error))?;
    let Some(digest) = digest else {
        return Ok(standing(asked, StatusCode::ACCEPTED, (name, &id), 0));
    };
    let committed = asked
        .store
        .commit(
            (name, &id),
            digest,
            ContentRange::default(),
            body,
            asked.timeouts,
        )
        .await;
    if let Err(error) = committed {
        // Nobody knows of this session, so that nobody can continue it. It may be gone already.
        let _ = asked.store.cancel_upload(name, &id).await;
        return Err(asked.rejection(error));
    }
    Ok(created(name, digest))
}

/// Makes the blob of another repository one of this, or opens a session where that has none.
pub(super) async fn mount(
    asked: &Asked<'_>,
    name: &RepositoryName,
    digest: &Digest,
    from: Option<&RepositoryName>,
) -> Answered {
    let mounted = match from {
        Some(from) => asked
            .store
            .mount(name, from, digest)
            .await
            .map_err(|error| asked.rejection(error))?,
        // To look through all repositories would tell who asks what is in those that they may not
        // read.
        None => false,
    };
    if mounted {
        Ok(created(name, digest))
    } else {
        start(asked, name, None, RequestBody::empty()).await
    }
}

pub(super) async fn status(asked: &Asked<'_>, session: Session<'_>) -> Answered {
    let (name, id) = session;
    let length = asked
        .store
        .upload_length(name, id)
        .await
        .map_err(|error| asked.rejection(error))?;
    Ok(standing(asked, StatusCode::NO_CONTENT, session, length))
}

pub(super) async fn chunk(asked: &Asked<'_>, session: Session<'_>, body: RequestBody) -> Answered {
    let range = content_range(asked, &body)?;
    let added = asked
        .store
        .append(session, range, body, asked.timeouts)
        .await;
    let length = added.map_err(|error| misplaced(asked, session, error))?;
    Ok(standing(asked, StatusCode::ACCEPTED, session, length))
}

pub(super) async fn commit(
    asked: &Asked<'_>,
    session: Session<'_>,
    digest: &Digest,
    body: RequestBody,
) -> Answered {
    let range = content_range(asked, &body)?;
    let committed = asked
        .store
        .commit(session, digest, range, body, asked.timeouts)
        .await;
    committed.map_err(|error| misplaced(asked, session, error))?;
    Ok(created(session.0, digest))
}

/// Where the body belongs; an empty one belongs anywhere.
fn content_range(asked: &Asked<'_>, body: &RequestBody) -> Result<ContentRange, Rejection> {
    if body.is_empty() {
        return Ok(ContentRange::default());
    }
    conditions::content_range(asked.headers).ok_or_else(|| asked.rejection(StoreError::BadRange))
}

fn misplaced(asked: &Asked<'_>, session: Session<'_>, error: StoreError) -> Rejection {
    let StoreError::OutOfOrder { at } = error else {
        return asked.rejection(error);
    };
    asked
        .rejection(error)
        .with_upload_progress(value(path(asked, session)), received(at))
}

/// Where the session is, under the name that its owner gets.
fn path(asked: &Asked<'_>, (name, id): Session<'_>) -> String {
    let bound = asked
        .route
        .sessions()
        .and_then(|owner| owner.bind(name, id));
    format!("/v2/{name}/blobs/uploads/{}", bound.as_ref().unwrap_or(id))
}

/// The bytes that are here. None at all are written as the first one would be, since all clients
/// read that so.
fn received(length: u64) -> HeaderValue {
    value(format!("0-{}", length.saturating_sub(1)))
}

/// Says how far an upload is.
fn standing(
    asked: &Asked<'_>,
    status: StatusCode,
    session: Session<'_>,
    length: u64,
) -> Response<ResponseBody> {
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value(path(asked, session)));
    headers.insert(header::RANGE, received(length));
    headers.insert(UPLOAD_UUID, value(session.1.as_str()));
    response
}

/// Says where a complete blob is.
fn created(name: &RepositoryName, digest: &Digest) -> Response<ResponseBody> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(
        header::LOCATION,
        value(format!("/v2/{name}/blobs/{digest}")),
    );
    headers.insert(CONTENT_DIGEST, value(digest.as_str()));
    response
}

pub(super) async fn manifest(
    asked: &Asked<'_>,
    (name, reference, tags): (&RepositoryName, &Reference, &[Tag]),
    body: RequestBody,
    room: Option<Room>,
) -> Answered {
    let content_type = content_type(asked.headers).map_err(|error| asked.rejection(error))?;
    let bytes = whole(asked.timeouts, body, room)
        .await
        .map_err(|error| asked.rejection(error))?;
    let accepted = asked
        .store
        .put_manifest(name, reference, tags, Vec::new(), content_type, bytes)
        .await;
    Ok(manifest_is_here(
        name,
        tags,
        &accepted.map_err(|error| asked.rejection(error))?,
    ))
}

/// What the client calls its manifest.
pub(in crate::request::answer) fn content_type(
    headers: &HeaderMap,
) -> Result<Option<&str>, StoreError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::to_str)
        .transpose();
    content_type.map_err(|_| StoreError::ManifestInvalid("the Content-Type is not one".into()))
}

/// Says that a manifest was taken in.
pub(in crate::request::answer) fn manifest_is_here(
    name: &RepositoryName,
    tags: &[Tag],
    accepted: &PutOutcome,
) -> Response<ResponseBody> {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(
        header::LOCATION,
        value(format!("/v2/{name}/manifests/{}", accepted.digest)),
    );
    headers.insert(CONTENT_DIGEST, value(accepted.digest.as_str()));
    if let Some(subject) = &accepted.subject {
        headers.insert(SUBJECT, value(subject.as_str()));
    }
    for tag in tags {
        headers.append(TAG, value(tag.as_str()));
    }
    response
}

/// A manifest's body: one of the few that are collected, up to the limit that the body itself
/// keeps.
pub(in crate::request::answer) async fn whole(
    timeouts: BodyTimeouts,
    mut body: RequestBody,
    room: Option<Room>,
) -> Result<Bytes, StoreError> {
    let mut all = BytesMut::new();
    let mut limit = timeouts.first_byte;
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        match tokio::time::timeout(limit, frame).await {
            Ok(None) => {
                let bytes = all.freeze();
                return Ok(match room {
                    Some(room) => room.hold(bytes),
                    None => bytes,
                });
            }
            Ok(Some(Ok(frame))) => all.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Ok(Some(Err(_))) => return Err(StoreError::BodyCut),
            Err(_) => return Err(StoreError::BodyStalled),
        }
        limit = timeouts.stall;
    }
}
