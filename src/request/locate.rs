//! Which virtual host a request is for: its Host, which must agree with the name of the handshake.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Version, header};

use super::conn_info::ConnInfo;
use super::rejection::Rejection;
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
    let text = host(parts)?;
    // Nearly every request names what its handshake named, in the same letters.
    if let Some(sni) = &conn.sni
        && is_written(sni, text)
        && let Some(site) = sites.find(conn.listener, sni)
    {
        return Ok(site);
    }
    let invalid = |_| Rejection::bad_request("the host of the request is not valid");
    let host = Authority::parse(text).map_err(invalid)?.host;
    let Some(site) = sites.find(conn.listener, &host) else {
        return Err(Rejection::unknown_host());
    };
    let agrees = match &conn.sni {
        Some(sni) => {
            *sni == host
                || sites
                    .find(conn.listener, sni)
                    .is_some_and(|other| Arc::ptr_eq(other, site))
        }
        // Without a name in the handshake only the certificate of an address was shown.
        None => host.ip().is_some(),
    };
    if agrees {
        Ok(site)
    } else {
        Err(Rejection::misdirected())
    }
}

/// The one host of a request, whichever way its protocol says it.
fn host(parts: &Parts) -> Result<&str, Rejection> {
    let written = single_host(&parts.headers)?;
    let named = parts.uri.authority().map(|authority| authority.as_str());
    // HTTP/1.1 wants the header even beside an absolute target (RFC 9112 §3.2); HTTP/2 may leave
    // either away, but not say two different things (RFC 9113 §8.3.1).
    match (written, named) {
        (None, _) if parts.version < Version::HTTP_2 => {
            Err(Rejection::bad_request("the request has no Host"))
        }
        (None, None) => Err(Rejection::bad_request("the request has no host")),
        (Some(text), None) | (None, Some(text)) => Ok(text),
        (Some(written), Some(named)) if written.eq_ignore_ascii_case(named) => Ok(written),
        (Some(_), Some(_)) => Err(Rejection::bad_request("the request names two hosts")),
    }
}

/// Whether a text is this very name, with or without a port: what `Authority` finds out for every
/// spelling, at the price of making the name anew.
fn is_written(name: &HostName, text: &str) -> bool {
    match text.strip_prefix(name.as_str()) {
        Some("") => true,
        Some(rest) => Authority::is_port(rest),
        None => false,
    }
}

fn single_host(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let mut all = headers.get_all(header::HOST).iter();
    let Some(first) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(Rejection::bad_request("the request has two Host headers"));
    }
    first
        .to_str()
        .map(Some)
        .map_err(|_| Rejection::bad_request("the host of the request is not valid"))
}
