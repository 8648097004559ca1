//! A virtual host with the live parts that serve it, and the table in which a request finds it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderValue, Request, Response};

use super::via::ViaPseudonym;
use crate::auth::UsersFile;
use crate::auth::policy::Policy;
use crate::auth::token::Tokens;
use crate::auth::upload_session::SessionKey;
use crate::config::snapshot::Snapshot;
use crate::config::upstream::Redirects;
use crate::config::vhost::{ListenAddress, SharedVirtualHost};
use crate::journal::Journal;
use crate::observe::metrics::Traffic;
use crate::registry::host::HostName;
use crate::registry::name_map::NameMap;
use crate::store::Store;
use crate::store::spool::DomainSpool;
use crate::upstream::Upstream;
use crate::upstream::connector::Trust;
use crate::upstream::credential::Credential;
use crate::upstream::error::UpstreamError;
use crate::upstream::known_product::KnownProduct;
use crate::upstream::login::UpstreamRequest;
use crate::upstream::login::scope::TokenScope;
use crate::upstream::product::api::ApiClient;
use crate::upstream::replica::Replica;
use crate::upstream::request_body::{RequestBody, Upload};
use crate::upstream::response_body::UpstreamBody;
use crate::upstream::transfer::TransferLimits;

/// A virtual host with the live parts that serve it.
pub(crate) struct Site {
    pub(crate) host: SharedVirtualHost,
    pub(crate) users: Arc<UsersFile>,
    pub(crate) policy: Policy,
    /// Issues and verifies tokens; `None` where clients send passwords.
    pub(crate) tokens: Option<Arc<Tokens>>,
    /// Binds upload sessions to users; `None` if nothing is served.
    pub(crate) session_key: Option<SessionKey>,
    pub(crate) registry: Registry,
    /// Counts what clients push and pull, where somebody wants to know.
    pub(crate) journal: Option<Arc<Journal>>,
    /// What other domains demand of writes to its registry as well.
    pub(crate) write_locks: SharedWriteLocks,
    /// Of the files that its settings name and that were read when it was built.
    pub(crate) files_digest: [u8; 32],
    /// The roots for storage that the registry redirects to, where moorgate follows redirects.
    pub(crate) storage: Option<Trust>,
    /// Where uploads are collected that the registry does not take as they come.
    pub(crate) spool: Option<Arc<DomainSpool>>,
    pub(crate) browser: Option<Backend>,
    /// The counters of its requests, which survive reloads.
    pub(crate) traffic: Arc<Traffic>,
    /// The value of `WWW-Authenticate` on every 401 that asks for a password.
    pub(crate) challenge: HeaderValue,
}

impl Site {
    /// How redirects to other hosts are handled.
    pub(crate) fn redirects(&self) -> Redirects {
        self.host
            .registry
            .upstream()
            .map_or(Redirects::Pass, |upstream| upstream.redirects)
    }

    /// The servers of the registry and of the browser page.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Arc<Replica>> {
        let backends = self.registry.upstream().into_iter().chain(&self.browser);
        backends.flat_map(|backend| backend.upstream.replicas())
    }

    /// Sets the limits of what outlives reloads.
    pub(crate) fn apply_limits(&self) {
        for server in self.servers() {
            server.set_max_connections(self.host.limits.upstream_connections);
        }
    }

    /// Whether writes to tags of its registry are locked.
    pub(crate) fn locks_tags(&self) -> bool {
        // So that a refusal can be compared with what is there.
        let may_refuse = |backend: &Backend| {
            let capabilities = backend.product.dialect().capabilities();
            capabilities.immutable_tags || backend.credential.awaits_product()
        };
        self.write_locks.rules_lock_tags.load(Ordering::Relaxed)
            || self.locks_repositories()
            || self.registry.upstream().is_some_and(may_refuse)
    }

    /// Whether writes to repositories of its registry are locked, also those without a tag.
    pub(crate) fn locks_repositories(&self) -> bool {
        self.write_locks.is_retained.load(Ordering::Relaxed) && self.registry.upstream().is_some()
    }

    /// The names of repositories at the registry, where they are others.
    pub(crate) fn names(&self) -> Option<&NameMap> {
        let upstream = self.host.registry.upstream()?;
        Some(&upstream.names).filter(|names| !names.is_identity())
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("domain", &self.host.domain)
            .finish_non_exhaustive()
    }
}

/// Why writes to a registry are locked. Changes with the rules of other domains, also for requests
/// that have begun.
#[derive(Debug, Default)]
pub(crate) struct SharedWriteLocks {
    /// Whether rules are the reason to lock writes to tags. moorgate's own registry needs no lock.
    pub(crate) rules_lock_tags: AtomicBool,
    /// Whether manifests are deleted by retention of this domain or of another one, so that writes
    /// are locked.
    pub(crate) is_retained: AtomicBool,
}

/// The registry of a site.
pub(crate) enum Registry {
    /// An existing registry.
    Upstream(Backend),
    /// moorgate's own.
    Store(Arc<Store>),
}

impl Registry {
    /// The upstream, unless it is a store.
    pub(crate) fn upstream(&self) -> Option<&Backend> {
        match self {
            Self::Upstream(target) => Some(target),
            Self::Store(_) => None,
        }
    }

    /// The store, unless it is an upstream.
    pub(crate) fn store(&self) -> Option<&Arc<Store>> {
        match self {
            Self::Upstream(_) => None,
            Self::Store(store) => Some(store),
        }
    }
}

/// An upstream and how requests to it are addressed.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) upstream: Arc<Upstream>,
    /// The Host header towards it.
    pub(crate) authority: HeaderValue,
    pub(crate) credential: Credential,
    pub(crate) product: Arc<KnownProduct>,
    /// The product's own API, where there is a credential for it.
    pub(crate) api: Option<Arc<ApiClient>>,
    /// Marks the requests that are forwarded to it.
    pub(crate) via: Arc<ViaPseudonym>,
}

impl Backend {
    /// Whether there is a client for the API of its product, as far as that is known.
    pub(crate) fn has_api(&self) -> bool {
        let dialect = self.product.dialect();
        self.api.as_ref().is_some_and(|api| api.is_of(dialect))
    }

    /// Waits until its product is known: before something is decided by what the product can.
    ///
    /// Errors: the upstream did not answer.
    pub(crate) async fn know_product(&self, limits: TransferLimits) -> Result<(), UpstreamError> {
        self.credential.know_product(&self.upstream, limits).await
    }

    /// Sends a request with the `Authorization` that it needs for a scope: the one place from which
    /// requests of the line go to upstreams.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        upload: Option<Arc<Upload>>,
        limits: TransferLimits,
        scope: TokenScope<'_>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let sending = UpstreamRequest {
            request,
            upload,
            limits,
        };
        self.credential.send(&self.upstream, sending, scope).await
    }
}

/// All sites of a snapshot. A request loads this once and sees one configuration to its end.
pub(crate) struct Sites {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) all: Vec<Arc<Site>>,
    by_name: HashMap<ListenAddress, HashMap<HostName, Arc<Site>>>,
}

impl Sites {
    pub(crate) fn new(snapshot: Arc<Snapshot>, all: Vec<Arc<Site>>) -> Self {
        let mut by_name: HashMap<_, HashMap<_, _>> = HashMap::new();
        for site in &all {
            for &listener in &site.host.listen {
                let names = by_name.entry(listener).or_default();
                names.extend(
                    site.host
                        .names_on(listener)
                        .map(|name| (name.clone(), site.clone())),
                );
            }
        }
        Self {
            snapshot,
            all,
            by_name,
        }
    }

    /// The site of a name on a listener.
    pub(crate) fn find(&self, listener: ListenAddress, name: &HostName) -> Option<&Arc<Site>> {
        self.by_name.get(&listener)?.get(name)
    }

    /// The site that serves a name on any listener: for redirects from plain HTTP.
    pub(crate) fn find_anywhere(&self, name: &HostName) -> Option<&Arc<Site>> {
        self.all.iter().find(|site| {
            site.host
                .listen
                .iter()
                .any(|&l| site.host.names_on(l).any(|n| n == name))
        })
    }
}
