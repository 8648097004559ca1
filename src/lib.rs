//! moorgate: an authenticating TLS reverse proxy made for container registries.
//!
//! # The map
//!
//! A request goes along one line, and each step is a file that can be read alone:
//!
//! | step | file | in, out |
//! |---|---|---|
//! | accept | `listen/accept` | a socket becomes a connection on the least busy worker (`workers`) |
//! | identify | `listen/proxy_protocol` | the PROXY header of a trusted proxy becomes the client's address |
//! | secure | [`tls`] | a byte stream becomes a TLS stream with its name and protocol |
//! | connection | `connection` | the stream becomes requests; its time limits (`connection/activity`) |
//! | locate | `request/locate` | the Host, agreeing with the handshake, becomes a site |
//! | classify | `request/classify` | method and path become a [`registry::call::Call`] |
//! | admit | `request/admit` | the Authorization header is cached, or may cost a hash ([`auth::lockout`]) |
//! | authenticate | `request/authenticate` | what was admitted becomes an [`auth::Identity`]; in token mode `request/bearer` |
//! | authorize | `request/authorize` | identity and call become a `Grant`, the proof of the right |
//! | route | `request/route` | a `Grant` becomes a `Route`; there is no other way to one |
//! | forward | `request/answer/forward` | a `Route` and a body go to the `upstream` and become a response |
//! | rewrite | `request/answer/rewrite` | the upstream's response becomes ours |
//! | record | `request/record` | the end of the response becomes a line of the access log, and is counted |
//!
//! `request/context` carries what the steps share. A failed step returns a `Rejection`
//! (`request/rejection`), which `request/respond` turns into a response. After `route`, one match
//! over destination and obligations (`request/obligations`) chooses what answers:
//! `request/answer/forward` for an upstream, `request/answer/store` for moorgate's own `store` of
//! OCI image layouts, `request/answer/tag_write` for tags that the user may only create or only
//! overwrite, `request/answer/catalog` for lists that leave out what the user may not see, and
//! `request/answer/hidden` for repositories whose existence the user may not learn.
//! [`auth::policy`] decides about access. `request/answer/redirects` follows redirects of an
//! upstream where the domain asks for it, and `request/answer/manifest_budget` bounds the memory of
//! buffered manifests.
//!
//! Beside the line, `request/plain` answers plain HTTP (redirects to https, and http-01
//! challenges), and `request/token` issues the tokens ([`auth::token`]) of domains in token mode.
//!
//! Around it, [`config`] turns files into an immutable [`config::snapshot::Snapshot`]. [`certs`]
//! orders, renews and stores certificates and fills the table that handshakes read: `acme` is the
//! client, `orders` the scheduler, `preflight` what is checked before an order, `state` the files
//! and the ledger, `served` the table. `upstream/transfer` holds every time limit of a transfer.
//! [`observe`] writes the logs and counts. [`app`] builds all of it and swaps it on reload, and
//! `app/lifecycle` turns signals into reload and drain. `admin` serves health, status and metrics
//! and takes commands on the control socket. [`cli`] is the command.
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
#![cfg_attr(
    test,
    expect(clippy::too_many_lines, reason = "a table of cases stays in one place")
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
