//! What a site of version 1 takes from the command line of Caddy, as in `command` of a compose file.

use std::path::Path;

use super::context::SiteContext;
use super::position::SourcePosition;
use super::report::DirectiveOutcome;
use super::site::{ImportedAuthority, ImportedProcess};
use super::values;

/// Translates flags like `-email ops@example.com -http-port=8080`.
pub(super) fn translate(arguments: &str, context: &mut SiteContext<'_>) {
    let mut remaining = arguments.split_whitespace();
    let mut column = 0;
    while let Some(argument) = remaining.next() {
        column += 1;
        let Some(flag) = argument.strip_prefix('-') else {
            continue;
        };
        let flag = flag.trim_start_matches('-');
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if SWITCHES.contains(&flag) => (flag, String::new()),
            None => {
                column += 1;
                (flag, remaining.next().unwrap_or_default().to_owned())
            }
        };
        let at = SourcePosition {
            file: Path::new("--caddy-arguments").into(),
            line: 1,
            column,
        };
        let (outcome, text) = flag_outcome(name, &value, context);
        context
            .report
            .add_at(&at, format!("-{name}"), outcome, text);
    }
}

fn flag_outcome(
    name: &str,
    value: &str,
    context: &mut SiteContext<'_>,
) -> (DirectiveOutcome, &'static str) {
    use DirectiveOutcome::{Decision, Dropped, Redundant, Translated};
    let process = &mut *context.process;
    match name {
        "email" => {
            process.email = Some(value.to_owned());
            (Translated, "[acme] email")
        }
        "ca" => {
            process.authority = Some(ImportedAuthority {
                directory: super::authority::directory(value),
                ..ImportedAuthority::default()
            });
            (Translated, "[[ca]] directory")
        }
        "http-port" | "https-port" | "port" => port(name, value, process),
        "disable-http-challenge" => {
            process.challenges.push("tls-alpn-01");
            (Translated, "[acme] challenges")
        }
        "disable-tls-alpn-challenge" => {
            process.challenges.push("http-01");
            (Translated, "[acme] challenges")
        }
        "grace" => match values::duration(value) {
            Some(duration) => {
                process.timeouts.insert("drain", duration);
                (Translated, "[timeouts] drain")
            }
            None => (Dropped, "a stop waits for running transfers"),
        },
        "agree" => (
            Redundant,
            "`acme` in a domain file agrees to the terms of the CA",
        ),
        "host" => (Decision, "name the domain by `--domain NAME`"),
        _ if OTHERS.contains(&name) => (Dropped, "moorgate has no such option"),
        _ => (Decision, "this option is not known"),
    }
}

fn port(
    name: &str,
    value: &str,
    process: &mut ImportedProcess,
) -> (DirectiveOutcome, &'static str) {
    let Ok(port) = value.parse() else {
        return (DirectiveOutcome::Error, "this is no port");
    };
    match name {
        "http-port" => process.http_port = Some(port),
        "https-port" => process.https_port = Some(port),
        _ => process.default_port = Some(port),
    }
    (
        DirectiveOutcome::Translated,
        "the port of addresses that name none",
    )
}

/// Flags without a value.
const SWITCHES: &[&str] = &[
    "agree",
    "quic",
    "disable-http-challenge",
    "disable-tls-alpn-challenge",
    "version",
    "plugins",
    "validate",
    "environ",
    "watch",
    "resume",
    "pingback",
    "force",
    "http2",
];
const OTHERS: &[&str] = &[
    "conf",
    "config",
    "adapter",
    "log",
    "log-b",
    "root",
    "quic",
    "http2",
    "pidfile",
    "cpu",
    "type",
    "catimeout",
    "default-sni",
    "envfile",
    "environ",
    "watch",
    "resume",
    "revoke",
    "validate",
    "plugins",
    "version",
    "disabled-metrics",
    "log-roll-mb",
    "log-roll-compress",
    "event",
    "pingback",
    "force",
];
