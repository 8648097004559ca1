//! Directives of version 2 that refuse nobody.

/// Whether a directive refuses nobody and changes no path.
pub(super) fn is_known(name: &str) -> bool {
    HARMLESS.contains(&name) || DROPPED.iter().any(|(known, _)| *known == name)
}

const HARMLESS: &[&str] = &[
    "tls",
    "header",
    "request_header",
    "request_body",
    "log",
    "bind",
    "import",
];

/// Directives without a place in moorgate, and why none is missing.
pub(super) const DROPPED: &[(&str, &str)] = &[
    (
        "encode",
        "layers are compressed already, and a digest is that of the bytes as they are",
    ),
    ("file_server", "moorgate serves no files"),
    ("php_fastcgi", "moorgate serves no files"),
    ("root", "moorgate serves no files"),
    ("templates", "moorgate serves no files"),
    ("push", "moorgate serves no files"),
    ("fs", "moorgate serves no files"),
    ("vars", "moorgate has no variables"),
    ("map", "moorgate has no variables"),
    ("tracing", "each request has an id in the access log"),
    ("metrics", "see /metrics of the admin listener"),
    (
        "handle_errors",
        "moorgate answers errors in the form that registry clients read",
    ),
    ("log_skip", "`access = false` in [log] is for all requests"),
    ("skip_log", "`access = false` in [log] is for all requests"),
    ("log_append", "the fields of the access log are fixed"),
    ("log_name", "there is one access log"),
    ("copy_response", "moorgate changes no responses"),
    ("copy_response_headers", "moorgate changes no responses"),
    ("intercept", "moorgate changes no responses"),
    ("acme_server", "moorgate is no ACME server"),
];
