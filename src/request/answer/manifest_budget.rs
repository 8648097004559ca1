//! Memory budget for buffered manifests: 64 MiB per process, 16 MiB per user. Callers wait up to 10
//! s for a permit, with the body of the request unread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::request::rejection::Rejection;

/// The memory that all buffered manifests together may take.
pub(crate) struct ManifestBudget {
    total: Arc<Semaphore>,
    /// By domain and user, of those whose manifests are buffered.
    users: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// Memory for one manifest, released when this is dropped.
#[derive(Debug)]
pub(crate) struct MemoryPermit {
    user: OwnedSemaphorePermit,
    total: OwnedSemaphorePermit,
}

/// 64 MiB: sixteen manifests of the default maximum size, some ten thousand of the usual size.
const BUDGET_KIBIBYTES: u32 = 64 << 10;
/// The part of one user, so that no user locks out all others by sending slowly.
const USER_KIBIBYTES: u32 = BUDGET_KIBIBYTES / 4;
/// Longer than pushes that make progress take, shorter than clients wait.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

impl ManifestBudget {
    pub(crate) fn new() -> Self {
        Self {
            total: semaphore(BUDGET_KIBIBYTES),
            users: Mutex::default(),
        }
    }

    /// Waits for memory for a body of `user` (domain and name): as much as the body announces, or
    /// else `limit` bytes.
    ///
    /// Errors: 503 when there is none for [`PERMIT_TIMEOUT`]; 413 at once for a body that announces
    /// more than `limit`.
    pub(crate) async fn acquire(
        &self,
        user: String,
        limit: u64,
        body: &impl Body,
    ) -> Result<MemoryPermit, Rejection> {
        let size = body.size_hint();
        if size.lower() > limit {
            return Err(Rejection::body_too_large(limit));
        }
        let wanted = kibibytes(size.upper().unwrap_or(limit).min(limit));
        // The user's own part first, so that no other user waits behind those who wait for it.
        let acquiring = async {
            let user = self.user(user).acquire_many_owned(wanted).await?;
            let total = self.total.clone().acquire_many_owned(wanted).await?;
            Ok::<_, AcquireError>(MemoryPermit { user, total })
        };
        match tokio::time::timeout(PERMIT_TIMEOUT, acquiring).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphores are never closed.
            Ok(Err(_)) | Err(_) => Err(Rejection::too_many_manifests()),
        }
    }

    fn user(&self, user: String) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = users.get(&user).and_then(Weak::upgrade) {
            return part;
        }
        users.retain(|_, part| part.strong_count() > 0);
        let part = semaphore(USER_KIBIBYTES);
        users.insert(user, Arc::downgrade(&part));
        part
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    // No `u32` is too large for it.
    Arc::new(Semaphore::new(
        permits.try_into().unwrap_or(Semaphore::MAX_PERMITS),
    ))
}

/// Rounded up, and never more than the part of a user.
fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .min(USER_KIBIBYTES)
}

impl MemoryPermit {
    /// The bytes with their permit, which is released with the last reference to them. What they do
    /// not need of it is released at once.
    pub(crate) fn attach(self, bytes: Bytes) -> Bytes {
        let Self {
            mut user,
            mut total,
        } = self;
        let needed = usize::try_from(kibibytes(bytes.len() as u64)).unwrap_or(usize::MAX);
        for permit in [&mut user, &mut total] {
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
        Bytes::from_owner(PermittedBytes {
            bytes,
            _permit: Self { user, total },
        })
    }
}

struct PermittedBytes {
    bytes: Bytes,
    _permit: MemoryPermit,
}

impl AsRef<[u8]> for PermittedBytes {
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

    /// A body of unknown length.
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
    async fn no_user_takes_the_memory_of_all() {
        let budget = ManifestBudget::new();
        let take = |user: &str| budget.acquire(user.to_owned(), 8 << 20, &Endless);
        let first = take("alice").await.expect("memory");
        let second = take("alice").await.expect("memory");
        let begun = Instant::now();
        assert!(
            take("alice").await.is_err(),
            "a quarter of it is for one user"
        );
        assert_eq!(begun.elapsed(), PERMIT_TIMEOUT);
        let mut held = Vec::new();
        for user in ["bob", "carol", "dave"] {
            held.extend([
                take(user).await.expect("memory"),
                take(user).await.expect("memory"),
            ]);
        }
        assert!(take("erin").await.is_err(), "there is no more");
        let short = first.attach(Bytes::from_static(b"{}"));
        assert!(
            take("alice").await.is_err(),
            "others may have it, but one KiB is still in use"
        );
        drop((short, second));
        assert!(take("alice").await.is_ok());
        assert!(take("frank").await.is_ok());
        assert!(
            !budget
                .users
                .lock()
                .expect("not poisoned")
                .contains_key("erin"),
            "users without a permit take no memory"
        );
    }
}
