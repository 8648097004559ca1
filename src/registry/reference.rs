//! References to manifests: tags and digests.

use std::fmt;
use std::sync::Arc;

use super::digest::Digest;

/// A tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`. It is never `.` or `..`. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// A tag or a digest. No text is both: a digest has a colon, a tag has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// A movable name.
    Tag(Tag),
    /// The digest of the content.
    Digest(Digest),
}

/// Why a text is not a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It has no colon, and is not a tag.
    #[error("the tag is not valid")]
    Tag,
    /// It has a colon, and is not a digest.
    #[error("the digest is not valid")]
    Digest,
}

impl Tag {
    /// The maximum length in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Parses a tag.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= Self::MAX_BYTES
            && text.bytes().next().is_some_and(first)
            && text.bytes().all(|b| first(b) || b == b'.' || b == b'-');
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidReference::Tag)
        }
    }

    /// The manifest whose referrers have this tag, by the scheme of registries without an API for
    /// them (distribution specification, "Referrers Tag Schema") and of cosign: `sha256-HEX`,
    /// `sha256-HEX.sig`.
    pub(crate) fn subject(&self) -> Option<Digest> {
        // Digests of other algorithms are longer than tags, and are cut there.
        let rest = self.0.strip_prefix("sha256-")?;
        let encoded = rest.split('.').next().unwrap_or_default();
        Digest::parse(&format!("sha256:{encoded}")).ok()
    }

    /// The tag as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Reference {
    /// Parses a digest if the text has a colon, otherwise a tag.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.contains(':') {
            Digest::parse(text)
                .map(Self::Digest)
                .map_err(|_| InvalidReference::Digest)
        } else {
            Tag::parse(text).map(Self::Tag)
        }
    }

    /// The reference as written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag.as_str(),
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_follow_the_grammar() {
        for text in ["latest", "_", "1.0", "A-b_c.d", "a..b", &"a".repeat(128)] {
            assert_eq!(Tag::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a b",
            "a/b",
            "a%41",
            "a+b",
            "\u{e9}",
            &"a".repeat(129),
        ] {
            assert_eq!(Tag::parse(text), Err(InvalidReference::Tag), "{text}");
        }
    }

    #[test]
    fn tags_of_referrers_name_their_subject() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let subject = Digest::parse(&format!("sha256:{hex}")).unwrap();
        let of = |text: String| Tag::parse(&text).unwrap().subject();
        for end in ["", ".sig", ".att", ".sbom", ".a.b"] {
            let found = of(format!("sha256-{hex}{end}"));
            assert_eq!(found.as_ref(), Some(&subject), "{end}");
        }
        for text in ["latest", "sha256-", "sha256-abc.sig", &hex[..60]] {
            assert_eq!(of(text.to_owned()), None, "{text}");
        }
        assert_eq!(of(format!("sha256-{hex}0")), None);
        assert_eq!(of(format!("sha512-{hex}")), None);
    }

    #[test]
    fn a_colon_makes_it_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(
            matches!(Reference::parse(&digest), Ok(Reference::Digest(d)) if d.as_str() == digest)
        );
        assert!(matches!(Reference::parse("sha256"), Ok(Reference::Tag(_))));
        assert_eq!(Reference::parse("sha256:0"), Err(InvalidReference::Digest));
        assert_eq!(
            Reference::parse(".INVALID_MANIFEST_NAME"),
            Err(InvalidReference::Tag)
        );
    }

    proptest! {
        #[test]
        fn every_tag_of_the_grammar_is_read(text in "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}") {
            prop_assert_eq!(Reference::parse(&text).unwrap().to_string(), text);
        }
    }
}
