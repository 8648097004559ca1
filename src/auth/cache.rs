//! Verified pairs of user and password, remembered without the password.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::Duration;

use dashmap::DashMap;
use tokio::time::Instant;

use super::basic::Credentials;
use super::{BcryptHash, BcryptKey};
use crate::crypto::{TagKey, keyed_tag};

/// Stands for one password of one user under one entry of one domain. Without the key of the
/// process nobody can make one, nor guess how it begins: comparing and hashing it need no care.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct CredentialTag([u8; 32]);

impl CredentialTag {
    /// The tag of a password. The entry is a part of it: a changed entry invalidates its password
    /// at once. Of the password only what bcrypt sees is, so that one entry has one tag, and its
    /// owner cannot drive out others with different tails.
    pub(super) fn from_password(
        key: &TagKey,
        domain: &str,
        credentials: &Credentials,
        entry: &BcryptHash,
    ) -> Self {
        Self(keyed_tag(
            key,
            &[
                domain.as_bytes(),
                credentials.user().as_bytes(),
                BcryptKey::seen(credentials.password()),
                &entry.to_bytes(),
            ],
        ))
    }

    /// The tag of a secret that is no password: it has fewer fields than one of a password.
    pub(super) fn from_secret(key: &TagKey, domain: &str, secret: &str) -> Self {
        Self(keyed_tag(key, &[domain.as_bytes(), secret.as_bytes()]))
    }

    /// Its first eight bytes. Of a million others none is likely to have the same.
    pub(super) fn short(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Hash for CredentialTag {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.short());
    }
}

/// A tag is as good as random already.
#[derive(Default)]
pub(super) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a tag writes one u64");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

pub(super) type BuildTagHasher = BuildHasherDefault<TagHasher>;

/// The remembered pairs. Only what was verified gets in, so that strangers cannot fill it.
pub(super) struct PasswordCache {
    /// When each was verified.
    pairs: DashMap<CredentialTag, Instant, BuildTagHasher>,
    lifetime: Duration,
    bound: usize,
}

/// What is known of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheState {
    /// It is right.
    Fresh,
    /// It was right not long ago, and has to be verified again.
    Stale,
    /// Nothing.
    Miss,
}

impl PasswordCache {
    pub(super) fn new(lifetime: Duration, bound: usize) -> Self {
        Self {
            pairs: DashMap::default(),
            lifetime,
            bound: bound.max(1),
        }
    }

    pub(super) fn get(&self, tag: &CredentialTag, now: Instant) -> CacheState {
        let Some(verified) = self.pairs.get(tag).map(|verified| *verified) else {
            return CacheState::Miss;
        };
        match now.saturating_duration_since(verified) {
            age if age < self.lifetime => CacheState::Fresh,
            age if age < self.lifetime.saturating_mul(STALE) => CacheState::Stale,
            _ => CacheState::Miss,
        }
    }

    /// Remembers a pair that was right. Also the time to forget old ones: going through all of them
    /// is nothing beside the hash that was just computed.
    pub(super) fn insert(&self, tag: CredentialTag, at: Instant) {
        let known = self.lifetime.saturating_mul(STALE);
        self.pairs
            .retain(|_, verified| at.saturating_duration_since(*verified) < known);
        if self.pairs.len() >= self.bound && !self.pairs.contains_key(&tag) {
            let oldest = self
                .pairs
                .iter()
                .min_by_key(|pair| *pair.value())
                .map(|pair| *pair.key());
            if let Some(oldest) = oldest {
                self.pairs.remove(&oldest);
            }
        }
        self.pairs.insert(tag, at);
    }

    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }
}

/// For how many lifetimes a pair is known as one that was right.
const STALE: u32 = 2;

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;
    use crate::auth::{Cost, basic};

    fn credentials(pair: &str) -> Credentials {
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        basic::parse(format!("Basic {encoded}").as_bytes()).expect("credentials")
    }

    #[test]
    fn every_field_makes_another_tag() {
        let key = TagKey::random().expect("randomness");
        let other_key = TagKey::random().expect("randomness");
        let entry = BcryptHash::decoy(Cost::DEFAULT);
        let other_entry = BcryptHash::decoy(Cost::new(11).expect("allowed"));
        let tag = |domain: &str, pair: &str| {
            CredentialTag::from_password(&key, domain, &credentials(pair), &entry).0
        };
        let all = [
            tag("d", "ab:c"),
            tag("d", "a:bc"),
            tag("da", "b:c"),
            tag("dab", ":c"),
            tag("d", "ab:c:"),
            tag("d", "ab:"),
            tag("", "dab:c"),
            CredentialTag::from_password(&key, "d", &credentials("ab:c"), &other_entry).0,
            CredentialTag::from_password(&other_key, "d", &credentials("ab:c"), &entry).0,
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(at));
        }
        assert_eq!(tag("d", "ab:c"), tag("d", "ab:c"));
        let long = "x".repeat(72);
        assert_eq!(
            tag("d", &format!("a:{long}")),
            tag("d", &format!("a:{long}y")),
            "what bcrypt sees is equal"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_goes_when_it_is_full() {
        let cache = PasswordCache::new(Duration::from_secs(3600), 10);
        let tag = |n: u8| CredentialTag([n; 32]);
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
            "verifying again drives out nobody"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_pair_grows_stale_and_is_forgotten() {
        let cache = PasswordCache::new(Duration::from_secs(60), 10);
        let start = Instant::now();
        cache.insert(CredentialTag([1; 32]), start);
        let after = |seconds| {
            cache.get(
                &CredentialTag([1; 32]),
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
        cache.insert(CredentialTag([2; 32]), start + Duration::from_secs(120));
        assert_eq!(cache.len(), 1);
    }
}
