//! Pushes that would never end: clients repeat a failed upload again and again, each layer for
//! itself. After a run of equal failures in one repository they get an answer that they do not
//! repeat, with the suspected cause, and the administrator one event for the run. Every request
//! still goes to the registry, so that the run ends with the first upload that succeeds.

pub(super) mod cause;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;
use cause::{FailedStep, UploadFault};

/// The runs of failures of all repositories.
#[derive(Default)]
pub(crate) struct FailedUploads {
    runs: Mutex<HashMap<FailedUpload, FailureRun>>,
    /// Whether there is any: nearly always there is none.
    has_runs: AtomicBool,
}

/// What the failures of a run have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FailedUpload {
    pub(super) domain: HostName,
    /// The name that clients know.
    pub(super) repository: RepositoryName,
    pub(super) step: FailedStep,
    pub(super) fault: UploadFault,
}

#[derive(Clone, Copy, Debug)]
struct FailureRun {
    first: Instant,
    last: Instant,
    failures: u32,
    is_logged: bool,
}

impl FailedUploads {
    /// An upload of the repository is complete.
    pub(super) fn succeeded(&self, domain: &HostName, repository: &RepositoryName) {
        if !self.has_runs.load(Ordering::Relaxed) {
            return;
        }
        let mut runs = self.runs();
        runs.retain(|key, run| {
            if key.domain != *domain || key.repository != *repository {
                return true;
            }
            if run.is_logged {
                tracing::info!(
                    %domain,
                    %repository,
                    failures = run.failures,
                    failing_s = run.first.elapsed().as_secs(),
                    "uploads succeed again"
                );
            }
            false
        });
        self.has_runs.store(!runs.is_empty(), Ordering::Relaxed);
    }

    /// Counts a failure. What to tell the client, if the run is long enough to end the push.
    pub(super) fn failed(&self, key: FailedUpload) -> Option<String> {
        let now = Instant::now();
        let mut runs = self.runs();
        if runs.len() >= MAX_RUNS && !runs.contains_key(&key) {
            runs.retain(|_, run| run.goes_on(now));
            // As many repositories fail at once: the push of one more ends as clients see fit.
            if runs.len() >= MAX_RUNS {
                return None;
            }
        }
        let run = runs
            .entry(key.clone())
            .or_insert_with(|| FailureRun::new(now));
        if !run.goes_on(now) {
            *run = FailureRun::new(now);
        }
        run.failures = run.failures.saturating_add(1);
        run.last = now;
        self.has_runs.store(true, Ordering::Relaxed);
        if run.failures < MIN_FAILURES || now.duration_since(run.first) < key.fault.min_duration() {
            return None;
        }
        let is_new = !std::mem::replace(&mut run.is_logged, true);
        let run = *run;
        drop(runs);
        if is_new {
            log(&key, run);
        }
        let FailedUpload { step, fault, .. } = key;
        Some(format!(
            "the upstream registry has failed uploads to this repository {} times in {} s in the same way \
             ({step}: {fault}), so this proxy ends the push. Suspected cause: {}. Its administrator finds \
             this in the log",
            run.failures,
            now.duration_since(run.first).as_secs(),
            fault.cause(step),
        ))
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<FailedUpload, FailureRun>> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(key: &FailedUpload, run: FailureRun) {
    let FailedUpload {
        domain,
        repository,
        step,
        fault,
    } = key;
    tracing::warn!(
        %domain,
        %repository,
        %step,
        failure = %fault,
        failures = run.failures,
        failing_s = run.last.duration_since(run.first).as_secs(),
        suspected_cause = fault.cause(*step),
        "uploads keep failing in the same way: clients are told to stop"
    );
}

impl FailureRun {
    fn new(now: Instant) -> Self {
        Self {
            first: now,
            last: now,
            failures: 0,
            is_logged: false,
        }
    }

    fn goes_on(&self, now: Instant) -> bool {
        now.duration_since(self.last) < MAX_PAUSE
    }
}

/// Docker sends three layers at once, and each of them up to six times.
const MIN_FAILURES: u32 = 5;
/// Longer than clients pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_mins(10);
const MAX_RUNS: usize = 4096;
