//! Reads the configuration again and makes what is valid of it take effect, for the domains alone
//! that changed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use super::background::run_logged;
use super::build::{self, BuiltSites, SiteBuild};
use super::configuration::ReportTime;
use super::descriptors;
use super::lifecycle::service_manager;
use super::{App, StartError};
use crate::config::loader::Selection;
use crate::config::problem::Problems;
use crate::request::site::Sites;
use crate::state_file::run_blocking;

/// Why the configuration is read again.
pub(super) enum ReloadCause {
    /// Somebody wants it, and waits for the result.
    Command,
    /// Files have changed, and these are still being written.
    Change { unsettled: BTreeSet<PathBuf> },
}

impl ReloadCause {
    fn report_time(&self) -> ReportTime {
        match self {
            Self::Command => ReportTime::Now,
            Self::Change { .. } => ReportTime::WhenConfirmed,
        }
    }
}

/// Reads the configuration again. One reload at a time.
///
/// Errors: what is not in force of it. The rest is, unless `moorgate.toml` is at fault.
pub(super) async fn reload(app: &Arc<App>, cause: ReloadCause) -> Result<(), StartError> {
    let _alone = app.reloading.lock().await;
    let is_command = matches!(cause, ReloadCause::Command);
    if is_command {
        service_manager::reloading().await;
    }
    let time = cause.report_time();
    match apply_files(app, cause).await {
        Ok(Applied {
            selection,
            is_changed,
        }) => {
            let unbound = app.listen_problems();
            if is_changed || is_command {
                let is_whole = selection.refused.is_empty() && unbound.is_empty();
                service_manager::reloaded(app, is_whole).await;
            }
            refusal(selection.problems(), unbound)
        }
        Err(error) => {
            let main_file = app.snapshot().main_file();
            app.reports().refused(&main_file, error.text(), time);
            if is_command {
                service_manager::reloaded(app, false).await;
            }
            Err(error)
        }
    }
}

/// Says what is not in force although the rest is.
fn refusal(mut problems: Problems, unbound: Problems) -> Result<(), StartError> {
    match (problems.is_empty(), unbound.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(StartError::System(unbound)),
        (false, _) => {
            problems.extend(unbound);
            Err(StartError::Configuration(problems))
        }
    }
}

struct Applied {
    selection: Selection,
    is_changed: bool,
}

/// Errors: why nothing changes.
async fn apply_files(app: &Arc<App>, cause: ReloadCause) -> Result<Applied, StartError> {
    let is_command = matches!(cause, ReloadCause::Command);
    let time = cause.report_time();
    let unsettled = match cause {
        ReloadCause::Command => BTreeSet::new(),
        ReloadCause::Change { unsettled } => unsettled,
    };
    let current = app.gateway.sites.load_full();
    let build = SiteBuild {
        candidate: build::read(&app.loader, unsettled).await?,
        loader: app.loader.clone(),
        before: Some(current.clone()),
        workers: app.workers.count(),
    };
    let built = build.run().await?;
    let is_changed = built.is_changed;
    let selection = if is_changed || (is_command && built.selection.refused.is_empty()) {
        replace(app, &current, built, time).await?
    } else {
        let selection = built.selection;
        app.reports().loaded(&selection, is_changed, time);
        selection
    };
    let mut loader = app.loader.lock().unwrap_or_else(PoisonError::into_inner);
    loader.accept(&selection);
    Ok(Applied {
        selection,
        is_changed,
    })
}

/// Makes sites take effect in place of the `current` ones.
async fn replace(
    app: &Arc<App>,
    current: &Arc<Sites>,
    built: BuiltSites,
    time: ReportTime,
) -> Result<Selection, StartError> {
    let snapshot = built.sites.snapshot.clone();
    let sockets = app.bind_some(&snapshot)?;
    build::warn_of_fixed(&current.snapshot, &snapshot);
    build::warn_of_opened(&current.snapshot, &snapshot);
    // Files of the previous configuration may have changed since the last poll.
    let own = built.sites.clone();
    run_logged("re-reading htpasswd files", move || {
        build::refresh_users(&own);
    })
    .await;
    build::set_quotas(&built.sites, Some(current));
    build::lock_writes(&built.sites);
    let changed = build::count_changed(current, &built.sites);
    let selection = take_effect(app, built, time).await;
    let before = Some(&current.snapshot.connection);
    let bounds = descriptors::connection_bounds(&snapshot.connection, before);
    app.connections.set_bounds(bounds);
    let max_waiting = snapshot.connection.passwords_waiting;
    app.gateway.verifier.set_max_waiting(max_waiting);
    app.issuer.apply(&snapshot);
    app.gateway
        .access_log
        .configure(snapshot.log.access, snapshot.log.format);
    if let Some(log) = &app.log {
        log.configure(&snapshot.log);
    }
    app.listen(sockets);
    app.stop_unwanted(&snapshot);
    app.bind_rest(&snapshot).await;
    let domains = snapshot.domains.len();
    tracing::info!(domains, changed, "configuration reloaded");
    Ok(selection)
}

/// Replaces the sites, their certificates and the problems in one step: a client whose handshake
/// succeeds finds the domain, and whoever finds it reads nothing of former problems in `/status`.
async fn take_effect(app: &Arc<App>, built: BuiltSites, time: ReportTime) -> Selection {
    let app = app.clone();
    run_blocking(move || {
        let BuiltSites {
            sites,
            selection,
            is_changed,
        } = built;
        let certificates = app.certificates.prepare(&sites.snapshot);
        let mut reports = app.reports();
        app.gateway.sites.store(sites);
        certificates.publish();
        reports.loaded(&selection, is_changed, time);
        drop(reports);
        selection
    })
    .await
}
