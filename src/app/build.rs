//! Builds the live parts of a configuration, and keeps those of the previous one that are unchanged.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderValue;

use super::StartError;
use super::{access, tokens};
use crate::auth::policy::Policy;
use crate::auth::token::Tokens;
use crate::auth::upload_session::{self, SessionKey};
use crate::auth::{Refreshed, UsersFile};
use crate::certs::served::manager::Certificates;
use crate::config::access::AccessRule;
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::{
    Redirects, RegistrySettings, Scheme, SharedVirtualHost, StoreSettings, UpstreamSettings,
    UpstreamUrl,
};
use crate::registry::action::Action;
use crate::request::site::{Backend, Registry, Site, Sites};
use crate::state_file::run_blocking;
use crate::store::Store;
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, Trust};
use crate::upstream::credential::Credential;

/// Reads and checks the configuration. Logs its warnings.
pub(super) async fn load(directory: PathBuf) -> Result<Arc<Snapshot>, StartError> {
    let loaded = run_blocking(move || crate::config::load(&directory))
        .await
        .map_err(StartError::Configuration)?;
    for warning in loaded.warnings.iter() {
        tracing::warn!(file = %warning.file().display(), "{}", warning.message());
    }
    Ok(Arc::new(loaded.snapshot))
}

/// Builds all sites, or none.
pub(super) async fn sites(
    snapshot: Arc<Snapshot>,
    before: Option<&Arc<Sites>>,
    workers: usize,
) -> Result<Arc<Sites>, StartError> {
    let before = before.cloned();
    run_blocking(move || {
        let mut problems = Problems::default();
        let session_key = session_key(&snapshot, before.as_deref(), &mut problems);
        let tokens = tokens::tokens(&snapshot, before.as_deref(), &mut problems);
        let all = snapshot.domains.iter().filter_map(|host| {
            let old = before.as_ref().and_then(|sites| {
                sites
                    .all
                    .iter()
                    .find(|site| site.host.domain == host.domain)
            });
            let (session_key, tokens) = (session_key.as_ref(), tokens.as_ref());
            site(
                host,
                old,
                Purpose::Serve {
                    workers,
                    session_key,
                    tokens,
                },
                &mut problems,
            )
        });
        let mut all: Vec<_> = all.collect();
        if problems.has_errors() {
            return Err(StartError::Configuration(problems));
        }
        serialize_tag_writes(&mut all);
        Ok(Arc::new(Sites::new(
            snapshot,
            all.into_iter().map(Arc::new).collect(),
        )))
    })
    .await
}

/// Serializes tag writes at every registry where a rule allows to create a tag and not to overwrite it,
/// or the reverse: also those through other domains whose own rules do not.
fn serialize_tag_writes(sites: &mut [Site]) {
    let differs =
        |rule: &AccessRule| rule.actions.has(Action::Push) != rule.actions.has(Action::Overwrite);
    let distinguishes = |site: &&Site| site.host.access.rules.iter().any(differs);
    let behind = |site: &Site| {
        site.registry
            .upstream()
            .map(|_| site.host.registry.to_string())
    };
    let registries: HashSet<String> = sites
        .iter()
        .filter(distinguishes)
        .filter_map(behind)
        .collect();
    for site in sites {
        site.takes_turns = behind(site).is_some_and(|registry| registries.contains(&registry));
    }
}

/// The problems in the files that the domains name, for `moorgate check`.
pub(crate) fn problems(snapshot: &Snapshot) -> Problems {
    let mut problems = Problems::default();
    for host in &snapshot.domains {
        site(host, None, Purpose::Check, &mut problems);
    }
    problems
}

/// What a site is built for.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    /// To report problems: nothing is written.
    Check,
    /// To serve.
    Serve {
        workers: usize,
        session_key: Option<&'a SessionKey>,
        tokens: Option<&'a Arc<Tokens>>,
    },
}

fn site(
    host: &SharedVirtualHost,
    before: Option<&Arc<Site>>,
    purpose: Purpose<'_>,
    problems: &mut Problems,
) -> Option<Site> {
    let users = users(host, before, problems);
    let trust = trust(host, problems);
    let (workers, session_key, tokens) = match purpose {
        Purpose::Check => {
            access::warn_of_unknown_users(host, users.as_deref(), problems);
            access::warn_of_users_without_repositories(host, users.as_deref(), problems);
            (1, None, None)
        }
        Purpose::Serve {
            workers,
            session_key,
            tokens,
        } => (workers, session_key, tokens),
    };
    let policy = Policy::new(&host.access, host.auth.anonymous.actions());
    let registry = match (&host.registry, purpose) {
        (RegistrySettings::Upstream(upstream), _) => {
            registry_behind(host, upstream, before, trust.as_ref(), workers, problems)
        }
        (RegistrySettings::Store(settings), Purpose::Serve { .. }) => {
            store(host, settings, before, problems)
        }
        (RegistrySettings::Store(_), Purpose::Check) => None,
    };
    let browser = host.browser.as_ref().map(|browser| {
        let old = before.and_then(|site| site.browser.as_ref());
        target(
            host,
            &browser.url,
            old,
            trust.as_ref(),
            Credential::None,
            workers,
        )
        .map_err(|error| problems.push(at(host, &["browser", "url"], error.to_string())))
        .ok()
    });
    let challenge = challenge(host, problems);
    let storage = trust.filter(|_| follows_redirects(host));
    let browser = match browser {
        Some(None) => return None,
        usable => usable.flatten(),
    };
    Some(Site {
        host: host.clone(),
        users: users?,
        session_key: session_key.cloned(),
        policy,
        tokens: tokens
            .filter(|_| host.auth.mode.tokens().is_some())
            .cloned(),
        registry: registry?,
        takes_turns: false,
        storage,
        browser,
        traffic: before.map_or_else(Arc::default, |site| site.traffic.clone()),
        challenge: challenge?,
    })
}

fn challenge(host: &SharedVirtualHost, problems: &mut Problems) -> Option<HeaderValue> {
    let challenge = HeaderValue::try_from(format!("Basic realm=\"{}\"", host.auth.realm));
    let refused = || {
        at(
            host,
            &["auth", "realm"],
            "the realm is no valid header value".to_owned(),
        )
    };
    challenge.map_err(|_| problems.push(refused())).ok()
}

/// Opens the key that binds upload sessions to users. Kept across reloads, like the state directory.
fn session_key(
    snapshot: &Snapshot,
    before: Option<&Sites>,
    problems: &mut Problems,
) -> Option<SessionKey> {
    let first = snapshot.domains.first()?;
    let kept = before.and_then(|sites| sites.all.iter().find_map(|site| site.session_key.clone()));
    if kept.is_some() {
        return kept;
    }
    let has_rules = snapshot
        .domains
        .iter()
        .any(|host| !host.access.rules.is_empty());
    match SessionKey::open(&snapshot.state) {
        Ok(key) => Some(key),
        // Where every user may do everything, serving matters more than uploads that outlive a restart.
        Err(error) if !has_rules => {
            let file = snapshot.state.join(upload_session::FILE);
            tracing::warn!(file = %file.display(), %error, "upload session key cannot be stored, uploads end with this process");
            SessionKey::of_process().ok()
        }
        Err(error) => {
            let message = format!(
                "the key of upload sessions in {} cannot be used: {error}",
                snapshot.state.display()
            );
            let help =
                "access rules need it: make the state directory writable for moorgate's user";
            problems.push(Problem::in_file(&first.source, message, help));
            None
        }
    }
}

fn at(host: &SharedVirtualHost, keys: &[&str], message: String) -> Problem {
    Problem::at_key(&host.source, keys, message, "correct it and reload")
}

fn users(
    host: &SharedVirtualHost,
    before: Option<&Arc<Site>>,
    problems: &mut Problems,
) -> Option<Arc<UsersFile>> {
    if let Some(site) = before.filter(|site| site.host.auth.htpasswd == host.auth.htpasswd) {
        // The poll finds changes of the file, and keeps the last valid content of an invalid one.
        return Some(site.users.clone());
    }
    match UsersFile::open(&host.auth.htpasswd) {
        Ok(users) => {
            for skipped in users.current().skipped() {
                tracing::warn!(domain = %host.domain, "{skipped}");
            }
            Some(Arc::new(users))
        }
        Err(error) => {
            let help = "make one with `moorgate htpasswd FILE USER`";
            problems.push(Problem::at_key(
                &host.source,
                &["auth", "htpasswd"],
                error.to_string(),
                help,
            ));
            None
        }
    }
}

/// Reads the root certificates, if a connection of the domain is verified by them.
fn trust(host: &SharedVirtualHost, problems: &mut Problems) -> Option<Trust> {
    let browser = host
        .browser
        .as_ref()
        .is_some_and(|browser| browser.url.scheme == Scheme::Https);
    let upstream = host.registry.upstream();
    let https = upstream.is_some_and(|upstream| upstream.url.scheme == Scheme::Https);
    if !https && !follows_redirects(host) && !browser {
        return None;
    }
    match Trust::new(upstream.and_then(|upstream| upstream.roots.as_ref())) {
        Ok(trust) => Some(trust),
        Err(error) => {
            problems.push(at(host, &["upstream", "roots"], error.to_string()));
            None
        }
    }
}

/// Whether moorgate follows redirects of the registry.
fn follows_redirects(host: &SharedVirtualHost) -> bool {
    host.registry
        .upstream()
        .is_some_and(|upstream| upstream.redirects == Redirects::Follow)
}

fn registry_behind(
    host: &SharedVirtualHost,
    upstream: &UpstreamSettings,
    before: Option<&Arc<Site>>,
    trust: Option<&Trust>,
    workers: usize,
    problems: &mut Problems,
) -> Option<Registry> {
    let credential = Credential::new(&upstream.authorization);
    let same_roots = before.filter(|site| {
        site.host
            .registry
            .upstream()
            .is_some_and(|before| before.roots == upstream.roots)
    });
    let old = same_roots.and_then(|site| site.registry.upstream());
    target(host, &upstream.url, old, trust, credential, workers)
        .map_err(|error| problems.push(at(host, &["upstream", "url"], error.to_string())))
        .ok()
        .map(Registry::Upstream)
}

/// A store stays open across reloads, and its uploads continue.
fn store(
    host: &SharedVirtualHost,
    settings: &StoreSettings,
    before: Option<&Arc<Site>>,
    problems: &mut Problems,
) -> Option<Registry> {
    let open = before.and_then(|site| site.registry.store());
    if let Some(open) = open.filter(|open| open.directory() == settings.directory) {
        return Some(Registry::Store(open.clone()));
    }
    match Store::open(settings.directory.clone()) {
        Ok(store) => Some(Registry::Store(store)),
        Err(error) => {
            let message = format!("{} cannot be used: {error}", settings.directory.display());
            problems.push(at(host, &["upstream", "directory"], message));
            None
        }
    }
}

fn target(
    host: &SharedVirtualHost,
    url: &UpstreamUrl,
    before: Option<&Backend>,
    trust: Option<&Trust>,
    credential: Credential,
    workers: usize,
) -> Result<Backend, crate::upstream::connector::ConnectorError> {
    let default_port = if url.scheme == Scheme::Https { 443 } else { 80 };
    let authority = url.host.authority(url.port, default_port);
    let authority = HeaderValue::try_from(authority).expect("a host name is visible ASCII");
    // Pooled connections are kept, unless the roots or timeouts changed.
    let connect = host.timeouts.upstream_connect;
    let kept = before.filter(|old| {
        old.upstream.target() == url
            && url.scheme == Scheme::Http
            && old.upstream.connect_timeout() == connect
    });
    let upstream = match kept {
        Some(old) => old.upstream.clone(),
        None => Upstream::new(Connector::new(url.clone(), trust)?, workers, connect),
    };
    Ok(Backend {
        upstream,
        authority,
        credential,
    })
}

/// Reads and issues certificates on a blocking thread.
pub(super) async fn apply_certificates(certificates: &Arc<Certificates>, snapshot: &Arc<Snapshot>) {
    let (certificates, snapshot) = (certificates.clone(), snapshot.clone());
    run_blocking(move || certificates.apply(&snapshot)).await;
}

/// Re-reads the htpasswd files that changed.
pub(super) fn refresh_users(sites: &Sites) {
    for site in &sites.all {
        let domain = site.host.domain.as_str();
        match site.users.refresh() {
            Refreshed::Unchanged => {}
            Refreshed::Reloaded(users) => {
                tracing::info!(domain, users = users.users(), "htpasswd file re-read");
                for skipped in users.skipped() {
                    tracing::warn!(domain, "{skipped}");
                }
            }
            Refreshed::KeptOld(error) => {
                tracing::error!(domain, %error, "htpasswd file cannot be used, the previous users stay");
            }
            Refreshed::Emptied(error) => {
                tracing::error!(domain, %error, "htpasswd file is empty: all logins are refused");
            }
        }
    }
}

/// Warns of changes that a reload cannot make.
pub(super) fn warn_of_fixed(before: &Snapshot, now: &Snapshot) {
    if before.state != now.state {
        tracing::warn!("`state` only changes with a restart");
    }
    if before.connection.connections != now.connection.connections {
        tracing::warn!("`limits.connections` only changes with a restart");
    }
    if before.log.format != now.log.format {
        tracing::warn!(
            "`log.format` of events only changes with a restart, that of requests has changed"
        );
    }
}
