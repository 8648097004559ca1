//! Observability: event log, access log and metrics.

pub(crate) mod access_log;
pub(crate) mod colour;
mod event_format;
pub(crate) mod log_queue;
mod log_text;
pub(crate) mod log_writer;
pub(crate) mod logging;
pub(crate) mod metrics;
pub(crate) mod peer_log;
pub(crate) mod repeats;
pub(crate) mod resource_use;
pub(crate) mod usage;
