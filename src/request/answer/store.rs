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
use crate::registry::call::{Call, RepositoryCall, UploadStep};
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
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
    let answered = dispatch(&asked, call, (body, room)).await;
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
    asked: &Asked<'_>,
    call: &Call,
    (body, room): (RequestBody, Option<Room>),
) -> Answered {
    match call {
        Call::Ping { read } => Ok(read::json(b"{}".to_vec(), "application/json", *read)),
        Call::Catalog { page } => lists::catalog(asked, page).await,
        Call::Repository { name, operation } => {
            repository(asked, name, operation, body, room).await
        }
    }
}

async fn repository(
    asked: &Asked<'_>,
    name: &RepositoryName,
    operation: &RepositoryCall,
    body: RequestBody,
    room: Option<Room>,
) -> Answered {
    match operation {
        RepositoryCall::TagsList { page } => lists::tags(asked, name, page).await,
        RepositoryCall::Referrers {
            digest,
            artifact_type,
        } => lists::referrers(asked, name, digest, artifact_type.as_ref()).await,
        RepositoryCall::ManifestRead { reference, read } => {
            read::manifest(asked, name, reference, *read).await
        }
        RepositoryCall::BlobRead { digest, read } => read::blob(asked, name, digest, *read).await,
        RepositoryCall::ManifestWrite { reference, tags } => {
            write::manifest(asked, (name, reference, tags), body, room).await
        }
        RepositoryCall::ManifestDelete { reference } => {
            let deleted = asked.store.delete_manifest(name, reference).await;
            deleted
                .map(|()| empty(StatusCode::ACCEPTED))
                .map_err(|error| asked.rejection(error))
        }
        RepositoryCall::BlobDelete { digest } => {
            let deleted = asked.store.delete_blob(name, digest).await;
            deleted
                .map(|()| empty(StatusCode::ACCEPTED))
                .map_err(|error| asked.rejection(error))
        }
        RepositoryCall::UploadStart { digest } => {
            write::start(asked, name, digest.as_ref(), body).await
        }
        RepositoryCall::Mount { digest, from } => {
            write::mount(asked, name, digest, from.as_ref()).await
        }
        RepositoryCall::Upload { session, step } => {
            upload(asked, (name, session), step, body).await
        }
    }
}

async fn upload(
    asked: &Asked<'_>,
    session: (&RepositoryName, &UploadId),
    step: &UploadStep,
    body: RequestBody,
) -> Answered {
    match step {
        UploadStep::Status { read: _ } => write::status(asked, session).await,
        UploadStep::Chunk => write::chunk(asked, session, body).await,
        UploadStep::Commit { digest } => write::commit(asked, session, digest, body).await,
        UploadStep::Cancel => {
            let cancelled = asked.store.cancel_upload(session.0, session.1).await;
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
