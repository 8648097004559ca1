//! Digests, keyed tags, hexadecimal digits and random bytes, all by aws-lc-rs.

use std::fmt;
use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use secrecy::zeroize::Zeroizing;

/// A key for [`keyed_tag`].
pub(crate) struct TagKey(hmac::Key);

/// The operating system provides no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no randomness")]
pub(crate) struct NoRandomness;

impl TagKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    pub(crate) fn random() -> Result<Self, NoRandomness> {
        hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map(Self)
            .map_err(|_| NoRandomness)
    }
}

/// Omits the key, which must not appear in logs.
impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagKey")
    }
}

impl From<NoRandomness> for io::Error {
    fn from(error: NoRandomness) -> Self {
        Self::other(error)
    }
}

/// HMAC-SHA256 of `fields`, each preceded by its length (64 bits, big-endian), so that no two lists
/// of fields have the same tag.
pub(crate) fn keyed_tag(key: &TagKey, fields: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&key.0);
    for field in fields {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field);
    }
    let mut tag = [0; 32];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// The first 128 bits of a [`keyed_tag`] in 22 characters of URL-safe base64: more than an
/// attacker can guess who needs a request for each try.
pub(crate) fn keyed_tag_text(key: &TagKey, fields: &[&[u8]]) -> String {
    URL_SAFE_NO_PAD.encode(&keyed_tag(key, fields)[..16])
}

/// Whether `a` equals `b`, in a time that depends on their lengths alone.
pub(crate) fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The SHA-256 digest of `bytes` in 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

/// Two lower-case hexadecimal digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Reads exactly `N` bytes from hexadecimal digits, lower-case or upper-case.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok()
}

/// `N` random bytes from the operating system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// As [`random`], for a secret: wiped from memory on drop.
pub(crate) fn random_secret<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_differ_by_the_lengths_of_their_fields() {
        let key = TagKey::new(&[7; 32]);
        let lists: [&[&[u8]]; 6] = [
            &[b"ab", b"c"],
            &[b"a", b"bc"],
            &[b"abc"],
            &[b"abc", b""],
            &[b"", b"abc"],
            &[],
        ];
        for (at, one) in lists.iter().enumerate() {
            for (other_at, other) in lists.iter().enumerate() {
                let equal = keyed_tag(&key, one) == keyed_tag(&key, other);
                assert_eq!(equal, at == other_at, "{one:?} {other:?}");
            }
        }
        assert_ne!(
            keyed_tag(&TagKey::new(&[8; 32]), &[b"a"]),
            keyed_tag(&key, &[b"a"])
        );
    }

    /// Files below `state` and the names of sessions depend on it.
    #[test]
    fn tags_have_a_stable_form() {
        let tag = keyed_tag(&TagKey::new(&[7; 32]), &[b"ci.test", b"alice", b""]);
        assert_eq!(
            hex(&tag),
            "2167e8e624d81c139792100e0e539f428570b8beecf7e4005105384b3dc78dc4"
        );
    }

    // FIPS 180-4, the example "abc".
    #[test]
    fn the_example_of_the_standard_is_hashed_as_there() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn malformed_hexadecimal_is_refused() {
        assert_eq!(from_hex("00fF"), Some([0, 255]));
        for text in ["", "00f", "00ff00", "00fg", "+0ff", "é0"] {
            assert_eq!(from_hex::<2>(text), None, "{text}");
        }
    }

    #[test]
    fn lengths_are_compared_too() {
        assert!(equal_in_constant_time(b"ab", b"ab"));
        assert!(!equal_in_constant_time(b"ab", b"abc"));
        assert!(!equal_in_constant_time(b"ab", b"ac"));
    }

    proptest! {
        #[test]
        fn print_then_parse_is_the_identity(bytes: [u8; 20]) {
            prop_assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
        }
    }
}
