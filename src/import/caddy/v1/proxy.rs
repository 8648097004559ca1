//! `proxy` of version 1: the longest path that matches wins. What gets `/v2/` is the registry, what
//! gets everything else the browser.

use secrecy::SecretString;

use crate::import::caddy::context::SiteContext;
use crate::import::caddy::headers;
use crate::import::caddy::parser::Statement;
use crate::import::caddy::scope::{RegistryScope, of_prefix};
use crate::import::caddy::site::{ImportedUpstream, RuleLimits, UpstreamLogin};
use crate::import::caddy::values;

/// Chooses the registry and the browser, and reports all proxies.
pub(super) fn servers(directives: &[Statement], context: &mut SiteContext<'_>) {
    let proxies: Vec<_> = directives
        .iter()
        .filter(|one| one.name() == "proxy")
        .collect();
    let of_registry = longest(
        &proxies,
        |path| of_prefix(path) == RegistryScope::Whole,
        "/v2/",
    );
    let of_pages = longest(&proxies, |path| "/".starts_with(path), "/");
    // A page below a path of its own, where nothing is at `/`.
    let of_pages = of_pages
        .filter(|page| !is_same(of_registry, page))
        .or_else(|| {
            let mut others = proxies.iter().copied();
            others.find(|proxy| of_prefix(path(proxy)) == RegistryScope::Outside)
        });
    if let Some(page) = of_pages.filter(|page| !"/".starts_with(path(page))) {
        part_of_pages(page, context);
    }
    for proxy in &proxies {
        if proxy.tokens.len() < 2 {
            context.error(proxy, "`proxy` has a path and an address");
            continue;
        }
        let is_registry = is_same(of_registry, proxy);
        if !is_registry && !is_same(of_pages, proxy) {
            other_server(proxy, context);
            continue;
        }
        let server = server(proxy, is_registry, context);
        if is_registry {
            context.site.registry = server;
        } else if prefix_removed(proxy) {
            context.decision(
                proxy,
                "moorgate removes no part of a path: [browser] is left out",
            );
        } else {
            context.site.browser = server;
        }
    }
}

/// What another registry answered must not be asked of this one.
fn other_server(proxy: &Statement, context: &mut SiteContext<'_>) {
    let text = "a domain has one registry and one server for all other paths: this one is left out";
    context.decision(proxy, text);
    let scope = of_prefix(path(proxy));
    if !matches!(scope, RegistryScope::Whole | RegistryScope::Outside) {
        context.denied(proxy, scope, RuleLimits::default());
    }
}

fn part_of_pages(page: &Statement, context: &mut SiteContext<'_>) {
    let text = "moorgate sends every path outside of /v2/ to [browser], and Caddy only these: [browser] is in a comment";
    context.decision(page, text);
    let reason = format!("Caddy sent only {} there", path(page));
    context.site.left_out.push(reason);
}

fn is_same(one: Option<&Statement>, other: &Statement) -> bool {
    one.is_some_and(|one| std::ptr::eq(one, other))
}

fn path(proxy: &Statement) -> &str {
    proxy.argument(1).unwrap_or_default()
}

fn prefix_removed(proxy: &Statement) -> bool {
    proxy.children().iter().any(|line| line.name() == "without")
}

/// The proxy with the longest path among those that match and do not except it.
fn longest<'s>(
    proxies: &[&'s Statement],
    matches: impl Fn(&str) -> bool,
    requested: &str,
) -> Option<&'s Statement> {
    let excepts = |proxy: &Statement| {
        let lines = proxy
            .children()
            .iter()
            .filter(|line| line.name() == "except");
        let mut paths = lines.flat_map(|line| line.arguments());
        paths.any(|path| {
            requested.starts_with(path) && path != "/"
                || of_prefix(path) == RegistryScope::Whole && requested == "/v2/"
        })
    };
    let matching = proxies.iter().copied();
    let matching = matching.filter(|proxy| matches(path(proxy)) && !excepts(proxy));
    // Of equals, the first.
    let longest = matching
        .clone()
        .map(|proxy| path(proxy).trim_end_matches('/').len())
        .max()?;
    matching
        .into_iter()
        .find(|proxy| path(proxy).trim_end_matches('/').len() == longest)
}

fn server(
    proxy: &Statement,
    is_registry: bool,
    context: &mut SiteContext<'_>,
) -> Option<ImportedUpstream> {
    let mut targets: Vec<&str> = proxy.arguments().split_off(1);
    let upstreams = proxy
        .children()
        .iter()
        .filter(|line| line.name() == "upstream");
    targets.extend(upstreams.filter_map(|line| line.argument(1)));
    let Some((first, others)) = targets.split_first() else {
        context.error(proxy, "`proxy` has a path and an address");
        return None;
    };
    let url = match values::upstream_url(first) {
        Ok(url) => url,
        Err(reason) => {
            context.decision(proxy, reason);
            return None;
        }
    };
    let place = if is_registry {
        "[upstream]"
    } else {
        "[browser]"
    };
    context.translated(proxy, format!("{place} url = \"{url}\""));
    let others = others.iter().filter_map(|to| values::upstream_url(to).ok());
    let others = others.collect();
    let mut upstream = ImportedUpstream {
        login: login(first),
        url,
        replicas: Vec::new(),
        others: Vec::new(),
        roots: None,
    };
    context.other_servers(proxy, others, &mut upstream, is_registry);
    for line in proxy.children() {
        option(line, &mut upstream, context);
        if line.name() == "except" {
            excepted(line, path(proxy), is_registry, context);
        }
    }
    if is_registry {
        report_changed_host(proxy, context);
    }
    Some(upstream)
}

fn report_changed_host(proxy: &Statement, context: &mut SiteContext<'_>) {
    let has_host = proxy.children().iter().any(|line| {
        line.name() == "transparent"
            || line.name() == "header_upstream" && headers::sets_host(&line.arguments())
    });
    if !has_host {
        context.report.differs(format!(
            "{}: Caddy told the registry its own name in place of the client's `Host`; moorgate passes `Host` on, so upload \
             addresses are right",
            proxy.at
        ));
    }
}

/// Paths that a proxy leaves to others. What the registry did not get must stay refused.
fn excepted(line: &Statement, from: &str, is_registry: bool, context: &mut SiteContext<'_>) {
    for path in line.arguments() {
        let path = format!(
            "{}/{}",
            from.trim_end_matches('/'),
            path.trim_start_matches('/')
        );
        match of_prefix(&path) {
            RegistryScope::Repositories(_) | RegistryScope::Catalog | RegistryScope::Unknown
                if is_registry =>
            {
                context.denied(line, of_prefix(&path), RuleLimits::default());
            }
            _ => context.translated(line, "[upstream] is /v2/, [browser] all other paths"),
        }
    }
}

/// User and password in an address.
fn login(target: &str) -> Option<UpstreamLogin> {
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    let (userinfo, _) = rest.split('/').next()?.rsplit_once('@')?;
    let (user, password) = userinfo.split_once(':')?;
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    Some(UpstreamLogin {
        username: decoded(user),
        password: SecretString::from(decoded(password)),
    })
}

fn option(line: &Statement, upstream: &mut ImportedUpstream, context: &mut SiteContext<'_>) {
    let arguments = line.arguments();
    match (line.name(), arguments.as_slice()) {
        ("transparent", _) => {
            context.redundant(line, "`Host` and the client's address are always passed on");
        }
        ("websocket", _) => context.redundant(line, "registries have no WebSockets"),
        ("upstream", _) => context.translated(line, "one more address, as in `proxy`"),
        ("header_upstream", [name, value]) if name.eq_ignore_ascii_case("authorization") => {
            headers::authorization(line, value, upstream, context)
        }
        ("header_upstream", arguments) => headers::request(line, arguments, context),
        ("header_downstream", [name, ..]) => headers::response(line, name, context),
        ("timeout", _) => context.timeout(line, "upstream_connect", "connecting takes 5 s at most"),
        ("insecure_skip_verify", _) if upstream.url.starts_with("https:") => context.decision(
            line,
            "the registry's certificate is verified: name its CA as `roots` in [upstream], or use http",
        ),
        ("insecure_skip_verify", _) => context.redundant(line, "the registry speaks http"),
        ("ca_certificates", [file]) => {
            upstream.roots = Some(context.existing_file(line, file));
            context.translated(line, "[upstream] roots");
        }
        ("ca_certificates", _) => context.decision(line, "put all CAs into one PEM file, and name it as `roots`"),
        ("tls_client", _) => context.decision(line, "moorgate shows no certificate of its own to a registry"),
        // By what it is about, see `excepted`.
        ("except", _) => {}
        ("without", _) => context.decision(line, "moorgate removes no part of a path"),
        ("health_check" | "health_check_interval" | "health_check_timeout" | "health_check_port" | "health_check_contains", _) => {
            context.dropped(line, "moorgate asks its one registry with each request: /readyz and `moorgate check --live` tell how it is");
        }
        ("policy" | "fail_timeout" | "max_fails" | "max_conns" | "try_duration" | "try_interval" | "fallback_delay" | "keepalive", _) => {
            context.dropped(line, "the pool of connections and the choice between replicas have rules of their own");
        }
        _ => context.decision(line, "this option of `proxy` is not known"),
    }
}
