//! Pushes that would never end: clients repeat a failed upload again and again, each layer for
//! itself. After a run of equal failures in one repository they get an answer that they do not
//! repeat, with the suspected cause, and the administrator one event for the run. Every request
//! still goes to the registry, so that the run ends with the first upload that succeeds.

mod cause;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::Instant;

use crate::registry::call::{Call, RepositoryCall, UploadStep};
use crate::registry::host::HostName;
use crate::registry::name::RepositoryName;
use crate::request::body::ResponseBody;
use crate::request::rejection::Rejection;
use crate::request::route::{Destination, Route};
use cause::{FailedStep, UploadFault};

/// The runs of failures of all repositories.
#[derive(Default)]
pub(crate) struct FailedUploads {
    runs: Mutex<HashMap<RunKey, FailureRun>>,
    /// Whether there is any: nearly always there is none.
    has_runs: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RunKey {
    domain: HostName,
    /// The name that clients know.
    repository: RepositoryName,
    step: FailedStep,
    kind: UploadFault,
}

#[derive(Clone, Copy, Debug)]
struct FailureRun {
    first: Instant,
    last: Instant,
    failures: u32,
    is_logged: bool,
}

/// A call that is a part of an upload to an upstream.
pub(super) struct WatchedUpload {
    domain: HostName,
    call: Arc<Call>,
}

impl WatchedUpload {
    /// `None` for other calls.
    pub(super) fn of(route: &Route) -> Option<Self> {
        let call = route.shared_call()?;
        step(call)?;
        let Destination::Upstream(_) = route.destination() else {
            return None;
        };
        Some(Self {
            domain: route.site().host.domain.clone(),
            call: call.clone(),
        })
    }

    /// The answer, unless it is one too many of its kind.
    pub(super) fn answer(
        &self,
        uploads: &FailedUploads,
        answer: Result<Response<ResponseBody>, Rejection>,
    ) -> Result<Response<ResponseBody>, Rejection> {
        let (kind, answer) = match answer {
            // By the status alone: the head does not wait for the body, in which the code is.
            Ok(response) if is_failure(response.status()) => {
                (Some(UploadFault::Response(response.status())), Ok(response))
            }
            Ok(response) => {
                if response.status() == StatusCode::CREATED {
                    self.succeeded(uploads);
                }
                (None, Ok(response))
            }
            Err(rejection) => {
                let kind = match rejection.upstream_error() {
                    Some(error) => UploadFault::of_error(error),
                    None => rejection.unknown_upload().map(UploadFault::Response),
                };
                (kind, Err(rejection))
            }
        };
        match kind.and_then(|kind| self.failed(uploads, kind)) {
            Some(stopped) => Err(stopped),
            None => answer,
        }
    }

    fn succeeded(&self, uploads: &FailedUploads) {
        // A blob that is mounted says nothing about uploads.
        if step(&self.call) == Some(FailedStep::Mount) {
            return;
        }
        if let Some(repository) = self.call.repository() {
            uploads.succeeded(&self.domain, repository);
        }
    }

    fn failed(&self, uploads: &FailedUploads, kind: UploadFault) -> Option<Rejection> {
        let step = step(&self.call)?;
        uploads.failed(RunKey {
            domain: self.domain.clone(),
            repository: self.call.repository()?.clone(),
            step,
            kind,
        })
    }
}

/// The step of an upload; `None` for other calls.
fn step(call: &Call) -> Option<FailedStep> {
    match call.operation()? {
        RepositoryCall::UploadStart { .. } => Some(FailedStep::Start),
        RepositoryCall::Mount { .. } => Some(FailedStep::Mount),
        RepositoryCall::Upload { step, .. } => match step {
            UploadStep::Chunk => Some(FailedStep::Chunk),
            UploadStep::Commit { .. } => Some(FailedStep::Commit),
            UploadStep::Status { .. } | UploadStep::Cancel => None,
        },
        _ => None,
    }
}

/// Whether the registry fails, and not the client, nor its rights.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE
        )
}

impl FailedUploads {
    /// An upload of the repository is complete.
    fn succeeded(&self, domain: &HostName, repository: &RepositoryName) {
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

    /// Counts a failure. What ends the push, if the run is long enough.
    fn failed(&self, key: RunKey) -> Option<Rejection> {
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
        if run.failures < MIN_FAILURES || now.duration_since(run.first) < key.kind.min_duration() {
            return None;
        }
        let is_new = !std::mem::replace(&mut run.is_logged, true);
        let run = *run;
        drop(runs);
        if is_new {
            log(&key, run);
        }
        let RunKey { step, kind, .. } = key;
        Some(Rejection::uploads_keep_failing(format!(
            "the upstream registry has failed uploads to this repository {} times in {} s in the same way \
             ({step}: {kind}), so this proxy ends the push. Suspected cause: {}. Its administrator finds \
             this in the log",
            run.failures,
            now.duration_since(run.first).as_secs(),
            kind.cause(step),
        )))
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunKey, FailureRun>> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(key: &RunKey, run: FailureRun) {
    let RunKey {
        domain,
        repository,
        step,
        kind,
    } = key;
    tracing::warn!(
        %domain,
        %repository,
        %step,
        failure = %kind,
        failures = run.failures,
        failing_s = run.last.duration_since(run.first).as_secs(),
        suspected_cause = kind.cause(*step),
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
