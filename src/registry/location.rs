//! Interprets `Location` and `Link` of upstream responses: which references lead to the registry
//! itself, whatever name it has for itself, and to which path there.

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

/// Where a reference leads. A path begins with exactly one slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// To this path below the base path of the registry.
    Path(String),
    /// To this path of the registry's host, beside the base path.
    Beside(String),
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
    /// The host and port of the client's request, from which a registry may make its own URLs;
    /// empty if it does not know them.
    pub public_host: &'a str,
    /// The path of the request that the upstream received: the base of relative references.
    pub request_path: &'a str,
}

impl Rewriter<'_> {
    /// Rewrites the value of a `Location` header.
    pub fn location(&self, value: &str, answer: ResponseKind) -> Rewritten {
        if !is_uri_text(value) {
            return Rewritten::Refused;
        }
        let local = match ReferenceForm::parse(value) {
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
        local.unwrap_or(Rewritten::Refused)
    }

    /// `rest` begins with the authority.
    fn absolute(&self, https: bool, rest: &str, answer: ResponseKind) -> Rewritten {
        let (authority, target) = split_at_any(rest, &['/', '?', '#']);
        let is_requested = authority.eq_ignore_ascii_case(self.public_host);
        // This also refuses user information: `@` is in no host name.
        let Ok(authority) = Authority::parse(authority) else {
            return Rewritten::Refused;
        };
        let local = self.local(target);

        let is_registry = local.as_ref().is_some_and(Rewritten::is_below_v2);
        let is_own = is_requested
            || self.is_upstream(https, &authority, answer)
            // A public name with a port may be storage on the same host (a presigned MinIO URL).
            || ((is_registry || authority.port.is_none()) && (self.is_public)(&authority.host))
            || (answer == ResponseKind::Other && is_registry);
        if is_own {
            local.unwrap_or(Rewritten::Refused)
        } else {
            Rewritten::Foreign
        }
    }

    /// Whether an authority is the upstream's. The scheme says nothing: a registry may take that of
    /// the client for its own. Another port may be that of a storage, to which only redirects lead.
    fn is_upstream(&self, https: bool, authority: &Authority, answer: ResponseKind) -> bool {
        let port = authority.port.unwrap_or(if https { 443 } else { 80 });
        authority.host == *self.upstream.host
            && (port == self.upstream.port || answer == ResponseKind::Other)
    }

    /// Converts a path-absolute reference of the upstream: removes dot segments (RFC 3986 §5.2.4)
    /// and the base path. The query is not changed.
    fn local(&self, target: &str) -> Option<Rewritten> {
        let (path, suffix) = split_at_any(target, &['?', '#']);
        let path = without_dot_segments(if path.is_empty() { "/" } else { path });
        let (path, is_below) = match path.strip_prefix(self.upstream.base_path) {
            Some("") => ("/", true),
            Some(below) if below.starts_with('/') => (below, true),
            // A registry may not know the path under which it is served.
            Some(_) | None => (&*path, is_below_v2(&path)),
        };
        // A second slash would make the next segment a host: an open redirect.
        let safe = path.starts_with('/')
            && !path.starts_with("//")
            && is_uri_text(path)
            && is_uri_text(suffix);
        if !safe {
            return None;
        }
        let path = format!("{path}{suffix}");
        Some(if is_below {
            Rewritten::Path(path)
        } else {
            Rewritten::Beside(path)
        })
    }

    /// Resolves a relative reference against the request that the upstream received (RFC 3986
    /// §5.2.3).
    fn relative(&self, value: &str) -> Option<Rewritten> {
        let (directory, name) = self.request_path.rsplit_once('/')?;
        if value.starts_with('?') {
            self.local(&format!("{directory}/{name}{value}"))
        } else {
            self.local(&format!("{directory}/{value}"))
        }
    }
}

impl Rewritten {
    fn is_below_v2(&self) -> bool {
        matches!(self, Self::Path(path) if is_below_v2(path))
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
