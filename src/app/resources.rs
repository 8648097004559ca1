//! The limited resources of the process: for metrics, `/status` and the log.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::stores;
use crate::listen::open_connections::ConnectionCounts;
use crate::observe::resource_use::ResourceUse;
use crate::observe::usage::Usage;
use crate::state_file::run_blocking;

/// The use of each resource. Reads `/proc`.
pub(crate) fn resources(app: &App) -> Vec<ResourceUse> {
    let ConnectionCounts { open, max, .. } = connection_counts(app);
    let mut all = vec![
        ResourceUse::new("connections", open, max),
        app.gateway.verifier.waiting(),
        app.gateway.manifest_budget.usage(),
    ];
    all.extend(stores::fullest_queue(&app.gateway.sites.load()));
    all.extend(Usage::files_and_limit().map(|(used, limit)| ResourceUse {
        resource: "open_files",
        used,
        limit,
    }));
    all
}

/// The connections of all listeners but the admin listener.
pub(crate) fn connection_counts(app: &App) -> ConnectionCounts {
    app.connections.counts()
}

/// Warns of resources that are nearly used up.
pub(super) async fn warn_of_scarce(app: Arc<App>) {
    let resources = run_blocking(move || resources(&app)).await;
    resources.into_iter().for_each(ResourceUse::warn_if_scarce);
}

/// How often resources are looked at for the log.
pub(super) const RESOURCE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
