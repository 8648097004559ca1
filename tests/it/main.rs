//! What moorgate does, seen from outside. The list of modules is a table of contents.
#![expect(
    clippy::disallowed_methods,
    reason = "what a test starts ends with it, or with the process"
)]
#![expect(clippy::too_many_lines, reason = "a table of cases stays in one place")]
#![expect(unreachable_pub, reason = "the harness is read like a library")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by it, and the harness is part of the tests"
)]

mod harness;

mod abuse;
mod failed_uploads;
mod first_steps;

// What may last, how large it may be, and what comes before its end.
mod broken_upstreams;
mod connection_limit;
mod early_answers;
mod endings;
mod size_limits;
mod time_limits;

// Who gets in, and what the rejected cost.
mod flood;
mod guessing;
mod memory;
mod overload;
mod passwords;
mod secrets;

// Who may do what.
mod access;
mod token;

// What a request may be and what becomes of it: product.md section 3, rule by rule.
mod replicas;
mod rules;
mod upstream_login;

// Names of repositories that are others at the registry.
mod upstream_names;

// The registry that moorgate keeps itself.
mod store;

// Images that live short.
mod retention;

// The registries of others, and their own ways.
mod products;
// Registry products behind the same face.
mod products_deletion;
mod products_lists;
// Tags and manifests that go by rules.
mod retained;

// What people see outside /v2/, from a server of its own.
mod browser;

// What the administrator sees.
mod access_log;
mod admin;
mod check;
mod event_log;
mod json_ends;
mod log_readers;
mod metrics;
mod upstream_health;

// What is taken over from another server.
mod acme;
mod acme_faults;
mod acme_year;
mod certs_import;
mod import;
mod ordinary_user;

// What happens to a running process.
mod drain;
mod reload;
mod upgrade;

// The real program between real clients and real registries.
mod real_peers;

// What holds of the sources and the documentation.
mod docs;
mod tidy;
