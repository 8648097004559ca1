//! Which virtual host a request is for: its Host, which must agree with the name of the handshake.

use std::sync::Arc;

use http::request::Parts;

use super::conn_info::{ConnInfo, HandshakeName};
use super::host::{RequestHostError, requested_host};
use super::rejection::Rejection;
use super::site::{Site, Sites};
use crate::registry::host::{Authority, HostName};

/// The site that the request names.
///
/// Errors: 400 without exactly one valid host, 404 for a host that no site serves, 421 when the
/// TLS handshake was for another one (RFC 9110 §7.4).
pub(crate) fn locate<'s>(
    sites: &'s Sites,
    conn: &ConnInfo,
    parts: &Parts,
) -> Result<&'s Arc<Site>, Rejection> {
    let invalid = |error: RequestHostError| Rejection::bad_request(error.to_string());
    let text = requested_host(&parts.uri, &parts.headers, parts.version).map_err(invalid)?;
    // Nearly every request names its SNI in the same spelling.
    if let HandshakeName::Sni(sni) = &conn.handshake_name
        && is_written(sni, text)
        && let Some(site) = sites.find(conn.listener, sni)
    {
        return Ok(site);
    }
    let authority = Authority::parse(text).map_err(|_| invalid(RequestHostError::Invalid))?;
    let host = authority.host;
    let Some(site) = sites.find(conn.listener, &host) else {
        return Err(Rejection::unknown_host());
    };
    let agrees = match &conn.handshake_name {
        HandshakeName::Sni(sni) => {
            *sni == host
                || sites
                    .find(conn.listener, sni)
                    .is_some_and(|other| Arc::ptr_eq(other, site))
        }
        // The certificate that was shown has all names of the site.
        HandshakeName::Address => site
            .host
            .names_on(conn.listener)
            .any(|name| name.ip().is_some()),
        HandshakeName::TrustedProxy => true,
    };
    if agrees {
        Ok(site)
    } else {
        Err(Rejection::misdirected())
    }
}

/// Whether a text is this name in the same spelling, with or without a port. `Authority` compares
/// any spelling, and allocates.
fn is_written(name: &HostName, text: &str) -> bool {
    match text.strip_prefix(name.as_str()) {
        Some("") => true,
        Some(rest) => Authority::is_port(rest),
        None => false,
    }
}
