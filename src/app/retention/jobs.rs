//! The runs of retention in this process: those under way, and the last ones that have ended, for
//! whoever began one by a command.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use crate::registry::host::HostName;
use crate::retention::run::context::RunProgress;
use crate::retention::run::records::RunOutcome;
use crate::retention::run::report::RunReport;

/// The runs of this process.
#[derive(Debug)]
pub(crate) struct RetentionJobs {
    state: Mutex<JobsState>,
    /// For runs of the schedule, all domains together.
    pub(super) scheduled: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct JobsState {
    last_id: u64,
    /// By id: those under way, and the last ones that have ended.
    jobs: BTreeMap<u64, Arc<RetentionJob>>,
    counts: HashMap<HostName, RetentionCounts>,
}

/// A run, from the command on.
#[derive(Debug)]
pub(crate) struct RetentionJob {
    pub(crate) id: u64,
    pub(crate) domain: HostName,
    pub(crate) progress: RunProgress,
    /// `None` until it has ended.
    report: watch::Sender<Option<Arc<RunReport>>>,
}

/// What runs of this process did at a domain since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetentionCounts {
    pub(crate) tags_removed: u64,
    pub(crate) manifests_removed: u64,
    pub(crate) failed: u64,
}

/// No further run is begun.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_RUNNING} runs of retention are under way: try again when one has ended")]
pub(crate) struct TooManyJobs;

impl Default for RetentionJobs {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            scheduled: Arc::new(Semaphore::new(MAX_SCHEDULED)),
        }
    }
}

impl RetentionJobs {
    fn state(&self) -> MutexGuard<'_, JobsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, domain: &HostName) -> Result<Arc<RetentionJob>, TooManyJobs> {
        let mut state = self.state();
        let running = state.jobs.values().filter(|job| job.is_running()).count();
        if running >= MAX_RUNNING {
            return Err(TooManyJobs);
        }
        if state.jobs.len() >= MAX_RUNNING + MAX_ENDED {
            let oldest = state.jobs.values().find(|job| !job.is_running());
            let oldest = oldest.map(|job| job.id);
            oldest.and_then(|id| state.jobs.remove(&id));
        }
        state.last_id += 1;
        let job = Arc::new(RetentionJob {
            id: state.last_id,
            domain: domain.clone(),
            progress: RunProgress::default(),
            report: watch::Sender::new(None),
        });
        state.jobs.insert(job.id, job.clone());
        Ok(job)
    }

    pub(super) fn end(&self, job: &RetentionJob, report: RunReport) {
        if let Some(last) = &report.last {
            let mut state = self.state();
            let counts = state.counts.entry(job.domain.clone()).or_default();
            match last.outcome {
                RunOutcome::Applied => {
                    counts.tags_removed += last.tags;
                    counts.manifests_removed += last.manifests;
                }
                // It may have taken something away by then; undoing fails so too.
                RunOutcome::Failed | RunOutcome::BeyondShare => counts.failed += 1,
                RunOutcome::Reported | RunOutcome::Undone => {}
            }
        }
        job.report.send_replace(Some(Arc::new(report)));
    }

    pub(crate) fn job(&self, id: u64) -> Option<Arc<RetentionJob>> {
        self.state().jobs.get(&id).cloned()
    }

    /// The run that is under way at a domain.
    pub(crate) fn running(&self, domain: &HostName) -> Option<Arc<RetentionJob>> {
        let state = self.state();
        let mut jobs = state.jobs.values();
        jobs.find(|job| job.domain == *domain && job.is_running())
            .cloned()
    }

    pub(crate) fn counts(&self, domain: &HostName) -> RetentionCounts {
        self.state().counts.get(domain).copied().unwrap_or_default()
    }
}

impl RetentionJob {
    fn is_running(&self) -> bool {
        self.report.borrow().is_none()
    }

    /// What came of it; `None`: it is under way.
    pub(crate) fn report(&self) -> Option<Arc<RunReport>> {
        self.report.borrow().clone()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Arc<RunReport> {
        let mut reports = self.report.subscribe();
        loop {
            if let Some(report) = reports.borrow_and_update().clone() {
                return report;
            }
            if reports.changed().await.is_err() {
                // The job itself holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Runs of the schedule at once: each reads many manifests, and one that waits for a slow registry
/// must not hold up all others.
const MAX_SCHEDULED: usize = 4;
/// Runs at once, explanations too.
const MAX_RUNNING: usize = 32;
/// Reports for commands that have not fetched theirs yet.
const MAX_ENDED: usize = 64;
