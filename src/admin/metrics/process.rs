//! The process: its version, its configuration, and what it takes of the machine.

use std::fmt;

use super::{Metric, Out, count, unix};
use crate::app::App;
use crate::observe::usage::Usage;

pub(super) fn write(out: &mut Out<'_>, app: &App) -> fmt::Result {
    let version = [([("version", env!("CARGO_PKG_VERSION"))], 1i64)];
    out.gauges(&Metric::new("moorgate_build_info", "Always 1"), version)?;
    out.gauge(
        &Metric::new("moorgate_connections", "Connections that are open"),
        count(app.connections()),
    )?;
    let reload = app.last_reload();
    let metric = Metric::new(
        "moorgate_configuration_ok",
        "1 where the newest configuration is the one in force",
    );
    out.gauge(&metric, i64::from(reload.accepted))?;
    let metric = Metric::new(
        "moorgate_configuration_loaded_timestamp",
        "When the configuration in force was read, in Unix time",
    );
    out.gauge(&metric.seconds(), unix(reload.loaded))?;
    let metric = Metric::new(
        "process_start_time",
        "When the process was started, in Unix time",
    );
    out.gauge(&metric.seconds(), unix(app.started()))?;
    // Without `/proc` there is nothing to tell.
    let Some(Usage { cpu, memory, files }) = Usage::read() else {
        return Ok(());
    };
    out.counter(
        &Metric::new("process_cpu", "Time of processors").seconds(),
        cpu.as_secs_f64(),
    )?;
    out.gauge(
        &Metric::new("process_resident_memory", "Memory that is in use").bytes(),
        memory,
    )?;
    out.gauge(
        &Metric::new("process_open_fds", "Open files and sockets"),
        count(files),
    )
}
