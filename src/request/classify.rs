//! Parses what a request is for: a registry call, or a page beside the registry.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use http::request::Parts;
use percent_encoding::{percent_decode, percent_decode_str};

use super::conn_info::ConnInfo;
use super::headers;
use super::rejection::Rejection;
use super::site::Site;
use super::target::{PageAccess, RequestTarget, TOKEN_PATH};
use crate::registry::call::{Call, CallError, is_api};
use crate::upstream::message_length;

/// Rejects requests that are invalid for every host, path and user.
///
/// Errors: 501 for CONNECT, 400 for an invalid target or ambiguous framing (RFC 9112
/// §6), 414 and 431 beyond the limits of the connection.
pub(crate) fn check(conn: &ConnInfo, parts: &Parts) -> Result<(), Rejection> {
    if parts.method == Method::CONNECT {
        return Err(Rejection::not_implemented("CONNECT is not spoken here"));
    }
    // `Upgrade` is ignored (RFC 9110 §7.8): the client goes on with HTTP where no 101 comes.
    // Only CONNECT and `OPTIONS *` have a target that is not a path (RFC 9112 §3.2). In HTTP/2 it
    // may be empty or a query.
    let Some(target) = parts
        .uri
        .path_and_query()
        .filter(|target| target.as_str().starts_with('/'))
    else {
        return Err(Rejection::bad_request("the request target is not valid"));
    };
    if target.path() != TOKEN_PATH {
        check_target_length(conn, parts)?;
    }
    message_length::check(&parts.headers).map_err(|_| {
        Rejection::bad_request("the request does not say in one way where its body ends")
    })?;
    if parts.headers.len() > conn.head_lines {
        return Err(Rejection::head_too_large());
    }
    Ok(())
}

/// Rejects a target that is too long. Targets of the token endpoint may have what the head may have:
/// clients write a scope for each repository into them.
pub(crate) fn check_target_length(conn: &ConnInfo, parts: &Parts) -> Result<(), Rejection> {
    let target = parts.uri.path_and_query();
    if target.is_some_and(|target| target.as_str().len() > conn.target_bytes) {
        return Err(Rejection::target_too_long());
    }
    Ok(())
}

/// Reads the path and the query. The request has passed [`check`].
pub(crate) fn classify(site: &Arc<Site>, parts: &Parts) -> Result<RequestTarget, Rejection> {
    let path = parts.uri.path();
    if is_api(path) {
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
    if is_ambiguous_path(path) {
        return Err(Rejection::bad_call(CallError::BadPath));
    }
    if site.browser.is_none() {
        return Err(Rejection::no_page());
    }
    Ok(RequestTarget::Page(PageAccess::from_method(&parts.method)))
}

/// Whether servers may read a path differently. The paths of the registry must match its grammar,
/// which is stricter; a server of pages may have any path but these.
fn is_ambiguous_path(path: &str) -> bool {
    let has = |needle: &[u8]| {
        path.as_bytes()
            .windows(needle.len())
            .any(|window| window.eq_ignore_ascii_case(needle))
    };
    !path.starts_with('/')
        || path.contains(['\\', '\0'])
        || segments(path).any(is_dots)
        || is_obfuscated_api_path(path)
        || has(b"//")
        || has(b"%2e")
        || has(b"%2f")
        || has(b"%5c")
        || has(b"%00")
}

/// The segments as a server sees them that decodes slashes before it resolves dots. An encoded
/// slash by itself is allowed: many pages name a repository with it.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .flat_map(|segment| segment.split("%2f"))
        .flat_map(|segment| segment.split("%2F"))
}

/// Some servers cut parameters off a segment before they resolve it: `..;x` is `..` to them.
fn is_dots(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

/// Whether a path outside of `/v2/` is one below it for a server that decodes it, ignores its case
/// or cuts parameters off. Pages and registry may be one server, and pages need other rights than
/// calls.
fn is_obfuscated_api_path(path: &str) -> bool {
    let once: Cow<[u8]> = percent_decode_str(path).into();
    let twice: Cow<[u8]> = percent_decode(&once).into();
    [&once, &twice].into_iter().any(|path| match &**path {
        [b'/', b'v' | b'V', b'1' | b'2', rest @ ..] => {
            rest.first().is_none_or(|b| !b.is_ascii_alphanumeric())
        }
        _ => false,
    })
}
