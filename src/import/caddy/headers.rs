//! Headers that a Caddyfile adds, changes or deletes.

use secrecy::SecretString;

use super::context::SiteContext;
use super::parser::Statement;
use super::site::{ImportedUpstream, UpstreamLogin};

/// A header of responses.
pub(super) fn response(statement: &Statement, name: &str, context: &mut SiteContext<'_>) {
    let bare = name
        .trim_start_matches(['+', '-', '?', '>'])
        .to_ascii_lowercase();
    if bare == "docker-distribution-api-version" {
        return context.redundant(statement, "every response below /v2/ has this header");
    }
    if matches!(bare.as_str(), "server" | "x-powered-by" | "via") && name.starts_with('-') {
        return context.redundant(statement, "moorgate forwards no such header");
    }
    if bare.starts_with("access-control-") {
        let text = "moorgate adds no CORS headers: a page of another origin cannot read the registry's responses, \
                    but one in [browser] is of the same origin";
        return context.decision(statement, text);
    }
    context.dropped(
        statement,
        "moorgate adds no headers of this kind, and registry clients read none: a page in [browser] can send its own",
    );
}

/// A header of requests to a server behind the site.
pub(super) fn request(statement: &Statement, arguments: &[&str], context: &mut SiteContext<'_>) {
    let name = arguments.first().copied().unwrap_or_default();
    let bare = name
        .trim_start_matches(['+', '-', '?'])
        .to_ascii_lowercase();
    if REDUNDANT.contains(&bare.as_str()) {
        return context.redundant(statement, "moorgate sets or removes this header itself");
    }
    context.decision(
        statement,
        "moorgate adds no headers to requests: see whether the registry needs it",
    );
}

/// The registry's own credentials.
pub(super) fn authorization(
    line: &Statement,
    value: &str,
    upstream: &mut ImportedUpstream,
    context: &mut SiteContext<'_>,
) {
    match basic(value) {
        Some((username, password)) => {
            upstream.login = Some(UpstreamLogin {
                username,
                password: SecretString::from(password),
            });
            context.translated(line, "`username` and `password` of the registry");
        }
        None => context.redundant(
            line,
            "credentials go to the registry by `authorization` in [upstream]",
        ),
    }
}

/// Whether a line passes the client's `Host` on; Caddy 1 does so only where it is told.
pub(super) fn sets_host(arguments: &[&str]) -> bool {
    arguments
        .first()
        .is_some_and(|name| name.eq_ignore_ascii_case("host"))
}

/// The user and password of `Authorization: Basic …`.
pub(super) fn basic(value: &str) -> Option<(String, String)> {
    use base64::Engine;
    let encoded = value.strip_prefix("Basic ")?.trim();
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

const REDUNDANT: &[&str] = &[
    "host",
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-ssl",
    "x-forwarded-server",
    "forwarded",
    "via",
    "connection",
    "upgrade",
    "authorization",
    "accept-encoding",
    "docker-distribution-api-version",
];
