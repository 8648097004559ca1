//! Which virtual host a request is for: its Host, which must agree with the name of the handshake.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Version, header};

use super::conn_info::ConnInfo;
use super::reject::Rejection;
use super::site::{Site, Sites};
use crate::registry::host::{Authority, HostName};

/// The site that the request names.
///
/// Errors: 400 without exactly one valid host, 404 for a host that nobody serves here, 421 when the
/// TLS handshake was for another one (RFC 9110 §7.4).
pub(crate) fn locate<'s>(
    sites: &'s Sites,
    conn: &ConnInfo,
    parts: &Parts,
) -> Result<&'s Arc<Site>, Rejection> {
    let host = host(parts)?;
    let Some(site) = sites.find(conn.listener, &host) else {
        return Err(Rejection::unknown_host());
    };
    let agrees = match &conn.sni {
        Some(sni) => {
            *sni == host || sites.find(conn.listener, sni).is_some_and(|other| Arc::ptr_eq(other, site))
        }
        // Without a name in the handshake only the certificate of an address was shown.
        None => host.ip().is_some(),
    };
    if agrees { Ok(site) } else { Err(Rejection::misdirected()) }
}

/// The one host of a request, whichever way its protocol says it.
fn host(parts: &Parts) -> Result<HostName, Rejection> {
    let written = single_host(&parts.headers)?;
    let named = parts.uri.authority().map(|authority| authority.as_str());
    // HTTP/1.1 wants the header even beside an absolute target (RFC 9112 §3.2); HTTP/2 may leave
    // either away, but not say two different things (RFC 9113 §8.3.1).
    let text = match (written, named) {
        (None, _) if parts.version < Version::HTTP_2 => {
            return Err(Rejection::bad_request("the request has no Host"));
        }
        (None, None) => return Err(Rejection::bad_request("the request has no host")),
        (Some(text), None) | (None, Some(text)) => text,
        (Some(written), Some(named)) if written.eq_ignore_ascii_case(named) => written,
        (Some(_), Some(_)) => return Err(Rejection::bad_request("the request names two hosts")),
    };
    let authority =
        Authority::parse(text).map_err(|_| Rejection::bad_request("the host of the request is not valid"))?;
    Ok(authority.host)
}

fn single_host(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let mut all = headers.get_all(header::HOST).iter();
    let Some(first) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Rejection::bad_request("the request has two Host headers"));
    }
    first.to_str().map(Some).map_err(|_| Rejection::bad_request("the host of the request is not valid"))
}
