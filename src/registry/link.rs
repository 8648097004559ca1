//! `Link` headers (RFC 8288 §3): several links in each, a reference in angle brackets and
//! parameters. A comma or semicolon separates only outside the brackets and quoted strings.

use std::borrow::Cow;
use std::ops::Range;

/// A link of a header value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link<'a> {
    /// The URI reference, without its angle brackets.
    pub(crate) target: &'a str,
    /// The position of the target in the header value.
    pub(crate) range: Range<usize>,
    /// What follows the angle brackets, from the first semicolon on.
    parameters: &'a str,
}

/// The rest of the value is not a list of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Link header is malformed")]
pub(crate) struct InvalidLink;

/// The links of a header value, in order. Ends after the first [`InvalidLink`].
pub(crate) fn links(value: &str) -> impl Iterator<Item = Result<Link<'_>, InvalidLink>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = value.get(at..)?;
        let link = rest.trim_start_matches([' ', '\t', ',']);
        if link.is_empty() {
            return None;
        }
        let start = value.len() - link.len() + 1;
        let split = link.strip_prefix('<').and_then(|link| link.split_once('>'));
        let Some((target, after)) = split else {
            at = value.len();
            return Some(Err(InvalidLink));
        };
        let parameters = until_separator(after, b',');
        let range = start..start + target.len();
        at = range.end + 1 + parameters.len();
        Some(Ok(Link {
            target,
            range,
            parameters,
        }))
    })
}

impl Link<'_> {
    /// Whether a relation type is among those of the link. Letter case does not matter (RFC 8288
    /// §2.1).
    pub(crate) fn has_relation(&self, relation: &str) -> bool {
        self.relations().is_some_and(|relations| {
            let mut relations = relations.split_ascii_whitespace();
            relations.any(|one| one.eq_ignore_ascii_case(relation))
        })
    }

    /// The relation types, separated by white space; `None` without a `rel`. Only the first `rel`
    /// counts (RFC 8288 §3.3).
    pub(crate) fn relations(&self) -> Option<Cow<'_, str>> {
        let mut rest = self.parameters;
        while !rest.is_empty() {
            let parameter = until_separator(rest, b';');
            rest = rest.get(parameter.len() + 1..).unwrap_or_default();
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.trim().eq_ignore_ascii_case("rel") {
                return Some(unquoted(value.trim()));
            }
        }
        None
    }
}

/// The text before the first separator outside a quoted string (RFC 9110 §5.6.4).
pub(super) fn until_separator(text: &str, separator: u8) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => return text.split_at(at).0,
            _ => {}
        }
    }
    text
}

/// The content of a quoted string; a token as it is.
pub(super) fn unquoted(value: &str) -> Cow<'_, str> {
    let Some(quoted) = value.strip_prefix('"') else {
        return Cow::Borrowed(value);
    };
    let content = quoted.strip_suffix('"').unwrap_or(quoted);
    if !content.contains('\\') {
        return Cow::Borrowed(content);
    }
    let mut text = String::with_capacity(content.len());
    let mut characters = content.chars();
    while let Some(c) = characters.next() {
        text.extend(if c == '\\' {
            characters.next()
        } else {
            Some(c)
        });
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_relation<'a>(values: &[&'a str], relation: &str) -> Vec<&'a str> {
        let links = values.iter().flat_map(|value| links(value)).flatten();
        links
            .filter(|link| link.has_relation(relation))
            .map(|link| link.target)
            .collect()
    }

    #[test]
    fn links_of_one_header_and_of_several_are_found() {
        let values = [
            "</1>; rel=\"prev\", </2>; rel=\"next\"",
            "",
            ", </3>;rel=next ,,</4>; rel=alternate",
        ];
        assert_eq!(with_relation(&values, "next"), ["/2", "/3"]);
        assert_eq!(with_relation(&values, "prev"), ["/1"]);
        assert_eq!(with_relation(&values, "alternate"), ["/4"]);
        assert_eq!(with_relation(&values, "first"), [""; 0]);
    }

    #[test]
    fn a_relation_is_found_among_many_in_any_letter_case() {
        for value in [
            "</1>; rel=\"prev  NEXT\tlast\"",
            "</1>; REL=Next",
            "</1>; title=\"a\"; rel = \"next\" ; type=x",
            "</1>;rel=\"ne\\xt\"",
            "</1>; rel=\"next",
            "</1>; rel=next,",
        ] {
            assert_eq!(with_relation(&[value], "next"), ["/1"], "{value}");
        }
        for value in [
            "</1>",
            "</1>; rel",
            "</1>; rel=\"\"",
            "</1>; rel=nextish",
            "</1>; rev=next",
            "</1>; rel=prev; rel=next",
            "</1>; title=\"; rel=next\"",
        ] {
            assert_eq!(with_relation(&[value], "next"), [""; 0], "{value}");
        }
    }

    #[test]
    fn a_link_without_a_relation_type_has_none() {
        let relations = |value| {
            links(value)
                .next()
                .map(|link| link.unwrap().relations().map(Cow::into_owned))
        };
        assert_eq!(relations("</1>; title=rel"), Some(None));
        assert_eq!(relations("</1>; rel"), Some(Some(String::new())));
    }

    #[test]
    fn commas_and_semicolons_in_references_and_quotes_separate_nothing() {
        let value = "<https://ca/1,2;rel=next>; title=\"a, <b>; \\\"c\\\", d\"; rel=\"alternate\", </x>;rel=next";
        let all: Vec<_> = links(value).map(|link| link.unwrap().target).collect();
        assert_eq!(all, ["https://ca/1,2;rel=next", "/x"]);
        assert_eq!(
            with_relation(&[value], "alternate"),
            ["https://ca/1,2;rel=next"]
        );
        assert_eq!(with_relation(&[value], "next"), ["/x"]);
    }

    #[test]
    fn what_precedes_a_malformed_link_is_read() {
        for value in [
            "</1>; rel=next, /2",
            "</1>; rel=next, </2",
            "</1>;rel=next, x</2>",
        ] {
            let all: Vec<_> = links(value)
                .map(|link| link.map(|link| link.target))
                .collect();
            assert_eq!(all, [Ok("/1"), Err(InvalidLink)], "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_target_stands_at_its_range(text in "[<>,;\"\\\\ a-z\u{e9}=]{0,40}") {
            for link in links(&text).flatten() {
                prop_assert_eq!(&text[link.range.clone()], link.target);
                prop_assert!(text[..link.range.start].ends_with('<'));
                let _ = link.relations();
            }
        }
    }
}
