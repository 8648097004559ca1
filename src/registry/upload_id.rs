//! The id of an upload session. The upstream chooses it, and gets it back unchanged.

use std::fmt;

/// The last path segment of an upload session: `[A-Za-z0-9_=.~-]+`, but neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(Box<str>);

/// The text is not the name of an upload session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upload session name is not valid")]
pub struct InvalidUploadId;

impl UploadId {
    /// The maximum length in bytes. Registries use a UUID or a token of up to about 200.
    pub const MAX_BYTES: usize = 512;

    /// Parses an id: the characters that Go's `distribution` routes, and `~`.
    pub fn parse(text: &str) -> Result<Self, InvalidUploadId> {
        let known =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'=' | b'.' | b'~' | b'-');
        let valid = !matches!(text, "" | "." | "..")
            && text.len() <= Self::MAX_BYTES
            && text.bytes().all(known);
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidUploadId)
        }
    }

    /// The id as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_plain_segment() {
        for text in [
            "3f1c6f6e-8d5e-4d0a-9a3e-2b2f1c0d9e8f",
            "AbC_=.~-",
            "...",
            "uploads",
            &"a".repeat(512),
        ] {
            assert_eq!(UploadId::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "a%2e",
            "a:b",
            "a b",
            "a?b",
            "\u{e9}",
            &"a".repeat(513),
        ] {
            assert!(UploadId::parse(text).is_err(), "{text}");
        }
    }
}
