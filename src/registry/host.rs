//! Host names and authorities, in the canonical spelling by which virtual hosts are found.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A DNS name or an IP address in canonical spelling: lower case, no trailing dot, IPv6 without
/// brackets (RFC 3986 §3.2.2, RFC 1123 §2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

/// Why a text is not a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The text is empty.
    #[error("the host is empty")]
    Empty,
    /// The name is longer than 253 bytes, or a label longer than 63.
    #[error("the host name is too long")]
    TooLong,
    /// A character or a label is not valid in RFC 1123.
    #[error("the host name is not valid")]
    Invalid,
    /// The part after the colon is not a port.
    #[error("the port is not valid")]
    Port,
}

impl HostName {
    /// Parses a name or an address. An IPv6 address may be in brackets.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').ok_or(HostError::Invalid)?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostError::Invalid)?;
            return Ok(Self::from(IpAddr::V6(address)));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::from(address));
        }
        Self::parse_dns(text)
    }

    /// Whether the name or address is unique on the Internet (RFC 6761, RFC 6762, RFC 6890, RFC 8375).
    pub(crate) fn is_public(&self) -> bool {
        match self.ip() {
            Some(IpAddr::V4(ip)) => {
                !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified())
            }
            Some(IpAddr::V6(ip)) => {
                !(ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local())
            }
            None => is_below_public_domain(self.as_str()),
        }
    }

    fn parse_dns(text: &str) -> Result<Self, HostError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > 253 {
            return Err(HostError::TooLong);
        }
        for label in name.split('.') {
            if label.len() > 63 {
                return Err(HostError::TooLong);
            }
            // `_` is not valid in RFC 1123, but occurs in names of compose services and Docker
            // networks.
            let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if label.is_empty()
                || !label.bytes().all(known)
                || label.starts_with('-')
                || label.ends_with('-')
            {
                return Err(HostError::Invalid);
            }
        }
        // 1.2.3.4.5 is not a name: a last label of digits makes it an address (WHATWG URL §3.5).
        if name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(HostError::Invalid);
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The canonical text, IPv6 without brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// The form for a URL or a Host header: IPv6 in brackets, and the port unless it is the
    /// default.
    pub fn authority(&self, port: u16, default_port: u16) -> String {
        let host = if self.0.contains(':') {
            format!("[{}]", self.0)
        } else {
            self.0.to_string()
        };
        if port == default_port {
            host
        } else {
            format!("{host}:{port}")
        }
    }
}

/// Whether a DNS name, which may be a wildcard, ends in a top-level domain of the Internet.
pub(crate) fn is_below_public_domain(name: &str) -> bool {
    let top = name.rsplit_once('.').map(|(_, top)| top);
    top.is_some_and(|top| !PRIVATE_DOMAINS.contains(&top))
}

const PRIVATE_DOMAINS: &[&str] = &[
    "localhost",
    "local",
    "internal",
    "test",
    "invalid",
    "lan",
    "home",
    "arpa",
];

impl From<IpAddr> for HostName {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().to_string().into())
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// `host[:port]` as in a Host header or an `:authority`. User information is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host in canonical spelling.
    pub host: HostName,
    /// The port, if one is written.
    pub port: Option<u16>,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            // No port is the default, so that it is always written.
            Some(port) => f.write_str(&self.host.authority(port, 0)),
            None => f.write_str(self.host.as_str()),
        }
    }
}

impl Authority {
    /// Parses `host`, `host:port`, `[v6]`, `[v6]:port`. An empty port (`host:`) is refused.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let colon = match text.rfind(']') {
            Some(bracket) => text[bracket..].find(':').map(|at| bracket + at),
            None => text.find(':'),
        };
        let Some(colon) = colon else {
            return Ok(Self {
                host: HostName::parse(text)?,
                port: None,
            });
        };
        let (host, port) = text.split_at(colon);
        Ok(Self {
            host: HostName::parse(host)?,
            port: Some(port_of(port)?),
        })
    }

    /// Whether a text is a colon and a port.
    pub fn is_port(text: &str) -> bool {
        port_of(text).is_ok()
    }
}

/// Parses a colon and a port, as in `:443`.
fn port_of(text: &str) -> Result<u16, HostError> {
    let digits = text.strip_prefix(':').ok_or(HostError::Port)?;
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Port);
    }
    digits.parse().map_err(|_| HostError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_host() {
        let same = |text: &str| HostName::parse(text).expect("valid").as_str().to_owned();
        assert_eq!(same("Docker-CI.Example.COM."), "docker-ci.example.com");
        assert_eq!(same("[::1]"), "::1");
        assert_eq!(same("0:0:0:0:0:0:0:1"), "::1");
        assert_eq!(same("registry_ci"), "registry_ci");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a/b",
            "a@b",
            "1.2.3",
            "1.2.3.4.5",
            "[::1",
            "[1.2.3.4]",
            "a\u{e9}",
            "a%41",
        ] {
            assert!(HostName::parse(text).is_err(), "{text}");
        }
        assert_eq!(HostName::parse(&"a".repeat(64)), Err(HostError::TooLong));
    }

    #[test]
    fn authorities_have_at_most_one_port() {
        let port = |text: &str| Authority::parse(text).map(|a| a.port);
        assert_eq!(port("a:5000"), Ok(Some(5000)));
        assert_eq!(port("[::1]:5000"), Ok(Some(5000)));
        assert_eq!(port("[::1]"), Ok(None));
        for text in [
            "a:", "a:65536", "a:+1", "a:1:2", "user@a", "a,b", ":443", "[::1]x",
        ] {
            assert!(Authority::parse(text).is_err(), "{text}");
        }
    }
}
