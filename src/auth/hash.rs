//! Bcrypt hashes: their form in an htpasswd file, and the check of a password.

use std::fmt;

use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::zeroize::Zeroizing;

use crate::crypto;

/// A bcrypt hash. `$2a$`, `$2b$` and `$2y$` name the same algorithm.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BcryptHash {
    cost: Cost,
    salt: [u8; 16],
    digest: [u8; 23],
}

/// The binary logarithm of the number of rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost(u32);

/// Why a text is no usable hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashError {
    /// It is not 60 characters of the known form.
    Broken,
    /// It is well-formed, but its cost is outside of the bounds.
    Cost(u32),
}

impl Cost {
    /// Bcrypt defines no lower cost.
    pub(crate) const LOWEST: u32 = 4;
    /// Above it, one wrong password would occupy a core for more than ten seconds.
    pub(crate) const HIGHEST: u32 = 17;
    /// For new entries, and for unknown users of a file without entries: 50 to 100 ms.
    pub(crate) const DEFAULT: Self = Self(10);

    /// `None` outside of the bounds.
    pub(crate) fn new(cost: u32) -> Option<Self> {
        (Self::LOWEST..=Self::HIGHEST)
            .contains(&cost)
            .then_some(Self(cost))
    }

    /// The costs of the hashes that take, with one hash of `self`, as long as one hash of `goal`: each
    /// step doubles the time, so that `c` and `c, c+1, …, g-1` sum up to `g`.
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

    /// A hash of no password, for unknown users. Checking a password against it takes as long as
    /// against any other hash of the cost.
    pub(crate) const fn decoy(cost: Cost) -> Self {
        Self {
            cost,
            salt: [0; 16],
            digest: [0; 23],
        }
    }

    /// Parses `$2y$10$`, 22 characters of salt and 31 of digest.
    ///
    /// Not by `bcrypt::HashParts`, which accepts `$2x$` and a cost of `+4`, refuses the trailing bits
    /// of other libraries, and gives no access to the digest.
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

    pub(crate) fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether the password matches. Takes as long as the cost says: never call it on a thread that
    /// serves connections.
    pub(crate) fn matches(&self, key: &BcryptKey) -> bool {
        crypto::equal_in_constant_time(&digest(key, self.cost, self.salt), &self.digest)
    }

    /// Cost, salt and digest, in a fixed length.
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

/// Omits the digest, which must not appear in logs.
impl fmt::Debug for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BcryptHash")
            .field("cost", &self.cost.0)
            .finish_non_exhaustive()
    }
}

/// The bytes of a password that bcrypt uses: with a final NUL, 72 at most. Wiped on drop.
pub(crate) struct BcryptKey(Zeroizing<Vec<u8>>);

impl BcryptKey {
    /// The key of a password without NUL: for bcrypt, `a\0b` would equal `a`.
    pub(crate) fn new(password: &[u8]) -> Self {
        let seen = Self::seen(password);
        let mut key = Zeroizing::new(Vec::with_capacity(seen.len() + 1));
        key.extend_from_slice(seen);
        if seen.len() < Self::MAX {
            key.push(0);
        }
        Self(key)
    }

    /// The part of a password that bcrypt uses.
    pub(crate) fn seen(password: &[u8]) -> &[u8] {
        password.get(..Self::MAX).unwrap_or(password)
    }

    /// The maximum length in bytes.
    pub(crate) const MAX: usize = 72;
}

fn digest(key: &BcryptKey, cost: Cost, salt: [u8; 16]) -> [u8; 23] {
    // The form of a hash leaves out the 24th byte.
    let [digest @ .., _] = bcrypt::bcrypt(cost.0, salt, &key.0);
    digest
}

fn decode<const N: usize>(text: &[u8], length: usize) -> Result<[u8; N], HashError> {
    if text.len() != length {
        return Err(HashError::Broken);
    }
    // The decoder needs space for its estimate, which is up to two bytes more.
    let mut bytes = [0; 24];
    BASE64
        .decode_slice(text, &mut bytes)
        .map_err(|_| HashError::Broken)?;
    bytes.first_chunk().copied().ok_or(HashError::Broken)
}

/// Ignores the trailing bits that make no whole byte: some libraries do not write zeros.
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
    fn malformed_hashes_are_refused() {
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

    /// Why the parser of the bcrypt crate does not take the place of this one.
    #[test]
    fn the_parser_of_the_crate_accepts_other_forms() {
        let accepted = |text: &str| {
            (
                BcryptHash::parse(text.as_bytes()).is_ok(),
                text.parse::<bcrypt::HashParts>().is_ok(),
            )
        };
        let good = "$2y$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";
        for same in ["$2a$04", "$2b$04", "$2y$17"] {
            assert_eq!(accepted(&good.replace("$2y$04", same)), (true, true));
        }
        for by_crate in ["$2x$04", "$2y$+4", "$2y$03", "$2y$99"] {
            let text = good.replace("$2y$04", by_crate);
            assert_eq!(accepted(&text), (false, true), "{text}");
        }
        for (canonical, trailing_bits) in [("HQO", "HQP"), ("cie", "cif")] {
            let text = good.replace(canonical, trailing_bits);
            assert_eq!(accepted(&text), (true, false), "{text}");
        }
    }

    #[test]
    fn missing_costs_sum_up_to_the_goal() {
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
        fn canonical_hashes_are_those_of_the_crate(cost in 4u32..=17, salt: [u8; 16], digest: [u8; 23]) {
            let hash = BcryptHash { cost: Cost(cost), salt, digest };
            let parts: bcrypt::HashParts = hash.to_string().parse().expect("canonical");
            prop_assert_eq!((parts.get_cost(), parts.get_salt_raw()), (cost, salt));
            prop_assert_eq!(parts.format_for_version(bcrypt::Version::TwoY), hash.to_string());
        }

        #[test]
        fn print_then_parse_is_the_identity(cost in 4u32..=17, salt: [u8; 16], digest: [u8; 23]) {
            let hash = BcryptHash { cost: Cost(cost), salt, digest };
            prop_assert_eq!(hash.to_string().len(), 60);
            prop_assert!(BcryptHash::parse(hash.to_string().as_bytes()) == Ok(hash));
        }
    }
}
