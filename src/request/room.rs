//! Memory for the manifests that are held whole: all requests of the process share it, and one that finds no
//! room waits for it with its body unread.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::authorize::Terms;
use super::reject::Rejection;
use super::route::{Destination, Route};
use crate::registry::call::Call;

/// What all manifests together may take.
pub(crate) struct Rooms {
    kibibytes: Arc<Semaphore>,
}

/// Room for one manifest, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room(OwnedSemaphorePermit);

/// 64 MiB: eight of the longest that are accepted by default, some ten thousand as clients push them.
const KIBIBYTES: u32 = 64 << 10;
/// Longer than pushes take that go on, and shorter than clients wait.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rooms {
    pub(crate) fn new() -> Self {
        // No `u32` is too large for it.
        Self { kibibytes: Arc::new(Semaphore::new(KIBIBYTES.try_into().unwrap_or(Semaphore::MAX_PERMITS))) }
    }

    /// Waits for room for a body: as much as it says that it needs, or else `limit` bytes.
    ///
    /// Errors: 503, when there is none for too long; 413 at once for a body that says that it is too large.
    pub(crate) async fn take(&self, limit: u64, body: &impl Body) -> Result<Room, Rejection> {
        let size = body.size_hint();
        if size.lower() > limit {
            return Err(Rejection::body_too_large(limit));
        }
        let most = kibibytes(size.upper().unwrap_or(limit).min(limit));
        let taking = self.kibibytes.clone().acquire_many_owned(most);
        match tokio::time::timeout(PATIENCE, taking).await {
            Ok(Ok(permit)) => Ok(Room(permit)),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Rejection::no_room()),
        }
    }
}

/// Whether the body is a manifest that has to be here before anything is done with it.
pub(crate) fn is_needed(route: &Route) -> bool {
    route.call().is_some_and(Call::is_manifest_write)
        && (matches!(route.terms(), Terms::Tags(_)) || matches!(route.destination(), Destination::Store(..)))
}

/// Rounded up, and never more than there are.
fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(KIBIBYTES)
}

impl Room {
    /// The bytes with their room, which is given back with the last reference to them; what they do not need of
    /// it, at once.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        let Self(mut permit) = self;
        let needed = usize::try_from(kibibytes(bytes.len() as u64)).unwrap_or(usize::MAX);
        drop(permit.split(permit.num_permits().saturating_sub(needed)));
        Bytes::from_owner(Held { bytes, _permit: permit })
    }
}

struct Held {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
