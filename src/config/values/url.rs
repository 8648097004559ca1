//! The parser for the URL of an upstream: `scheme://host[:port][/base]`.

use toml::de::DeValue;

use super::{InvalidValue, text};
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::host::Authority;

/// Parses the URL. No message shows a part of it, since people write passwords into URLs.
pub(in crate::config) fn upstream_url(value: &DeValue<'_>) -> Result<UpstreamUrl, InvalidValue> {
    let text = text(value, HELP)?;
    let (scheme, rest) = scheme(text)
        .ok_or_else(|| InvalidValue::new("does not begin with http:// or https://", HELP))?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(InvalidValue::new(
            "holds credentials",
            "write them as `username` and `password` in [upstream]",
        ));
    }
    if path.contains(['?', '#']) {
        return Err(InvalidValue::new(
            "holds a query or a fragment",
            "end it with the path",
        ));
    }
    let authority = Authority::parse(authority)
        .map_err(|error| InvalidValue::new(format!("is wrong: {error}"), HELP))?;
    let port = authority.port.unwrap_or(scheme.default_port());
    if port == 0 {
        return Err(InvalidValue::new("has port 0", HELP));
    }
    Ok(UpstreamUrl {
        scheme,
        host: authority.host,
        port,
        base_path: base_path(path)?,
    })
}

fn scheme(text: &str) -> Option<(Scheme, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    if scheme.eq_ignore_ascii_case("http") {
        return Some((Scheme::Http, rest));
    }
    scheme
        .eq_ignore_ascii_case("https")
        .then_some((Scheme::Https, rest))
}

/// The base path, which precedes the path of each request. Only characters that all servers
/// interpret alike are allowed.
fn base_path(path: &str) -> Result<String, InvalidValue> {
    let path = path.strip_suffix('/').unwrap_or(path);
    for segment in path.split('/').skip(1) {
        if matches!(segment, "" | "." | "..") {
            return Err(InvalidValue::new(
                "has an empty, `.` or `..` segment in its path",
                "write the path as the upstream serves it",
            ));
        }
        // RFC 3986 unreserved characters.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if !segment.bytes().all(plain) {
            return Err(InvalidValue::new(
                "has a character in its path that is not plain",
                "write letters, digits, `-`, `.`, `_` and `~`, without percent signs",
            ));
        }
    }
    if path.split('/').next_back() == Some("v2") {
        return Err(InvalidValue::new(
            "ends with /v2",
            "leave /v2 out: every request has it already",
        ));
    }
    Ok(path.to_owned())
}

const HELP: &str = "write a URL such as \"http://registry:5000\"";
