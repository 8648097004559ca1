//! What a request asks for: a registry call, or a page beside the registry.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Method, header};

use super::conn_info::ConnInfo;
use super::headers;
use super::rejection::Rejection;
use super::site::Site;
use super::target::{self, PageAccess, RequestTarget};
use crate::registry::call::{Call, CallError};

/// Refuses what is refused whatever it asks for, and whoever asks.
pub(crate) fn check(conn: &ConnInfo, parts: &Parts) -> Result<(), Rejection> {
    if parts.method == Method::CONNECT {
        return Err(Rejection::not_spoken("CONNECT is not spoken here"));
    }
    // RFC 9110 §7.8 would let us ignore it, but bytes that follow it are meant for another
    // protocol.
    if parts.headers.contains_key(header::UPGRADE) {
        return Err(Rejection::not_spoken(
            "no other protocol than HTTP is spoken here",
        ));
    }
    // What is no path is for CONNECT or `OPTIONS *` alone (RFC 9112 §3.2); HTTP/2 lets a query or
    // nothing at all stand for one.
    let Some(target) = parts
        .uri
        .path_and_query()
        .filter(|target| target.as_str().starts_with('/'))
    else {
        return Err(Rejection::bad_request("the request target is not valid"));
    };
    if target.as_str().len() > conn.target_bytes {
        return Err(Rejection::target_too_long());
    }
    if !is_plainly_framed(&parts.headers) {
        return Err(Rejection::bad_request(
            "the request does not say in one way where its body ends",
        ));
    }
    if parts.headers.len() > conn.head_lines {
        return Err(Rejection::head_too_large());
    }
    Ok(())
}

/// Whether there is one length, or `chunked` and nothing else, or neither. Where `chunked` is
/// merely the last of several codings, what hyper hands on is still coded, and the upstream would
/// not be told so; and the next server might read the lists differently (RFC 9112 §6.1, §6.3,
/// §11.2).
fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let at_most_one = |name, is_fine: fn(&[u8]) -> bool| {
        let mut values = headers.get_all(name).iter();
        values.next().is_none_or(|value| is_fine(value.as_bytes())) && values.next().is_none()
    };
    at_most_one(header::TRANSFER_ENCODING, |coding| coding.eq_ignore_ascii_case(b"chunked"))
        // HTTP/2 takes an empty length for none.
        && at_most_one(header::CONTENT_LENGTH, |length| {
            !length.is_empty() && length.iter().all(u8::is_ascii_digit)
        })
}

/// Reads the path and the query. The request has passed [`check`].
pub(crate) fn classify(site: &Arc<Site>, parts: &Parts) -> Result<RequestTarget, Rejection> {
    let path = parts.uri.path();
    if target::is_api(path) {
        return match Call::parse(&parts.method, path, parts.uri.query()) {
            Ok(call) if call.is_manifest_write() && headers::has_form_type(&parts.headers) => {
                Err(Rejection::bad_request(
                    "a manifest is not a form: its Content-Type is its media type",
                ))
            }
            Ok(call) => Ok(RequestTarget::Call(Arc::new(call))),
            Err(error) => Err(Rejection::bad_call(error)),
        };
    }
    if is_crooked(path) {
        return Err(Rejection::bad_call(CallError::BadPath));
    }
    if site.browser.is_none() {
        return Err(Rejection::no_page());
    }
    Ok(RequestTarget::Page(PageAccess::from_method(&parts.method)))
}

/// Whether a path means different things to different readers. The registry's own paths are held
/// to its grammar, which is stricter; a page's server may have any path but these.
fn is_crooked(path: &str) -> bool {
    let has = |needle: &[u8]| {
        path.as_bytes()
            .windows(needle.len())
            .any(|window| window.eq_ignore_ascii_case(needle))
    };
    !path.starts_with('/')
        || path.contains(['\\', '\0'])
        || segments(path).any(is_dots)
        || is_disguised_api(path)
        || has(b"//")
        || has(b"%2e")
        || has(b"%2f")
        || has(b"%5c")
        || has(b"%00")
}

/// As a server sees them that decodes slashes before it resolves dots. An encoded slash itself is a
/// page's own business: many name a repository so.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .flat_map(|segment| segment.split("%2f"))
        .flat_map(|segment| segment.split("%2F"))
}

/// Some servers cut parameters off a segment before they resolve it: `..;x` is `..` to them.
fn is_dots(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

/// Whether a path that is not the registry's would be for a server that decodes it, folds its case
/// or cuts parameters off. Pages and registry may be one server, and a page is not held to a call's
/// rights.
fn is_disguised_api(path: &str) -> bool {
    let once = decoded(path.as_bytes());
    [&once, &decoded(&once)]
        .into_iter()
        .any(|path| match path.as_slice() {
            [b'/', b'v' | b'V', b'1' | b'2', rest @ ..] => {
                rest.first().is_none_or(|b| !b.is_ascii_alphanumeric())
            }
            _ => false,
        })
}

/// Percent-decoded as far as it is percent-encoded.
fn decoded(mut path: &[u8]) -> Vec<u8> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut decoded = Vec::with_capacity(path.len());
    while let [first, rest @ ..] = path {
        let pair = match path {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        decoded.push(pair.map_or(*first, |(high, low)| high << 4 | low));
        path = if pair.is_some() {
            rest.get(2..).unwrap_or_default()
        } else {
            rest
        };
    }
    decoded
}
