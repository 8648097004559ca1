//! Metrics of the process: version, configuration, and resource usage.

use std::fmt;

use super::{MetricDescriptor, MetricsEncoder, count, unix};
use crate::app::App;
use crate::observe::log_queue::LogKind;
use crate::observe::usage::Usage;

pub(super) fn write(out: &mut MetricsEncoder<'_>, app: &App) -> fmt::Result {
    let version = [([("version", env!("CARGO_PKG_VERSION"))], 1i64)];
    out.gauges(
        &MetricDescriptor::new("moorgate_build_info", "Always 1"),
        version,
    )?;
    out.gauge(
        &MetricDescriptor::new("moorgate_connections", "Open connections"),
        count(app.connections()),
    )?;
    let lost = LogKind::ALL.map(|log| ([("log", log.as_str())], app.lost_log_lines(log)));
    let metric = MetricDescriptor::new(
        "moorgate_log_lines_lost",
        "Lines that were dropped or could not be written",
    );
    out.counters(&metric, lost)?;
    let reload = app.last_reload();
    let metric = MetricDescriptor::new(
        "moorgate_configuration_ok",
        "1 if the newest configuration is in force",
    );
    out.gauge(&metric, i64::from(reload.refused.is_none()))?;
    let metric = MetricDescriptor::new(
        "moorgate_configuration_loaded_timestamp",
        "When the configuration in force was read, in Unix time",
    );
    out.gauge(&metric.seconds(), unix(reload.loaded))?;
    let metric = MetricDescriptor::new(
        "process_start_time",
        "When the process was started, in Unix time",
    );
    out.gauge(&metric.seconds(), unix(app.started()))?;
    // There are none without `/proc`.
    let Some(Usage { cpu, memory, files }) = Usage::read() else {
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
    )
}
