//! Conditional and range headers of downloads (RFC 9110 §13 and §14), and the `Content-Range` of
//! upload chunks (distribution specification, "Pushing a blob in chunks").

use http::{HeaderMap, header};

use crate::store::ContentRange;

/// The part of the content to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing (304): the client has the content.
    Nothing,
    /// All of the content.
    Whole,
    /// From one byte to before another.
    Part { begin: u64, end: u64 },
    /// An unsatisfiable range (416).
    Unsatisfiable,
}

/// Evaluates the headers of a request for content with this entity tag and size.
pub(super) fn wanted(headers: &HeaderMap, tag: &str, size: u64) -> Wanted {
    let lists_tag = |name| {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|one| one == "*" || is_tag(one, tag))
    };
    if headers.contains_key(header::IF_NONE_MATCH) && lists_tag(header::IF_NONE_MATCH) {
        return Wanted::Nothing;
    }
    let Some(range) = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
    else {
        return Wanted::Whole;
    };
    let is_of_this = |value: &http::HeaderValue| value.to_str().is_ok_and(|value| value == tag);
    if !headers.get(header::IF_RANGE).is_none_or(is_of_this) {
        return Wanted::Whole;
    }
    part(range, size)
}

/// Weak comparison (RFC 9110 §8.8.3.2).
fn is_tag(one: &str, tag: &str) -> bool {
    one.strip_prefix("W/").unwrap_or(one) == tag
}

/// Parses a single range. Several ranges and malformed ones are ignored.
fn part(range: &str, size: u64) -> Wanted {
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Some(begin), _) if last.trim().is_empty() && begin < size => {
            Wanted::Part { begin, end: size }
        }
        (Some(_), _) if last.trim().is_empty() => Wanted::Unsatisfiable,
        (Some(begin), Some(last)) if begin > last => Wanted::Whole,
        (Some(begin), Some(_)) if begin >= size => Wanted::Unsatisfiable,
        (Some(begin), Some(last)) => Wanted::Part {
            begin,
            end: last.saturating_add(1).min(size),
        },
        (None, Some(0)) if first.trim().is_empty() => Wanted::Unsatisfiable,
        (None, Some(_)) if first.trim().is_empty() && size == 0 => Wanted::Unsatisfiable,
        (None, Some(count)) if first.trim().is_empty() => Wanted::Part {
            begin: size.saturating_sub(count),
            end: size,
        },
        _ => Wanted::Whole,
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    // `parse` would accept a plus sign.
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// The `Content-Range` of a chunk. `None`: the header is malformed.
///
/// Clients write `0-99`, as in the distribution specification, or `bytes 0-99/*`, as in HTTP.
pub(super) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else {
        return Some(ContentRange::default());
    };
    let text = value.to_str().ok()?.trim();
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |rest| rest.trim_start_matches([' ', '=']));
    let (range, _) = text.split_once('/').unwrap_or((text, ""));
    let (begin, last) = range.split_once('-')?;
    let (begin, last) = (number(begin)?, number(last)?);
    let length = last.checked_sub(begin)?.checked_add(1)?;
    Some(ContentRange {
        begin: Some(begin),
        length: Some(length),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TAG: &str = "\"sha256:1\"";

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn ranges_are_those_of_http() {
        let cases = [
            ("bytes=0-0", Wanted::Part { begin: 0, end: 1 }),
            ("bytes=2-", Wanted::Part { begin: 2, end: 10 }),
            ("bytes=2-99", Wanted::Part { begin: 2, end: 10 }),
            ("bytes=-3", Wanted::Part { begin: 7, end: 10 }),
            ("bytes=-99", Wanted::Part { begin: 0, end: 10 }),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-11", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=3-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=99999999999999999999-", Wanted::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(
                wanted(&headers(&[(header::RANGE, range)]), TAG, 10),
                expected,
                "{range}"
            );
        }
        assert_eq!(
            wanted(&headers(&[(header::RANGE, "bytes=0-")]), TAG, 0),
            Wanted::Unsatisfiable
        );
    }

    #[test]
    fn what_the_client_has_is_not_sent() {
        for (value, expected) in [
            (TAG, Wanted::Nothing),
            ("*", Wanted::Nothing),
            ("\"a\", W/\"sha256:1\"", Wanted::Nothing),
            ("\"a\"", Wanted::Whole),
        ] {
            assert_eq!(
                wanted(&headers(&[(header::IF_NONE_MATCH, value)]), TAG, 10),
                expected,
                "{value}"
            );
        }
        let range = (header::RANGE, "bytes=1-");
        let same = headers(&[range.clone(), (header::IF_RANGE, TAG)]);
        assert_eq!(wanted(&same, TAG, 10), Wanted::Part { begin: 1, end: 10 });
        assert_eq!(
            wanted(&headers(&[range, (header::IF_RANGE, "\"other\"")]), TAG, 10),
            Wanted::Whole
        );
    }

    #[test]
    fn a_chunk_says_where_it_belongs_in_either_form() {
        let expected = Some(ContentRange {
            begin: Some(5),
            length: Some(10),
        });
        for text in ["5-14", "bytes 5-14/*", "bytes=5-14", "bytes 5-14/100"] {
            assert_eq!(
                content_range(&headers(&[(header::CONTENT_RANGE, text)])),
                expected,
                "{text}"
            );
        }
        assert_eq!(
            content_range(&HeaderMap::new()),
            Some(ContentRange::default())
        );
        for text in ["", "5", "14-5", "-5", "5-", "a-b", "0-18446744073709551615"] {
            assert_eq!(
                content_range(&headers(&[(header::CONTENT_RANGE, text)])),
                None,
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_outside(text in "bytes=[0-9]{0,3}-[0-9]{0,3}", size in 0_u64..500) {
            if let Wanted::Part { begin, end } = part(&text, size) {
                prop_assert!(begin < end && end <= size);
            }
        }

        #[test]
        fn nothing_panics(text in "[ -~]*", size in any::<u64>()) {
            part(&text, size);
            let _ = content_range(&headers(&[(header::CONTENT_RANGE, &text)]));
        }
    }
}
