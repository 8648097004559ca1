//! `moorgate import caddy`: each directory in `import/cases` is a configuration of Caddy, and what
//! becomes of it is recorded.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use moorgate::internal::auth::Htpasswd;
use serde_json::Value;

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/import/cases");
    let entries = fs::read_dir(directory).unwrap();
    let mut cases: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 30);
    cases
}

fn name(case: &Path) -> String {
    case.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Runs the command in the directory of a case, with the arguments of its file.
fn import(case: &Path, output: &Path, arguments: &[&str]) -> Output {
    let own = fs::read_to_string(case.join("arguments")).unwrap_or_default();
    Command::new(env!("CARGO_BIN_EXE_moorgate"))
        .args(["import", "caddy", "Caddyfile", "--output"])
        .arg(output)
        .args(own.lines())
        .args(arguments)
        .current_dir(case)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(case: &Path) -> Value {
    let output = tempfile::tempdir().unwrap();
    let done = import(case, output.path(), &["--json", "--dry-run"]);
    assert!(
        !done.stdout.is_empty(),
        "{}: {}",
        case.display(),
        text(&done.stderr)
    );
    assert_eq!(
        fs::read_dir(output.path()).unwrap().count(),
        0,
        "a dry run writes nothing"
    );
    serde_json::from_slice(&done.stdout).unwrap()
}

/// All files below a directory, by their relative paths.
fn files(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// New hashes are different each time.
fn without_new_hashes(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(":$2y$10$") {
        Some((user, _)) => format!("{user}:NEW-HASH\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn each_case_becomes_what_is_recorded() {
    for case in cases() {
        let output = tempfile::tempdir().unwrap();
        let done = import(&case, output.path(), &[]);
        let mut record = format!(
            "{}\n$? {}\n{}\n",
            text(&done.stderr),
            done.status.code().unwrap(),
            text(&done.stdout)
        );
        for (path, content) in files(output.path()) {
            record.push_str(&format!("==== {path}\n{}\n", without_new_hashes(&content)));
        }
        let record = record
            .replace(output.path().to_str().unwrap(), "OUT")
            .replace(case.to_str().unwrap(), "CASE");
        let record: Vec<_> = record
            .lines()
            // For root alone, and by the umask of whoever has checked out the cases.
            .filter(|line| !line.contains("chown -R moorgate"))
            .filter(|line| !line.contains("can be read by every user"))
            .collect();
        insta::with_settings!({
            snapshot_path => "import/recorded",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name(&case), record.join("\n"));
        });
    }
}

/// Lines inside of a directive that are reported with it.
const PARTS: &[&str] = &[
    "if",
    "realm",
    "to",
    "ext",
    "level",
    "except",
    "rotate_size",
    "rotate_age",
    "rotate_keep",
    "rotate_compress",
    "404",
    "*",
    "r",
    "match",
    "uri",
    "dynamic",
    "not",
    "tls",
    "roll_size",
    "roll_keep",
    "format",
    "mode",
    "trust_pool",
    "output",
    "path",
    "method",
    "key_id",
    "mac_key",
    "proxy_protocol",
    "api_url",
    "api_key",
    "plain",
    "base64",
    "doubled",
    "argon",
    "ci",
    "alice",
    "bob",
    "reader",
    "defer",
];

/// What is in these is reported line by line.
const CONTAINERS: &[&str] = &[
    "import",
    "limits",
    "timeouts",
    "header",
    "request_body",
    "servers",
    "transport",
];

/// Whatever a configuration says must be in the report, with its line.
#[test]
fn each_directive_is_in_the_report_with_its_line() {
    let mut missing = Vec::new();
    for case in cases() {
        let report = json(&case);
        let directives = report["directives"].as_array().unwrap();
        let lines: BTreeSet<u64> = directives
            .iter()
            .filter(|one| one["file"] == "Caddyfile")
            .map(|one| one["line"].as_u64().unwrap())
            .collect();
        let content = fs::read_to_string(case.join("Caddyfile")).unwrap();
        let mut is_in_snippet = false;
        for (number, line) in (1..).zip(content.lines()) {
            is_in_snippet |= line.starts_with('(');
            let indentation = line.len() - line.trim_start().len();
            let first = line.split_whitespace().next().unwrap_or("}");
            let is_text = ["}", "{", "/", "<", "User-agent:", "Disallow:", "TEXT", "-"];
            let is_text = is_text.iter().any(|other| first.starts_with(other));
            let is_part = indentation == 0
                || first.contains(".example.com")
                || is_text
                || CONTAINERS.contains(&first)
                || indentation > 2 && PARTS.contains(&first);
            if !is_in_snippet && !is_part && !lines.contains(&number) {
                missing.push(format!("{}:{number}: {line}", name(&case)));
            }
            is_in_snippet &= !line.starts_with('}');
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

/// The directives and options that people have in front of registries.
const OF_VERSION_1: &[&str] = &[
    "tls",
    "ca",
    "key_type",
    "protocols",
    "ciphers",
    "curves",
    "clients",
    "load",
    "max_certs",
    "ask",
    "dns",
    "alpn",
    "must_staple",
    "wildcard",
    "basicauth",
    "proxy",
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
    "header_upstream",
    "header_downstream",
    "transparent",
    "websocket",
    "without",
    "except",
    "insecure_skip_verify",
    "ca_certificates",
    "tls_client",
    "keepalive",
    "timeout",
    "fallback_delay",
    "gzip",
    "log",
    "errors",
    "header",
    "redir",
    "limits",
    "timeouts",
    "read",
    "write",
    "idle",
    "root",
    "rewrite",
    "status",
    "internal",
    "bind",
    "index",
    "ext",
    "browse",
];
const OF_VERSION_2: &[&str] = &[
    "tls",
    "ca",
    "ca_root",
    "eab",
    "key_type",
    "dns",
    "alpn",
    "protocols",
    "client_auth",
    "issuer",
    "basic_auth",
    "basicauth",
    "reverse_proxy",
    "lb_policy",
    "lb_try_duration",
    "health_uri",
    "fail_duration",
    "max_fails",
    "flush_interval",
    "header_up",
    "header_down",
    "dial_timeout",
    "response_header_timeout",
    "read_timeout",
    "write_timeout",
    "tls_insecure_skip_verify",
    "tls_trusted_ca_certs",
    "tls_trust_pool",
    "tls_server_name",
    "keepalive",
    "versions",
    "header",
    "request_header",
    "encode",
    "max_size",
    "log",
    "redir",
    "respond",
    "handle",
    "handle_path",
    "route",
    "email",
    "acme_ca",
    "acme_ca_root",
    "acme_eab",
    "admin",
    "auto_https",
    "default_sni",
    "http_port",
    "https_port",
    "grace_period",
    "storage",
    "trusted_proxies",
    "strict_sni_host",
    "max_header_size",
    "metrics",
    "order",
    "local_certs",
    "cert_issuer",
    "renewal_window_ratio",
    "ech",
    "persist_config",
    "forward_auth",
    "abort",
    "error",
    "rewrite",
    "uri",
];

#[test]
fn all_directives_that_people_use_are_in_some_case() {
    for (prefix, known) in [("v1_", OF_VERSION_1), ("v2_", OF_VERSION_2)] {
        let mut seen = BTreeSet::new();
        for case in cases().iter().filter(|case| name(case).starts_with(prefix)) {
            let report = json(case);
            assert_eq!(
                report["version"].to_string(),
                prefix[1..2],
                "{}",
                case.display()
            );
            for one in report["directives"].as_array().unwrap() {
                let directive = one["directive"].as_str().unwrap();
                seen.extend(directive.split(' ').next().map(str::to_owned));
            }
        }
        let missing: Vec<_> = known.iter().filter(|one| !seen.contains(**one)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[test]
fn each_shape_that_people_have_becomes_a_configuration_that_check_accepts() {
    let shapes: Vec<_> = cases()
        .into_iter()
        .filter(|case| name(case).contains("_shape_"))
        .collect();
    assert_eq!(shapes.len(), 9 + 18);
    for case in shapes {
        let report = json(&case);
        assert!(
            !report["files"].as_array().unwrap().is_empty(),
            "{}",
            case.display()
        );
        let problems = report["problems"].to_string();
        assert!(
            !problems.contains("error:"),
            "{}: {problems}",
            case.display()
        );
    }
}

/// A configuration with these lines in a site, imported.
fn imported(directives: &str) -> (tempfile::TempDir, Output) {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("ci.example.com {{\n{directives}\n}}\n");
    fs::write(directory.path().join("Caddyfile"), text).unwrap();
    let done = import(directory.path(), &directory.path().join("out"), &[]);
    (directory, done)
}

#[test]
fn passwords_are_hashed_and_never_copied() {
    let (directory, done) =
        imported("basicauth / ci \"the s3cret\"\nproxy / user:hidden@registry:5000");
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let path = directory
        .path()
        .join("out/credentials/ci.example.com.htpasswd");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let users = fs::read(&path).unwrap();
    assert!(Htpasswd::parse(&users).has("ci"));
    let hash = text(&users)
        .lines()
        .find_map(|line| line.strip_prefix("ci:"))
        .unwrap();
    assert!(bcrypt_matches("the s3cret", hash));
    for (path, content) in files(&directory.path().join("out")) {
        assert!(!content.contains("s3cret"), "{path}");
    }
    for secret in ["s3cret", "hidden"] {
        assert!(!text(&done.stdout).contains(secret) && !text(&done.stderr).contains(secret));
    }
}

fn bcrypt_matches(password: &str, hash: &str) -> bool {
    bcrypt::verify(password, hash).unwrap()
}

#[test]
fn nothing_is_overwritten() {
    let (directory, done) = imported("basicauth / ci secret\nproxy / registry:5000");
    assert_eq!(done.status.code(), Some(0));
    let before = files(&directory.path().join("out"));
    let again = import(directory.path(), &directory.path().join("out"), &[]);
    assert_eq!(again.status.code(), Some(2));
    let message = text(&again.stderr);
    assert!(
        message.contains("these files exist already, and nothing was written: "),
        "{message}"
    );
    assert!(
        message.contains("out/conf.d/ci.example.com.toml, "),
        "{message}"
    );
    assert_eq!(files(&directory.path().join("out")), before);
}

#[test]
fn what_caddy_refuses_is_an_error_with_line_and_column_and_writes_nothing() {
    for (content, expected) in [
        (
            "a.com {\n  proxy / b:1\n",
            "Caddyfile:1:7: this brace is never closed",
        ),
        (
            "a.com {\n  proxy /\n}\n",
            "Caddyfile:2:3  proxy /  -> `proxy` has a path and an address",
        ),
        (
            "a.com {\n  proxy / b:1\n  basicauth a\n}\n",
            "Caddyfile:3:3  basicauth  -> `basicauth` has",
        ),
        (
            "a.com {\n proxy / b:1\n}\na.com {\n proxy / b:2\n}\n",
            "Caddyfile:4:1  https://a.com:443  -> Caddyfile:1:1 has the same name and port",
        ),
        (
            "a.com {\n  reverse_proxy b:1\n  gzip\n}\n",
            "Caddyfile:3:3: `gzip` is of version 1, and Caddyfile:2:3: `reverse_proxy` of version 2",
        ),
        (
            "a.com {\n  header a b\n}\n",
            "give `--version 1` or `--version 2`",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("Caddyfile"), content).unwrap();
        let done = import(directory.path(), &directory.path().join("out"), &[]);
        assert_eq!(done.status.code(), Some(2), "{content}");
        let said = format!("{}{}", text(&done.stdout), text(&done.stderr));
        assert!(said.contains(expected), "{said}");
        assert!(!directory.path().join("out").exists());
    }
}
