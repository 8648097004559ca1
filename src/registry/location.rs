//! Rewrites `Location` and `Link` of upstream responses. References to the registry itself become
//! path-absolute, so that no wrong scheme, host or port reaches the client, whatever name the
//! registry has for itself and whatever proxy stands in front of moorgate.

mod link;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::host::{Authority, HostName};

/// The origin of the upstream, as moorgate connects to it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Whether the connection uses TLS.
    pub https: bool,
    /// Name or address.
    pub host: &'a HostName,
    /// The port.
    pub port: u16,
    /// The path before `/v2/`: empty, or `/a/b` with a leading and no trailing slash.
    pub base_path: &'a str,
}

/// The kind of the response with the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// 3xx: the reference may point at storage on another host, even with a path below `/v2/`.
    Redirect,
    /// Any other status: a reference below `/v2/` is the registry itself, whatever its host.
    Other,
}

impl ResponseKind {
    /// The kind of a response with this status.
    pub fn from_status(status: http::StatusCode) -> Self {
        if status.is_redirection() {
            Self::Redirect
        } else {
            Self::Other
        }
    }
}

/// The result of rewriting a `Location`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// The reference is right as it is.
    Unchanged,
    /// Replaced by this path-absolute reference, which begins with exactly one slash.
    Path(String),
    /// The reference points at another host: it is passed on or followed. A network-path reference
    /// (`//host/…`) has the scheme of the upstream.
    Foreign,
    /// The reference must not reach the client.
    Refused,
}

/// Rewrites the references of one response.
#[derive(Clone, Copy)]
pub struct Rewriter<'a> {
    /// The upstream that responded.
    pub upstream: Origin<'a>,
    /// Whether a name belongs to the virtual host.
    pub is_public: &'a dyn Fn(&HostName) -> bool,
    /// The path of the client's request: the base of relative references.
    pub request_path: &'a str,
}

impl Rewriter<'_> {
    /// Rewrites the value of a `Location` header.
    pub fn location(&self, value: &str, answer: ResponseKind) -> Rewritten {
        if !is_uri_text(value) {
            return Rewritten::Refused;
        }
        let rewritten = match ReferenceForm::parse(value) {
            Some(ReferenceForm::Absolute { https, rest }) => {
                return self.absolute(https, rest, answer);
            }
            Some(ReferenceForm::Network { rest }) => {
                return self.absolute(self.upstream.https, rest, answer);
            }
            Some(ReferenceForm::Path) => self.local(value),
            Some(ReferenceForm::Relative) => self.relative(value),
            None => None,
        };
        match rewritten {
            None => Rewritten::Refused,
            Some(path) if path == value => Rewritten::Unchanged,
            Some(path) => Rewritten::Path(path),
        }
    }

    /// `rest` begins with the authority.
    fn absolute(&self, https: bool, rest: &str, answer: ResponseKind) -> Rewritten {
        let (authority, target) = split_at_any(rest, &['/', '?', '#']);
        // This also refuses user information: `@` is in no host name.
        let Ok(authority) = Authority::parse(authority) else {
            return Rewritten::Refused;
        };
        let path = self.local(target);

        let port = authority.port.unwrap_or(if https { 443 } else { 80 });
        let Origin {
            https: upstream_https,
            host,
            port: upstream_port,
            base_path: _,
        } = self.upstream;
        let is_upstream =
            https == upstream_https && authority.host == *host && port == upstream_port;
        let is_registry = path.as_deref().is_some_and(is_below_v2);
        // A public name with a port may be storage on the same host (a presigned MinIO URL).
        let is_public =
            (is_registry || authority.port.is_none()) && (self.is_public)(&authority.host);
        if !(is_upstream || is_public || (answer == ResponseKind::Other && is_registry)) {
            return Rewritten::Foreign;
        }
        path.map_or(Rewritten::Refused, Rewritten::Path)
    }

    /// Converts a path-absolute reference of the upstream: removes dot segments (RFC 3986 §5.2.4)
    /// and the base path. The query is not changed.
    fn local(&self, target: &str) -> Option<String> {
        let (path, suffix) = split_at_any(target, &['?', '#']);
        let path = without_dot_segments(if path.is_empty() { "/" } else { path });
        let path = match path.strip_prefix(self.upstream.base_path) {
            Some("") => "/",
            Some(below) if below.starts_with('/') => below,
            Some(_) | None => &path,
        };
        // A second slash would make the next segment a host: an open redirect.
        let safe = path.starts_with('/')
            && !path.starts_with("//")
            && is_uri_text(path)
            && is_uri_text(suffix);
        safe.then(|| format!("{path}{suffix}"))
    }

    /// Resolves a relative reference against the request that the upstream received (RFC 3986
    /// §5.2.3).
    fn relative(&self, value: &str) -> Option<String> {
        let (directory, name) = self.request_path.rsplit_once('/')?;
        let base = self.upstream.base_path;
        if value.starts_with('?') {
            self.local(&format!("{base}{directory}/{name}{value}"))
        } else {
            self.local(&format!("{base}{directory}/{value}"))
        }
    }
}

/// The forms of a URI reference (RFC 3986 §4.1, §4.2).
enum ReferenceForm<'a> {
    Absolute { https: bool, rest: &'a str },
    Network { rest: &'a str },
    Path,
    Relative,
}

impl<'a> ReferenceForm<'a> {
    /// `None` for other schemes, http without an authority, and references to the same document.
    fn parse(value: &'a str) -> Option<Self> {
        if let Some(rest) = value.strip_prefix("//") {
            return Some(Self::Network { rest });
        }
        if value.starts_with('/') {
            return Some(Self::Path);
        }
        if value.is_empty() || value.starts_with('#') {
            return None;
        }
        // A relative reference has no colon in its first segment, so this is a scheme (§4.2).
        let (before, after) = split_at_any(value, &[':', '/', '?', '#']);
        let Some(after) = after.strip_prefix(':') else {
            return Some(Self::Relative);
        };
        let https = before.eq_ignore_ascii_case("https");
        if !https && !before.eq_ignore_ascii_case("http") {
            return None;
        }
        Some(Self::Absolute {
            https,
            rest: after.strip_prefix("//")?,
        })
    }
}

/// Whether a text has only characters of a URI, so that no client can interpret it differently.
fn is_uri_text(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>'))
}

fn is_below_v2(path: &str) -> bool {
    path.strip_prefix("/v2")
        .is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'/' | b'?' | b'#')))
}

fn without_dot_segments(path: &str) -> Cow<'_, str> {
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    if !path.split('/').any(is_dots) {
        return Cow::Borrowed(path);
    }
    let mut kept = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    // A directory stays a directory: `/a/b/..` becomes `/a/`.
    if path.rsplit('/').next().is_some_and(is_dots) {
        kept.push("");
    }
    Cow::Owned(format!("/{}", kept.join("/")))
}

/// Splits before the first of the characters. Without one the second part is empty.
fn split_at_any<'a>(text: &'a str, characters: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(characters).unwrap_or(text.len()))
}
