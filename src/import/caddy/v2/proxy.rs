//! `reverse_proxy` of version 2: the server, and the options of the connection to it.

use super::matcher::is_matcher;
use crate::import::caddy::context::SiteContext;
use crate::import::caddy::headers;
use crate::import::caddy::parser::Statement;
use crate::import::caddy::site::ImportedUpstream;
use crate::import::caddy::values;

/// The addresses that a directive names.
pub(super) fn address(statement: &Statement) -> Vec<&str> {
    let mut targets = statement.arguments();
    if targets.first().is_some_and(|argument| is_matcher(argument)) {
        targets.remove(0);
    }
    let lines = statement
        .children()
        .iter()
        .filter(|line| line.name() == "to");
    targets.extend(lines.flat_map(Statement::arguments));
    targets
}

/// The server, with its options in the report.
pub(super) fn server(
    statement: &Statement,
    place: &str,
    context: &mut SiteContext<'_>,
) -> Option<ImportedUpstream> {
    let targets = address(statement);
    let Some((first, others)) = targets.split_first() else {
        context.decision(
            statement,
            "the servers are found while Caddy runs: write the address of the registry as `url`",
        );
        return None;
    };
    let first = context.variables.expand_placeholders(first, &statement.at);
    let url = match values::upstream_url(&first) {
        Ok(url) => url,
        Err(reason) => {
            context.decision(statement, reason);
            return None;
        }
    };
    let is_transport = |line: &&Statement| line.name() == "transport";
    let transports = statement.children().iter().filter(is_transport);
    let mut options = transports.flat_map(Statement::children);
    let is_secure = options.any(|line| line.name().starts_with("tls"));
    let secured = |url: String| match url.strip_prefix("http://") {
        Some(rest) if is_secure => format!("https://{rest}"),
        _ => url,
    };
    let url = secured(url);
    context.translated(statement, format!("{place} url = \"{url}\""));
    let others = others.iter().filter_map(|to| values::upstream_url(to).ok());
    let others = others.map(secured).collect();
    let mut upstream = ImportedUpstream {
        url,
        replicas: Vec::new(),
        others: Vec::new(),
        roots: None,
        login: None,
    };
    context.other_servers(statement, others, &mut upstream, place == "[upstream]");
    for line in statement.children() {
        option(line, &mut upstream, context);
    }
    Some(upstream)
}

fn option(line: &Statement, upstream: &mut ImportedUpstream, context: &mut SiteContext<'_>) {
    let arguments = line.arguments();
    match (line.name(), arguments.as_slice()) {
        ("to", _) => {}
        ("header_up", [name, value]) if name.eq_ignore_ascii_case("authorization") => {
            let value = context.variables.expand_placeholders(value, &line.at);
            headers::authorization(line, &value, upstream, context)
        }
        ("header_up", arguments) => headers::request(line, arguments, context),
        ("header_down", [name, ..]) => headers::response(line, name, context),
        ("transport", _) => {
            for line in line.children() {
                transport(line, upstream, context);
            }
        }
        ("flush_interval", _) => context.redundant(line, "nothing is buffered"),
        ("dynamic", _) => context.decision(line, "write the address of the registry as `url`"),
        ("rewrite" | "method" | "handle_response" | "replace_status", _) => {
            context.decision(line, "moorgate changes neither requests nor the status of responses");
        }
        (name, _) if name.starts_with("health_") => context.dropped(
            line,
            "moorgate asks its one registry with each request: /readyz and `moorgate check --live` tell how it is",
        ),
        (name, _) if name.starts_with("lb_") || FAILURES.contains(&name) => {
            context.dropped(line, "the pool of connections and the choice between replicas have rules of their own");
        }
        (name, _) if BUFFERS.contains(&name) => context.dropped(line, "nothing is buffered"),
        ("trusted_proxies", _) => context.decision(line, "name the proxies in front in `trusted_proxies` of moorgate.toml"),
        (name, _) if name.starts_with('@') => {}
        _ => context.decision(line, "this option of `reverse_proxy` is not known"),
    }
}

fn transport(line: &Statement, upstream: &mut ImportedUpstream, context: &mut SiteContext<'_>) {
    let arguments = line.arguments();
    match (line.name(), arguments.as_slice()) {
        ("tls", _) => context.translated(line, "`url` begins with https://"),
        ("dial_timeout", _) => context.timeout(line, "upstream_connect", "connecting takes 5 s at most"),
        ("response_header_timeout", [duration]) => {
            context.timeout(line, "upstream_head", "the registry has 2 min for a response");
            let longer = values::milliseconds(duration).filter(|one| *one > COMMIT_MILLISECONDS);
            if let Some(duration) = longer.and_then(|_| values::duration(duration)) {
                context.site.timeouts.insert("upstream_commit", duration);
            }
        }
        ("read_timeout" | "write_timeout" | "expect_continue_timeout", _) => context.dropped(
            line,
            "a transfer may take any time while it makes progress, and stand still for 2 min: see `stall` in [timeouts]",
        ),
        ("tls_insecure_skip_verify", _) => context.decision(
            line,
            "the registry's certificate is verified: name its CA as `roots` in [upstream], or use http",
        ),
        ("tls_trusted_ca_certs", [file]) | ("tls_trust_pool", ["file", file]) => {
            roots(line, file, upstream, context);
        }
        ("tls_trust_pool", ["file"]) => {
            let file = line.children().iter().find(|line| line.name() == "pem_file");
            match file.and_then(|file| file.argument(1)) {
                Some(file) => roots(line, file, upstream, context),
                None => context.decision(line, "write the CAs into a PEM file, and name it as `roots` in [upstream]"),
            }
        }
        ("tls_trusted_ca_certs" | "tls_trust_pool", _) => {
            context.decision(line, "write the CAs into one PEM file, and name it as `roots` in [upstream]");
        }
        ("tls_client_auth", _) => context.decision(line, "moorgate shows no certificate of its own to a registry"),
        ("tls_server_name", _) => context.decision(
            line,
            "the name in `url` is the one in the handshake: write the registry's own name there",
        ),
        (name, _) if name.starts_with("keepalive") || CONNECTIONS.contains(&name) => {
            context.dropped(line, "the pool of connections has settings of its own");
        }
        _ => context.decision(line, "this option of `transport` is not known"),
    }
}

fn roots(
    line: &Statement,
    file: &str,
    upstream: &mut ImportedUpstream,
    context: &mut SiteContext<'_>,
) {
    upstream.roots = Some(context.existing_file(line, file));
    context.translated(line, "[upstream] roots");
}

/// moorgate's own time for the end of an upload.
const COMMIT_MILLISECONDS: u64 = 15 * 60 * 1000;
const FAILURES: &[&str] = &[
    "fail_duration",
    "max_fails",
    "unhealthy_status",
    "unhealthy_latency",
    "unhealthy_request_count",
];
const BUFFERS: &[&str] = &[
    "buffer_requests",
    "buffer_responses",
    "max_buffer_size",
    "request_buffers",
    "response_buffers",
    "stream_timeout",
    "stream_close_delay",
    "verbose_logs",
];
const CONNECTIONS: &[&str] = &[
    "versions",
    "compression",
    "max_conns_per_host",
    "read_buffer",
    "write_buffer",
    "max_response_header",
    "resolvers",
    "dial_fallback_delay",
    "tls_timeout",
    "tls_renegotiation",
    "tls_except_ports",
    "tls_curves",
    "local_address",
    "forward_proxy_url",
    "network_proxy",
];
