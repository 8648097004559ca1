//! Repository names (distribution specification, "Pulling manifests").

use std::fmt;

/// A repository name: components of lower-case letters and digits with separators, joined by `/`.
/// It is safe in a path: it has no `.` or `..` segment and needs no encoding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Box<str>);

/// The text is not a repository name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the repository name is not valid")]
pub struct InvalidRepositoryName;

impl RepositoryName {
    /// The maximum length in bytes, as in every known registry.
    pub const MAX_BYTES: usize = 255;

    /// Parses one or more components `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by `/`.
    pub fn parse(text: &str) -> Result<Self, InvalidRepositoryName> {
        if text.len() <= Self::MAX_BYTES && text.as_bytes().split(|b| *b == b'/').all(is_component)
        {
            Ok(Self(text.into()))
        } else {
            Err(InvalidRepositoryName)
        }
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_component(component: &[u8]) -> bool {
    let is_separator =
        |run: &[u8]| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-');
    component.first().is_some_and(is_alphanumeric)
        && component.last().is_some_and(is_alphanumeric)
        && component
            .chunk_by(|a, b| is_alphanumeric(a) == is_alphanumeric(b))
            .all(|run| run.iter().all(is_alphanumeric) || is_separator(run))
}

fn is_alphanumeric(byte: &u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_specification_are_valid() {
        for text in [
            "a",
            "0",
            "library/alpine",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a----b",
            "a.b_c-d/e__f",
            "blobs/uploads",
        ] {
            assert_eq!(RepositoryName::parse(text).unwrap().as_str(), text);
        }
        assert!(RepositoryName::parse(&"a".repeat(255)).is_ok());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let no_names = [
            "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", ".a", "a.", "-a", "a-", "_a", "a..b",
            "a___b", "a._b", "a-_b", "A", "a b", "a%2fb", "a:b", "a@b", "\u{e9}", "a\0",
            "_catalog",
        ];
        for text in no_names {
            assert!(RepositoryName::parse(text).is_err(), "{text}");
        }
        assert!(RepositoryName::parse(&"a".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn every_text_of_the_grammar_is_a_name(text in r"[a-z0-9]{1,3}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,3}(/[a-z0-9]{1,3}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}){0,3}") {
            prop_assert_eq!(RepositoryName::parse(&text).unwrap().to_string(), text);
        }

        #[test]
        fn a_name_never_holds_anything_else(text in "[a-zA-Z0-9._/-]{0,12}") {
            if RepositoryName::parse(&text).is_ok() {
                prop_assert!(!text.contains("..") && !text.contains("//") && !text.starts_with('/') && !text.ends_with('/'));
            }
        }
    }
}
