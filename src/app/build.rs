//! Builds the live parts of a configuration, and keeps those of the previous one that are
//! unchanged.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::StartError;
use super::access;
use super::preconditions;
use super::site::{Purpose, build_site};
use super::tokens;
use crate::auth::Refreshed;
use crate::auth::upload_session::{self, SessionKey};
use crate::certs::served::manager::Certificates;
use crate::config::access::AccessRule;
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::vhost::SharedVirtualHost;
use crate::registry::action::Action;
use crate::request::site::{Site, Sites};
use crate::state_file::run_blocking;

/// A configuration without errors.
pub(super) struct LoadedConfig {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) warnings: Problems,
}

/// Reads and checks the configuration.
pub(super) async fn load(directory: PathBuf) -> Result<LoadedConfig, StartError> {
    let loaded = run_blocking(move || crate::config::load(&directory))
        .await
        .map_err(StartError::Configuration)?;
    Ok(LoadedConfig {
        snapshot: Arc::new(loaded.snapshot),
        warnings: loaded.warnings,
    })
}

/// Logs the warnings of a configuration. At the start, its settings install the log first.
pub(super) fn log_warnings(warnings: &Problems) {
    for warning in warnings.iter() {
        tracing::warn!(file = %warning.file().display(), "{}", warning.message());
    }
}

/// Builds all sites, or none.
pub(super) async fn sites(
    snapshot: Arc<Snapshot>,
    before: Option<&Arc<Sites>>,
    workers: usize,
) -> Result<Arc<Sites>, StartError> {
    let before = before.cloned();
    run_blocking(move || {
        if before.is_none() {
            ensure_state(&snapshot)?;
        }
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
            let purpose = Purpose::Serve {
                workers,
                session_key: session_key.as_ref(),
                tokens: tokens.as_ref(),
            };
            build_site(host, old, purpose, &mut problems)
        });
        let mut all: Vec<_> = all.collect();
        if problems.has_errors() {
            return Err(StartError::Configuration(problems));
        }
        lock_tags_by_rules(&mut all);
        Ok(Arc::new(Sites::new(
            snapshot,
            all.into_iter().map(Arc::new).collect(),
        )))
    })
    .await
}

/// Checks that the state directory can be written: once, for all that is kept there.
fn ensure_state(snapshot: &Snapshot) -> Result<(), StartError> {
    let Err(error) = preconditions::state_access(snapshot) else {
        return Ok(());
    };
    let mut problems = Problems::default();
    problems.push(preconditions::state_problem(snapshot, &error));
    if problems.has_errors() {
        return Err(StartError::System(problems));
    }
    tracing::warn!(%error, "the state directory cannot be written, so certificates cannot be ordered or issued");
    Ok(())
}

/// Serializes tag writes at every registry where a rule allows to create a tag and not to overwrite
/// it, or the reverse: also those through other domains whose own rules do not.
fn lock_tags_by_rules(sites: &mut [Site]) {
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
        site.rules_lock_tags = behind(site).is_some_and(|registry| registries.contains(&registry));
    }
}

/// The problems in the files that the domains name, for `moorgate check`.
pub(crate) fn problems(snapshot: &Snapshot) -> Problems {
    let mut problems = Problems::default();
    if let Some(problem) = preconditions::missing_state(snapshot) {
        // Of the files in it, nothing more has to be said.
        problems.push(problem);
    } else {
        if let Err(error) = SessionKey::check(&snapshot.state) {
            problems.extend(session_key_problem(snapshot, &error));
        }
        tokens::check(snapshot, &mut problems);
    }
    problems.extend(site_problems(snapshot));
    problems
}

/// The same, without the state directory: for a configuration that is not where it will run.
pub(crate) fn site_problems(snapshot: &Snapshot) -> Problems {
    let mut problems = Problems::default();
    for host in &snapshot.domains {
        build_site(host, None, Purpose::Check, &mut problems);
    }
    access::warn_of_shared_users(snapshot, &mut problems);
    problems
}

/// Opens the key that binds upload sessions to users. Kept across reloads, like the state
/// directory.
fn session_key(
    snapshot: &Snapshot,
    before: Option<&Sites>,
    problems: &mut Problems,
) -> Option<SessionKey> {
    let kept = before.and_then(|sites| sites.all.iter().find_map(|site| site.session_key.clone()));
    if kept.is_some() {
        return kept;
    }
    let error = match SessionKey::open(&snapshot.state) {
        Ok(key) => return Some(key),
        Err(error) => error,
    };
    if let Some(problem) = session_key_problem(snapshot, &error) {
        problems.push(problem);
        return None;
    }
    // Where every user may do everything, serving matters more than uploads that outlive a restart.
    let file = snapshot.state.join(upload_session::FILE);
    tracing::warn!(file = %file.display(), %error, "upload session key cannot be stored, uploads end with this process");
    SessionKey::ephemeral().ok()
}

/// The problem of a session key that cannot be used; `None` where no access rule needs it.
fn session_key_problem(snapshot: &Snapshot, error: &io::Error) -> Option<Problem> {
    let mut rules = snapshot.domains.iter().map(|host| &host.access.rules);
    if rules.all(Vec::is_empty) {
        return None;
    }
    let file = snapshot.state.join(upload_session::FILE);
    let message = format!(
        "the key that binds uploads to their users, {}, cannot be used: {error}",
        file.display()
    );
    let help = if error.kind() == io::ErrorKind::InvalidData {
        "delete the file: a new one is made, and uploads that are under way begin again"
    } else {
        "make it readable for moorgate's user; access rules need it"
    };
    let main = snapshot.main_file();
    Some(Problem::at_key(&main, &["state"], message, help))
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

/// Warns of domains whose rules are gone, such as those of a `moorgate.toml` that is: what they kept
/// users from is now allowed.
pub(super) fn warn_of_opened(before: &Snapshot, now: &Snapshot) {
    let had_rules = |host: &SharedVirtualHost| {
        let mut before = before.domains.iter();
        before.any(|old| old.domain == host.domain && !old.access.rules.is_empty())
    };
    for host in &now.domains {
        if host.access.rules.is_empty() && had_rules(host) {
            let domain = host.domain.as_str();
            tracing::warn!(
                domain,
                "domain has no access rules any more: every user may do everything"
            );
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
