//! Observability: event log, access log and metrics.

pub mod access_log;
pub mod logging;
pub mod metrics;
pub mod usage;
