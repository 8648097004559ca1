//! moorgate: an authenticating TLS reverse proxy made for container registries.
//!
//! # The map
//!
//! A request goes along one line, and each step is a file that can be read alone:
//!
//! | step | file | in, out |
//! |---|---|---|
//! | accept | `listen/accept` | a socket becomes a connection on the least busy worker (`workers`) |
//! | believe | `listen/proxy_protocol` | what a trusted proxy says first becomes the client's address |
//! | secure | [`tls`] | a byte stream becomes a TLS stream with its name and protocol |
//! | connection | `connection` | the stream becomes requests; its time limits (`connection/activity`) |
//! | locate | `request/locate` | the Host, agreeing with the handshake, becomes a site |
//! | classify | `request/classify` | method and path become a [`registry::call::Call`] |
//! | admit | `request/admit` | the Authorization header is remembered, or may cost a hash ([`auth::lockout`]) |
//! | authenticate | `request/authenticate` | what was admitted becomes an [`auth::Identity`]; in token mode `request/bearer` |
//! | authorize | `request/authorize` | identity and call become a `Grant`, the proof of the right |
//! | route | `request/route` | a `Grant` becomes a `Route`; there is no other way to one |
//! | forward | `request/answer/forward` | a `Route` and a body go to the `upstream` and become an answer |
//! | rewrite | `request/answer/rewrite` | the upstream's answer becomes ours |
//! | record | `request/record` | the end of the answer becomes a line of the access log, and is counted |
//!
//! What goes wrong on the line is a `Rejection` (`request/rejection`), and becomes an answer in one
//! place. Where a domain's registry is moorgate's own, `request/answer/store` answers in place of forward
//! and rewrite, from the `store`: image layouts in a directory. Beside the line, `request/answer/redirects`
//! fetches what a registry redirects to where moorgate follows, and `request/plain` answers plain
//! HTTP: redirects, and CAs. A `Grant` may have terms: `request/answer/tag_write` writes to tags that not
//! everybody may move, `request/answer/catalog` leaves out what the asker may not see, `request/answer/hidden`
//! answers as if a repository did not exist, and `request/answer/forward` makes the target that goes on
//! where it is not the client's. [`auth::policy`] decides. Manifests that have to be here whole
//! share the memory that `request/answer/manifest_budget` gives. In token mode a call shows a token
//! ([`auth::token`]), which `request/token` gives at an endpoint beside the line.
//!
//! Around it: [`config`] turns files into an immutable [`config::snapshot::Snapshot`]; [`certs`]
//! keeps certificates and fills the table that handshakes read; `upstream/transfer` holds every
//! time limit of a transfer; [`observe`] writes the logs and counts; `admin` shows health, status
//! and metrics, and takes commands on the control socket; [`app`] builds all of it and swaps it on
//! reload; `app/lifecycle` turns signals into reload and drain; [`cli`] is the command.
//!
//! # Layers
//!
//! A module uses only modules of lower layers, which a test checks. From the lowest:
//! `clock crypto keyed_lock state_file` → `registry` → `config` → `observe` → `auth certs` →
//! `store upstream` → `tls request` → `listen workers` → `connection` → `app` → `admin` → `cli`.
#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "what a test starts ends with it, or with the process"
    )
)]

pub mod state_file;

mod clock;
mod crypto;
mod keyed_lock;

pub mod registry;

pub mod config;

pub mod observe;

pub mod auth;
pub mod certs;

mod store;
mod upstream;

pub mod tls;

pub mod request;

mod connection;
pub mod listen;
mod workers;

pub mod app;

pub mod admin;

pub mod cli;
