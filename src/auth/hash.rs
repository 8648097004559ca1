//! One bcrypt hash: its text in an htpasswd file, and a password checked against it.

use std::fmt;

use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::zeroize::Zeroizing;

use crate::crypto;

/// A bcrypt hash. `$2a$`, `$2b$` and `$2y$` are one algorithm under three names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BcryptHash {
    cost: Cost,
    salt: [u8; 16],
    digest: [u8; 23],
}

/// How many rounds: 2 to the power of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost(u32);

/// Why a text is not a hash that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashError {
    /// Not 60 characters of the known form.
    Broken,
    /// Whole, but cheaper or dearer than moorgate computes.
    Cost(u32),
}

impl Cost {
    /// Below: bcrypt does not define it.
    pub(crate) const LOWEST: u32 = 4;
    /// Above: one wrong password would keep a core busy for more than ten seconds.
    pub(crate) const HIGHEST: u32 = 17;
    /// For new entries, and for strangers where there are no entries: 50 to 100 ms.
    pub(crate) const DEFAULT: Self = Self(10);

    /// Checks the bounds.
    pub(crate) fn new(cost: u32) -> Option<Self> {
        (Self::LOWEST..=Self::HIGHEST)
            .contains(&cost)
            .then_some(Self(cost))
    }

    /// The costs whose hashes take, after one hash of `self`, as much time as `goal` needs in all:
    /// each step doubles, so `c + (c, c+1, …, g-1)` is as long as `g`.
    pub(crate) fn missing_to(self, goal: Self) -> impl Iterator<Item = Self> {
        (self.0..goal.0).map(Self)
    }

    #[cfg(test)]
    pub(crate) fn rounds(self) -> u32 {
        1 << self.0
    }
}

impl BcryptHash {
    /// A new hash with a random salt; `None` if the system has no randomness.
    pub(crate) fn generate(key: &BcryptKey, cost: Cost) -> Option<Self> {
        let salt = crypto::random().ok()?;
        Some(Self {
            cost,
            salt,
            digest: digest(key, cost, salt),
        })
    }

    /// A hash that stands for nobody's password. Checking against it takes as long as against any
    /// other.
    pub(crate) const fn decoy(cost: Cost) -> Self {
        Self {
            cost,
            salt: [0; 16],
            digest: [0; 23],
        }
    }

    /// Reads `$2y$10$` followed by 22 characters of salt and 31 of hash.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, HashError> {
        let (prefix, rest) = text.split_at_checked(7).ok_or(HashError::Broken)?;
        let (salt, hash) = rest.split_at_checked(22).ok_or(HashError::Broken)?;
        let [
            b'$',
            b'2',
            b'a' | b'b' | b'y',
            b'$',
            tens @ b'0'..=b'9',
            ones @ b'0'..=b'9',
            b'$',
        ] = prefix
        else {
            return Err(HashError::Broken);
        };
        let (salt, digest) = (decode::<16>(salt, 22)?, decode::<23>(hash, 31)?);
        let cost = u32::from(tens - b'0') * 10 + u32::from(ones - b'0');
        Ok(Self {
            cost: Cost::new(cost).ok_or(HashError::Cost(cost))?,
            salt,
            digest,
        })
    }

    /// How much a check costs.
    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether this is the password. Takes as long as the cost says: never on a thread that does
    /// I/O.
    pub(crate) fn matches(&self, key: &BcryptKey) -> bool {
        crypto::equal_in_constant_time(&digest(key, self.cost, self.salt), &self.digest)
    }

    /// All that makes this hash different from another one, always equally long.
    pub(crate) fn to_bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let (head, digest) = bytes.split_at_mut(17);
        let (cost, salt) = head.split_at_mut(1);
        cost.copy_from_slice(&self.cost.0.to_be_bytes()[3..]);
        salt.copy_from_slice(&self.salt);
        digest.copy_from_slice(&self.digest);
        bytes
    }
}

/// As `htpasswd -B` writes it.
impl fmt::Display for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "$2y${:02}${}{}",
            self.cost.0,
            BASE64.encode(self.salt),
            BASE64.encode(self.digest)
        )
    }
}

/// Not the hash: it does not belong into logs.
impl fmt::Debug for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BcryptHash")
            .field("cost", &self.cost.0)
            .finish_non_exhaustive()
    }
}

/// What bcrypt sees of a password: its bytes and a NUL, 72 at most. Wiped on drop.
pub(crate) struct BcryptKey(Zeroizing<Vec<u8>>);

impl BcryptKey {
    /// Of a password without NUL: bcrypt could not tell `a\0b` from `a`.
    pub(crate) fn new(password: &[u8]) -> Self {
        let seen = Self::seen(password);
        let mut key = Zeroizing::new(Vec::with_capacity(seen.len() + 1));
        key.extend_from_slice(seen);
        if seen.len() < Self::MAX {
            key.push(0);
        }
        Self(key)
    }

    /// The part of a password that counts.
    pub(crate) fn seen(password: &[u8]) -> &[u8] {
        password.get(..Self::MAX).unwrap_or(password)
    }

    /// In bytes.
    pub(crate) const MAX: usize = 72;
}

fn digest(key: &BcryptKey, cost: Cost, salt: [u8; 16]) -> [u8; 23] {
    // The 24th byte is left out of every bcrypt hash that is written down.
    let [digest @ .., _] = bcrypt::bcrypt(cost.0, salt, &key.0);
    digest
}

fn decode<const N: usize>(text: &[u8], length: usize) -> Result<[u8; N], HashError> {
    if text.len() != length {
        return Err(HashError::Broken);
    }
    // The decoder wants room for its own estimate, which is up to two bytes more.
    let mut bytes = [0; 24];
    BASE64
        .decode_slice(text, &mut bytes)
        .map_err(|_| HashError::Broken)?;
    bytes.first_chunk().copied().ok_or(HashError::Broken)
}

/// The bits that do not make a whole byte are ignored: some libraries write other ones than zero.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(password: &[u8], hash: &str) -> bool {
        BcryptHash::parse(hash.as_bytes())
            .expect("a hash")
            .matches(&BcryptKey::new(password))
    }

    /// From the tests of jBCrypt and crypt_blowfish, and one made with Python.
    #[test]
    fn known_hashes_match() {
        assert!(matches(
            b"",
            "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."
        ));
        assert!(matches(
            b"a",
            "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"
        ));
        assert!(matches(
            b"correctbatteryhorsestapler",
            "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie"
        ));
        assert!(matches(
            b"\xff\xff\xa3",
            "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"
        ));
        assert!(matches(
            b"U*U*U",
            "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"
        ));
        assert!(!matches(
            b"b",
            "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"
        ));
    }

    #[test]
    fn the_first_72_bytes_count() {
        let cost = Cost::new(4).expect("allowed");
        let hash = BcryptHash::generate(&BcryptKey::new(&[b'x'; 72]), cost).expect("randomness");
        assert!(hash.matches(&BcryptKey::new(&[b'x'; 100])));
        assert!(!hash.matches(&BcryptKey::new(&[b'x'; 71])));
        assert!(
            bcrypt::verify([b'x'; 72], &hash.to_string()).expect("a hash"),
            "as others read it"
        );
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let good = "$2y$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";
        for bad in [
            "",
            "$2y$",
            &good[..59],
            &format!("{good}a"),
            &good.replace("$2y", "$2x"),
            &good.replace("$04", "$+4"),
            &good.replace("$04$", "$04:"),
            &good.replace('/', "!"),
            &good.replace("xc", "é"),
            &good.replace("HQ", "=="),
        ] {
            let expected = if bad == good {
                Ok(())
            } else {
                Err(HashError::Broken)
            };
            assert_eq!(
                BcryptHash::parse(bad.as_bytes()).map(|_| ()),
                expected,
                "{bad}"
            );
        }
        for cost in [0, 3, 18, 31, 99] {
            let bad = good.replace("$04$", &format!("${cost:02}$"));
            assert_eq!(
                BcryptHash::parse(bad.as_bytes()),
                Err(HashError::Cost(cost))
            );
        }
    }

    #[test]
    fn a_low_cost_is_brought_to_the_highest() {
        for (low, high) in [(4, 4), (4, 5), (5, 12), (10, 17)] {
            let (low, high) = (Cost(low), Cost(high));
            let rounds: u32 = std::iter::once(low)
                .chain(low.missing_to(high))
                .map(Cost::rounds)
                .sum();
            assert_eq!(rounds, high.rounds());
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: Vec<u8>) {
            let _ = BcryptHash::parse(&text);
            let _ = BcryptHash::parse(&[b"$2y$10$", &text[..]].concat());
        }

        #[test]
        fn print_then_parse_is_the_identity(cost in 4u32..=17, salt: [u8; 16], digest: [u8; 23]) {
            let hash = BcryptHash { cost: Cost(cost), salt, digest };
            prop_assert_eq!(hash.to_string().len(), 60);
            prop_assert!(BcryptHash::parse(hash.to_string().as_bytes()) == Ok(hash));
        }
    }
}
