//! A map of bounded size from the tags of verified credentials to what was verified.

use dashmap::DashMap;

use super::credential_tag::{BuildTagHasher, CredentialTag};

/// A value of a [`BoundedCache`].
pub(super) trait Expiring: Clone {
    /// A point in time on the clock by which the value expires.
    type Time: Copy + Ord;

    /// When the value expires.
    fn expires(&self) -> Self::Time;
}

/// Values by the tags of their credentials; the credentials themselves are not kept in memory. Only
/// what was verified belongs in it, so that clients without credentials cannot fill it.
pub(super) struct BoundedCache<V> {
    entries: DashMap<CredentialTag, V, BuildTagHasher>,
    max_entries: usize,
    max_evicted: usize,
}

impl<V: Expiring> BoundedCache<V> {
    /// A cache of `max_entries` values. When it is full, the `max_evicted` values that expire first
    /// are evicted together: all values are compared for that, so that a cache whose inserts must
    /// be cheap evicts many.
    pub(super) fn new(max_entries: usize, max_evicted: usize) -> Self {
        Self {
            entries: DashMap::default(),
            max_entries: max_entries.max(1),
            max_evicted: max_evicted.max(1),
        }
    }

    /// The value of a tag, also if it has expired: the caller compares the time.
    pub(super) fn get(&self, tag: &CredentialTag) -> Option<V> {
        self.entries.get(tag).map(|value| value.clone())
    }

    /// Stores a value. A full cache first drops the expired values, and then those that expire
    /// first.
    pub(super) fn insert(&self, tag: CredentialTag, value: V, now: V::Time) {
        if self.is_full() && !self.entries.contains_key(&tag) {
            self.remove_expired(now);
            if self.is_full() {
                self.evict();
            }
        }
        self.entries.insert(tag, value);
    }

    pub(super) fn remove_expired(&self, now: V::Time) {
        self.entries.retain(|_, value| value.expires() > now);
    }

    /// Visits all values, also those that have expired.
    pub(super) fn each(&self, mut visit: impl FnMut(&CredentialTag, &V)) {
        for entry in &self.entries {
            visit(entry.key(), entry.value());
        }
    }

    pub(super) fn clear(&self) {
        self.entries.clear();
    }

    /// The number of values, with those that have expired and not been removed yet.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.max_entries
    }

    fn evict(&self) {
        let mut by_expiry: Vec<_> = self
            .entries
            .iter()
            .map(|entry| (entry.value().expires(), *entry.key()))
            .collect();
        let last = self.max_evicted.min(by_expiry.len()).saturating_sub(1);
        if last < by_expiry.len() {
            by_expiry.select_nth_unstable_by_key(last, |(expires, _)| *expires);
        }
        for (_, tag) in by_expiry.iter().take(last + 1) {
            self.entries.remove(tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Expiring for u64 {
        type Time = u64;

        fn expires(&self) -> u64 {
            *self
        }
    }

    fn tag(number: u8) -> CredentialTag {
        CredentialTag::from_bytes([number; 32])
    }

    /// The tags below 100 that are in the cache.
    fn tags(cache: &BoundedCache<u64>) -> Vec<u8> {
        (0..100)
            .filter(|number| cache.get(&tag(*number)).is_some())
            .collect()
    }

    #[test]
    fn a_full_cache_evicts_what_expires_first() {
        let cache = BoundedCache::new(4, 2);
        for (number, expires) in [(0, 50), (1, 20), (2, 40), (3, 30)] {
            cache.insert(tag(number), expires, 0);
        }
        assert_eq!(tags(&cache), [0, 1, 2, 3]);
        cache.insert(tag(4), 10, 0);
        assert_eq!(tags(&cache), [0, 2, 4], "two at once");
        cache.insert(tag(5), 60, 0);
        cache.insert(tag(5), 70, 0);
        assert_eq!(tags(&cache), [0, 2, 4, 5], "a known tag needs no space");
    }

    #[test]
    fn expired_values_are_evicted_before_all_others() {
        let cache = BoundedCache::new(3, 3);
        for (number, expires) in [(0, 50), (1, 20), (2, 40)] {
            cache.insert(tag(number), expires, 0);
        }
        assert_eq!(cache.get(&tag(1)), Some(20), "it expires for the caller");
        cache.insert(tag(3), 60, 20);
        assert_eq!(tags(&cache), [0, 2, 3]);
        cache.remove_expired(50);
        assert_eq!((tags(&cache), cache.len()), (vec![3], 1));
        cache.clear();
        assert_eq!(cache.len(), 0);
    }
}
