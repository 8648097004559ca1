//! Writes to tags where not everybody may move them: at a registry behind one at a time for each
//! tag, from the look whether it is there to the answer; the store looks itself. The manifest is
//! held in memory for it, so that no client keeps others waiting by sending slowly, and because the
//! same manifest again is no move.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::{Body, Incoming};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::manifest_budget::Room;
use super::rewrite::{self, Asked};
use super::{forward, store};
use crate::crypto;
use crate::registry::call::{Call, RepositoryCall};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::request::body::ResponseBody;
use crate::request::conn_info::ConnInfo;
use crate::request::headers::CONTENT_DIGEST;
use crate::request::obligations::{TagObligation, TagWrite};
use crate::request::record::Record;
use crate::request::rejection::Rejection;
use crate::request::route::{Destination, Route};
use crate::request::site::Target;
use crate::store::{BodyTimeouts, Precondition, StoreError};
use crate::upstream::body::{RequestBody, Upload};
use crate::upstream::transfer::TransferLimits;

/// Whose turn it is to write a tag. A fixed number of locks, of which several tags may share one.
pub(crate) struct TagTurns {
    locks: Vec<Arc<Mutex<()>>>,
    hasher: RandomState,
}

const LOCKS: u64 = 1024;

/// Held until the tags are written.
type Held = Vec<OwnedMutexGuard<()>>;

impl TagTurns {
    pub(crate) fn new() -> Self {
        Self {
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Waits for all of these at once. Always in the same order, so that no two wait for each
    /// other.
    async fn take(
        &self,
        registry: &str,
        repository: &RepositoryName,
        terms: &[TagObligation],
    ) -> Held {
        let place =
            |term: &TagObligation| self.hasher.hash_one((registry, repository, &term.tag)) % LOCKS;
        let mut places: Vec<_> = terms.iter().map(place).collect();
        places.sort_unstable();
        places.dedup();
        let mut held = Vec::new();
        for place in places {
            if let Some(lock) = usize::try_from(place)
                .ok()
                .and_then(|place| self.locks.get(place))
            {
                held.push(lock.clone().lock_owned().await);
            }
        }
        held
    }
}

/// Writes a manifest, if its tags may be written as they stand.
pub(crate) async fn write(
    turns: &TagTurns,
    route: &mut Route,
    conn: &ConnInfo,
    parts: Parts,
    (incoming, room): (Incoming, Option<Room>),
    record: &mut Record,
) -> Result<Response<ResponseBody>, Rejection> {
    let bytes = whole(route, incoming, room, record).await?;
    let terms = route.take_tag_writes();
    let Some(Call::Repository {
        name: repository,
        operation: RepositoryCall::ManifestWrite { reference, tags },
    }) = route.call()
    else {
        return Err(Rejection::bad_base_path());
    };
    match route.destination() {
        Destination::Upstream(target) => {
            let registry = route.site().host.registry.to_string();
            let held = turns.take(&registry, repository, &terms).await;
            look((route, target), conn, &parts, terms, &bytes).await?;
            let body = RequestBody::buffered(bytes);
            let asked = Asked::of(route, &parts);
            let request = forward::whole((route, target), conn, &parts, body)?;
            let (upstream, limits) = (target.upstream.clone(), route.transfer_limits());
            let answer = finish(
                held,
                async move { upstream.send(request, None, limits).await },
            )
            .await;
            record.answered();
            let answer = answer.map_err(|error| Rejection::upstream(error, route.body_limit()))?;
            rewrite::rewrite((route, target), conn, &asked, answer, record)
        }
        Destination::Store(store, _) => {
            let content_type = store::content_type(&parts.headers);
            let content_type = content_type.map_err(|error| Rejection::store(error, 0, None))?;
            let expected = terms.iter().filter_map(TagObligation::expected).collect();
            let put = store
                .put_manifest(repository, reference, tags, expected, content_type, bytes)
                .await;
            record.answered();
            let accepted = put.map_err(|error| refusal(error, terms))?;
            Ok(store::finished(
                store::manifest_is_here(repository, tags, &accepted),
                conn,
                record,
            ))
        }
    }
}

async fn whole(
    route: &Route,
    incoming: Incoming,
    room: Option<Room>,
    record: &mut Record,
) -> Result<Bytes, Rejection> {
    let limit = route.body_limit();
    let upload = Arc::<Upload>::default();
    let has_body = !incoming.is_end_stream();
    let body = RequestBody::streamed(incoming, upload.clone(), limit);
    record.forwarded(has_body.then(|| upload.clone()));
    let timeouts = &route.site().host.timeouts;
    let timeouts = BodyTimeouts {
        first_byte: timeouts.first_body_byte,
        stall: timeouts.stall,
    };
    let whole = store::whole(timeouts, body, room).await;
    whole.map_err(|error| Rejection::store(error, limit, upload.failure()))
}

impl TagObligation {
    /// What the store is to find, where not everything is fine.
    fn expected(&self) -> Option<Precondition> {
        match &self.allowed {
            TagWrite::Any => None,
            TagWrite::CreateOnly(_) => Some(Precondition::Absent(self.tag.clone())),
            TagWrite::OverwriteOnly(_) => Some(Precondition::Present(self.tag.clone())),
        }
    }
}

/// Why the store did not write: what the rules say to it, if that is a tag that is not as it was
/// expected.
fn refusal(error: StoreError, terms: Vec<TagObligation>) -> Rejection {
    let unexpected = match &error {
        StoreError::PreconditionFailed(tag) => terms.into_iter().find(|term| term.tag == *tag),
        _ => None,
    };
    match unexpected.map(|term| term.allowed) {
        Some(TagWrite::CreateOnly(refusal) | TagWrite::OverwriteOnly(refusal)) => refusal,
        Some(TagWrite::Any) | None => Rejection::store(error, 0, None),
    }
}

/// Goes on to the end when nobody waits any more: a write whose client has left may still come to
/// pass, and until that is known nobody else may believe the tag to be as it was.
async fn finish<T: Send + 'static>(
    held: Held,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    let task = tokio::spawn(async move {
        let done = work.await;
        drop(held);
        done
    });
    match task.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A tag that is there, and its manifest if the registry tells.
struct Present(Option<Digest>);

/// Whether the tags are there at the registry, where that matters. The turn is the caller's.
async fn look(
    to: (&Route, &Target),
    conn: &ConnInfo,
    parts: &Parts,
    terms: Vec<TagObligation>,
    bytes: &Bytes,
) -> Result<(), Rejection> {
    for TagObligation { tag, allowed } in terms {
        let refusal = match allowed {
            TagWrite::Any => continue,
            TagWrite::CreateOnly(refusal) => present(to, conn, parts, &tag)
                .await?
                .is_some_and(|Present(digest)| !digest.is_some_and(|digest| is_of(&digest, bytes)))
                .then_some(refusal),
            TagWrite::OverwriteOnly(refusal) => present(to, conn, parts, &tag)
                .await?
                .is_none()
                .then_some(refusal),
        };
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
    }
    Ok(())
}

async fn present(
    (route, target): (&Route, &Target),
    conn: &ConnInfo,
    parts: &Parts,
    tag: &Tag,
) -> Result<Option<Present>, Rejection> {
    let Some(repository) = route.call().and_then(Call::repository) else {
        return Err(Rejection::bad_base_path());
    };
    let path = format!("/v2/{repository}/manifests/{tag}");
    let mut request = forward::own((route, target), conn, parts, (Method::HEAD, &path))?;
    request
        .headers_mut()
        .insert(header::ACCEPT, HeaderValue::from_static(ANY_MANIFEST));
    let limits = TransferLimits::new(&route.site().host.timeouts, false);
    let answer = target.upstream.send(request, None, limits).await;
    let answer = answer.map_err(|error| Rejection::upstream(error, 0))?;
    match answer.status() {
        StatusCode::OK => Ok(Some(Present(digest_of(answer.headers())))),
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(Rejection::upstream_does_not_tell()),
    }
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get(CONTENT_DIGEST)?.to_str().ok()?).ok()
}

/// Whether a manifest is that of a digest; one of an algorithm that nobody computes here is
/// another.
fn is_of(digest: &Digest, manifest: &[u8]) -> bool {
    let algorithm = match digest.algorithm() {
        "sha256" => &digest::SHA256,
        "sha512" => &digest::SHA512,
        _ => return false,
    };
    let computed = digest::digest(algorithm, manifest);
    crypto::hex(computed.as_ref()) == digest.encoded()
}

/// Without its own type, registries convert a manifest, or say that there is none.
const ANY_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json, \
     */*";
