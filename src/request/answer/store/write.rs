//! Pushes: uploads, mounts and manifests.

use http::header::HeaderName;
use http::{HeaderValue, Response, StatusCode, header};

use super::{Answered, ResponseBody, StoreRequest, conditions, finish, origin, value};
use crate::registry::call::{Call, RepositoryCall};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::answer::detached::run_detached;
use crate::request::answer::moved_tags::MovedTags;
use crate::request::answer::tag_locks::WriteLocks;
use crate::request::answer::{manifest_body, tag_conditions};
use crate::request::context::RequestContext;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::obligations::{AllowedWrite, TagObligation, TagWrite};
use crate::request::rejection::Rejection;
use crate::request::respond;
use crate::request::route::StoreRoute;
use crate::store::{
    ContentRange, NewManifest, Precondition, PutOutcome, StoreError, UploadChunk, UploadKey,
    WrongSize,
};
use crate::upstream::client_body::ClientBody;
use crate::upstream::request_body::RequestBody;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Opens an upload session, or, with a digest, stores the whole blob at once.
pub(super) async fn start(
    request: &StoreRequest<'_>,
    name: &RepositoryName,
    digest: Option<&Digest>,
    body: RequestBody,
) -> Answered {
    let user = request.route.session_user();
    let opened = request.store.start_upload(name, user).await;
    let id = opened.map_err(|error| request.rejection(error))?;
    let session = UploadKey {
        repository: name,
        id: &id,
    };
    let Some(digest) = digest else {
        return Ok(progress(request, StatusCode::ACCEPTED, session, 0));
    };
    let chunk = UploadChunk {
        range: ContentRange::default(),
        body,
        timeouts: request.timeouts,
    };
    let committed = request.store.commit(session, digest, chunk).await;
    if let Err(error) = committed {
        // No client knows the session, so that none can continue it. It may be gone already.
        let _ = request.store.cancel_upload(session).await;
        return Err(request.rejection(error));
    }
    Ok(created(request, name, digest))
}

/// Mounts a blob of another repository, or opens an upload session if that does not have it.
pub(super) async fn mount(
    request: &StoreRequest<'_>,
    name: &RepositoryName,
    digest: &Digest,
    from: Option<&RepositoryName>,
) -> Answered {
    let mounted = match from {
        Some(from) => request
            .store
            .mount(name, from, digest)
            .await
            .map_err(|error| request.rejection(error))?,
        // A search of all repositories would disclose the content of those that the user may not
        // read.
        None => false,
    };
    if mounted {
        Ok(created(request, name, digest))
    } else {
        start(request, name, None, RequestBody::empty()).await
    }
}

pub(super) async fn status(request: &StoreRequest<'_>, session: UploadKey<'_>) -> Answered {
    let length = request
        .store
        .upload_length(session)
        .await
        .map_err(|error| request.rejection(error))?;
    Ok(progress(request, StatusCode::NO_CONTENT, session, length))
}

pub(super) async fn chunk(
    request: &StoreRequest<'_>,
    session: UploadKey<'_>,
    body: RequestBody,
) -> Answered {
    let chunk = upload_chunk(request, body)?;
    let added = request.store.append(session, chunk).await;
    let length = added.map_err(|error| upload_rejection(request, session, error))?;
    Ok(progress(request, StatusCode::ACCEPTED, session, length))
}

pub(super) async fn commit(
    request: &StoreRequest<'_>,
    session: UploadKey<'_>,
    digest: &Digest,
    body: RequestBody,
) -> Answered {
    let chunk = upload_chunk(request, body)?;
    let committed = request.store.commit(session, digest, chunk).await;
    committed.map_err(|error| upload_rejection(request, session, error))?;
    Ok(created(request, session.repository, digest))
}

/// The body with its place in the upload. An empty one fits anywhere.
fn upload_chunk(
    request: &StoreRequest<'_>,
    body: RequestBody,
) -> Result<UploadChunk<RequestBody>, Rejection> {
    let range = if body.is_empty() {
        ContentRange::default()
    } else {
        conditions::content_range(request.headers)
            .ok_or_else(|| request.rejection(StoreError::BadRange))?
    };
    Ok(UploadChunk {
        range,
        body,
        timeouts: request.timeouts,
    })
}

fn upload_rejection(
    request: &StoreRequest<'_>,
    session: UploadKey<'_>,
    error: StoreError,
) -> Rejection {
    let StoreError::OutOfOrder { at } = error else {
        return request.rejection(error);
    };
    request
        .rejection(error)
        .with_upload_progress(value(location(request, session)), received(at))
}

/// The location of the session, with its id bound to the owner.
fn location(request: &StoreRequest<'_>, session: UploadKey<'_>) -> String {
    let UploadKey { repository, id } = session;
    let bound = request
        .route
        .session_owner()
        .and_then(|owner| owner.bind(repository, id));
    let id = bound.as_ref().unwrap_or(id);
    let origin = request.origin();
    format!("{origin}/v2/{repository}/blobs/uploads/{id}")
}

/// The range of the received bytes. An empty one is written as `0-0`, which all clients expect.
fn received(length: u64) -> HeaderValue {
    value(format!("0-{}", length.saturating_sub(1)))
}

/// The number of bytes received of an upload.
fn progress(
    request: &StoreRequest<'_>,
    status: StatusCode,
    session: UploadKey<'_>,
    length: u64,
) -> Response<ResponseBody> {
    let mut response = respond::empty(status);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value(location(request, session)));
    headers.insert(header::RANGE, received(length));
    headers.insert(UPLOAD_UUID, value(session.id.as_str()));
    response
}

/// 201 with the location of a complete blob.
fn created(
    request: &StoreRequest<'_>,
    name: &RepositoryName,
    digest: &Digest,
) -> Response<ResponseBody> {
    let origin = request.origin();
    let mut response = respond::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(
        header::LOCATION,
        value(format!("{origin}/v2/{name}/blobs/{digest}")),
    );
    headers.insert(CONTENT_DIGEST, value(digest.as_str()));
    response
}

/// Writes a manifest if its tags satisfy the obligations.
///
/// Errors: the rejection of a tag that may not be written; those of [`manifest_body::read`] and the
/// store.
pub(in crate::request::answer) async fn write_manifest(
    cx: &mut RequestContext<'_>,
    to: StoreRoute<'_>,
    obligations: Vec<TagObligation>,
    incoming: ClientBody,
) -> Answered {
    let Call::Repository {
        name: repository,
        operation: RepositoryCall::ManifestWrite { reference, tags },
    } = to.call
    else {
        return Err(Rejection::bad_target());
    };
    let bytes = manifest_body::read(cx, to.route, incoming).await?;
    let content_type = cx.parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.map(HeaderValue::to_str).transpose();
    let content_type = content_type.map_err(|_| {
        let error = StoreError::ManifestInvalid("the Content-Type is not one".into());
        Rejection::store(error, 0, None)
    })?;
    let locks = lock_tags(cx, to, repository, &obligations).await?;
    let allowed = tag_conditions::allowed_writes(cx, to.route, obligations, &bytes).await?;
    let manifest = NewManifest {
        reference: reference.clone(),
        tags: tags.clone(),
        preconditions: allowed.iter().filter_map(precondition).collect(),
        content_type: content_type.map(str::to_owned),
        bytes,
        missing: cx
            .site
            .host
            .registry
            .store()
            .map_or_else(Default::default, |store| store.missing),
    };
    let put = put(to, repository, manifest, locks).await;
    cx.record.answered();
    let outcome = put.map_err(|error| rejection(error, allowed))?;
    if let Some(wrong) = &outcome.wrong_size {
        warn_of_size(cx, repository, &outcome.digest, wrong);
    }
    let origin = origin(to.route, &cx.parts.headers, &cx.parts.uri);
    let location = format!("{origin}/v2/{repository}/manifests/{}", outcome.digest);
    let created = manifest_created(value(location), tags, &outcome);
    Ok(finish(cx, created))
}

/// Locks tags whose ages matter, from the check of their ages to the record of the push: another
/// push must not find a tag that was just made older than it is.
async fn lock_tags(
    cx: &RequestContext<'_>,
    to: StoreRoute<'_>,
    repository: &RepositoryName,
    obligations: &[TagObligation],
) -> Result<Option<WriteLocks>, Rejection> {
    if !cx.site.policy.limits_ages() {
        return Ok(None);
    }
    let registry = to.route.site().host.registry.to_string();
    let tags = obligations.iter().map(|obligation| &obligation.tag);
    let locks = cx.gateway.tag_locks.lock(&registry, repository, tags).await;
    locks.map(Some).map_err(|_| Rejection::tag_locked())
}

/// Writes a manifest, and records the tags that it moves where their ages matter. That is done even
/// if the client leaves: nobody could change a tag of unknown age any more.
async fn put(
    to: StoreRoute<'_>,
    repository: &RepositoryName,
    manifest: NewManifest,
    locks: Option<WriteLocks>,
) -> Result<PutOutcome, StoreError> {
    let Some(locks) = locks else {
        return to.store.put_manifest(repository, manifest).await;
    };
    let (store, repository) = (to.store.clone(), repository.clone());
    let moves = MovedTags::new(to.route);
    let write = async move {
        let outcome = store.put_manifest(&repository, manifest).await?;
        moves.record(&outcome.moved, &outcome.digest);
        Ok(outcome)
    };
    run_detached(locks, write).await
}

fn warn_of_size(
    cx: &RequestContext<'_>,
    repository: &RepositoryName,
    manifest: &Digest,
    wrong: &WrongSize,
) {
    tracing::warn!(
        domain = cx.site.host.domain.as_str(),
        repository = repository.as_str(),
        manifest = manifest.as_str(),
        referenced = wrong.digest.as_str(),
        given_bytes = wrong.given,
        actual_bytes = wrong.actual,
        "manifest stored with a wrong size of what it references"
    );
}

/// The precondition for the store; `None` if any write is allowed.
fn precondition(write: &AllowedWrite) -> Option<Precondition> {
    let tag = write.tag.clone();
    match &write.allowed {
        TagWrite::Any => None,
        TagWrite::CreateOnly(_) => Some(Precondition::Absent(tag)),
        TagWrite::OverwriteOnly(_) => Some(Precondition::Present(tag)),
        TagWrite::SameOnly(_) => Some(Precondition::Same(tag)),
    }
}

/// The rejection for an error of the store: for a failed precondition that of the access rules.
fn rejection(error: StoreError, writes: Vec<AllowedWrite>) -> Rejection {
    let unexpected = match &error {
        StoreError::PreconditionFailed(tag) => writes.into_iter().find(|one| one.tag == *tag),
        _ => None,
    };
    match unexpected.map(|write| write.allowed) {
        Some(
            TagWrite::CreateOnly(rejection)
            | TagWrite::OverwriteOnly(rejection)
            | TagWrite::SameOnly(rejection),
        ) => rejection,
        Some(TagWrite::Any) | None => Rejection::store(error, 0, None),
    }
}

/// 201 for a stored manifest.
fn manifest_created(
    location: HeaderValue,
    tags: &[Tag],
    outcome: &PutOutcome,
) -> Response<ResponseBody> {
    let mut response = respond::empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(CONTENT_DIGEST, value(outcome.digest.as_str()));
    if let Some(subject) = &outcome.subject {
        headers.insert(SUBJECT, value(subject.as_str()));
    }
    for tag in tags {
        headers.append(TAG, value(tag.as_str()));
    }
    response
}
