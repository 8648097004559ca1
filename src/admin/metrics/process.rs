//! Metrics of the process: version, configuration, and resource usage.

use std::collections::BTreeSet;
use std::fmt;

use super::{MetricDescriptor, MetricsEncoder, count, unix};
use crate::app::{App, resources};
use crate::observe::log_queue::LogKind;
use crate::observe::resource_use::ResourceUse;
use crate::observe::usage::Usage;
use crate::registry::host::HostName;

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let version = [([("version", env!("CARGO_PKG_VERSION"))], 1i64)];
    out.gauges(
        &MetricDescriptor::new("moorgate_build_info", "Always 1"),
        version,
    )?;
    connections(out, app)?;
    let lost = LogKind::ALL.map(|log| ([("log", log.as_str())], app.lost_log_lines(log)));
    let metric = MetricDescriptor::new(
        "moorgate_log_lines_lost",
        "Lines that were dropped or could not be written",
    );
    out.counters(&metric, lost)?;
    configuration(out, app)?;
    process(out, app)
}

/// What is in force of the configuration.
fn configuration(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let status = app.configuration();
    let metric = MetricDescriptor::new(
        "moorgate_configuration_ok",
        "1 if the newest configuration is in force",
    );
    out.gauge(&metric, i64::from(status.problems.is_empty()))?;
    let metric = MetricDescriptor::new(
        "moorgate_configuration_loaded_timestamp",
        "When the configuration in force was read, in Unix time",
    );
    out.gauge(&metric.seconds(), unix(status.loaded))?;
    let of_files = status.problems.iter().map(|(file, problem)| {
        let domain = problem.domain.as_ref().map(HostName::as_str);
        let domain = domain.unwrap_or_default().to_owned();
        (domain, file.display().to_string())
    });
    let of_domains = app.file_problems().into_iter();
    let of_domains = of_domains.map(|(domain, _)| (domain, String::new()));
    let problems = of_files
        .chain(of_domains)
        .collect::<BTreeSet<_>>()
        .into_iter();
    let problems = problems.map(|(domain, file)| ([("domain", domain), ("file", file)], 1i64));
    let metric = MetricDescriptor::new(
        "moorgate_configuration_problem",
        "1 for each file that cannot be used as it is",
    );
    out.gauges(&metric, problems)?;
    let bound = app.listeners().into_iter();
    let bound = bound.map(|listener| (listener.kind, listener.configured, 1i64));
    let unbound = app.unbound_listeners().into_iter();
    let unbound = unbound.map(|listener| (listener.kind, listener.configured, 0));
    let listeners = bound.chain(unbound).map(|(kind, address, up)| {
        let labels = [
            ("kind", kind.as_str().to_owned()),
            ("address", address.to_string()),
        ];
        (labels, up)
    });
    let metric = MetricDescriptor::new("moorgate_listener_up", "1 if the listener accepts");
    out.gauges(&metric, listeners)
}

/// The metrics that each process has, under their usual names.
fn process(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let metric = MetricDescriptor::new(
        "process_start_time",
        "When the process was started, in Unix time",
    );
    out.gauge(&metric.seconds(), unix(app.started()))?;
    // There are none without `/proc`.
    let Some(Usage {
        cpu,
        memory,
        files,
        max_files,
    }) = Usage::read()
    else {
        return Ok(());
    };
    out.counter(
        &MetricDescriptor::new("process_cpu", "CPU time").seconds(),
        cpu.as_secs_f64(),
    )?;
    out.gauge(
        &MetricDescriptor::new("process_resident_memory", "Resident memory").bytes(),
        memory,
    )?;
    out.gauge(
        &MetricDescriptor::new("process_open_fds", "Open files and sockets"),
        count(files),
    )?;
    // Without a limit, as by convention.
    let max_files = max_files.and_then(|max| i64::try_from(max).ok());
    out.gauge(
        &MetricDescriptor::new(
            "process_max_fds",
            "Maximum number of open files and sockets",
        ),
        max_files.unwrap_or(-1),
    )
}

/// Connections, and the limited resources of which they are one.
fn connections(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    out.gauge(
        &MetricDescriptor::new("moorgate_connections", "Open connections"),
        count(app.connections()),
    )?;
    let evictions = resources::connection_counts(app).evictions;
    let evictions = evictions.map(|(class, many)| ([("class", class.as_str())], many));
    let metric = MetricDescriptor::new(
        "moorgate_connections_evicted",
        "Idle connections closed for new ones because of the limit",
    );
    out.counters(&metric, evictions)?;
    let resources = resources::resources(app);
    let series = |value: fn(&ResourceUse) -> u64| {
        let all = resources.iter();
        all.map(move |used| ([("resource", used.resource)], value(used)))
    };
    let metric = MetricDescriptor::new("moorgate_resource_used", "Use of a limited resource");
    out.gauges(&metric, series(|used| used.used))?;
    let metric = MetricDescriptor::new("moorgate_resource_limit", "Limit of a resource");
    out.gauges(&metric, series(|used| used.limit))?;
    let refused = resources.iter().filter_map(|used| {
        let refused = used.refused?;
        Some(([("resource", used.resource)], refused))
    });
    let metric = MetricDescriptor::new(
        "moorgate_resource_refused",
        "Connections, requests and uploads refused because of the limit of a resource",
    );
    out.counters(&metric, refused)
}
