//! Which headers pass, which are dropped and which are ours, in both directions.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::conn_info::ConnInfo;
use super::forwarded::X_FORWARDED_FOR;
use crate::upstream::message_length;

/// Registries send it with every response.
pub(crate) const API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");
/// The digest of the content of a response.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Headers of one connection (RFC 9110 §7.6.1), including those of older clients.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers that tell the upstream who the client is.
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers that `Connection` cannot remove: a client could otherwise remove what the proxy adds, or
/// the length of its body.
fn is_protected(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION
        || *name == header::HOST
        || *name == header::CONTENT_LENGTH
        || *name == header::COOKIE
        || is_spoofable(name)
}

fn is_spoofable(name: &HeaderName) -> bool {
    let text = name.as_str();
    // CGI servers do not distinguish `_` from `-`: X_Forwarded_For would replace ours.
    *name == header::FORWARDED
        || *name == X_REAL_IP
        || text.starts_with("x-forwarded")
        || text.contains('_')
        // Not a token (RFC 9110 §5.6.2), but passes in HTTP/2.
        || text.contains('"')
        || SPOOFABLE.contains(&text)
}

/// Headers of other proxies, in which servers behind them trust: user and address of the client,
/// and the method, path and host in place of those that were authorized here.
const SPOOFABLE: [&str; 19] = [
    "remote-user",
    "x-remote-user",
    "x-auth-user",
    "x-auth-request-user",
    "x-webauth-user",
    "x-authenticated-user",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "client-ip",
    "cf-connecting-ip",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    // httpoxy: CGI makes HTTP_PROXY of it.
    "proxy",
];

/// Removes the headers that `Connection` names.
fn remove_named_by_connection(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
}

/// Compares each name once: most heads contain none of the removed headers, and a lookup by name
/// costs more than the comparisons.
fn remove_where(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let removed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_removed(name))
        .cloned()
        .collect();
    for name in removed {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let names = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    names
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !is_protected(name))
        .collect()
}

/// Whether a registry written in Go would take the body for a form, and would then read `digest`,
/// `mount`, `from` and `_state` from it in place of the query that was authorized here
/// (`ParseMultipartForm`).
pub(crate) fn has_form_type(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_TYPE)
        .iter()
        .any(|value| is_form(value.as_bytes()))
}

fn is_form(content_type: &[u8]) -> bool {
    // Go trims and folds Unicode, so a type that is not ASCII may be one of these there.
    if !content_type.is_ascii() {
        return true;
    }
    let end = content_type
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(content_type.len());
    let (media_type, _) = content_type.split_at(end);
    let media_type = media_type.trim_ascii().to_ascii_lowercase();
    media_type == b"application/x-www-form-urlencoded" || media_type.starts_with(b"multipart/")
}

/// Corrects the content type of an upload that is sent as a form, which curl does by default.
pub(crate) fn correct_upload_type(headers: &mut HeaderMap) {
    if has_form_type(headers) {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
    }
}

/// Turns the headers of a client into those of the upstream request, except for Host and
/// Authorization.
pub fn to_upstream(headers: &mut HeaderMap, conn: &ConnInfo, public_host: HeaderValue) {
    remove_named_by_connection(headers);
    // hyper answers Expect itself when the body is first polled.
    remove_where(headers, |name| {
        HOP_BY_HOP.contains(name) || *name == header::EXPECT || is_spoofable(name)
    });
    join_cookies(headers);
    // Repeated lengths of a request have been found equal.
    let _ = message_length::unify(headers);
    headers.insert(X_FORWARDED_FOR, conn.client().clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(X_FORWARDED_HOST, public_host);
}

/// Joins the cookie fields of HTTP/2 to one line for HTTP/1.1 (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() < 2 {
        return;
    }
    let mut joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
        .expect("made of header values and separators");
    joined.set_sensitive(true);
    headers.insert(header::COOKIE, joined);
}

/// Turns the headers of a registry into those of the response, except for `Location` and `Link`.
pub fn from_registry(headers: &mut HeaderMap) {
    from_page(headers);
    headers.remove(header::SET_COOKIE);
    // An address inside, for which no client has a use.
    headers.remove(header::CONTENT_LOCATION);
}

/// Turns the headers of a page server into those of the response. Its cookies pass.
pub fn from_page(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    remove_where(headers, |name| {
        HOP_BY_HOP.contains(name) || HOP_SPECIFIC.contains(name)
    });
}

/// Headers about the upstream itself or the connection to it. Its challenge would replace ours in
/// clients and browsers.
const HOP_SPECIFIC: [HeaderName; 5] = [
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    header::SERVER,
    header::STRICT_TRANSPORT_SECURITY,
    header::ALT_SVC,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::snapshot::ConnectionSettings;
    use crate::config::vhost::ListenAddress;
    use crate::request::conn_info::{HandshakeName, Protocol};

    fn conn() -> ConnInfo {
        let listener = ListenAddress("127.0.0.1:443".parse().expect("valid"));
        let peer = "[::ffff:127.0.0.9]:1".parse().expect("valid");
        ConnInfo::new(
            listener,
            peer,
            HandshakeName::Address,
            Protocol::Http1,
            &ConnectionSettings::default(),
        )
    }

    fn upstream_sees(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        to_upstream(
            &mut headers,
            &conn(),
            HeaderValue::from_static("ci.example.com"),
        );
        headers
    }

    #[test]
    fn spoofable_headers_are_replaced() {
        let headers = upstream_sees(&[
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-prefix", "/x"),
            ("x_forwarded_for", "1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("accept", "*/*"),
        ]);
        assert_eq!(headers.get("x-forwarded-for").expect("ours"), "127.0.0.9");
        assert_eq!(
            headers.get("x-forwarded-host").expect("ours"),
            "ci.example.com"
        );
        assert_eq!(headers.len(), 4, "{headers:?}");
    }

    #[test]
    fn a_repeated_length_becomes_one() {
        let headers = upstream_sees(&[("content-length", "5"), ("content-length", "5")]);
        assert_eq!(headers.get_all("content-length").iter().count(), 1);
        assert_eq!(headers.get("content-length").expect("one"), "5");
    }

    #[test]
    fn connection_removes_named_headers_but_not_ours() {
        let headers = upstream_sees(&[
            (
                "connection",
                "close, X-Hop, X-Forwarded-For, authorization, host",
            ),
            ("x-hop", "1"),
            ("authorization", "Basic eA=="),
            ("host", "a"),
            ("te", "trailers"),
        ]);
        assert!(headers.contains_key("authorization") && headers.contains_key("host"));
        assert!(headers.contains_key("x-forwarded-for"));
        assert!(
            !headers.contains_key("x-hop")
                && !headers.contains_key("te")
                && !headers.contains_key("connection")
        );
    }
}
