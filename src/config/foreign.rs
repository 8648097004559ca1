//! Recognizes the configuration of another program in the place of moorgate's: by its name, where
//! only `*.toml` is read, or by its text, where it was renamed.

use std::path::Path;

/// What a text is that is not TOML, if it is known.
pub(super) fn language(text: &str) -> Option<&'static str> {
    let lines = || {
        let lines = text.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    let opens_block = |line: &str| line.ends_with('{') && !line.contains('=');
    let begins_with = |words: &'static [&'static str]| {
        let mut words = words.iter();
        words.any(|word| lines().any(|line| line.split_whitespace().next() == Some(word)))
    };
    if lines().next()?.starts_with('{') {
        return Some(JSON_OR_CADDY);
    }
    if lines().any(opens_block) || begins_with(CADDY_DIRECTIVES) {
        let is_nginx =
            begins_with(&["server", "upstream", "http"]) && lines().any(|line| line.ends_with(';'));
        return Some(if is_nginx { "nginx" } else { CADDY });
    }
    let is_yaml = |line: &str| {
        let key = line.split(':').next().unwrap_or_default();
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        key.len() < line.len() && !key.is_empty() && key.bytes().all(is_word)
    };
    let mut first = lines();
    (first.next().is_some_and(|line| line == "---") || lines().next().is_some_and(is_yaml))
        .then_some("YAML")
}

/// Whether `moorgate import caddy` may understand a text.
pub(super) fn is_of_caddy(text: &str) -> bool {
    matches!(language(text), Some(CADDY | JSON_OR_CADDY))
}

const CADDY: &str = "Caddy";
const JSON_OR_CADDY: &str = "JSON, or a Caddyfile";

/// Whether the name is one that the configuration of a domain may have at another program, or that
/// was meant for a domain file.
pub(super) fn is_passed_over(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    name.starts_with("caddyfile") || extension.is_some_and(|other| PASSED_OVER.contains(&other))
}

/// Of both versions of Caddy, at the beginning of a line.
const CADDY_DIRECTIVES: &[&str] = &[
    "tls",
    "proxy",
    "reverse_proxy",
    "basicauth",
    "basic_auth",
    "header",
    "import",
];
const PASSED_OVER: &[&str] = &["conf", "caddy", "caddyfile", "yaml", "yml", "json", "toml"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_known_by_their_first_lines() {
        let caddy = Some("Caddy");
        for (text, known) in [
            ("docker-ci.example.com {\n  tls ops@example.com\n}\n", caddy),
            (
                "# ours\nci.example.com:443\ntls a@b\nproxy / registry:5000\n",
                caddy,
            ),
            ("{\n  email a@b\n}\n", Some("JSON, or a Caddyfile")),
            ("server {\n  listen 443 ssl;\n}\n", Some("nginx")),
            ("http:\n  addr: :5000\n", Some("YAML")),
            ("---\n- a\n", Some("YAML")),
            ("domain = 'a\n", None),
            ("[tls\n", None),
            ("upstream = {\n", None),
            ("domain\n", None),
            ("", None),
        ] {
            assert_eq!(language(text), known, "{text}");
        }
    }
}
