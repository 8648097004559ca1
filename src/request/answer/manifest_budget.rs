//! Memory for the manifests that are held whole: all requests of the process share it, each user
//! has a part of it at most, and one that finds no room waits for it with its body unread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::registry::call::Call;
use crate::request::obligations::Obligations;
use crate::request::rejection::Rejection;
use crate::request::route::{Destination, Route};

/// What all manifests together may take.
pub(crate) struct Rooms {
    all: Arc<Semaphore>,
    /// By domain and user, of those whose manifests are being held.
    shares: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// Room for one manifest, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    own: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
}

/// 64 MiB: eight of the longest that are accepted by default, some ten thousand as clients push
/// them.
const KIBIBYTES: u32 = 64 << 10;
/// What one user may take of it, so that nobody keeps out all others by sending slowly.
const SHARE_KIBIBYTES: u32 = KIBIBYTES / 4;
/// Longer than pushes take that go on, and shorter than clients wait.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rooms {
    pub(crate) fn new() -> Self {
        Self {
            all: semaphore(KIBIBYTES),
            shares: Mutex::default(),
        }
    }

    /// Waits for room for a body of a user, named together with the domain: as much as it says that
    /// it needs, or else `limit` bytes.
    ///
    /// Errors: 503, when there is none for too long; 413 at once for a body that says that it is
    /// too large.
    pub(crate) async fn take(
        &self,
        user: String,
        limit: u64,
        body: &impl Body,
    ) -> Result<Room, Rejection> {
        let size = body.size_hint();
        if size.lower() > limit {
            return Err(Rejection::body_too_large(limit));
        }
        let most = kibibytes(size.upper().unwrap_or(limit).min(limit));
        // First in the user's own line, so that nobody else stands behind what waits there.
        let taking = async {
            let own = self.share(user).acquire_many_owned(most).await?;
            Ok::<_, AcquireError>(Room {
                own,
                of_all: self.all.clone().acquire_many_owned(most).await?,
            })
        };
        match tokio::time::timeout(PATIENCE, taking).await {
            Ok(Ok(room)) => Ok(room),
            // They are never closed.
            Ok(Err(_)) | Err(_) => Err(Rejection::no_room()),
        }
    }

    fn share(&self, user: String) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&user).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = semaphore(SHARE_KIBIBYTES);
        shares.insert(user, Arc::downgrade(&share));
        share
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    // No `u32` is too large for it.
    Arc::new(Semaphore::new(
        permits.try_into().unwrap_or(Semaphore::MAX_PERMITS),
    ))
}

/// Whether the body is a manifest that has to be here before anything is done with it.
pub(crate) fn is_needed(route: &Route) -> bool {
    route.call().is_some_and(Call::is_manifest_write)
        && (matches!(route.obligations(), Obligations::TagWrites(_))
            || matches!(route.destination(), Destination::Store(..)))
}

/// Rounded up, and never more than anybody has.
fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(SHARE_KIBIBYTES)
}

impl Room {
    /// The bytes with their room, which is given back with the last reference to them; what they do
    /// not need of it, at once.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        let Self {
            mut own,
            mut of_all,
        } = self;
        let needed = usize::try_from(kibibytes(bytes.len() as u64)).unwrap_or(usize::MAX);
        for permit in [&mut own, &mut of_all] {
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
        Bytes::from_owner(Held {
            bytes,
            _room: Self { own, of_all },
        })
    }
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;
    use tokio::time::Instant;

    use super::*;

    /// One of which nobody knows how long it will be.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_user_takes_the_room_of_all() {
        let rooms = Rooms::new();
        let take = |user: &str| rooms.take(user.to_owned(), 8 << 20, &Endless);
        let first = take("alice").await.expect("room");
        let second = take("alice").await.expect("room");
        let begun = Instant::now();
        assert!(take("alice").await.is_err(), "a quarter is hers");
        assert_eq!(begun.elapsed(), PATIENCE);
        let mut held = Vec::new();
        for user in ["bob", "carol", "dave"] {
            held.extend([
                take(user).await.expect("room"),
                take(user).await.expect("room"),
            ]);
        }
        assert!(take("erin").await.is_err(), "nobody has more than there is");
        let short = first.hold(Bytes::from_static(b"{}"));
        assert!(
            take("alice").await.is_err(),
            "others may have it, but a KiB of it is still held"
        );
        drop((short, second));
        assert!(take("alice").await.is_ok());
        assert!(take("frank").await.is_ok());
        assert!(
            !rooms.shares.lock().expect("whole").contains_key("erin"),
            "who holds nothing is forgotten"
        );
    }
}
