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
//! | secure | `tls` | a byte stream becomes a TLS stream with its name and protocol |
//! | connection | `connection` | the stream becomes requests; its time limits (`connection/activity`) |
//! | locate | `request/locate` | the Host, agreeing with the handshake, becomes a site |
//! | classify | `request/classify` | method and path become a `registry/call::Call` |
//! | admit | `request/admit` | the Authorization header is cached, or may cost a hash (`auth/lockout`) |
//! | authenticate | `request/authenticate` | what was admitted becomes an `auth::Identity`; in token mode `request/bearer` |
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
//! `request/answer/deletion` deletes tags and manifests as the product behind an upstream can
//! (`upstream/product`, by its own API through `upstream/product/api`), or a tag by
//! `request/answer/swap`; `request/answer/creation` makes what an upload needs there first, and
//! `request/answer/product_refusals` says what a product refuses in the protocol's words.
//! `request/answer/names` gives the registry its own names of repositories (`registry/name_map`), and
//! `request/answer/spooled` collects chunks for products that take a blob in one piece
//! (`store/spool`). `upstream/credential` sends every request of the line, with the `Authorization`
//! that `upstream/login` gets where moorgate logs in itself; `upstream/known_product` tells the
//! product. `request/answer/product_lists` lists repositories by a product's own API,
//! `request/answer/tag_pages` gives tags in pages, `request/answer/mount` begins an upload where a
//! registry refuses a mount, and `request/answer/failed_uploads` ends pushes that fail again and
//! again.
//! `auth/policy` decides about access. `request/answer/redirects` follows redirects of an
//! upstream where the domain asks for it, and `request/answer/manifest_budget` bounds the memory of
//! buffered manifests; `page_size` lowers the page of a list to what the registry gives,
//! `references` leads addresses of the registry back to it, and `upstream_login` tells why a registry
//! refused moorgate. `request/via` finds requests that come back to where they were forwarded,
//! `upstream/message_length` lets one length of a message through or none, and
//! `upstream/destination` decides where redirects may lead. An upstream is one `upstream/replica`, or
//! several: `upstream/replica_group` chooses between them, `upstream/ejection` decides which is out of
//! service, and `upstream/replica_check` what brings it back; `upstream/circuit` lets one request
//! at a time try a server that cannot be reached. `upstream/health` tells from requests
//! whether an upstream works, `upstream/error` says in words why not, and `upstream/first_bytes`
//! recognizes servers of other protocols.
//!
//! Beside the line, `request/plain` answers plain HTTP (redirects to https, and http-01
//! challenges), and `request/token` issues the tokens (`auth/token`) of domains in token mode.
//!
//! Around it, `config` turns files into an immutable `config/snapshot::Snapshot`. `certs`
//! orders, renews and stores certificates and fills the table that handshakes read: `acme` is the
//! client, `orders` the scheduler, `preflight` what is checked before an order, `state` the files
//! and the ledger, `served` the table. `upstream/transfer` holds every time limit of a transfer.
//! `observe` counts, and writes the logs through a bounded queue (`observe/log_queue`), a lasting
//! trouble once a minute (`observe/repeats`). `listen/open_connections` decides which connection ends
//! for a new one at the limit, `listen/clients` what each client may have, `request/user_limits` what
//! each user may, `upstream/pool` what each server of an upstream gets, and `connection/closing` ends
//! connections so that the last answer arrives. `app`
//! builds all of it; `config/loader` chooses the valid version of each file, `app/watch` notices
//! changes, `app/reload` swaps what changed, `app/configuration` reports what is wrong, and
//! `app/lifecycle` turns signals into reload and drain, and tells the service manager. `app/upgrade`
//! lets a new process take over (`connection/drain`, `tls/ticket_keys`). `app/live` asks upstreams for
//! `moorgate check --live`. `journal` records pushes and pulls, which `request/answer/recorded_use`
//! and `moved_tags` count. From them `retention` plans which tags go, `retention/stored` takes them
//! away at a store (`store/inventory`, `store/removal`) and `request/retained` behind a `url`, and
//! `app/retention` runs it. `request/answer/tag_conditions` checks what rules demand of a tag, and
//! `store/quota` how much an area holds. `admin` serves health, status and metrics
//! and takes commands on the control socket. `import` translates Caddyfiles into domain files.
//! `cli` is the command.
//!
//! # Layers
//!
//! A module uses only modules of lower layers, which a test checks. From the lowest:
//! `clock crypto keyed_lock state_file` → `registry` → `config` → `observe` → `auth certs journal` →
//! `store upstream` → `retention` → `tls request` → `listen workers` → `connection` → `app` →
//! `admin` → `import` → `cli`.
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

mod state_file;

mod clock;
mod crypto;
mod keyed_lock;

mod registry;

mod config;

mod observe;

mod auth;
mod certs;
mod journal;

mod store;
mod upstream;

mod retention;

mod tls;

mod request;

mod connection;
mod listen;
mod workers;

mod app;

mod admin;

mod import;

pub mod cli;

/// What the integration tests, the benches and the fuzz targets use. It is not a public interface.
#[doc(hidden)]
pub mod internal {
    pub mod admin {
        pub use crate::admin::serve;
    }
    pub mod app {
        pub use crate::app::{App, ListenerKind, StartError, StartOptions};
    }
    pub mod auth {
        pub use crate::auth::htpasswd::Htpasswd;
        pub use crate::auth::policy::{Policy, Principal};
        pub use crate::auth::token::{Bearer, TokenAccess, Tokens};
        pub use crate::auth::upload_session::SessionKey;
        pub use crate::auth::verify::{Login, LoginAdmission, Verifier, VerifierSettings};
        pub use crate::auth::{UserName, basic};
    }
    pub mod certs {
        pub use crate::certs::challenge::Challenges;
        pub use crate::certs::inspect::CertificateFacts;
        pub use crate::certs::orders::{Issuer, SystemClock};
        pub use crate::certs::served::manager::Certificates;
        pub use crate::certs::served::report::{AcmeStatus, CertificateReport};
        pub use crate::certs::state::storage::Storage;
    }
    pub mod cli {
        pub use crate::cli::explain::{AccessQuestion, AccessVerdict, ExplainOptions, answers};
        pub use crate::cli::{command, htpasswd};
    }
    pub mod config {
        pub use crate::config::access::{
            AccessRule, AccessSettings, RuleLocation, Selector, TagConditions,
        };
        pub use crate::config::problem::Colour;
        pub use crate::config::snapshot::{ConnectionSettings, FailureBudgets};
        pub use crate::config::vhost::ListenAddress;
        pub use crate::config::{load, settings};
    }
    pub mod import {
        pub use crate::import::caddy::{CaddyVersion, is_understood};
    }
    pub mod journal {
        pub use crate::journal::{Journal, JournalError, RepositoryHistory, Use};
    }
    pub mod listen {
        pub use crate::listen::inherited::InheritedSockets;
        pub use crate::listen::proxy_protocol;
    }
    pub mod observe {
        pub use crate::observe::log_writer::{LogQueues, LogWriters};
    }
    pub mod registry {
        pub use crate::registry::action::{Action, Actions};
        pub use crate::registry::call::{Call, pairs};
        pub use crate::registry::digest::Digest;
        pub use crate::registry::host::HostName;
        pub use crate::registry::location::{Origin, ResponseKind, Rewriter, Rewritten};
        pub use crate::registry::name::RepositoryName;
        pub use crate::registry::pattern::literals::LiteralPosition;
        pub use crate::registry::pattern::{Pattern, RepositoryPattern};
        pub use crate::registry::reference::Tag;
        pub use crate::registry::scope::{Resource, Rights, Scope};
        pub use crate::registry::upload_id::UploadId;
    }
    pub mod request {
        pub use crate::request::conn_info::{ConnInfo, HandshakeName, Protocol};
        pub use crate::request::headers;
        pub use crate::request::retained::driver::{ManifestCopy, PlannedRemoval, RetainedDriver};
    }
}
