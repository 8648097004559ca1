//! Translates a site of version 1: each of its directives, whose order does not matter.

mod login;
mod proxy;
mod tls;

use super::address::{SiteAddress, SiteScheme};
use super::context::SiteContext;
use super::lexer::CaddyToken;
use super::parser::Statement;
use super::report::DirectiveOutcome;
use super::scope;
use super::site::{RuleLimits, SiteCertificate};
use super::values;

/// Translates the directives of a site.
pub(super) fn site(directives: &[Statement], context: &mut SiteContext<'_>) {
    for statement in directives {
        directive(statement, context);
    }
    tls::certificate(directives, context);
    proxy::servers(directives, context);
    login::users(directives, context);
    ports(context);
}

fn directive(statement: &Statement, context: &mut SiteContext<'_>) {
    let argument = |index| statement.argument(index).unwrap_or_default();
    match statement.name() {
        // Of all statements of a kind together.
        "tls" | "proxy" | "basicauth" => {}
        "limits" => limits(statement, context),
        "timeouts" => timeouts(statement, context),
        "header" => headers(statement, context),
        "redir" => redirect(statement, context),
        "status" => refused(
            statement,
            &statement
                .arguments()
                .split_off(1.min(statement.tokens.len() - 1)),
            context,
        ),
        "internal" => refused(statement, &statement.arguments(), context),
        "bind" => context.bind(statement),
        "log" => log(statement, context),
        "rewrite" if is_about_registry(argument(1)) => context.decision(
            statement,
            "moorgate forwards the path as it is: the registry has to serve it below /v2/",
        ),
        name if let Some((_, reason)) = DROPPED.iter().find(|(known, _)| *known == name) => {
            context.dropped(statement, *reason);
        }
        name if let Some((_, reason)) = PLUGINS.iter().find(|(known, _)| *known == name) => {
            context.decision(statement, *reason);
        }
        _ => context.closed(
            statement,
            "this directive is of a plugin, and may refuse requests",
        ),
    }
}

/// Whether a path that begins so can be below `/v2/`; a pattern is taken for one that can.
fn is_about_registry(path: &str) -> bool {
    !path.starts_with('/') || scope::of_prefix(path) != scope::RegistryScope::Outside
}

fn limits(statement: &Statement, context: &mut SiteContext<'_>) {
    if let Some(size) = statement.argument(1) {
        context.body_limit(statement, values::binary_size(size));
    }
    for limit in statement.children() {
        match (limit.name(), limit.arguments().as_slice()) {
            ("header", [size]) => match values::binary_size(size) {
                Some(size) if (MIN_HEAD..=MAX_HEAD).contains(&size) => {
                    let process = &mut context.process;
                    let least = process.head_limit.map_or(size, |other| other.min(size));
                    process.head_limit = Some(least);
                    context.translated(limit, format!("[limits] head = {least}"));
                }
                _ => context.dropped(limit, "moorgate takes request heads of up to 32 KiB"),
            },
            ("body", [size]) => context.body_limit(limit, values::binary_size(size)),
            ("body", [path, size]) if scope::of_prefix(path) == scope::RegistryScope::Whole => {
                context.body_limit(limit, values::binary_size(size));
            }
            ("body", [_, _]) => context.decision(limit, "a limit is for a domain, not for a path"),
            _ => context.error(limit, "`limits` has `header SIZE` and `body [PATH] SIZE`"),
        }
    }
}

fn timeouts(statement: &Statement, context: &mut SiteContext<'_>) {
    if statement.tokens.len() > 1 {
        context.dropped(
            statement,
            "moorgate's timeouts measure progress and never the total: long transfers need no exception",
        );
    }
    for timeout in statement.children() {
        let duration = timeout.argument(1).and_then(values::duration);
        match (timeout.name(), duration) {
            ("idle", Some(duration)) => {
                context.translated(timeout, format!("[timeouts] idle = \"{duration}\""));
                context.process.timeouts.insert("idle", duration);
            }
            ("read" | "header" | "write" | "idle", _) => context.dropped(
                timeout,
                "moorgate's timeouts measure progress and never the total",
            ),
            _ => context.error(timeout, "`timeouts` has read, header, write and idle"),
        }
    }
}

fn headers(statement: &Statement, context: &mut SiteContext<'_>) {
    let single = statement.argument(2).map(|name| (statement, name));
    let many = statement
        .children()
        .iter()
        .map(|header| (header, header.name()));
    for (header, name) in single.into_iter().chain(many) {
        super::headers::response(header, name, context);
    }
}

/// To https is what moorgate does anyway; of a whole site to another one, there is no registry.
fn redirect(statement: &Statement, context: &mut SiteContext<'_>) {
    let condition = statement
        .children()
        .iter()
        .any(|line| line.name() == "if" && line.arguments() == ["{scheme}", "is", "http"]);
    let targets = statement.children().iter().flat_map(|line| &line.tokens);
    let all: Vec<&str> = statement
        .tokens
        .iter()
        .chain(targets)
        .map(|t| t.text.as_str())
        .collect();
    let is_own_name = all.iter().any(|text| {
        text.strip_prefix("https://").is_some_and(|rest| {
            rest.starts_with("{host}")
                || rest.starts_with("{hostonly}")
                || context
                    .site
                    .addresses
                    .iter()
                    .any(|a| !a.host.is_empty() && rest.starts_with(&a.host))
        })
    });
    if is_own_name || condition {
        return context.redundant(statement, "plain HTTP is always redirected to https");
    }
    let from = statement.argument(1).unwrap_or_default();
    let is_path = statement.tokens.len() > 2 && from.starts_with('/') && from != "/";
    if is_path && scope::of_prefix(from) == scope::RegistryScope::Outside {
        context.dropped(statement, "moorgate redirects nothing but plain HTTP");
    } else {
        context.decision(statement, "moorgate redirects nothing but plain HTTP");
    }
}

fn refused(statement: &Statement, paths: &[&str], context: &mut SiteContext<'_>) {
    let in_block = statement.children().iter().map(|line| line.name());
    let paths: Vec<&str> = paths.iter().copied().chain(in_block).collect();
    for path in paths {
        context.denied(statement, scope::of_prefix(path), RuleLimits::default());
    }
}

fn log(statement: &Statement, context: &mut SiteContext<'_>) {
    let arguments = statement.arguments();
    let target = match arguments.as_slice() {
        [] => "access.log",
        [file] => file,
        [_, file, ..] => file,
    };
    if matches!(target, "stdout" | "stderr") {
        context.redundant(statement, "the access log is written to standard output");
    } else {
        let text = "the access log goes to standard output, in moorgate's format: the service manager stores and rotates it";
        context.dropped(statement, text);
    }
}

/// Gives each address its scheme and port, as version 1 chooses them.
fn ports(context: &mut SiteContext<'_>) {
    let (http, https) = (
        context.process.http_port.unwrap_or(80),
        context.process.https_port.unwrap_or(443),
    );
    let default = context.process.default_port.unwrap_or(DEFAULT_PORT);
    let certificate = context.site.certificate.clone();
    let mut trapped = Vec::new();
    for address in &mut context.site.addresses {
        let is_managed = matches!(
            certificate,
            SiteCertificate::Automatic | SiteCertificate::Acme { .. }
        ) && address.is_public();
        let is_tls = match (address.scheme, address.port) {
            (Some(SiteScheme::Http), _) | (_, Some(80)) => false,
            (Some(SiteScheme::Https), _) => true,
            _ => {
                is_managed
                    || matches!(
                        certificate,
                        SiteCertificate::Files { .. } | SiteCertificate::Internal
                    )
            }
        };
        let is_tls = is_tls && certificate != SiteCertificate::Plain;
        let port = match (address.port, address.scheme) {
            (Some(port), _) => port,
            (None, Some(SiteScheme::Https)) => https,
            (None, Some(SiteScheme::Http)) => http,
            (None, None) if is_managed => https,
            (None, None) => default,
        };
        if address.port.is_none() && address.scheme.is_none() && port == DEFAULT_PORT {
            trapped.push(address.at.clone());
        }
        address.scheme = Some(if is_tls {
            SiteScheme::Https
        } else {
            SiteScheme::Http
        });
        address.port = Some(port);
    }
    for at in trapped {
        let text = "Caddy 1 serves an address without a port and without a certificate of its own at port 2015, and \
                    so does moorgate now: for the standard port, write listen = [\":443\"]";
        context
            .report
            .add_at(&at, "address", DirectiveOutcome::Translated, text);
    }
}

/// The addresses of a site; `None` with an error in the report.
pub(super) fn address(token: &CaddyToken) -> Option<SiteAddress> {
    SiteAddress::parse(token.text.trim_end_matches(','), &token.at)
}

const DEFAULT_PORT: u16 = 2015;
const MIN_HEAD: u64 = 4 << 10;
const MAX_HEAD: u64 = 256 << 10;

/// Directives of Caddy itself that a registry needs no setting for.
const DROPPED: &[(&str, &str)] = &[
    ("root", "moorgate serves no files"),
    ("rewrite", "moorgate serves no files"),
    ("index", "moorgate serves no files"),
    ("ext", "moorgate serves no files"),
    ("browse", "moorgate serves no files"),
    ("markdown", "moorgate serves no files"),
    ("mime", "moorgate serves no files"),
    ("templates", "moorgate serves no files"),
    ("push", "moorgate serves no files"),
    ("fastcgi", "moorgate speaks http and https to a registry"),
    (
        "gzip",
        "layers are compressed already, and a digest is that of the bytes as they are",
    ),
    (
        "errors",
        "moorgate answers errors in the form that registry clients read",
    ),
    ("websocket", "registries have no WebSockets"),
    ("request_id", "each request has an id in the access log"),
    ("expvar", "see /status and /metrics of the admin listener"),
    ("pprof", "see /status and /metrics of the admin listener"),
    ("on", "moorgate starts no programs"),
    ("startup", "moorgate starts no programs"),
    ("shutdown", "moorgate starts no programs"),
    (
        "expires",
        "responses of a registry say themselves how long they are valid",
    ),
    ("cache", "moorgate caches nothing"),
    ("minify", "moorgate forwards bodies unchanged"),
    ("git", "moorgate serves no files"),
    ("prometheus", "see /metrics of the admin listener"),
];

/// Plugins that refuse nobody, and need a setting that only the administrator knows.
const PLUGINS: &[(&str, &str)] = &[
    (
        "realip",
        "name the proxies in front in `trusted_proxies` of moorgate.toml",
    ),
    (
        "cors",
        "moorgate adds no CORS headers: a page of another origin cannot read the registry's responses",
    ),
];
