//! Answers granted calls from moorgate's own registry: turns results of [`store`](crate::store)
//! into responses of the distribution specification.

mod conditions;
mod lists;
mod multipart;
mod read;
mod write;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};

use super::{forward, rewrite};
use crate::registry::call::{Call, RepositoryCall, UploadStep};
use crate::registry::name::RepositoryName;
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::headers::API_VERSION;
use crate::request::public_origin::{PublicOrigin, received_host};
use crate::request::rejection::Rejection;
use crate::request::respond;
use crate::request::route::{Route, StoreRoute};
use crate::store::{BodyTimeouts, Store, StoreError, UploadKey};
use crate::upstream::client_body::ClientBody;
use crate::upstream::request_body::{RequestBody, Upload};

pub(super) use conditions::content_range;
pub(crate) use multipart::MultipartBody;
pub(super) use write::write_manifest;

type Answered = Result<Response<ResponseBody>, Rejection>;

/// Answers a call.
pub(super) async fn answer(
    cx: &mut RequestContext<'_>,
    to: StoreRoute<'_>,
    incoming: ClientBody,
) -> Answered {
    if to.call.is_manifest_write() {
        return write::write_manifest(cx, to, Vec::new(), incoming).await;
    }
    let StoreRoute { route, store, call } = to;
    let limit = route.body_limit();
    let (body, upload) = forward::limited(incoming, limit)?;
    cx.record.forwarded(upload.clone());
    let timeouts = &cx.site.host.timeouts;
    let request = StoreRequest {
        route,
        store,
        headers: &cx.parts.headers,
        uri: &cx.parts.uri,
        limit,
        timeouts: BodyTimeouts {
            first_byte: timeouts.first_body_byte,
            stall: timeouts.stall,
        },
        upload,
    };
    let answered = dispatch(&request, call, body).await;
    cx.record.answered();
    Ok(finish(cx, answered?))
}

/// Adds the headers of every response.
fn finish(cx: &RequestContext<'_>, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    rewrite::close_if_unread(cx, headers);
    response
}

/// The context of a call to the store.
struct StoreRequest<'a> {
    route: &'a Route,
    store: &'a Arc<Store>,
    headers: &'a HeaderMap,
    uri: &'a Uri,
    /// The maximum size of the body, in bytes.
    limit: u64,
    timeouts: BodyTimeouts,
    upload: Option<Arc<Upload>>,
}

impl StoreRequest<'_> {
    fn rejection(&self, error: StoreError) -> Rejection {
        let failure = self.upload.as_ref().and_then(|upload| upload.failure());
        Rejection::store(error, self.limit, failure)
    }

    fn origin(&self) -> PublicOrigin<'_> {
        origin(self.route, self.headers, self.uri)
    }
}

/// What stands before the path of a `Location`.
fn origin<'a>(route: &Route, headers: &'a HeaderMap, uri: &'a Uri) -> PublicOrigin<'a> {
    PublicOrigin::new(route.site().host.locations, received_host(headers, uri))
}

async fn dispatch(request: &StoreRequest<'_>, call: &Call, body: RequestBody) -> Answered {
    match call {
        Call::Ping { read } => Ok(respond::json(b"{}\n".to_vec(), "application/json", *read)),
        Call::Catalog { page } => lists::catalog(request, page).await,
        Call::Repository { name, operation } => repository(request, name, operation, body).await,
    }
}

async fn repository(
    request: &StoreRequest<'_>,
    name: &RepositoryName,
    operation: &RepositoryCall,
    body: RequestBody,
) -> Answered {
    match operation {
        RepositoryCall::TagsList { page } => lists::tags(request, name, page).await,
        RepositoryCall::Referrers {
            digest,
            artifact_type,
        } => lists::referrers(request, name, digest, artifact_type.as_ref()).await,
        RepositoryCall::ManifestRead { reference, read } => {
            read::manifest(request, name, reference, *read).await
        }
        RepositoryCall::BlobRead { digest, read } => read::blob(request, name, digest, *read).await,
        // Handled by `tag_write` and `write_manifest`, since its body is buffered.
        RepositoryCall::ManifestWrite { .. } => Err(Rejection::bad_target()),
        RepositoryCall::ManifestDelete { reference } => {
            let deleted = request.store.delete_manifest(name, reference).await;
            deleted
                .map(|()| respond::empty(StatusCode::ACCEPTED))
                .map_err(|error| request.rejection(error))
        }
        RepositoryCall::BlobDelete { digest } => {
            let deleted = request.store.delete_blob(name, digest).await;
            deleted
                .map(|()| respond::empty(StatusCode::ACCEPTED))
                .map_err(|error| request.rejection(error))
        }
        RepositoryCall::UploadStart { digest } => {
            write::start(request, name, digest.as_ref(), body).await
        }
        RepositoryCall::Mount { digest, from } => {
            write::mount(request, name, digest, from.as_ref()).await
        }
        RepositoryCall::Upload { session, step } => {
            let session = UploadKey {
                repository: name,
                id: session,
            };
            upload(request, session, step, body).await
        }
    }
}

async fn upload(
    request: &StoreRequest<'_>,
    session: UploadKey<'_>,
    step: &UploadStep,
    body: RequestBody,
) -> Answered {
    match step {
        UploadStep::Status { read: _ } => write::status(request, session).await,
        UploadStep::Chunk => write::chunk(request, session, body).await,
        UploadStep::Commit { digest } => write::commit(request, session, digest, body).await,
        UploadStep::Cancel => {
            let cancelled = request.store.cancel_upload(session).await;
            cancelled
                .map(|()| respond::empty(StatusCode::NO_CONTENT))
                .map_err(|error| request.rejection(error))
        }
    }
}

/// Names, digests and numbers are visible ASCII.
fn value(text: impl Into<String>) -> HeaderValue {
    HeaderValue::try_from(text.into()).expect("made of checked names")
}
