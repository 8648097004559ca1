//! What moorgate tells about itself while it runs.

pub mod access_log;
pub mod logging;
pub mod metrics;
pub mod usage;
