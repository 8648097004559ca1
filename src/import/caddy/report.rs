//! What became of each directive, what behaves differently from now on, and what somebody has to
//! decide. As text and as JSON. Never contains a password or a hash.

use std::fmt::Write;

use serde_json::{Value, json};

use super::parser::Statement;
use super::position::SourcePosition;

/// What became of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DirectiveOutcome {
    /// It is a setting now.
    Translated,
    /// moorgate does so without a setting.
    Redundant,
    /// There is no such setting, and none is missing.
    Dropped,
    /// Somebody has to decide. Until then, the stricter choice applies.
    Decision,
    /// Caddy refuses it as well, or it cannot be understood. Nothing is written.
    Error,
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReportedDirective {
    pub(crate) at: SourcePosition,
    pub(crate) directive: String,
    pub(crate) outcome: DirectiveOutcome,
    pub(crate) text: String,
}

/// The report of an import.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImportReport {
    pub(crate) version: u8,
    pub(crate) read: Vec<String>,
    pub(crate) directives: Vec<ReportedDirective>,
    pub(crate) differences: Vec<String>,
    /// The problems that `moorgate check` finds in the result.
    pub(crate) problems: Vec<String>,
    pub(crate) has_check_errors: bool,
    pub(crate) files: Vec<String>,
    pub(crate) next_steps: Vec<String>,
}

impl ImportReport {
    pub(super) fn add(
        &mut self,
        statement: &Statement,
        outcome: DirectiveOutcome,
        text: impl Into<String>,
    ) {
        self.add_at(&statement.at, shown(statement), outcome, text);
    }

    pub(super) fn add_at(
        &mut self,
        at: &SourcePosition,
        directive: impl Into<String>,
        outcome: DirectiveOutcome,
        text: impl Into<String>,
    ) {
        let reported = ReportedDirective {
            at: at.clone(),
            directive: directive.into(),
            outcome,
            text: text.into(),
        };
        if !self.directives.contains(&reported) {
            self.directives.push(reported);
        }
    }

    /// Something that is no longer as it was in Caddy.
    pub(super) fn differs(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.differences.contains(&text) {
            self.differences.push(text);
        }
    }

    pub(crate) fn count(&self, outcome: DirectiveOutcome) -> usize {
        let directives = self.directives.iter();
        directives.filter(|one| one.outcome == outcome).count()
    }

    pub(crate) fn text(&self, dry_run: bool) -> String {
        let mut text = String::new();
        let files = self.read.join(", ");
        let _ = writeln!(text, "Caddy {}: {files}", self.version);
        for (title, outcomes) in SECTIONS {
            let matching = self.directives.iter();
            let matching = matching.filter(|one| outcomes.contains(&one.outcome));
            let lines: Vec<_> = matching.map(directive_line).collect();
            section(&mut text, title, &lines);
        }
        section(&mut text, "Different from now on", &self.differences);
        let written = if dry_run { "Would write" } else { "Written" };
        section(&mut text, written, &self.files);
        section(&mut text, "Found by `moorgate check`", &self.problems);
        section(&mut text, "Next", &self.next_steps);
        text
    }

    pub(crate) fn json(&self, dry_run: bool) -> Value {
        let directives = self.directives.iter().map(|one| {
            json!({
                "file": one.at.file.display().to_string(),
                "line": one.at.line,
                "column": one.at.column,
                "directive": one.directive,
                "outcome": one.outcome,
                "text": one.text,
            })
        });
        json!({
            "version": self.version,
            "read": self.read,
            "dry_run": dry_run,
            "directives": directives.collect::<Vec<_>>(),
            "differences": self.differences,
            "files": self.files,
            "problems": self.problems,
            "next": self.next_steps,
        })
    }
}

fn directive_line(one: &ReportedDirective) -> String {
    let text = match one.outcome {
        DirectiveOutcome::Redundant => format!("not needed: {}", one.text),
        _ => one.text.clone(),
    };
    format!("{}  {}  -> {text}", one.at, one.directive)
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for line in lines {
        let _ = writeln!(text, "  {}", line.replace('\n', "\n    "));
    }
}

/// A statement without its block, and without what may be a secret.
pub(super) fn shown(statement: &Statement) -> String {
    if statement.tokens.is_empty() {
        return "global options".to_owned();
    }
    let name = statement.name();
    if !HARMLESS.contains(&name) && !name.starts_with('@') {
        return one_line(name);
    }
    let tokens = statement
        .tokens
        .iter()
        .map(|token| without_login(&token.text));
    one_line(&tokens.collect::<Vec<_>>().join(" "))
}

/// A URL, with or without a scheme, without user and password.
fn without_login(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    match rest.rsplit_once('@') {
        Some((user, host)) if !scheme.is_empty() || user.contains(':') => {
            format!("{scheme}{host}")
        }
        _ => text.to_owned(),
    }
}

/// Control characters, which a file may hold in quotes, must not reach a terminal.
pub(super) fn one_line(text: &str) -> String {
    let safe = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut safe: String = safe.take(MAX_SHOWN + 1).collect();
    if safe.chars().count() > MAX_SHOWN {
        safe.pop();
        safe.push('…');
    }
    safe
}

/// In characters.
const MAX_SHOWN: usize = 100;

const SECTIONS: &[(&str, &[DirectiveOutcome])] = &[
    ("Errors", &[DirectiveOutcome::Error]),
    (
        "Translated",
        &[DirectiveOutcome::Translated, DirectiveOutcome::Redundant],
    ),
    ("Dropped", &[DirectiveOutcome::Dropped]),
    ("Needs a decision", &[DirectiveOutcome::Decision]),
];

/// Directives whose arguments are no secrets.
const HARMLESS: &[&str] = &[
    "tls",
    "proxy",
    "reverse_proxy",
    "to",
    "upstream",
    "gzip",
    "encode",
    "log",
    "errors",
    "header",
    "limits",
    "timeouts",
    "root",
    "rewrite",
    "redir",
    "status",
    "internal",
    "bind",
    "index",
    "ext",
    "browse",
    "websocket",
    "transparent",
    "policy",
    "fail_timeout",
    "max_fails",
    "max_conns",
    "try_duration",
    "try_interval",
    "health_check",
    "health_check_interval",
    "health_check_timeout",
    "health_check_port",
    "without",
    "except",
    "insecure_skip_verify",
    "ca_certificates",
    "tls_client",
    "keepalive",
    "timeout",
    "fallback_delay",
    "handle",
    "handle_path",
    "route",
    "respond",
    "abort",
    "error",
    "request_body",
    "flush_interval",
    "lb_policy",
    "lb_try_duration",
    "lb_try_interval",
    "lb_retries",
    "health_uri",
    "health_path",
    "health_port",
    "health_interval",
    "health_timeout",
    "health_status",
    "fail_duration",
    "max_size",
    "dial_timeout",
    "transport",
    "response_header_timeout",
    "read_timeout",
    "write_timeout",
    "tls_insecure_skip_verify",
    "tls_trusted_ca_certs",
    "tls_trust_pool",
    "tls_server_name",
    "versions",
    "email",
    "acme_ca",
    "acme_ca_root",
    "admin",
    "auto_https",
    "default_sni",
    "http_port",
    "https_port",
    "grace_period",
    "storage",
    "servers",
    "metrics",
    "order",
    "local_certs",
    "cert_issuer",
    "renewal_window_ratio",
    "debug",
    "protocols",
    "trusted_proxies",
    "strict_sni_host",
    "max_header_size",
    "import",
    "file_server",
    "uri",
    "try_files",
    "ca",
    "ca_root",
    "key_type",
    "ciphers",
    "curves",
    "alpn",
    "clients",
    "issuer",
    "client_auth",
    "must_staple",
    "on_demand",
    "load",
    "max_certs",
    "wildcard",
    "ask",
    "idle",
    "read",
    "write",
    "body",
    "persist_config",
];
