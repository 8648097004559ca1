//! The limited resources of the process: for metrics, `/status` and the log.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::stores;
use crate::listen::open_connections::ConnectionCounts;
use crate::observe::resource_use::ResourceUse;
use crate::observe::usage::Usage;
use crate::request::site::Sites;
use crate::state_file::run_blocking;

/// The use of each resource. Reads `/proc`.
pub(crate) fn resources(app: &App) -> Vec<ResourceUse> {
    let ConnectionCounts { open, max, .. } = connection_counts(app);
    let mut all = vec![ResourceUse::new("connections", open, max)];
    all.extend(app.connections.of_clients());
    all.extend([
        app.gateway.verifier.waiting(),
        app.gateway.manifest_budget.usage(),
    ]);
    let sites = app.gateway.sites.load();
    all.extend(app.gateway.user_limits.usage(&sites));
    all.extend(stores::most_upload_sessions(&sites));
    all.extend(stores::fullest_queue(&sites));
    all.extend(fullest_upstream(&sites));
    all.extend(Usage::files_and_limit().map(|(used, limit)| ResourceUse {
        resource: "open_files",
        used,
        limit,
        refused: None,
    }));
    all
}

/// The connections to the upstream with the fewest left.
fn fullest_upstream(sites: &Sites) -> Option<ResourceUse> {
    let all = sites.all.iter().flat_map(|site| site.servers());
    all.map(|server| server.connections())
        .reduce(ResourceUse::fuller)
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
