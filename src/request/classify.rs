//! What a request asks for: a registry call, or a page beside the registry.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, header};

use super::conn_info::ConnInfo;
use super::headers;
use super::reject::Rejection;
use super::site::Site;
use crate::registry::call::{Call, CallError};

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Subject {
    /// A call of the registry protocol.
    Call(Arc<Call>),
    /// Anything outside `/v2/`.
    Page,
}

/// Whether answers of this path are for registry clients rather than for people.
pub(crate) fn is_api(path: &str) -> bool {
    ["/v2", "/v1"]
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Refuses what is refused whatever it asks for, and whoever asks.
pub(crate) fn check(conn: &ConnInfo, parts: &Parts) -> Result<(), Rejection> {
    if parts.method == Method::CONNECT {
        return Err(Rejection::not_spoken("CONNECT is not spoken here"));
    }
    // RFC 9110 §7.8 would let us ignore it, but bytes that follow it are meant for another protocol.
    if parts.headers.contains_key(header::UPGRADE) {
        return Err(Rejection::not_spoken("no other protocol than HTTP is spoken here"));
    }
    if parts.uri.path_and_query().is_none_or(|target| target.as_str().len() > conn.target_bytes) {
        return Err(Rejection::target_too_long());
    }
    if parts.headers.len() > conn.head_lines {
        return Err(Rejection::head_too_large());
    }
    Ok(())
}

/// Reads the path and the query. The request has passed [`check`].
pub(crate) fn classify(site: &Arc<Site>, parts: &Parts) -> Result<Subject, Rejection> {
    let path = parts.uri.path();
    if is_api(path) {
        return match Call::parse(&parts.method, path, parts.uri.query()) {
            Ok(call) if call.is_manifest_write() && headers::has_form_type(&parts.headers) => {
                Err(Rejection::bad_request("a manifest is not a form: its Content-Type is its media type"))
            }
            Ok(call) => Ok(Subject::Call(Arc::new(call))),
            Err(error) => Err(Rejection::bad_call(error)),
        };
    }
    if is_crooked(path) {
        return Err(Rejection::bad_call(CallError::BadPath));
    }
    if site.browser.is_none() {
        return Err(Rejection::no_page());
    }
    Ok(Subject::Page)
}

/// Whether a path means different things to different readers. The registry's own paths are held
/// to its grammar, which is stricter; a page's server may have any path but these.
fn is_crooked(path: &str) -> bool {
    let has = |needle: &[u8]| {
        path.as_bytes().windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
    };
    !path.starts_with('/')
        || path.contains(['\\', '\0'])
        || path.split('/').any(|segment| segment == "." || segment == "..")
        || has(b"//")
        || has(b"%2e")
        || has(b"%2f")
        || has(b"%5c")
        || has(b"%00")
}
