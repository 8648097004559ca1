//! The one host that a request names, in whichever way its protocol does.

use http::{HeaderMap, Request, Uri, Version, header};

use crate::registry::host::Authority;

/// Why a request does not name one valid host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestHostError {
    #[error("the request has no Host")]
    NoHeader,
    #[error("the request has no host")]
    Missing,
    #[error("the request has two Host headers")]
    Repeated,
    #[error("the request names two hosts")]
    Conflicting,
    #[error("the host of the request is not valid")]
    Invalid,
}

/// The host that a request names, as it is written, with the port if there is one.
///
/// HTTP/1.1 requires exactly one Host header even beside an absolute target (RFC 9112 §3.2). HTTP/2
/// may have either, and both only if they agree (RFC 9113 §8.3.1).
pub(super) fn requested_host<'r>(
    uri: &'r Uri,
    headers: &'r HeaderMap,
    version: Version,
) -> Result<&'r str, RequestHostError> {
    let target = uri.authority().map(|authority| authority.as_str());
    match (single_header(headers)?, target) {
        (None, _) if version < Version::HTTP_2 => Err(RequestHostError::NoHeader),
        (None, None) => Err(RequestHostError::Missing),
        (Some(text), None) | (None, Some(text)) => Ok(text),
        (Some(header), Some(target)) if header.eq_ignore_ascii_case(target) => Ok(header),
        (Some(_), Some(_)) => Err(RequestHostError::Conflicting),
    }
}

/// The host that a request names, parsed.
pub(crate) fn requested_authority<B>(request: &Request<B>) -> Result<Authority, RequestHostError> {
    let text = requested_host(request.uri(), request.headers(), request.version())?;
    Authority::parse(text).map_err(|_| RequestHostError::Invalid)
}

fn single_header(headers: &HeaderMap) -> Result<Option<&str>, RequestHostError> {
    let mut all = headers.get_all(header::HOST).iter();
    let Some(first) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(RequestHostError::Repeated);
    }
    first
        .to_str()
        .map(Some)
        .map_err(|_| RequestHostError::Invalid)
}
