//! Metrics of retention: what runs took away, and when the last one was.

use std::fmt;

use super::{MetricDescriptor, MetricsEncoder};
use crate::app::App;
use crate::app::retention::{RetentionCounts, schedule_of};
use crate::request::site::Site;
use crate::retention::run::records::RunOutcome;

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let sites = app.gateway().sites.load();
    let with_rules = sites
        .all
        .iter()
        .filter(|site| site.host.retention.is_some());
    let all: Vec<_> = with_rules
        .map(|site| (labels(site), app.retention().counts(&site.host.domain)))
        .collect();
    let counts = |count: fn(&RetentionCounts) -> u64| {
        all.iter()
            .map(move |(labels, counts)| (*labels, count(counts)))
    };
    let metric = MetricDescriptor::new(
        "moorgate_retention_tags_removed",
        "Tags that retention took away since the start of the process",
    );
    out.counters(&metric, counts(|counts| counts.tags_removed))?;
    let metric = MetricDescriptor::new(
        "moorgate_retention_manifests_removed",
        "Manifests that retention took away since the start of the process",
    );
    out.counters(&metric, counts(|counts| counts.manifests_removed))?;
    let metric = MetricDescriptor::new(
        "moorgate_retention_failed_runs",
        "Runs of retention that stopped early, or would have taken away more than max_share",
    );
    out.counters(&metric, counts(|counts| counts.failed))?;
    write_last_runs(out, app)
}

/// As the state directory says: other processes run too. One that cannot be read has none.
fn write_last_runs(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let sites = app.gateway().sites.load();
    let state = app.state_directory();
    let last_runs: Vec<_> = sites
        .all
        .iter()
        .filter_map(|site| {
            let last = schedule_of(&state, site).ok()??.records.last?;
            Some((labels(site), last))
        })
        .collect();
    let metric = MetricDescriptor::new(
        "moorgate_retention_last_run_timestamp",
        "When the last run of retention ended; none before the first one",
    )
    .seconds();
    let times = last_runs.iter();
    out.gauges(
        &metric,
        times.map(|(labels, last)| (*labels, last.ended.as_second())),
    )?;
    let metric = MetricDescriptor::new(
        "moorgate_retention_last_run_failed",
        "1 if the last run of retention stopped early, or would have taken away more than max_share",
    );
    let failed = last_runs.iter().map(|(labels, last)| {
        let value: i64 = match last.outcome {
            RunOutcome::Failed | RunOutcome::BeyondShare => 1,
            RunOutcome::Applied | RunOutcome::Reported | RunOutcome::Undone => 0,
        };
        (*labels, value)
    });
    out.gauges(&metric, failed)
}

fn labels(site: &Site) -> [(&'static str, &str); 1] {
    [("domain", site.host.domain.as_str())]
}
