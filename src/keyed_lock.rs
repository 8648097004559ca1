//! Locks by key: tasks with the same key exclude each other, and never affect others. Each wait has
//! a timeout.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// One lock for each key that is held or waited for. Other keys take no memory.
#[derive(Debug)]
pub(crate) struct KeyedLock<K> {
    locks: Mutex<Locks<K>>,
}

#[derive(Debug)]
struct Locks<K> {
    by_key: HashMap<K, Weak<RwLock<()>>>,
    /// The number of keys at which the unused ones are removed: twice as many as were left by the
    /// last removal, so that removals cost each insertion constant time.
    sweep_at: usize,
}

/// The lock of a key was not released in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {} s waiting for a lock", .0.as_secs())]
pub(crate) struct LockTimeout(Duration);

/// A shared lock of a key, released on drop.
#[derive(Debug)]
#[must_use]
pub(crate) struct SharedKeyGuard(#[expect(dead_code, reason = "dropped")] OwnedRwLockReadGuard<()>);

/// The exclusive lock of a key, released on drop.
#[derive(Debug)]
#[must_use]
pub(crate) struct KeyGuard(#[expect(dead_code, reason = "dropped")] OwnedRwLockWriteGuard<()>);

impl<K: Eq + Hash> KeyedLock<K> {
    pub(crate) fn new() -> Self {
        Self {
            locks: Mutex::new(Locks {
                by_key: HashMap::new(),
                sweep_at: MIN_SWEEP,
            }),
        }
    }

    /// Locks the key for shared use. Waits for up to `timeout`. Callers are served in order, so
    /// that a stream of shared locks cannot starve an exclusive one.
    ///
    /// Cancel-safe: a dropped future holds nothing.
    pub(crate) async fn read(
        &self,
        key: K,
        timeout: Duration,
    ) -> Result<SharedKeyGuard, LockTimeout> {
        let lock = self.lock(key);
        let guard = tokio::time::timeout(timeout, lock.read_owned()).await;
        guard.map(SharedKeyGuard).map_err(|_| LockTimeout(timeout))
    }

    /// Locks the key for exclusive use. Otherwise like [`Self::read`].
    pub(crate) async fn write(&self, key: K, timeout: Duration) -> Result<KeyGuard, LockTimeout> {
        let lock = self.lock(key);
        let guard = tokio::time::timeout(timeout, lock.write_owned()).await;
        guard.map(KeyGuard).map_err(|_| LockTimeout(timeout))
    }

    /// Like [`Self::write`], on a thread that may block.
    pub(crate) fn blocking_write(
        &self,
        key: K,
        timeout: Duration,
    ) -> Result<KeyGuard, LockTimeout> {
        let deadline = std::time::Instant::now() + timeout;
        let mut guard = pin!(self.lock(key).write_owned());
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            if let Poll::Ready(guard) = guard.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(KeyGuard(guard));
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Err(LockTimeout(timeout));
            }
            std::thread::park_timeout(left);
        }
    }

    fn lock(&self, key: K) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.by_key.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.by_key.len() >= locks.sweep_at {
            locks.by_key.retain(|_, lock| lock.strong_count() > 0);
            locks.sweep_at = (locks.by_key.len() * 2).max(MIN_SWEEP);
        }
        let lock = Arc::new(RwLock::new(()));
        locks.by_key.insert(key, Arc::downgrade(&lock));
        lock
    }
}

/// Wakes a thread that waits for a lock.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

const MIN_SWEEP: usize = 64;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn only_the_same_key_waits_and_not_for_ever() {
        let locks = KeyedLock::new();
        let held = locks.write("a", TIMEOUT).await.expect("free");
        let begun = Instant::now();
        for other in ["b", "c", "d"] {
            drop(locks.write(other, TIMEOUT).await.expect("free"));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(locks.read("a", TIMEOUT).await.is_err());
        assert_eq!(begun.elapsed(), TIMEOUT);
        drop(held);
        let first = locks.read("a", TIMEOUT).await.expect("free");
        let second = locks.read("a", TIMEOUT).await.expect("shared");
        assert!(locks.write("a", TIMEOUT).await.is_err());
        drop((first, second));
        drop(locks.write("a", TIMEOUT).await.expect("free"));
    }

    #[test]
    fn a_thread_waits_in_the_same_queue() {
        let locks = KeyedLock::new();
        let held = locks.blocking_write("a", TIMEOUT).expect("free");
        assert!(locks.blocking_write("a", Duration::from_millis(1)).is_err());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| locks.blocking_write("a", TIMEOUT));
            drop(held);
            drop(waiting.join().expect("no panic").expect("released"));
        });
    }

    #[tokio::test]
    async fn keys_that_nobody_holds_take_no_memory() {
        let locks = KeyedLock::new();
        let held = locks.write(0, TIMEOUT).await.expect("free");
        for key in 1..100_000 {
            drop(locks.write(key, TIMEOUT).await.expect("free"));
        }
        let known = locks.locks.lock().expect("not poisoned").by_key.len();
        assert!(known <= MIN_SWEEP, "{known}");
        drop(held);
    }
}
