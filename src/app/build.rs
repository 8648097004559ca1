//! Builds the live parts of a configuration, and keeps those of the previous one that are
//! unchanged.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::StartError;
use super::access;
use super::configuration::{ProblemReports, ReportTime};
use super::preconditions;
use super::site::{self, Purpose, build_site};
use super::tokens;
use crate::auth::Refreshed;
use crate::auth::token::Tokens;
use crate::auth::upload_session::{self, SessionKey};
use crate::certs::served::manager::Certificates;
use crate::config::access::AccessRule;
use crate::config::loader::{CandidateConfig, Loader, Selection};
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::upstream::UpstreamUrl;
use crate::config::vhost::SharedVirtualHost;
use crate::registry::action::Action;
use crate::registry::host::HostName;
use crate::request::site::{SharedWriteLocks, Site, Sites};
use crate::state_file::run_blocking;

/// The live parts of a configuration, not yet in force.
pub(super) struct BuiltSites {
    pub(super) sites: Arc<Sites>,
    pub(super) selection: Selection,
    /// Whether they are others than the sites before, or other settings of the process.
    pub(super) is_changed: bool,
}

/// Reads the configuration, but not the files that are `unsettled`.
pub(super) async fn read(
    loader: &Arc<Mutex<Loader>>,
    unsettled: BTreeSet<PathBuf>,
) -> Result<CandidateConfig, StartError> {
    let loader = loader.clone();
    let read = run_blocking(move || {
        let mut loader = loader.lock().unwrap_or_else(PoisonError::into_inner);
        loader.read(&unsettled)
    });
    read.await.map_err(StartError::Configuration)
}

/// Builds the sites of the files without problems. What did not change is taken from the sites
/// `before`; so are those of files of which no site can be built.
pub(super) struct SiteBuild {
    pub(super) loader: Arc<Mutex<Loader>>,
    pub(super) candidate: CandidateConfig,
    pub(super) before: Option<Arc<Sites>>,
    pub(super) workers: usize,
}

impl SiteBuild {
    pub(super) async fn run(self) -> Result<BuiltSites, StartError> {
        run_blocking(move || self.run_blocking()).await
    }

    /// The first sites of the process, in force from now on. A problem of one file prevents that if
    /// `strict`, or if no other file can be served.
    pub(super) async fn start(
        self,
        strict: bool,
    ) -> Result<(Arc<Sites>, ProblemReports), StartError> {
        let loader = self.loader.clone();
        let BuiltSites {
            sites, selection, ..
        } = self.run().await?;
        if selection.is_empty() || strict && !selection.refused.is_empty() {
            let mut problems = selection.problems();
            problems.extend(selection.warnings.iter().cloned());
            return Err(StartError::Configuration(problems));
        }
        let mut reports = ProblemReports::new();
        reports.loaded(&selection, true, ReportTime::Now);
        let mut loader = loader.lock().unwrap_or_else(PoisonError::into_inner);
        loader.accept(&selection);
        set_quotas(&sites, None);
        lock_writes(&sites);
        Ok((sites, reports))
    }

    fn run_blocking(self) -> Result<BuiltSites, StartError> {
        let loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unusable = BTreeMap::new();
        let mut parts = SharedParts::default();
        // Each time, further files are found unusable.
        loop {
            let selection = loader
                .select(&self.candidate, &unusable)
                .map_err(StartError::Configuration)?;
            let snapshot = selection.snapshot(loader.directory());
            if self.before.is_none() {
                ensure_state(&snapshot)?;
            }
            let failed = self.build(&snapshot, &unusable, &mut parts)?;
            if failed.is_empty() {
                let sites = parts.into_sites(snapshot);
                let before = self.before.iter().flat_map(|before| &before.all);
                let is_same = before
                    .map(Arc::as_ptr)
                    .eq(sites.all.iter().map(Arc::as_ptr));
                return Ok(BuiltSites {
                    is_changed: !is_same || !loader.is_in_force(&selection),
                    sites,
                    selection,
                });
            }
            unusable.extend(failed);
        }
    }

    /// Builds the sites of a snapshot and returns the problems of those that cannot be built.
    fn build(
        &self,
        snapshot: &Snapshot,
        unusable: &BTreeMap<PathBuf, Problems>,
        parts: &mut SharedParts,
    ) -> Result<BTreeMap<PathBuf, Problems>, StartError> {
        let before = self.before.as_deref();
        parts.open(snapshot, before)?;
        let all = before
            .map(|before| before.all.as_slice())
            .unwrap_or_default();
        let by_domain: HashMap<&HostName, &Arc<Site>> =
            all.iter().map(|site| (&site.host.domain, site)).collect();
        let by_file: HashMap<&Path, &Arc<Site>> =
            all.iter().map(|site| (&*site.host.source, site)).collect();
        let mut failed = BTreeMap::new();
        for host in &snapshot.domains {
            if let Some(site) = by_file.get(&*host.source)
                && (unusable.contains_key(&host.source) || site::is_current(site, host))
            {
                parts.insert((*site).clone());
                continue;
            }
            if parts.has(host) || unusable.contains_key(&host.source) {
                continue;
            }
            let mut problems = Problems::default();
            let purpose = parts.purpose(snapshot, self.workers);
            let old = by_domain.get(&host.domain).copied();
            match build_site(host, old, purpose, &mut problems) {
                Some(site) if !problems.has_errors() => parts.insert(Arc::new(site)),
                Some(_) | None => {
                    failed.insert(host.source.clone(), problems);
                }
            }
        }
        Ok(failed)
    }
}

/// What sites share, and the sites that are built already.
#[derive(Default)]
struct SharedParts {
    session_key: Option<SessionKey>,
    tokens: Option<Arc<Tokens>>,
    sites: HashMap<PathBuf, Arc<Site>>,
}

impl SharedParts {
    fn open(&mut self, snapshot: &Snapshot, before: Option<&Sites>) -> Result<(), StartError> {
        let mut problems = Problems::default();
        if self.session_key.is_none() {
            self.session_key = session_key(snapshot, before, &mut problems);
        }
        if self.tokens.is_none() {
            self.tokens = tokens::tokens(snapshot, before, &mut problems);
        }
        if problems.has_errors() {
            return Err(StartError::Configuration(problems));
        }
        Ok(())
    }

    fn purpose<'a>(&'a self, snapshot: &'a Snapshot, workers: usize) -> Purpose<'a> {
        Purpose::Serve {
            state: &snapshot.state,
            workers,
            session_key: self.session_key.as_ref(),
            tokens: self.tokens.as_ref(),
        }
    }

    fn insert(&mut self, site: Arc<Site>) {
        self.sites.insert(site.host.source.clone(), site);
    }

    fn has(&self, host: &SharedVirtualHost) -> bool {
        let site = self.sites.get(&host.source);
        site.is_some_and(|site| Arc::ptr_eq(&site.host, host))
    }

    fn into_sites(mut self, mut snapshot: Snapshot) -> Arc<Sites> {
        let hosts = snapshot.domains.iter();
        let all = hosts.filter_map(|host| self.sites.remove(&host.source));
        let all: Vec<_> = all.collect();
        // A file of which no site can be built may be in force with earlier settings.
        snapshot.domains = all.iter().map(|site| site.host.clone()).collect();
        Arc::new(Sites::new(Arc::new(snapshot), all))
    }
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
/// it, or the reverse, or either under a condition, and locks the repositories of every registry with
/// retention: also for writes through other domains that have neither.
pub(super) fn lock_writes(sites: &Sites) {
    let differs = |rule: &AccessRule| {
        !rule.conditions.is_none()
            || rule.actions.has(Action::Push) != rule.actions.has(Action::Overwrite)
    };
    let behind = |site: &Site| {
        site.host
            .registry
            .upstream()
            .map(|upstream| upstream.url.clone())
    };
    let (mut distinguished, mut retained) = (HashSet::new(), HashSet::new());
    for site in &sites.all {
        if site.host.access.rules.iter().any(differs) {
            distinguished.extend(behind(site));
        }
        if site.host.retention.is_some() {
            retained.extend(behind(site));
        }
    }
    for site in &sites.all {
        let is_in = |set: &HashSet<UpstreamUrl>| {
            behind(site).is_some_and(|registry| set.contains(&registry))
        };
        let SharedWriteLocks {
            rules_lock_tags,
            is_retained,
        } = &site.write_locks;
        rules_lock_tags.store(is_in(&distinguished), Ordering::Relaxed);
        is_retained.store(is_in(&retained), Ordering::Relaxed);
    }
}

/// Bounds the stores, and the connections to upstreams, as their domains say.
pub(super) fn set_quotas(sites: &Sites, before: Option<&Sites>) {
    for site in changed(before, sites) {
        site.apply_limits();
        if let Some(store) = site.registry.store() {
            store.set_quotas(&site.host.quotas);
        }
    }
}

/// How many sites are others than before.
pub(super) fn count_changed(before: &Sites, now: &Sites) -> usize {
    changed(Some(before), now).count()
}

fn changed<'a>(before: Option<&Sites>, now: &'a Sites) -> impl Iterator<Item = &'a Arc<Site>> {
    let before = before
        .map(|before| before.all.as_slice())
        .unwrap_or_default();
    let unchanged: HashSet<_> = before.iter().map(Arc::as_ptr).collect();
    let all = now.all.iter();
    all.filter(move |site| !unchanged.contains(&Arc::as_ptr(site)))
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
    let with_rules = before.domains.iter();
    let with_rules = with_rules.filter(|old| !old.access.rules.is_empty());
    let with_rules: HashSet<_> = with_rules.map(|old| &old.domain).collect();
    for host in &now.domains {
        if host.access.rules.is_empty() && with_rules.contains(&host.domain) {
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
    if before.log.format != now.log.format {
        tracing::warn!(
            "`log.format` of events only changes with a restart, that of requests has changed"
        );
    }
}
