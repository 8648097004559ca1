//! Digests, which identify content (OCI image specification, "Digests").

use std::fmt;
use std::sync::Arc;

/// The digest of a blob or a manifest: `algorithm:encoded`. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the digest is not valid")]
pub struct InvalidDigest;

impl Digest {
    /// The maximum length in bytes. sha512 needs 135; no registered algorithm needs more.
    pub const MAX_BYTES: usize = 255;

    /// Parses `sha256:` with 64 or `sha512:` with 128 lower-case hexadecimal digits, or another
    /// algorithm of the specification's grammar with at least 32 characters, as Go's `distribution`
    /// requires.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let (algorithm, encoded) = text.split_once(':').ok_or(InvalidDigest)?;
        let valid = match algorithm {
            "sha256" => encoded.len() == 64 && is_lower_hexadecimal(encoded),
            "sha512" => encoded.len() == 128 && is_lower_hexadecimal(encoded),
            _ => {
                text.len() <= Self::MAX_BYTES
                    && is_algorithm(algorithm)
                    && encoded.len() >= 32
                    && is_encoded(encoded)
            }
        };
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidDigest)
        }
    }

    /// The digest as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the colon.
    pub fn algorithm(&self) -> &str {
        self.0
            .split_once(':')
            .map_or("", |(algorithm, _)| algorithm)
    }

    /// The part after the colon. For sha256 and sha512 it is hexadecimal.
    pub fn encoded(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, encoded)| encoded)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_lower_hexadecimal(text: &str) -> bool {
    // `fold` instead of `all`: without an early exit the compiler vectorizes it.
    text.bytes().fold(true, |so_far, b| {
        so_far & matches!(b, b'0'..=b'9' | b'a'..=b'f')
    })
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*`
fn is_algorithm(text: &str) -> bool {
    let is_component = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    text.split(['+', '.', '_', '-']).all(is_component)
}

/// `[a-zA-Z0-9=_-]*`
fn is_encoded(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn registered_algorithms_have_their_exact_length() {
        assert!(Digest::parse(&format!("sha256:{}", "0a".repeat(32))).is_ok());
        assert!(Digest::parse(&format!("sha512:{}", "0a".repeat(64))).is_ok());
        for (algorithm, count) in [
            ("sha256", 63),
            ("sha256", 65),
            ("sha256", 128),
            ("sha512", 64),
            ("sha512", 127),
        ] {
            assert!(
                Digest::parse(&format!("{algorithm}:{}", "a".repeat(count))).is_err(),
                "{algorithm} {count}"
            );
        }
        assert!(Digest::parse(&format!("sha256:{}", "A".repeat(64))).is_err());
        assert!(Digest::parse(&format!("sha256:{}", "g".repeat(64))).is_err());
    }

    #[test]
    fn other_algorithms_follow_the_grammar() {
        let encoded = "QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8";
        assert!(Digest::parse(&format!("multihash+base58:{encoded}")).is_ok());
        assert!(
            Digest::parse(&format!(
                "sha256+b64u:{}",
                "LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564="
            ))
            .is_ok()
        );
        for algorithm in ["", "+a", "a+", "a++b", "SHA256", "sha 256", "sha/256"] {
            assert!(
                Digest::parse(&format!("{algorithm}:{encoded}")).is_err(),
                "{algorithm}"
            );
        }
        let long = "a".repeat(Digest::MAX_BYTES - 2);
        assert!(Digest::parse(&format!("x:{long}")).is_ok());
        assert!(Digest::parse(&format!("x:{long}a")).is_err());
        for encoded in [
            "",
            "a",
            &"a".repeat(31),
            &"a/".repeat(16),
            &"a:".repeat(16),
            &"a.".repeat(16),
            &"\u{e9}".repeat(32),
        ] {
            assert!(
                Digest::parse(&format!("md5:{encoded}")).is_err(),
                "{encoded}"
            );
        }
        assert!(Digest::parse(&"a".repeat(64)).is_err());
    }

    proptest! {
        #[test]
        fn every_text_of_the_grammar_is_a_digest(text in "[a-z0-9]{1,4}([+._-][a-z0-9]{1,4}){0,3}:[a-zA-Z0-9=_-]{32,64}") {
            prop_assert_eq!(Digest::parse(&text).unwrap().to_string(), text);
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = Digest::parse(&text);
        }
    }
}
