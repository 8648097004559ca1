//! Keyed hashes that stand for credentials, so that the credentials themselves are not remembered.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::basic::Credentials;
use super::{BcryptHash, BcryptKey};
use crate::crypto::{TagKey, keyed_tag};

/// The keyed hash of a credential: of one password of one user under one entry of one domain, or of
/// a token. Without the key of the process no client can compute one or guess a prefix, so that
/// comparing and hashing it need not take constant time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct CredentialTag([u8; 32]);

impl CredentialTag {
    /// The tag of a password. It covers the user's entry, so that a changed entry invalidates the
    /// password at once, and only those bytes of the password that bcrypt uses: an entry has one
    /// tag, and its owner cannot evict others with passwords that differ after byte 72.
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

    /// The tag of a secret that is no password, such as a refresh token. It has fewer fields than
    /// the tag of a password, so that the two never collide.
    pub(super) fn from_secret(key: &TagKey, domain: &str, secret: &str) -> Self {
        Self(keyed_tag(key, &[domain.as_bytes(), secret.as_bytes()]))
    }

    /// The tag of an access token, under a key for tokens alone.
    pub(super) fn from_token(key: &TagKey, token: &str) -> Self {
        Self(keyed_tag(key, &[token.as_bytes()]))
    }

    /// A tag that [`Self::to_bytes`] gave.
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For a successor of the process, which has the same key.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The first eight bytes. Two of a million tags are unlikely to share them.
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

/// Takes the first bytes of a tag for its hash: they are uniformly distributed.
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
    fn each_field_changes_the_tag() {
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
            "bcrypt uses the first 72 bytes"
        );
    }
}
