//! Site addresses: `[scheme://]host[:port][/path]`.

use std::fmt;

use super::position::SourcePosition;
use crate::registry::host::{HostName, is_below_public_domain};

/// An address of a site, as far as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SiteAddress {
    pub(super) at: SourcePosition,
    pub(super) scheme: Option<SiteScheme>,
    /// Empty for every name.
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SiteScheme {
    Http,
    Https,
}

impl SiteAddress {
    /// `None` if the port is none, or the scheme is another.
    pub(super) fn parse(text: &str, at: &SourcePosition) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                (Some(SiteScheme::Http), rest)
            }
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                (Some(SiteScheme::Https), rest)
            }
            Some(_) => return None,
            None => (None, text),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            // A colon inside brackets, or one of several, belongs to an IPv6 address.
            Some((host, port))
                if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) =>
            {
                (host, Some(port))
            }
            _ => (authority, None),
        };
        let port = match port {
            None | Some("") => None,
            Some("http") => Some(80),
            Some("https") => Some(443),
            Some(port) => Some(port.parse().ok()?),
        };
        Some(Self {
            at: at.clone(),
            scheme,
            host: host.to_lowercase(),
            port,
            path: path.to_owned(),
        })
    }

    /// The name, unless it is missing, a wildcard or none.
    pub(super) fn name(&self) -> Option<HostName> {
        let host = if self.host.is_ascii() {
            self.host.clone()
        } else {
            idna::domain_to_ascii(&self.host).ok()?
        };
        HostName::parse(&host).ok()
    }

    /// Whether Caddy itself gets a certificate from a public CA for it.
    pub(super) fn is_public(&self) -> bool {
        let is_address = self.name().is_some_and(|name| name.ip().is_some());
        !is_address && is_below_public_domain(&self.host)
    }
}

impl fmt::Display for SiteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Some(SiteScheme::Http) => f.write_str("http://")?,
            Some(SiteScheme::Https) => f.write_str("https://")?,
            None => {}
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}
