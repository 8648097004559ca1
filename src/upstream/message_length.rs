//! The length of a message as its head says it (RFC 9112 §6). Recipients read lists, odd codings and
//! great numbers differently, so one length is passed on or none.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

/// The head does not say in one way where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the head does not say in one way where its body ends")]
pub(crate) struct InvalidLength;

/// Checks that there is one length, which may be repeated, or `chunked` and nothing else, or
/// neither.
///
/// Where `chunked` is the last of several codings, hyper removes only that one, and the recipient
/// would not know of the others.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), InvalidLength> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !codings.next().is_none_or(is_chunked) || codings.next().is_some() {
        return Err(InvalidLength);
    }
    content_length(headers).map(drop)
}

/// Puts one line in the place of repeated lengths.
pub(crate) fn unify(headers: &mut HeaderMap) -> Result<(), InvalidLength> {
    if let Some(length) = content_length(headers)?
        && !is_number(headers)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(())
}

/// Checks a response, unifies its length, and removes one that has no meaning: beside chunks, the
/// last of which ends the body (§6.3), and without content (RFC 9110 §8.6).
pub(super) fn normalize_response(response: &mut Parts) -> Result<(), InvalidLength> {
    let is_chunked = response.headers.contains_key(TRANSFER_ENCODING);
    if is_chunked || response.status == StatusCode::NO_CONTENT {
        response.headers.remove(CONTENT_LENGTH);
    }
    if is_chunked {
        return check(&response.headers);
    }
    unify(&mut response.headers)
}

/// The length that all lines and their elements agree on.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, InvalidLength> {
    let lines = headers.get_all(CONTENT_LENGTH).iter();
    let mut elements = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let Some(first) = elements.next() else {
        return Ok(None);
    };
    let length = number(first).ok_or(InvalidLength)?;
    if elements.all(|element| number(element) == Some(length)) {
        return Ok(Some(length));
    }
    Err(InvalidLength)
}

/// Below 2^63, which is the most that many programs can count.
fn number(element: &[u8]) -> Option<u64> {
    let digits = element.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    i64::try_from(number).is_ok().then_some(number)
}

/// Whether there is one line that is one number.
fn is_number(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let is_plain = |line: &HeaderValue| line.as_bytes().iter().all(u8::is_ascii_digit);
    lines.next().is_some_and(is_plain) && lines.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn normalized(status: u16, lines: &[(&str, &str)]) -> Result<Option<String>, InvalidLength> {
        let mut response = Response::builder().status(status);
        for (name, value) in lines {
            response = response.header(*name, *value);
        }
        let (mut parts, ()) = response.body(()).expect("a response").into_parts();
        normalize_response(&mut parts)?;
        let lines: Vec<_> = parts.headers.get_all(CONTENT_LENGTH).iter().collect();
        assert!(lines.len() <= 1, "{lines:?}");
        let text = |line: &&HeaderValue| line.to_str().expect("digits").to_owned();
        Ok(lines.first().map(text))
    }

    #[test]
    fn equal_lengths_become_one() {
        for value in ["2", "2, 2", "2,2 ,\t2"] {
            assert_eq!(
                normalized(200, &[("content-length", value)]),
                Ok(Some("2".to_owned())),
                "{value}"
            );
        }
        let twice = [("content-length", "2"), ("content-length", "2")];
        assert_eq!(normalized(200, &twice), Ok(Some("2".to_owned())));
        let most = [("content-length", "9223372036854775807")];
        assert_eq!(normalized(200, &most), Ok(Some(most[0].1.to_owned())));
    }

    #[test]
    fn other_lengths_are_refused() {
        let values = [
            "2, 3",
            "2,",
            ",2",
            "",
            "+2",
            "-2",
            "0x2",
            "2 2",
            "9223372036854775808",
            "18446744073709551616",
        ];
        for value in values {
            assert_eq!(
                normalized(200, &[("content-length", value)]),
                Err(InvalidLength),
                "{value}"
            );
        }
        let lines = [("content-length", "2"), ("content-length", "3")];
        assert_eq!(normalized(200, &lines), Err(InvalidLength));
    }

    #[test]
    fn a_length_without_meaning_is_removed() {
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(
            normalized(200, &[("content-length", "2"), chunked]),
            Ok(None)
        );
        assert_eq!(normalized(204, &[("content-length", "0")]), Ok(None));
        for coding in ["gzip, chunked", "identity", "chunked, chunked", ""] {
            let lines = [("transfer-encoding", coding)];
            assert_eq!(normalized(200, &lines), Err(InvalidLength), "{coding}");
        }
    }
}
