//! What behaves differently from now on: holes of Caddy that close, one by one, and answers that are
//! not the same.

use super::lexer::CaddyVersion;
use super::placement::PlacedSite;
use super::report::ImportReport;

/// Adds the differences of a site.
pub(super) fn report(placed: &PlacedSite<'_>, version: CaddyVersion, report: &mut ImportReport) {
    let common = if placed.site.access.users.is_empty() {
        &[]
    } else {
        LOGINS
    };
    let own = match version {
        CaddyVersion::V1 => V1,
        CaddyVersion::V2 => V2,
    };
    let pages = if placed.site.browser.is_some() {
        WITH_BROWSER
    } else {
        WITHOUT_BROWSER
    };
    for text in own.iter().chain(common).chain(pages).chain(ALL) {
        report.differs(*text);
    }
}

const V1: &[&str] = &[
    "OPTIONS requests need a login like all others: Caddy 1 never asked them for one.",
    "Paths are compared exactly: for Caddy 1, a rule for /v2 was also one for /v2x and /V2. Outside of /v2/ there is no \
     registry any more.",
    "X-Forwarded-For of clients is dropped: Caddy 1 added to whatever they sent. Proxies in front are named in \
     `trusted_proxies`.",
    "htpasswd files are read again when they change: Caddy 1 read them once.",
    "A `#` inside a word without quotes begins a comment in Caddy 1: a password `ab#cd` is `ab`, then and now.",
    "The body of an upload is never held in memory, whatever the number of tries.",
];

const V2: &[&str] = &[
    "/v2 without a slash at its end is no path of the registry: a login for /v2/* did not cover it in Caddy.",
    "HTTP/3 is not offered, and there are no `Alt-Svc` and `Server: Caddy` headers.",
    "OPTIONS is no method of a registry: it needs a login, and gets 405.",
];

const LOGINS: &[&str] = &[
    "The login does not reach the registry any more: if the registry verifies the same passwords, write authorization = \
     \"pass\" in [upstream].",
    "Wrong passwords in a row are answered with 429 for a while.",
    "A refused login is answered in the form that registry clients read, with the challenge as before.",
];

const WITH_BROWSER: &[&str] =
    &["Pages outside of /v2/ need the same login, and the right to pull everything."];
const WITHOUT_BROWSER: &[&str] =
    &["Paths outside of /v2/ are no longer forwarded to the registry."];

const ALL: &[&str] = &[
    "A name that no domain has is refused in the handshake: Caddy answered with an empty page or the first site.",
    "Plain HTTP is answered with a redirect, and serves nothing else.",
    "Errors below /v2/ are JSON with a registry's error codes.",
    "Timeouts measure progress and never the total of a transfer; bodies are neither buffered nor compressed.",
];
