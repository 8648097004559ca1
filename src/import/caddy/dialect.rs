//! Recognizes the version of a Caddyfile by directives that only one of them has.

use super::expansion::ExpandedFile;
use super::lexer::CaddyVersion;
use super::parser::Statement;
use super::position::SourcePosition;

/// What in a file belongs to which version; each with its first place.
#[derive(Debug, Default)]
pub(super) struct VersionMarks {
    v1: Option<(String, SourcePosition)>,
    v2: Option<(String, SourcePosition)>,
}

/// Why the version is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownVersion {
    #[error(
        "nothing in the file says whether it is of version 1 or 2: give `--version 1` or `--version 2`"
    )]
    Unmarked,
    #[error(
        "{first}: `{v1}` is of version 1, and {second}: `{v2}` of version 2: give `--version 1` or `--version 2`"
    )]
    Mixed {
        v1: String,
        first: SourcePosition,
        v2: String,
        second: SourcePosition,
    },
}

impl VersionMarks {
    pub(super) fn collect(&mut self, file: &ExpandedFile) {
        if let Some(option) = file.options.first() {
            self.mark(CaddyVersion::V2, "global options", option);
        }
        for site in &file.sites {
            self.statements(&site.directives, 0);
        }
    }

    fn statements(&mut self, statements: &[Statement], depth: usize) {
        for statement in statements {
            let name = statement.name();
            let (v1, v2) = if depth == 0 {
                (V1_DIRECTIVES, V2_DIRECTIVES)
            } else {
                (V1_SUBDIRECTIVES, V2_SUBDIRECTIVES)
            };
            let second = statement.argument(1).unwrap_or_default();
            let is_v1_tls = name == "tls" && matches!(second, "off" | "self_signed");
            let is_v2_tls = name == "tls" && second == "internal";
            let is_v1_log =
                name == "log" && statement.tokens.len() > 1 && statement.block.is_none();
            let is_v1_login = name == "basicauth"
                && depth == 0
                && statement.tokens.len() >= 3
                && !second.starts_with('@')
                && !statement
                    .arguments()
                    .iter()
                    .any(|argument| HASHES.contains(argument));
            if v1.contains(&name) || is_v1_tls || is_v1_log || is_v1_login {
                self.mark(CaddyVersion::V1, name, statement);
            }
            if v2.contains(&name) || is_v2_tls || name.starts_with('@') {
                self.mark(CaddyVersion::V2, name, statement);
            }
            // Version 1 has no directives inside of directives.
            let inner = if matches!(name, "handle" | "handle_path" | "route") {
                0
            } else {
                depth + 1
            };
            self.statements(statement.children(), inner);
        }
    }

    fn mark(&mut self, version: CaddyVersion, name: &str, statement: &Statement) {
        let mark = match version {
            CaddyVersion::V1 => &mut self.v1,
            CaddyVersion::V2 => &mut self.v2,
        };
        mark.get_or_insert_with(|| (name.to_owned(), statement.at.clone()));
    }

    pub(super) fn version(self) -> Result<CaddyVersion, UnknownVersion> {
        match (self.v1, self.v2) {
            (Some(_), None) => Ok(CaddyVersion::V1),
            (None, Some(_)) => Ok(CaddyVersion::V2),
            (None, None) => Err(UnknownVersion::Unmarked),
            (Some((v1, first)), Some((v2, second))) => Err(UnknownVersion::Mixed {
                v1,
                first,
                v2,
                second,
            }),
        }
    }
}

/// The algorithms that `basicauth` of version 2 may name.
const HASHES: &[&str] = &["bcrypt", "argon2id", "scrypt"];
/// Of sites in version 1 alone.
const V1_DIRECTIVES: &[&str] = &[
    "proxy",
    "gzip",
    "errors",
    "limits",
    "timeouts",
    "status",
    "internal",
    "ext",
    "browse",
    "websocket",
    "fastcgi",
    "mime",
    "markdown",
    "expvar",
    "pprof",
    "on",
    "startup",
    "shutdown",
    "index",
    "request_id",
    "realip",
    "cors",
    "ratelimit",
    "ipfilter",
    "git",
    "cache",
    "expires",
];
const V1_SUBDIRECTIVES: &[&str] = &[
    "transparent",
    "websocket",
    "header_upstream",
    "header_downstream",
    "without",
    "except",
    "rotate_size",
    "rotate_age",
    "rotate_keep",
    "rotate_compress",
    "insecure_skip_verify",
    "try_duration",
    "max_conns",
    "self_signed",
];
/// Of sites in version 2 alone.
const V2_DIRECTIVES: &[&str] = &[
    "reverse_proxy",
    "basic_auth",
    "encode",
    "handle",
    "handle_path",
    "route",
    "respond",
    "file_server",
    "php_fastcgi",
    "request_body",
    "forward_auth",
    "abort",
    "error",
    "uri",
    "vars",
    "map",
    "try_files",
    "request_header",
    "acme_server",
    "tracing",
    "metrics",
    "handle_errors",
    "handle_response",
    "method",
    "invoke",
    "log_skip",
    "skip_log",
    "log_append",
    "intercept",
];
const V2_SUBDIRECTIVES: &[&str] = &[
    "header_up",
    "header_down",
    "lb_policy",
    "transport",
    "issuer",
    "output",
    "dial_timeout",
    "flush_interval",
    "max_size",
    "lb_try_duration",
    "health_uri",
    "path_regexp",
    "remote_ip",
    "client_ip",
    "reverse_proxy",
    "basic_auth",
];
