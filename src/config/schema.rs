//! All keys of the configuration files, and the help for unknown keys.

/// The kinds of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// `moorgate.toml`
    Main,
    /// `conf.d/NAME.toml`
    Domain,
}

/// A table of one kind of file. The top level has an empty name.
struct Section {
    kind: FileKind,
    table: &'static str,
    keys: &'static [&'static str],
}

const SECTIONS: &[Section] = &[
    domain("", DOMAIN),
    domain(
        "tls",
        &[
            "acme",
            "names",
            "profile",
            "fallback",
            "certificate",
            "key",
            "internal",
        ],
    ),
    domain(
        "auth",
        &[
            "htpasswd",
            "realm",
            "mode",
            "anonymous",
            "token_lifetime",
            "refresh_token_lifetime",
            "refresh_tokens",
        ],
    ),
    domain("upstream", UPSTREAM),
    domain("upstream", PRODUCT),
    domain("upstream.check", &["interval", "path"]),
    domain("upstream.login", LOGIN),
    domain("upstream.admin", &["username", "password", "token"]),
    domain("upstream.map", &["prefix", "to", "flatten"]),
    domain("browser", &["url"]),
    domain("access", ACCESS),
    domain("retention", RETENTION),
    domain(
        "retention.keep",
        &["newest", "pulled_within", "pushed_within"],
    ),
    domain("retention.per", &["regex"]),
    domain("retention_settings", RETENTION_SETTINGS),
    domain("quota", &["repositories", "size"]),
    domain("limits", DOMAIN_LIMITS),
    domain("timeouts", DOMAIN_TIMEOUTS),
    main(
        "",
        &["https", "http", "state", "trusted_proxies", "acme", "ca"],
    ),
    main("", &["admin", "auth", "log", "limits", "timeouts"]),
    main("", &["groups_file", "groups", "access"]),
    main("access", ACCESS),
    main("acme", &["email", "challenges", "dns_command", "resolvers"]),
    main(
        "ca",
        &[
            "directory",
            "roots",
            "profile",
            "chain",
            "eab_key_id",
            "eab_hmac_key",
        ],
    ),
    main("ca", &["public", "http_port", "tls_port"]),
    main(
        "auth",
        &["address_failures", "user_failures", "failure_window"],
    ),
    main("admin", &["listen"]),
    main("log", &["format", "level", "access"]),
    main("limits", DOMAIN_LIMITS),
    main(
        "limits",
        &[
            "head",
            "head_lines",
            "target",
            "h2_streams",
            "connections",
            "client_connections",
            "client_connection_rate",
            "passwords_waiting",
        ],
    ),
    main("timeouts", DOMAIN_TIMEOUTS),
    main(
        "timeouts",
        &[
            "handshake",
            "first_head",
            "head",
            "idle",
            "idle_unauthenticated",
            "h2_ping",
            "drain",
        ],
    ),
];

const DOMAIN: &[&str] = &[
    "domain",
    "aliases",
    "listen",
    "inherit",
    "groups_file",
    "tls",
    "auth",
    "upstream",
    "browser",
    "groups",
    "access",
    "retention",
    "retention_settings",
    "quota",
    "limits",
    "timeouts",
];

const ACCESS: &[&str] = &[
    "deny",
    "users",
    "repositories",
    "tags",
    "actions",
    "networks",
    "from",
    "immutable_after",
];

const RETENTION: &[&str] = &[
    "repositories",
    "tags",
    "protect",
    "keep",
    "ttl",
    "per",
    "expiry_label",
];

const RETENTION_SETTINGS: &[&str] = &[
    "every",
    "hours",
    "max_tags",
    "max_share",
    "min_age",
    "dry_run",
    "in_use",
];

const UPSTREAM: &[&str] = &[
    "url",
    "urls",
    "check",
    "directory",
    "gc",
    "gc_grace",
    "untagged",
    "missing",
    "roots",
    "username",
    "password",
    "authorization",
    "redirects",
    "follow_hosts",
    "locations",
];

const PRODUCT: &[&str] = &[
    "product", "create", "untag", "api", "hosts", "spool", "login", "admin", "map",
];

const LOGIN: &[&str] = &[
    "username",
    "password",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "profile",
    "credentials_file",
    "role",
    "web_identity_token_file",
    "instance_role",
    "region",
    "tenant",
    "client_id",
    "client_secret",
    "service_account",
    "metadata_server",
    "endpoint",
];

const DOMAIN_LIMITS: &[&str] = &[
    "manifest",
    "body",
    "user_requests",
    "user_uploads",
    "user_upload_sessions",
    "upstream_connections",
];

const DOMAIN_TIMEOUTS: &[&str] = &[
    "first_body_byte",
    "stall",
    "upstream_connect",
    "upstream_head",
    "upstream_commit",
    "upstream_idle",
];

/// Keys whose values are secrets, and the keys of tables that name the source of a secret.
const SECRETS: &[&str] = &[
    "password",
    "eab_hmac_key",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "client_secret",
    "service_account",
    "token",
];
const SECRET_SOURCES: &[&str] = &["env", "file"];

/// Tables with arbitrary keys and without secrets, and inner tables without any.
const FREE: &[&str] = &["groups", "keep", "per"];

const fn domain(table: &'static str, keys: &'static [&'static str]) -> Section {
    Section {
        kind: FileKind::Domain,
        table,
        keys,
    }
}

const fn main(table: &'static str, keys: &'static [&'static str]) -> Section {
    Section {
        kind: FileKind::Main,
        table,
        keys,
    }
}

/// A key of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownSetting {
    /// Whether the key belongs to domain files rather than to `moorgate.toml`.
    pub is_of_domain: bool,
    /// The name of its table; empty at the top level.
    pub table: &'static str,
    pub key: &'static str,
}

/// All keys of both kinds of files.
pub fn settings() -> impl Iterator<Item = KnownSetting> {
    SECTIONS.iter().flat_map(|section| {
        section.keys.iter().map(|key| KnownSetting {
            is_of_domain: section.kind == FileKind::Domain,
            table: section.table,
            key,
        })
    })
}

/// The keys of `table`.
pub(super) fn keys(kind: FileKind, table: &str) -> impl Iterator<Item = &'static str> + Clone {
    let sections = SECTIONS
        .iter()
        .filter(move |section| section.kind == kind && section.table == table);
    sections.flat_map(|section| section.keys.iter().copied())
}

/// Whether `table` has the key.
pub(super) fn knows(kind: FileKind, table: &str, key: &str) -> bool {
    keys(kind, table).any(|known| known == key)
}

/// Whether the value of `key` in `table` may be shown. Values of unknown keys are not, since a
/// misspelt or misplaced `password` is one.
pub(super) fn may_be_shown(table: &str, key: &str) -> bool {
    if SECRETS.contains(&table) {
        return SECRET_SOURCES.contains(&key);
    }
    if FREE.contains(&table) {
        return true;
    }
    SECTIONS
        .iter()
        .any(|section| section.table == table && section.keys.contains(&key))
        && !SECRETS.contains(&key)
}

/// Like [`may_be_shown`] for a key whose table is unknown.
pub(super) fn may_be_shown_anywhere(key: &str) -> bool {
    SECTIONS.iter().any(|section| section.keys.contains(&key)) && !SECRETS.contains(&key)
}

/// Whether any table of any file has the key.
pub(super) fn is_key(key: &str) -> bool {
    SECTIONS
        .iter()
        .any(|section| section.keys.contains(&key) || section.table == key)
}

/// What to write instead of an unknown key.
pub(super) fn help_for_unknown(kind: FileKind, table: &str, key: &str) -> String {
    if let Some(places) = places_of(kind, table, key) {
        return format!("`{key}` belongs {places}");
    }
    let nearest = keys(kind, table)
        .map(|known| (strsim::osa_distance(key, known), known))
        .min();
    match nearest {
        Some((edits, known)) if edits <= (key.chars().count() / 3).max(1) => {
            format!("did you mean `{known}`?")
        }
        _ => {
            let known: Vec<_> = keys(kind, table)
                .map(|known| format!("`{known}`"))
                .collect();
            format!("known here: {}", known.join(", "))
        }
    }
}

/// The other places of `key`: the same table in the other kind of file, or else all its tables.
fn places_of(kind: FileKind, table: &str, key: &str) -> Option<String> {
    let holders = || {
        SECTIONS
            .iter()
            .filter(|section| section.keys.contains(&key))
    };
    let same_table = holders().find(|section| section.table == table);
    let holders: Vec<_> = match same_table {
        Some(section) if holders().all(|section| section.kind != kind) => vec![section],
        Some(_) | None => holders().collect(),
    };
    let (here, there): (Vec<_>, Vec<_>) = holders
        .into_iter()
        .partition(|section| section.kind == kind);
    let mut places: Vec<_> = here
        .into_iter()
        .map(|section| place(section, kind))
        .collect();
    places.extend(there.into_iter().map(|section| place(section, kind)));
    places.dedup();
    (!places.is_empty()).then(|| places.join(", or "))
}

fn place(section: &Section, kind: FileKind) -> String {
    let file = match section.kind {
        _ if section.kind == kind => "",
        FileKind::Main => " of moorgate.toml, for all domains",
        FileKind::Domain => " of a domain file, conf.d/NAME.toml",
    };
    match section.table {
        "" if file.is_empty() => "at the top of the file, above the first [table]".to_owned(),
        "" => format!("at the top{file}"),
        table @ ("access" | "upstream.map" | "retention" | "quota") => {
            format!("in [[{table}]]{file}")
        }
        table => format!("in [{table}]{file}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_get_the_help_that_fits() {
        use FileKind::{Domain, Main};
        let cases = [
            (Domain, "auth", "htpaswd", "did you mean `htpasswd`?"),
            (
                Domain,
                "auth",
                "colour",
                "known here: `htpasswd`, `realm`, `mode`, `anonymous`, `token_lifetime`, `refresh_token_lifetime`, `refresh_tokens`",
            ),
            // Two neighbours that are swapped count as one edit.
            (Domain, "browser", "ulr", "did you mean `url`?"),
            (Domain, "", "uptsream", "did you mean `upstream`?"),
            (
                Domain,
                "auth",
                "listen",
                "`listen` belongs at the top of the file, above the first [table], or in [admin] of moorgate.toml, for all domains",
            ),
            (
                Domain,
                "limits",
                "head",
                "`head` belongs in [limits] of moorgate.toml, for all domains",
            ),
            (
                Domain,
                "timeouts",
                "head",
                "`head` belongs in [timeouts] of moorgate.toml, for all domains",
            ),
            (
                Domain,
                "timeouts",
                "manifest",
                "`manifest` belongs in [limits], or in [limits] of moorgate.toml, for all domains",
            ),
            (
                Domain,
                "",
                "https",
                "`https` belongs at the top of moorgate.toml, for all domains",
            ),
            (
                Main,
                "",
                "domain",
                "`domain` belongs at the top of a domain file, conf.d/NAME.toml",
            ),
            (
                Main,
                "",
                "url",
                "`url` belongs in [upstream] of a domain file, conf.d/NAME.toml, or in [browser] of a domain file, conf.d/NAME.toml",
            ),
        ];
        for (kind, table, key, help) in cases {
            assert_eq!(help_for_unknown(kind, table, key), help);
        }
    }

    #[test]
    fn only_values_of_known_keys_are_shown() {
        assert!(may_be_shown("upstream", "url") && may_be_shown_anywhere("url"));
        for key in ["password", "pasword", "passwd", "token"] {
            assert!(
                !may_be_shown("upstream", key) && !may_be_shown_anywhere(key),
                "{key}"
            );
        }
        assert!(may_be_shown("tls", "key") && !may_be_shown("upstream", "key"));
        assert!(may_be_shown("password", "env") && !may_be_shown("password", "key"));
    }
}
