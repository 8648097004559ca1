//! The `Via` header (RFC 9110 §7.6.3), by which a request is found that comes back to where it was
//! forwarded before.

use http::header::VIA;
use http::{HeaderMap, HeaderValue};

use super::conn_info::Protocol;
use crate::crypto::{self, NoRandomness};

/// The name in `Via` of one domain of this process with one upstream, which nobody else has: a
/// request may pass through several domains, processes and other proxies, and from the pages of a
/// domain to its registry, but never twice to the same upstream of the same domain.
///
/// It is random: it says nothing of the host, and no client can have its requests refused as loops
/// but by repeating what the upstream has seen.
#[derive(Debug)]
pub(crate) struct ViaPseudonym {
    name: String,
    http1: HeaderValue,
    http2: HeaderValue,
}

impl ViaPseudonym {
    pub(crate) fn random() -> Result<Self, NoRandomness> {
        let name = format!("moorgate-{}", crypto::hex(&crypto::random::<8>()?));
        let element = |version| {
            HeaderValue::try_from(format!("{version} {name}")).expect("hexadecimal digits")
        };
        Ok(Self {
            http1: element("1.1"),
            http2: element("2.0"),
            name,
        })
    }

    /// Whether a request has been forwarded to this upstream before. Other proxies may have joined
    /// the lines, and added comments.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let name = self.name.as_bytes();
        let mut lines = headers.get_all(VIA).iter().map(HeaderValue::as_bytes);
        lines.any(|line| line.windows(name.len()).any(|part| part == name))
    }

    /// Adds its element, for a request that came over `protocol`.
    pub(crate) fn append(&self, headers: &mut HeaderMap, protocol: Protocol) {
        let element = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        headers.append(VIA, element.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_again_and_those_of_others_are_not() {
        let own = ViaPseudonym::random().expect("random");
        let other = ViaPseudonym::random().expect("random");
        let mut headers = HeaderMap::new();
        other.append(&mut headers, Protocol::Http2);
        headers.append(VIA, HeaderValue::from_static("1.1 moorgate, 1.1 a.test"));
        assert!(!own.is_in(&headers) && other.is_in(&headers));
        let joined = format!("1.0 a (x, y),HTTP/1.1 {} (z), 1.1 b", own.name);
        headers.append(VIA, HeaderValue::try_from(joined).expect("a value"));
        assert!(own.is_in(&headers));
    }
}
