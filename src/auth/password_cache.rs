//! Verified pairs of user and password, cached without the password.

use std::time::Duration;

use tokio::time::Instant;

use super::cache::{BoundedCache, Expiring};
use super::credential_tag::CredentialTag;

/// The verified pairs.
pub(super) struct PasswordCache {
    pairs: BoundedCache<KnownUntil>,
    lifetime: Duration,
}

/// A verified pair as a process passes it to its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownPassword {
    pub(crate) tag: [u8; 32],
    /// The time until it is removed.
    pub(crate) left: Duration,
}

/// When a pair is removed.
#[derive(Clone, Copy)]
struct KnownUntil(Instant);

impl Expiring for KnownUntil {
    type Time = Instant;

    fn expires(&self) -> Instant {
        self.0
    }
}

/// The state of a pair in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheState {
    /// The password is right.
    Fresh,
    /// The password was right not long ago, and has to be verified again.
    Stale,
    /// The pair is not in the cache.
    Miss,
}

impl PasswordCache {
    /// A pair is fresh for `lifetime`, and stale for as long again.
    pub(super) fn new(lifetime: Duration, max_entries: usize) -> Self {
        Self {
            // Each evicted pair costs its user a hash.
            pairs: BoundedCache::new(max_entries, 1),
            lifetime,
        }
    }

    pub(super) fn get(&self, tag: &CredentialTag, now: Instant) -> CacheState {
        let Some(KnownUntil(expires)) = self.pairs.get(tag) else {
            return CacheState::Miss;
        };
        let left = expires.saturating_duration_since(now);
        if left > self.lifetime {
            CacheState::Fresh
        } else if !left.is_zero() {
            CacheState::Stale
        } else {
            CacheState::Miss
        }
    }

    /// Stores a verified pair and removes the expired ones: the scan costs nothing beside the hash
    /// that was just computed.
    pub(super) fn insert(&self, tag: CredentialTag, at: Instant) {
        self.pairs.remove_expired(at);
        let known_until = KnownUntil(at + self.lifetime + self.lifetime);
        self.pairs.insert(tag, known_until, at);
    }

    /// The pairs that have not expired.
    pub(super) fn known(&self, now: Instant) -> Vec<KnownPassword> {
        let mut all = Vec::with_capacity(self.pairs.len());
        self.pairs.each(|tag, KnownUntil(expires)| {
            let left = expires.saturating_duration_since(now);
            if !left.is_zero() {
                let tag = tag.to_bytes();
                all.push(KnownPassword { tag, left });
            }
        });
        all
    }

    /// Stores the pairs of a predecessor.
    pub(super) fn restore(&self, known: &[KnownPassword], now: Instant) {
        for KnownPassword { tag, left } in known {
            let left = (*left).min(self.lifetime + self.lifetime);
            let tag = CredentialTag::from_bytes(*tag);
            self.pairs.insert(tag, KnownUntil(now + left), now);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_cache_evicts_the_oldest_pair() {
        let cache = PasswordCache::new(Duration::from_secs(3600), 10);
        let tag = |n: u8| CredentialTag::from_bytes([n; 32]);
        for n in 0..25 {
            cache.insert(tag(n), Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(cache.len(), 10);
        let now = Instant::now();
        assert!((0..15).all(|n| cache.get(&tag(n), now) == CacheState::Miss));
        assert!((15..25).all(|n| cache.get(&tag(n), now) == CacheState::Fresh));
        cache.insert(tag(20), now);
        assert_eq!(
            cache.get(&tag(15), now),
            CacheState::Fresh,
            "verifying a pair again evicts no other"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pair_becomes_stale_and_is_removed() {
        let cache = PasswordCache::new(Duration::from_secs(60), 10);
        let start = Instant::now();
        cache.insert(CredentialTag::from_bytes([1; 32]), start);
        let after = |seconds| {
            cache.get(
                &CredentialTag::from_bytes([1; 32]),
                start + Duration::from_secs(seconds),
            )
        };
        assert_eq!(
            [59, 60, 119, 120].map(after),
            [
                CacheState::Fresh,
                CacheState::Stale,
                CacheState::Stale,
                CacheState::Miss
            ]
        );
        cache.insert(
            CredentialTag::from_bytes([2; 32]),
            start + Duration::from_secs(120),
        );
        assert_eq!(cache.len(), 1);
    }
}
