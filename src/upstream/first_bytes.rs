//! The first bytes that an upstream sends for a request, which show what it speaks where that is
//! not HTTP/1.1 in the clear.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::upstream::Scheme;

/// The first bytes since a request began. An atomic, because every read adds to it: all but the
/// first one cost a load.
#[derive(Debug, Default)]
pub(super) struct FirstBytes(AtomicU64);

/// What an upstream speaks instead of HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OtherProtocol {
    #[error("the server speaks TLS")]
    Tls,
    #[error("the server speaks HTTP/2 alone")]
    Http2,
    #[error("the server does not speak HTTP")]
    Unknown,
}

impl OtherProtocol {
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Tls => "write https:// in its `url`",
            Self::Http2 => "enable HTTP/1.1 there, which moorgate speaks to upstreams",
            Self::Unknown => "correct the port in its `url`",
        }
    }
}

impl FirstBytes {
    /// A request begins.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Bytes were read.
    pub(super) fn add(&self, bytes: &[u8]) {
        if self.0.load(Ordering::Relaxed) == 0 && !bytes.is_empty() {
            self.0.store(packed(bytes), Ordering::Relaxed);
        }
    }

    /// Whether no byte has come.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// What the server speaks, unless it is HTTP/1 or nothing has come. The bytes themselves are
    /// shown nowhere: they may be of another response.
    pub(super) fn protocol(&self, scheme: Scheme) -> Option<OtherProtocol> {
        let value = self.0.load(Ordering::Relaxed);
        if value == REFUSES_PLAIN_HTTP {
            return (scheme == Scheme::Http).then_some(OtherProtocol::Tls);
        }
        let [length, all @ ..] = value.to_be_bytes();
        let bytes = all.get(..usize::from(length)).unwrap_or(&all);
        match bytes {
            [] => None,
            // An alert or a handshake record (RFC 8446 §5.1).
            [21 | 22, 3, ..] if scheme == Scheme::Http => Some(OtherProtocol::Tls),
            // SETTINGS or GOAWAY on stream 0 (RFC 9113 §4.1).
            [0, 0, _, 4 | 7, _, 0, 0] => Some(OtherProtocol::Http2),
            _ if bytes.starts_with(HTTP) || HTTP.starts_with(bytes) => None,
            _ => Some(OtherProtocol::Unknown),
        }
    }
}

const HTTP: &[u8] = b"HTTP/";

/// Their number and the first seven of them.
fn packed(bytes: &[u8]) -> u64 {
    if refuses_plain_http(bytes) {
        return REFUSES_PLAIN_HTTP;
    }
    let mut all = [0; 8];
    let mut length = 0;
    for (place, byte) in all.iter_mut().skip(1).zip(bytes) {
        *place = *byte;
        length += 1;
    }
    let [first, ..] = &mut all;
    *first = length;
    u64::from_be_bytes(all)
}

/// No packed bytes have this length.
const REFUSES_PLAIN_HTTP: u64 = u64::MAX;

/// Whether this is how a TLS server answers a request in plain HTTP. Its text alone would not do: a
/// registry may repeat in an error what a client has sent.
fn refuses_plain_http(response: &[u8]) -> bool {
    if response.get(9..12) != Some(b"400") {
        return false;
    }
    let start = response.get(..MAX_REFUSAL).unwrap_or(response);
    start == GO_REFUSAL
        || PAGES.iter().any(|page| {
            let mut parts = start.windows(page.len());
            parts.any(|part| part == *page)
        })
}

const MAX_REFUSAL: usize = 1024;
/// The whole of what servers written in Go send: registries, Caddy.
const GO_REFUSAL: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// From the pages of nginx and Apache. JSON has no such elements.
const PAGES: [&[u8]; 2] = [
    b"<title>400 The plain HTTP request was sent to HTTPS port</title>",
    b"Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(bytes: &[u8], scheme: Scheme) -> Option<OtherProtocol> {
        let first = FirstBytes::default();
        first.add(bytes);
        first.add(b"more");
        first.protocol(scheme)
    }

    #[test]
    fn protocols_are_known_by_their_first_bytes() {
        let nginx = b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n\
            <title>400 The plain HTTP request was sent to HTTPS port</title>";
        let apache = b"HTTP/1.1 400 Bad Request\r\n\r\n<p>Your browser<br />\n\
            Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />";
        let cases: [(&[u8], Option<OtherProtocol>); 11] = [
            (b"HT", None),
            (b"HTTP/1.1 200 OK\r\n", None),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n{}", None),
            (b"\x15\x03\x01\x00\x02\x02\x46", Some(OtherProtocol::Tls)),
            (b"\x16\x03", Some(OtherProtocol::Tls)),
            (
                b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
                Some(OtherProtocol::Http2),
            ),
            (b"SSH-2.0-OpenSSH", Some(OtherProtocol::Unknown)),
            (b"\x00", Some(OtherProtocol::Unknown)),
            (GO_REFUSAL, Some(OtherProtocol::Tls)),
            (nginx, Some(OtherProtocol::Tls)),
            (apache, Some(OtherProtocol::Tls)),
        ];
        for (bytes, expected) in cases {
            let shown = bytes.escape_ascii();
            assert_eq!(protocol(bytes, Scheme::Http), expected, "{shown}");
        }
    }

    #[test]
    fn what_a_registry_behind_tls_says_is_its_own() {
        assert_eq!(protocol(GO_REFUSAL, Scheme::Https), None);
        let echo = b"HTTP/1.1 400 Bad Request\r\n\r\n\
            {\"detail\":\"Client sent an HTTP request to an HTTPS server.\\n\"}";
        assert_eq!(protocol(echo, Scheme::Http), None);
        let alert = protocol(b"\x15\x03\x03", Scheme::Https);
        assert_eq!(alert, Some(OtherProtocol::Unknown));
    }

    #[test]
    fn a_new_request_forgets_the_bytes_before() {
        let first = FirstBytes::default();
        assert!(first.is_empty());
        first.add(b"");
        assert!(first.is_empty());
        first.add(b"\x00\x00\x00\x00\x00\x00\x00\x00");
        assert!(!first.is_empty());
        first.clear();
        assert!(first.is_empty());
    }
}
