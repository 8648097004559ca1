//! Conditional and range headers of downloads (RFC 9110 §13 and §14), and the `Content-Range` of
//! upload chunks (distribution specification, "Pushing a blob in chunks").

use std::ops::Range;

use http::{HeaderMap, header};

use crate::store::ContentRange;

/// The part of the content to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing (304): the client has the content.
    Nothing,
    /// All of the content.
    Whole,
    /// From one byte to before another.
    Part { begin: u64, end: u64 },
    /// Two parts or more, in the order of the request.
    Parts(Vec<Range<u64>>),
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
    parts(range, size)
}

/// Weak comparison (RFC 9110 §8.8.3.2).
fn is_tag(one: &str, tag: &str) -> bool {
    one.strip_prefix("W/").unwrap_or(one) == tag
}

/// The maximum number of ranges in a request: twice the 1,024 that containers/storage requests at
/// most.
const MAX_RANGES: usize = 2048;

/// Parses a list of ranges. All of the content is sent if one is malformed, if there are too many,
/// or if they are longer than the content, which only a defect or an attack requests (RFC 9110
/// §14.2).
fn parts(ranges: &str, size: u64) -> Wanted {
    let Some(list) = ranges.strip_prefix("bytes=") else {
        return Wanted::Whole;
    };
    // A list may have empty elements (RFC 9110 §5.6.1.2).
    let ranges = list.split(',').map(str::trim);
    let (mut found, mut total, mut count) = (Vec::new(), 0_u64, 0_usize);
    for range in ranges.filter(|range| !range.is_empty()) {
        count += 1;
        let Some(range) = part(range, size) else {
            return Wanted::Whole;
        };
        total = total.saturating_add(range.end - range.start);
        if count > MAX_RANGES || total > size {
            return Wanted::Whole;
        }
        // One that is not satisfiable is left out, if others are (RFC 9110 §15.3.7.2).
        if !range.is_empty() {
            found.push(range);
        }
    }
    match found.as_slice() {
        [] if count == 0 => Wanted::Whole,
        [] => Wanted::Unsatisfiable,
        [Range { start, end }] => Wanted::Part {
            begin: *start,
            end: *end,
        },
        _ => Wanted::Parts(found),
    }
}

/// Parses a range. Empty if it is not satisfiable; `None` if it is malformed.
fn part(range: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = range.split_once('-')?;
    let (is_suffix, is_open) = (first.trim().is_empty(), last.trim().is_empty());
    if is_suffix {
        return Some(size.saturating_sub(number(last)?)..size);
    }
    let begin = number(first)?;
    let end = if is_open {
        size
    } else {
        let last = number(last).filter(|last| begin <= *last)?;
        last.saturating_add(1).min(size)
    };
    Some(begin.min(end)..end)
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
pub(in crate::request::answer) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
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
            ("bytes=0-1,3-4", Wanted::Parts(vec![0..2, 3..5])),
            ("bytes=0-1, ,-2,", Wanted::Parts(vec![0..2, 8..10])),
            ("bytes=4-5,0-1,1-2", Wanted::Parts(vec![4..6, 0..2, 1..3])),
            ("bytes=5-,0-4", Wanted::Parts(vec![5..10, 0..5])),
            ("bytes=0-1,10-11,99-", Wanted::Part { begin: 0, end: 2 }),
            ("bytes=10-11,-0", Wanted::Unsatisfiable),
            ("bytes=0-5,4-8,-1", Wanted::Whole),
            ("bytes=0-1,4-3", Wanted::Whole),
            ("bytes=0-1,x", Wanted::Whole),
            ("bytes=,", Wanted::Whole),
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
    fn as_many_ranges_as_clients_request_are_sent_and_no_more() {
        let list = |count: u64| {
            let ranges: Vec<_> = (0..count).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect();
            parts(&format!("bytes={}", ranges.join(",")), 1 << 20)
        };
        let max = u64::try_from(MAX_RANGES).unwrap();
        assert!(matches!(list(max), Wanted::Parts(found) if found.len() == MAX_RANGES));
        assert_eq!(list(max + 1), Wanted::Whole);
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
        fn a_part_is_never_empty_and_never_outside(text in "bytes=[0-9]{0,3}-[0-9]{0,3}(,[0-9]{0,2}-[0-9]{0,3}){0,3}", size in 0_u64..500) {
            let found = match parts(&text, size) {
                Wanted::Part { begin, end } => std::iter::once(begin..end).collect(),
                Wanted::Parts(found) => found,
                _ => Vec::new(),
            };
            prop_assert!(found.iter().all(|part| !part.is_empty() && part.end <= size));
            prop_assert!(found.iter().map(|part| part.end - part.start).sum::<u64>() <= size);
        }

        #[test]
        fn nothing_panics(text in "[ -~]*", size in any::<u64>()) {
            parts(&text, size);
            let _ = content_range(&headers(&[(header::CONTENT_RANGE, &text)]));
        }
    }
}
