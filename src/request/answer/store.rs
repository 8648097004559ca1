//! Answers a granted call from moorgate's own registry: what [`store`](crate::store) does, in the
//! words of the distribution specification.

mod conditions;
pub(super) mod lists;
mod read;
mod write;

use std::sync::Arc;

use http::header;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::{Body, Incoming};

use super::manifest_budget::Room;
use crate::registry::call::Call;
use crate::request::body::ResponseBody;
use crate::request::conn_info::{ConnInfo, Protocol};
use crate::request::headers::API_VERSION;
use crate::request::record::Record;
use crate::request::rejection::Rejection;
use crate::request::route::Route;
use crate::store::{BodyTimeouts, Store, StoreError};
use crate::upstream::body::{RequestBody, Upload};

pub(super) use write::{content_type, manifest_is_here, whole};

type Answered = Result<Response<ResponseBody>, Rejection>;

/// Answers a call.
pub(crate) async fn answer(
    (route, store, call): (&Route, &Arc<Store>, &Call),
    conn: &ConnInfo,
    parts: Parts,
    (incoming, room): (Incoming, Option<Room>),
    record: &mut Record,
) -> Answered {
    let limit = route.body_limit();
    if incoming.size_hint().lower() > limit {
        return Err(Rejection::body_too_large(limit));
    }
    let upload = (!incoming.is_end_stream()).then(Arc::<Upload>::default);
    let body = match &upload {
        Some(upload) => RequestBody::streamed(incoming, upload.clone(), limit),
        None => RequestBody::empty(),
    };
    record.forwarded(upload.clone());
    let timeouts = &route.site().host.timeouts;
    let timeouts = BodyTimeouts {
        first_byte: timeouts.first_body_byte,
        stall: timeouts.stall,
    };
    let asked = Asked {
        route,
        store,
        headers: &parts.headers,
        limit,
        timeouts,
        upload,
    };
    let answered = dispatch(asked, call, (body, room)).await;
    record.answered();
    Ok(finished(answered?, conn, record))
}

/// What every answer says.
pub(super) fn finished(
    mut response: Response<ResponseBody>,
    conn: &ConnInfo,
    record: &Record,
) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    // The answer came before the request was read: this connection cannot find the next one.
    if conn.protocol == Protocol::Http1 && record.is_body_unread() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A call's circumstances.
struct Asked<'a> {
    route: &'a Route,
    store: &'a Arc<Store>,
    headers: &'a HeaderMap,
    /// The largest body.
    limit: u64,
    timeouts: BodyTimeouts,
    upload: Option<Arc<Upload>>,
}

impl Asked<'_> {
    fn rejection(&self, error: StoreError) -> Rejection {
        let failure = self.upload.as_ref().and_then(|upload| upload.failure());
        Rejection::store(error, self.limit, failure)
    }
}

async fn dispatch(
    asked: Asked<'_>,
    call: &Call,
    (body, room): (RequestBody, Option<Room>),
) -> Answered {
    match call {
        Call::Ping { read } => Ok(read::json(b"{}".to_vec(), "application/json", *read)),
        Call::Catalog { page } => lists::catalog(&asked, page).await,
        Call::TagsList { repository, page } => lists::tags(&asked, repository, page).await,
        Call::Referrers {
            repository,
            digest,
            artifact_type,
        } => lists::referrers(&asked, repository, digest, artifact_type.as_ref()).await,
        Call::ManifestRead {
            repository,
            reference,
            read,
        } => read::manifest(&asked, repository, reference, *read).await,
        Call::BlobRead {
            repository,
            digest,
            read,
        } => read::blob(&asked, repository, digest, *read).await,
        Call::ManifestWrite {
            repository,
            reference,
            tags,
        } => write::manifest(&asked, (repository, reference, tags), body, room).await,
        Call::ManifestDelete {
            repository,
            reference,
        } => {
            let deleted = asked.store.delete_manifest(repository, reference).await;
            deleted
                .map(|()| empty(StatusCode::ACCEPTED))
                .map_err(|error| asked.rejection(error))
        }
        Call::BlobDelete { repository, digest } => {
            let deleted = asked.store.delete_blob(repository, digest).await;
            deleted
                .map(|()| empty(StatusCode::ACCEPTED))
                .map_err(|error| asked.rejection(error))
        }
        Call::UploadStart { repository, digest } => {
            write::start(&asked, repository, digest.as_ref(), body).await
        }
        Call::Mount {
            repository,
            digest,
            from,
        } => write::mount(&asked, repository, digest, from.as_ref()).await,
        Call::UploadStatus {
            repository,
            upload,
            read: _,
        } => write::status(&asked, (repository, upload)).await,
        Call::UploadChunk { repository, upload } => {
            write::chunk(&asked, (repository, upload), body).await
        }
        Call::UploadCommit {
            repository,
            upload,
            digest,
        } => write::commit(&asked, (repository, upload), digest, body).await,
        Call::UploadCancel { repository, upload } => {
            let cancelled = asked.store.cancel_upload(repository, upload).await;
            cancelled
                .map(|()| empty(StatusCode::NO_CONTENT))
                .map_err(|error| asked.rejection(error))
        }
    }
}

/// An answer without a body.
fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own("", false));
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

/// Names, digests and numbers are visible ASCII.
fn value(text: impl Into<String>) -> HeaderValue {
    HeaderValue::try_from(text.into()).expect("made of checked names")
}
