//! Uploads in chunks to a registry that takes a blob in one piece only: moorgate collects the chunks,
//! and the registry gets the whole when the client commits it. An upload in one piece is passed on.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::request_meta::RequestMeta;
use super::store::content_range;
use super::{forward, rewrite, upstream_login};
use crate::registry::call::{Call, RepositoryCall, UploadStep};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::request::body::ResponseBody;
use crate::request::context::RequestContext;
use crate::request::public_origin::{PublicOrigin, received_host};
use crate::request::rejection::Rejection;
use crate::request::respond;
use crate::request::route::UpstreamRoute;
use crate::store::spool::Spool;
use crate::store::{BodyTimeouts, ContentRange, StoreError, UploadChunk, UploadKey};
use crate::upstream::client_body::ClientBody;
use crate::upstream::product::Chunks;
use crate::upstream::request_body::{RequestBody, Upload};

/// Whether a request may belong to an upload that is collected, or begin one.
pub(super) fn may_be_spooled(to: UpstreamRoute<'_>, headers: &HeaderMap) -> bool {
    let operation = to.route.call().and_then(Call::operation);
    let Some(RepositoryCall::Upload { session, step }) = operation else {
        return false;
    };
    // Only what is bound to its owner proves that moorgate has made it.
    if to.route.session_owner().is_none() || to.route.site().spool.is_none() {
        return false;
    }
    let may_need_it = || {
        let backend = to.backend;
        let chunks = backend.product.dialect().capabilities().chunks;
        chunks != Chunks::Any || backend.credential.awaits_product()
    };
    let may_begin = || first_chunk(headers).is_some() && may_need_it();
    session.as_spooled().is_some() || *step == UploadStep::Chunk && may_begin()
}

/// Whether it does, as the product can take chunks.
pub(super) async fn is_spooled(
    to: UpstreamRoute<'_>,
    headers: &HeaderMap,
) -> Result<bool, Rejection> {
    let session = to.route.call().and_then(Call::session);
    if session.is_some_and(|session| session.as_spooled().is_some()) {
        return Ok(true);
    }
    let Some(range) = first_chunk(headers) else {
        return Ok(false);
    };
    upstream_login::know_product(to).await?;
    Ok(match to.backend.product.dialect().capabilities().chunks {
        Chunks::Any => false,
        Chunks::One => true,
        Chunks::AtMost(most) => range.length.is_some_and(|length| length > most),
    })
}

/// The place of a chunk that begins an upload.
fn first_chunk(headers: &HeaderMap) -> Option<ContentRange> {
    content_range(headers).filter(|range| range.begin == Some(0))
}

/// Answers a step of such an upload.
pub(super) async fn answer(
    cx: &mut RequestContext<'_>,
    to: UpstreamRoute<'_>,
    incoming: ClientBody,
) -> Result<Response<ResponseBody>, Rejection> {
    let Some(Call::Repository {
        name,
        operation: RepositoryCall::Upload { session, step },
    }) = to.route.call()
    else {
        return Err(Rejection::bad_target());
    };
    let limit = to.route.body_limit();
    let (body, received) = forward::limited(incoming, limit)?;
    cx.record.forwarded(received.clone());
    let spool = cx.site.spool.as_ref().ok_or_else(Rejection::bad_target)?;
    let spool = spool
        .open()
        .await
        .map_err(|error| Rejection::store(error, limit, None))?;
    let (id, session) = match session.as_spooled() {
        Some(spooled) => spooled,
        None => {
            let user = to.route.session_user();
            let started = spool.start(name, user).await;
            let id = started.map_err(|error| Rejection::store(error, limit, None))?;
            (id, session.clone())
        }
    };
    let upload = CollectedUpload {
        to,
        spool,
        name,
        id,
        session,
        limit,
        received,
    };
    let answered = match step {
        UploadStep::Chunk => upload.add(cx, body).await,
        UploadStep::Status { read: _ } => upload.status(cx).await,
        UploadStep::Cancel => upload.cancel(cx).await,
        UploadStep::Commit { digest } => upload.commit(cx, digest, body).await,
    };
    cx.record.answered();
    let mut response = answered?;
    rewrite::close_if_unread(cx, response.headers_mut());
    Ok(response)
}

/// An upload whose chunks are collected.
struct CollectedUpload<'a> {
    to: UpstreamRoute<'a>,
    spool: Arc<Spool>,
    name: &'a RepositoryName,
    id: UploadId,
    /// That of the registry.
    session: UploadId,
    limit: u64,
    received: Option<Arc<Upload>>,
}

impl CollectedUpload<'_> {
    fn key(&self) -> UploadKey<'_> {
        UploadKey {
            repository: self.name,
            id: &self.id,
        }
    }

    async fn add(
        &self,
        cx: &RequestContext<'_>,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let chunk = self.chunk(cx, body)?;
        let added = self.spool.append(self.key(), chunk).await;
        let length = added.map_err(|error| self.rejection(cx, error))?;
        self.progress(cx, StatusCode::ACCEPTED, length)
    }

    async fn status(&self, cx: &RequestContext<'_>) -> Result<Response<ResponseBody>, Rejection> {
        let length = self.spool.length(self.key()).await;
        let length = length.map_err(|error| self.rejection(cx, error))?;
        self.progress(cx, StatusCode::NO_CONTENT, length)
    }

    /// Ends the upload here and at the registry, which ends it by itself if it does not answer.
    async fn cancel(&self, cx: &RequestContext<'_>) -> Result<Response<ResponseBody>, Rejection> {
        let removed = self.spool.remove(self.key()).await;
        removed.map_err(|error| self.rejection(cx, error))?;
        let request = self.request(cx, Method::DELETE, RequestBody::empty())?;
        if let Err(error) = self.send(request).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "upload session not cancelled at the registry");
        }
        Ok(respond::empty(StatusCode::NO_CONTENT))
    }

    /// Sends the whole blob. The chunks stay until the registry has it, so that a client may commit
    /// again.
    async fn commit(
        &self,
        cx: &RequestContext<'_>,
        digest: &Digest,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let chunk = self.chunk(cx, body)?;
        let complete = self.spool.complete(self.key(), digest, chunk).await;
        let blob = complete.map_err(|error| self.rejection(cx, error))?;
        let body = RequestBody::file(blob.file.clone(), blob.length);
        let request = self.request(cx, Method::PUT, body)?;
        let meta = RequestMeta::of_own(&cx.parts, &request);
        let sent = self.send(request).await;
        let response = sent.map_err(|error| Rejection::upstream(error, self.limit))?;
        drop(blob);
        if response.status() == StatusCode::CREATED
            && let Err(error) = self.spool.remove(self.key()).await
        {
            tracing::debug!(%error, "spooled upload not removed");
        }
        rewrite::rewrite(cx, self.to, &meta, response).await
    }

    /// The body with its place in the upload. An empty one fits anywhere.
    fn chunk(
        &self,
        cx: &RequestContext<'_>,
        body: RequestBody,
    ) -> Result<UploadChunk<RequestBody>, Rejection> {
        let range = match content_range(&cx.parts.headers) {
            _ if body.is_empty() => Default::default(),
            Some(range) => range,
            None => return Err(self.rejection(cx, StoreError::BadRange)),
        };
        let timeouts = &cx.site.host.timeouts;
        Ok(UploadChunk {
            range,
            body,
            timeouts: BodyTimeouts {
                first_byte: timeouts.first_body_byte,
                stall: timeouts.stall,
            },
        })
    }

    /// A request of the registry's own session.
    fn request(
        &self,
        cx: &RequestContext<'_>,
        method: Method,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Rejection> {
        let registry = self.to.registry_call().and_then(Call::repository);
        let name = registry.ok_or_else(Rejection::bad_target)?;
        let session = &self.session;
        let address = session
            .address()
            .unwrap_or_else(|| format!("/v2/{name}/blobs/uploads/{session}"));
        let address = forward::with_further_query(address, cx.parts.uri.query());
        let mut request = forward::own_request(cx, self.to, method, &address)?;
        *request.body_mut() = body;
        Ok(request)
    }

    async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<
        Response<crate::upstream::response_body::UpstreamBody>,
        crate::upstream::error::UpstreamError,
    > {
        let limits = self.to.route.transfer_limits();
        let scope = self.to.token_scope();
        self.to.backend.send(request, None, limits, scope).await
    }

    fn progress(
        &self,
        cx: &RequestContext<'_>,
        status: StatusCode,
        length: u64,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let mut response = respond::empty(status);
        let headers = response.headers_mut();
        headers.insert(header::LOCATION, self.location(cx)?);
        headers.insert(header::RANGE, received_range(length));
        Ok(response)
    }

    /// Where the upload goes on. What the registry wants in the query of its session stays there.
    fn location(&self, cx: &RequestContext<'_>) -> Result<HeaderValue, Rejection> {
        let spooled = UploadId::spooled(&self.id, &self.session).ok();
        let route = self.to.route;
        let bound = spooled.and_then(|id| route.bind_session(self.name, &id, route.replica()));
        let bound =
            bound.ok_or_else(|| Rejection::upstream_long_location(self.session.as_str().len()))?;
        let parts = &cx.parts;
        let host = received_host(&parts.headers, &parts.uri);
        let origin = PublicOrigin::new(self.to.route.site().host.locations, host);
        let path = format!("{origin}/v2/{}/blobs/uploads/{bound}", self.name);
        let location = match parts.uri.query().filter(|_| !self.session.is_address()) {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        HeaderValue::try_from(location).map_err(|_| Rejection::upstream_bad_location())
    }

    fn rejection(&self, cx: &RequestContext<'_>, error: StoreError) -> Rejection {
        let failure = self.received.as_ref().and_then(|upload| upload.failure());
        let out_of_order = match &error {
            StoreError::OutOfOrder { at } => Some(*at),
            _ => None,
        };
        let rejection = Rejection::store(error, self.limit, failure);
        match (out_of_order, self.location(cx)) {
            (Some(at), Ok(location)) => {
                rejection.with_upload_progress(location, received_range(at))
            }
            _ => rejection,
        }
    }
}

/// The range of the received bytes. An empty one is written as `0-0`, which all clients expect.
fn received_range(length: u64) -> HeaderValue {
    HeaderValue::try_from(format!("0-{}", length.saturating_sub(1)))
        .expect("digits are visible ASCII")
}
