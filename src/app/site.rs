//! Builds a site, the live parts of one domain, and keeps those of the previous one that are
//! unchanged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderValue;

use super::access;
use crate::auth::UsersFile;
use crate::auth::policy::Policy;
use crate::auth::token::Tokens;
use crate::auth::upload_session::SessionKey;
use crate::config::problem::{Problem, Problems};
use crate::config::upstream::{
    AdminLogin, Redirects, ReplicaCheck, Scheme, UpstreamSettings, UpstreamUrl,
};
use crate::config::vhost::{RegistrySettings, SharedVirtualHost, StoreSettings, VirtualHost};
use crate::crypto::sha256;
use crate::journal::Journal;
use crate::registry::host::HostName;
use crate::registry::upload_id::ReplicaId;
use crate::request::site::{Backend, Registry, SharedWriteLocks, Site};
use crate::request::via::ViaPseudonym;
use crate::store::Store;
use crate::store::spool::DomainSpool;
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, ConnectorError, Trust};
use crate::upstream::credential::Credential;
use crate::upstream::health::{UpstreamHealth, UpstreamRole};
use crate::upstream::known_product::KnownProduct;
use crate::upstream::product::api::ApiClient;
use crate::upstream::replica::Replica;

/// What a site is built for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// To report problems: nothing is written.
    Check,
    /// To serve.
    Serve {
        state: &'a Path,
        workers: usize,
        session_key: Option<&'a SessionKey>,
        tokens: Option<&'a Arc<Tokens>>,
    },
}

/// Builds the site of `host`. `None`: it has errors, which are among `problems`.
pub(super) fn build_site(
    host: &SharedVirtualHost,
    before: Option<&Arc<Site>>,
    purpose: Purpose<'_>,
    problems: &mut Problems,
) -> Option<Site> {
    let (workers, session_key, tokens) = match purpose {
        Purpose::Check => (1, None, None),
        Purpose::Serve {
            state: _,
            workers,
            session_key,
            tokens,
        } => (workers, session_key, tokens),
    };
    let mut builder = SiteBuilder {
        host,
        before,
        workers,
        session_key,
        problems,
    };
    let files_digest = files_digest(host);
    let users = builder.users();
    let trust = builder.trust();
    if let Purpose::Check = purpose {
        access::warn(host, users.as_deref(), builder.problems);
    }
    let registry = match (&host.registry, purpose) {
        (RegistrySettings::Upstream(upstream), _) => builder.upstream(upstream, trust.as_ref()),
        (RegistrySettings::Store(settings), Purpose::Serve { .. }) => builder.store(settings),
        (RegistrySettings::Store(_), Purpose::Check) => None,
    };
    let browser = builder.browser(trust.as_ref());
    let challenge = builder.challenge();
    let spool = builder.spool(purpose);
    let journal = builder.journal(purpose, registry.as_ref());
    Some(Site {
        host: host.clone(),
        users: users?,
        session_key: session_key.cloned(),
        policy: Policy::new(&host.access, host.auth.anonymous.actions()),
        tokens: tokens
            .filter(|_| host.auth.mode.tokens().is_some())
            .cloned(),
        registry: registry?,
        journal,
        write_locks: SharedWriteLocks::default(),
        files_digest,
        storage: trust.filter(|_| follows_redirects(host)),
        spool: spool?,
        browser: browser?,
        traffic: before.map_or_else(Arc::default, |site| site.traffic.clone()),
        challenge: challenge?,
    })
}

/// Whether a site is what would be built of `host` now.
pub(super) fn is_current(site: &Site, host: &SharedVirtualHost) -> bool {
    let registry = site.registry.upstream();
    Arc::ptr_eq(&site.host, host)
        && registry.is_none_or(|registry| registry.credential.is_current())
        && site.files_digest == files_digest(host)
}

/// Of the files that are read when a site is built, and that nothing else reads again: roots, and
/// the secret for the product's API.
fn files_digest(host: &VirtualHost) -> [u8; 32] {
    let Some(upstream) = host.registry.upstream() else {
        return [0; 32];
    };
    let secret = match &upstream.admin {
        Some(AdminLogin::Password { password, .. }) => password.file(),
        Some(AdminLogin::Token(token)) => token.file(),
        None => None,
    };
    let files = [upstream.roots.as_deref(), secret];
    // Of a file that cannot be read, the digest of nothing: it is reported elsewhere.
    let digests = files.map(|file| file.and_then(|file| std::fs::read(file).ok()));
    let digests = digests.map(|content| content.map_or([0; 32], |content| sha256(&content)));
    sha256(digests.as_flattened())
}

/// The upstream of `host` alone, for questions to it. `None`: it has none, or one with errors, which
/// who builds the site reports.
pub(super) fn build_upstream(host: &SharedVirtualHost) -> Option<Backend> {
    let settings = host.registry.upstream()?;
    let mut builder = SiteBuilder {
        host,
        before: None,
        workers: 1,
        session_key: None,
        problems: &mut Problems::default(),
    };
    let trust = builder.trust();
    match builder.upstream(settings, trust.as_ref())? {
        Registry::Upstream(backend) => Some(backend),
        Registry::Store(_) => None,
    }
}

/// An upstream as it is configured.
struct TargetSettings<'a> {
    role: UpstreamRole,
    url: &'a UpstreamUrl,
    /// Further replicas.
    others: &'a [UpstreamUrl],
    check: Option<&'a ReplicaCheck>,
    credential: Credential,
    product: Arc<KnownProduct>,
}

struct SiteBuilder<'a> {
    host: &'a SharedVirtualHost,
    before: Option<&'a Arc<Site>>,
    workers: usize,
    /// `None`: nothing is served.
    session_key: Option<&'a SessionKey>,
    problems: &'a mut Problems,
}

impl SiteBuilder<'_> {
    fn report(&mut self, keys: &[&str], message: String) {
        let help = "correct it and reload";
        let problem = Problem::at_key(&self.host.source, keys, message, help);
        self.problems.push(problem);
    }

    fn users(&mut self) -> Option<Arc<UsersFile>> {
        let auth = &self.host.auth;
        let before = self.before;
        if let Some(site) = before.filter(|site| site.host.auth.htpasswd == auth.htpasswd) {
            // The poll finds changes of the file, and keeps the last valid content of an invalid
            // one.
            return Some(site.users.clone());
        }
        match UsersFile::open(&auth.htpasswd) {
            Ok(users) => {
                for skipped in users.current().skipped() {
                    tracing::warn!(domain = %self.host.domain, "{skipped}");
                }
                Some(Arc::new(users))
            }
            Err(error) => {
                self.problems.push(Problem::at_key(
                    &self.host.source,
                    &["auth", "htpasswd"],
                    error.to_string(),
                    "make one with `moorgate htpasswd FILE USER`",
                ));
                None
            }
        }
    }

    /// Reads the root certificates, if a connection of the domain is verified by them.
    fn trust(&mut self) -> Option<Trust> {
        let host = self.host;
        let browser = host.browser.as_ref().map(|browser| browser.url.scheme);
        let upstream = host.registry.upstream();
        let schemes = [browser, upstream.map(|upstream| upstream.url.scheme)];
        if !schemes.contains(&Some(Scheme::Https)) && !follows_redirects(host) {
            return None;
        }
        Trust::new(upstream.and_then(|upstream| upstream.roots.as_ref()))
            .map_err(|error| self.report(&["upstream", "roots"], error.to_string()))
            .ok()
    }

    fn upstream(&mut self, upstream: &UpstreamSettings, trust: Option<&Trust>) -> Option<Registry> {
        let (credential, product) = match self.kept_login(upstream) {
            Some(kept) => kept,
            None => {
                let product = Arc::new(KnownProduct::new(upstream));
                let credential = Credential::new(upstream, &self.host.timeouts, &product)
                    .map_err(|error| self.report(&["upstream"], error.to_string()))
                    .ok()?;
                (credential, product)
            }
        };
        let settings = TargetSettings {
            role: UpstreamRole::Registry,
            url: &upstream.url,
            others: &upstream.others,
            check: upstream.check.as_ref(),
            credential,
            product,
        };
        let old = self.before.and_then(|site| site.registry.upstream());
        let backend = self
            .target(settings, old, trust)
            .map_err(|error| self.report(&["upstream", "url"], error.to_string()))
            .ok()?;
        let (product, login) = (backend.product.given(), backend.credential.for_api());
        let timeouts = &self.host.timeouts;
        let api = ApiClient::new(upstream, product, login, timeouts, self.workers)
            .map_err(|error| self.report(&["upstream", "api"], error.to_string()))
            .ok()?;
        Some(Registry::Upstream(Backend { api, ..backend }))
    }

    /// The login at the same registry with the same settings, with its tokens and what is known of
    /// the product.
    fn kept_login(&self, upstream: &UpstreamSettings) -> Option<(Credential, Arc<KnownProduct>)> {
        let before = self.before?;
        let settings = before.host.registry.upstream()?;
        let is_same = settings.is_same_login(upstream)
            && before.host.timeouts.upstream_connect == self.host.timeouts.upstream_connect;
        let Backend {
            credential,
            product,
            ..
        } = before.registry.upstream().filter(|_| is_same)?;
        let kept = (credential.clone(), product.clone());
        Some(kept).filter(|(credential, _)| credential.is_current())
    }

    /// A store stays open across reloads, and its uploads continue.
    fn store(&mut self, settings: &StoreSettings) -> Option<Registry> {
        let open = self.before.and_then(|site| site.registry.store());
        if let Some(open) = open.filter(|open| open.directory() == settings.directory) {
            return Some(Registry::Store(open.clone()));
        }
        match Store::open(settings.directory.clone()) {
            Ok(store) => Some(Registry::Store(store)),
            Err(error) => {
                let message = format!("{} cannot be used: {error}", settings.directory.display());
                self.report(&["upstream", "directory"], message);
                None
            }
        }
    }

    /// The inner value is `None` for a domain without one, the outer for one with errors.
    fn browser(&mut self, trust: Option<&Trust>) -> Option<Option<Backend>> {
        let Some(browser) = &self.host.browser else {
            return Some(None);
        };
        let settings = TargetSettings {
            role: UpstreamRole::Browser,
            url: &browser.url,
            others: &[],
            check: None,
            credential: Credential::None,
            product: Arc::new(KnownProduct::none()),
        };
        let old = self.before.and_then(|site| site.browser.as_ref());
        self.target(settings, old, trust)
            .map_err(|error| self.report(&["browser", "url"], error.to_string()))
            .ok()
            .map(Some)
    }

    fn target(
        &self,
        settings: TargetSettings<'_>,
        before: Option<&Backend>,
        trust: Option<&Trust>,
    ) -> Result<Backend, ConnectorError> {
        let url = settings.url;
        let default_port = if url.scheme == Scheme::Https { 443 } else { 80 };
        let authority = url.host.authority(url.port, default_port);
        let authority = HeaderValue::try_from(authority).expect("a host name is visible ASCII");
        let upstream = self.connected(&settings, before, trust)?;
        let TargetSettings {
            credential,
            product,
            ..
        } = settings;
        // Requests are under way that it marks.
        let via = match before {
            Some(old) => old.via.clone(),
            None => Arc::new(ViaPseudonym::random()?),
        };
        Ok(Backend {
            upstream,
            authority,
            credential,
            product,
            api: None,
            via,
        })
    }

    /// The upstream with what is unchanged of the one before.
    fn connected(
        &self,
        settings: &TargetSettings<'_>,
        before: Option<&Backend>,
        trust: Option<&Trust>,
    ) -> Result<Arc<Upstream>, ConnectorError> {
        let mut replicas = Vec::new();
        for url in std::iter::once(settings.url).chain(settings.others) {
            replicas.push(self.replica(settings.role, url, before, trust)?);
        }
        if let Some(old) = before
            && old.upstream.is_of(&replicas, settings.check)
        {
            return Ok(old.upstream.clone());
        }
        let first = replicas.remove(0);
        if replicas.is_empty() {
            return Ok(Upstream::of(first));
        }
        let upstream = Upstream::of_replicas(first, replicas, settings.check.cloned());
        if let Some(group) = upstream.group().filter(|_| self.session_key.is_some()) {
            group.begin_checks();
        }
        Ok(upstream)
    }

    /// One server, with the connections and the health that it had.
    fn replica(
        &self,
        role: UpstreamRole,
        url: &UpstreamUrl,
        before: Option<&Backend>,
        trust: Option<&Trust>,
    ) -> Result<Arc<Replica>, ConnectorError> {
        let mut old = before.into_iter().flat_map(|old| old.upstream.replicas());
        let same = old.find(|replica| replica.target() == url);
        // Pooled connections are kept, unless the timeout changed or roots, which may have.
        let connect = self.host.timeouts.upstream_connect;
        let kept =
            same.filter(|old| url.scheme == Scheme::Http && old.connect_timeout() == connect);
        if let Some(kept) = kept {
            return Ok(kept.clone());
        }
        let known = same.and_then(|old| old.health().cloned());
        let domain = self.host.domain.as_str();
        let health = known.unwrap_or_else(|| Arc::new(UpstreamHealth::new(role, domain, url)));
        let connector = Connector::new(url.clone(), trust)?;
        let address = url.to_string();
        let id = match self.session_key {
            Some(key) => key.replica(domain, &address),
            None => ReplicaId::from_tag(&sha256(address.as_bytes())),
        };
        Ok(Replica::new(
            id,
            connector,
            self.workers,
            connect,
            Some(health),
        ))
    }

    /// The inner value is `None` for a domain without an upstream, the outer for an error.
    fn spool(&mut self, purpose: Purpose<'_>) -> Option<Option<Arc<DomainSpool>>> {
        let (Some(upstream), Purpose::Serve { .. }) = (self.host.registry.upstream(), purpose)
        else {
            return Some(None);
        };
        let (directory, limit) = (&upstream.spool_directory, upstream.spool);
        let before = self.before.and_then(|site| site.spool.clone());
        if let Some(before) = before.filter(|spool| spool.is(directory, limit)) {
            return Some(Some(before));
        }
        DomainSpool::new(directory.clone(), limit)
            .map_err(|error| {
                let message = format!("{} cannot be used: {error}", directory.display());
                self.report(&["upstream", "spool"], message);
            })
            .ok()
            .map(Some)
    }

    /// The journal of what clients push and pull: a store has one always, an upstream where something
    /// is decided by it. It survives reloads with what is not yet written.
    fn journal(&self, purpose: Purpose<'_>, registry: Option<&Registry>) -> Option<Arc<Journal>> {
        let (Some(registry), Purpose::Serve { state, .. }) = (registry, purpose) else {
            return None;
        };
        if let Some(store) = registry.store() {
            return Some(store.journal().clone());
        }
        if !needs_journal(self.host) {
            return None;
        }
        let path = journal_path(state, &self.host.domain);
        let before = self.before.and_then(|site| site.journal.clone());
        let same = before.filter(|journal| journal.path() == path);
        Some(same.unwrap_or_else(|| Arc::new(Journal::bounded(path))))
    }

    fn challenge(&mut self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("Basic realm=\"{}\"", self.host.auth.realm))
            .map_err(|_| {
                let message = "the realm is no valid header value";
                self.report(&["auth", "realm"], message.to_owned());
            })
            .ok()
    }
}

/// Whether pushes and pulls at an upstream are recorded.
fn needs_journal(host: &SharedVirtualHost) -> bool {
    host.retention.is_some() || host.access.limits_ages()
}

/// The journal of a domain whose registry is an upstream.
pub(super) fn journal_path(state: &Path, domain: &HostName) -> PathBuf {
    let directory = state.join("retention").join(domain.as_str());
    directory.join("journal.redb")
}

/// Whether moorgate follows redirects of the registry.
fn follows_redirects(host: &SharedVirtualHost) -> bool {
    host.registry
        .upstream()
        .is_some_and(|upstream| upstream.redirects == Redirects::Follow)
}
