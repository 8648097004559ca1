//! Retention at the domains of this process: by command and on schedule.

mod jobs;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::App;
use crate::config::retention::RetentionSettings;
use crate::config::vhost::RegistrySettings;
use crate::registry::host::HostName;
use crate::registry::product::Product;
use crate::request::retained::RetainedUpstream;
use crate::request::site::{Registry, Site};
use crate::retention::registry::RetainedRegistry;
use crate::retention::run::context::RunContext;
use crate::retention::run::directory::RunDirectory;
use crate::retention::run::error::RunError;
use crate::retention::run::jobs::{RunRequest, perform};
use crate::retention::run::records::RunRecords;
use crate::retention::run::report::RunReport;
use crate::retention::run::schedule;
use crate::retention::stored::StoredRegistry;
use crate::state_file::run_blocking;
use crate::upstream::transfer::TransferLimits;
pub(crate) use jobs::{RetentionCounts, RetentionJob, RetentionJobs, TooManyJobs};

/// Begins a run at a domain, which ends when the process drains.
///
/// Errors: so many are under way that this one is not begun.
pub(crate) fn begin(
    app: &Arc<App>,
    site: &Arc<Site>,
    request: RunRequest,
) -> Result<Arc<RetentionJob>, TooManyJobs> {
    let job = app.retention.begin(&site.host.domain)?;
    let (own_app, own, site) = (app.clone(), job.clone(), site.clone());
    app.tasks.spawn(async move {
        let report = run_until_stopped(&own_app, &site, &request, &own).await;
        own_app.retention.end(&own, report);
    });
    Ok(job)
}

/// A run stops between two steps when the process drains. A step that takes too long is dropped,
/// which is as a kill: the next run continues.
async fn run_until_stopped(
    app: &App,
    site: &Arc<Site>,
    request: &RunRequest,
    job: &RetentionJob,
) -> RunReport {
    let drop_late = async {
        app.drain.cancelled().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    tokio::select! {
        report = Box::pin(run(app, site, request, job)) => report,
        () = drop_late => RunReport::failed(RunError::Stopped.to_string()),
    }
}

async fn run(app: &App, site: &Arc<Site>, request: &RunRequest, job: &RetentionJob) -> RunReport {
    let Some(settings) = &site.host.retention else {
        return RunReport::failed("the domain has no retention rules any more");
    };
    let settings = Arc::new(settings.clone());
    let work = RetentionWork {
        app,
        site,
        settings: &settings,
        request,
        job,
    };
    match (&site.registry, &site.host.registry) {
        (Registry::Store(store), RegistrySettings::Store(own)) => {
            let journal = store.journal().clone();
            let settings = settings.clone();
            let registry = StoredRegistry::new(store.clone(), journal, settings, own.missing);
            work.perform(&registry).await
        }
        (Registry::Upstream(_), _) => match RetainedUpstream::new(&app.gateway, site) {
            Ok(registry) => Box::pin(work.perform(&registry)).await,
            Err(error) => RunReport::failed(error.to_string()),
        },
        (Registry::Store(_), RegistrySettings::Upstream(_)) => {
            RunReport::failed("the registry of the domain has changed: try again")
        }
    }
}

/// Begins the runs that are due, each as a task of its own: a slow registry must not hold up the
/// runs of others. Those that find no permit are due again at the next check.
pub(super) async fn begin_due(app: &Arc<App>) -> Vec<Arc<RetentionJob>> {
    let mut begun = Vec::new();
    let sites = app.gateway.sites.load_full();
    let state = app.state_directory();
    for site in &sites.all {
        if site.host.retention.is_none() || app.retention.running(&site.host.domain).is_some() {
            continue;
        }
        let (state, own) = (state.clone(), site.clone());
        if !run_blocking(move || is_due(&state, &own)).await {
            continue;
        }
        let Ok(permit) = app.retention.scheduled.clone().try_acquire_owned() else {
            break;
        };
        let Ok(job) = app.retention.begin(&site.host.domain) else {
            break;
        };
        begun.push(job.clone());
        let (own_app, site) = (app.clone(), site.clone());
        app.tasks.spawn(async move {
            let _permit = permit;
            know_product(&site).await;
            let dry_run = dry_run(&site).is_some();
            let request = RunRequest::Scheduled { dry_run };
            let report = run_until_stopped(&own_app, &site, &request, &job).await;
            own_app.retention.end(&job, report);
        });
    }
    begun
}

/// Asks the registry which product it is, where an answer of it tells. What cannot be asked fails
/// the run anyway.
async fn know_product(site: &Site) {
    if let Some(backend) = site.registry.upstream() {
        let limits = TransferLimits::new(&site.host.timeouts, false);
        if let Err(error) = backend.know_product(limits).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(domain = %site.host.domain, error, "retention: product not known");
        }
    }
}

/// Whether a run of the schedule is due. Blocks on the disk.
fn is_due(state: &Path, site: &Site) -> bool {
    match schedule_of(state, site) {
        Ok(Some(schedule)) => schedule.next.is_some_and(|next| next <= Timestamp::now()),
        Ok(None) => false,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(domain = %site.host.domain, error, "retention: schedule not read");
            false
        }
    }
}

/// The last and the next run of a domain.
pub(crate) struct RetentionSchedule {
    pub(crate) records: RunRecords,
    /// `None`: by command only.
    pub(crate) next: Option<Timestamp>,
}

/// Reads the schedule of a domain; the first time, or after the clock was wrong, it is set. `None`:
/// without rules. Blocks on the disk.
pub(crate) fn schedule_of(
    state: &Path,
    site: &Site,
) -> Result<Option<RetentionSchedule>, RunError> {
    let Some(settings) = &site.host.retention else {
        return Ok(None);
    };
    let directory = RunDirectory::new(state, &site.host.domain);
    let now = Timestamp::now();
    let mut records = RunRecords::read(&directory)?;
    if schedule::settle(&mut records, now) {
        // Another process may write them just now: what it writes is settled too.
        match directory.lock() {
            Ok(_lock) => records.write(&directory)?,
            Err(RunError::Busy(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let next = schedule::next_run(&settings.runs, &records, now);
    Ok(Some(RetentionSchedule { records, next }))
}

/// Why scheduled runs at a domain only report. `None`: they take away.
pub(crate) fn dry_run(site: &Site) -> Option<String> {
    let runs = &site.host.retention.as_ref()?.runs;
    let product = site
        .registry
        .upstream()
        .map(|backend| backend.product.get().0);
    if !runs.is_dry_run(product) {
        return None;
    }
    let cleanup = product.and_then(Product::cleanup);
    Some(match (runs.dry_run, product.zip(cleanup)) {
        (None, Some((product, cleanup))) => format!(
            "{} has {cleanup} of its own, and `dry_run` is not written",
            product.as_str()
        ),
        _ => "`dry_run` is true".to_owned(),
    })
}

/// Which registry a domain has: plans are applied to the same alone.
fn registry_name(site: &Site) -> String {
    match &site.host.registry {
        RegistrySettings::Store(store) => store.directory.display().to_string(),
        RegistrySettings::Upstream(upstream) => upstream.url.to_string(),
    }
}

/// A run at a domain.
struct RetentionWork<'a> {
    app: &'a App,
    site: &'a Site,
    settings: &'a Arc<RetentionSettings>,
    request: &'a RunRequest,
    job: &'a RetentionJob,
}

impl RetentionWork<'_> {
    async fn perform<R: RetainedRegistry>(&self, registry: &R) -> RunReport {
        let host = &self.site.host;
        let names: Vec<HostName> = host.names().cloned().collect();
        perform(
            &RunContext {
                domain: &host.domain,
                names: &names,
                registry,
                registry_name: &registry_name(self.site),
                settings: self.settings,
                directory: &RunDirectory::new(&self.app.state_directory(), &host.domain),
                progress: &self.job.progress,
                stop: &self.app.drain,
            },
            self.request,
        )
        .await
    }
}

/// After a drain has begun, for the step that is under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often runs are looked for: a file is read for each domain with rules.
pub(super) const RETENTION_CHECK_INTERVAL: Duration = Duration::from_secs(60);
