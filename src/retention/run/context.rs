//! What a run works on, and how far it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::directory::RunDirectory;
use super::error::RunError;
use crate::config::retention::RetentionSettings;
use crate::registry::host::HostName;

/// The domain that a run is for.
#[derive(Clone, Debug)]
pub(crate) struct RunContext<'a, R> {
    pub(crate) domain: &'a HostName,
    /// The domain and its other names, under which images are known elsewhere.
    pub(crate) names: &'a [HostName],
    pub(crate) registry: &'a R,
    /// Which registry that is: a directory, or the address of the upstream.
    pub(crate) registry_name: &'a str,
    pub(crate) settings: &'a Arc<RetentionSettings>,
    pub(crate) directory: &'a RunDirectory,
    pub(crate) progress: &'a RunProgress,
    /// Cancelled when the process drains.
    pub(crate) stop: &'a CancellationToken,
}

impl<R> RunContext<'_, R> {
    /// Between two steps, each of which is short.
    pub(super) fn check_stop(&self) -> Result<(), RunError> {
        if self.stop.is_cancelled() {
            return Err(RunError::Stopped);
        }
        Ok(())
    }
}

/// How far a run is.
#[derive(Debug, Default)]
pub(crate) struct RunProgress {
    done: AtomicU64,
    of: AtomicU64,
}

impl RunProgress {
    pub(super) fn begin(&self, of: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.of.store(of, Ordering::Relaxed);
    }

    pub(super) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// The repositories that are done, and all.
    pub(crate) fn repositories(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.of.load(Ordering::Relaxed),
        )
    }
}
