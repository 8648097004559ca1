//! The service of one replica as all workers see it: what a choice between replicas needs is read
//! without a lock.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::ejection::{Ejection, ReplicaFailure, ReplicaService};
use super::health::FailureReason;
use super::pool::CutResponse;

/// The service of one replica.
#[derive(Debug)]
pub(super) struct SharedService {
    /// Requests whose response has not ended.
    in_flight: AtomicU32,
    /// Answers since the window of failures began.
    answers: AtomicU32,
    is_ejected: AtomicBool,
    /// Whether the last connections failed.
    is_suspect: AtomicBool,
    is_checked: AtomicBool,
    ejected: Notify,
    has_cuts: AtomicBool,
    /// Responses that ended too early and are not counted yet.
    cuts: Mutex<Vec<CutResponse>>,
    course: Mutex<ReplicaService>,
}

/// Counts a request at a replica, until it is dropped.
pub(super) struct CountedRequest(Arc<SharedService>);

/// A replica in `/status` and metrics.
#[derive(Clone, Debug)]
pub(crate) struct ServiceReport {
    pub(crate) in_flight: u32,
    pub(crate) ejected: Option<Ejection>,
    /// Since the start of the process, or since its address is configured.
    pub(crate) ejections: u64,
}

/// A check under way; ends with its drop.
pub(super) struct RunningCheck<'a>(&'a SharedService);

impl SharedService {
    pub(super) fn new() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            is_ejected: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            is_checked: AtomicBool::new(false),
            ejected: Notify::new(),
            has_cuts: AtomicBool::new(false),
            cuts: Mutex::default(),
            course: Mutex::new(ReplicaService::new(Instant::now())),
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn begin_request(self: &Arc<Self>) -> CountedRequest {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        CountedRequest(self.clone())
    }

    /// The responses that have ended too early since the last call.
    pub(super) fn take_cuts(&self) -> Vec<CutResponse> {
        let has_cuts = self.has_cuts.load(Ordering::Relaxed);
        if !has_cuts || !self.has_cuts.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.cuts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.is_ejected.load(Ordering::Acquire)
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// The next ejection.
    pub(super) fn next_ejection(&self) -> Notified<'_> {
        self.ejected.notified()
    }

    /// The current ejection.
    pub(super) fn ejection(&self) -> Option<Ejection> {
        if !self.is_ejected() {
            return None;
        }
        self.course().ejected().cloned()
    }

    /// It has answered a request. Takes no lock unless that changes something.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if self.is_suspect() {
            self.is_suspect.store(false, Ordering::Relaxed);
            self.course().answered();
        }
    }

    /// Whether this failure is one too many.
    pub(super) fn failed(&self, failure: ReplicaFailure) -> bool {
        let now = Instant::now();
        let mut course = self.course();
        if course.begins_window(now) {
            self.answers.store(0, Ordering::Relaxed);
        }
        let answers = self.answers.fetch_add(1, Ordering::Relaxed) + 1;
        let is_enough = course.failed(failure, answers, now);
        self.is_suspect
            .store(course.is_suspect(), Ordering::Relaxed);
        is_enough
    }

    /// Takes it out of service, also if it is out already: for longer then.
    pub(super) fn eject(&self, reason: FailureReason, error: String) {
        let mut course = self.course();
        course.eject(reason, error, Instant::now());
        self.is_ejected.store(true, Ordering::Release);
        drop(course);
        self.ejected.notify_waiters();
    }

    /// Brings it back, if it was out.
    pub(super) fn restore(&self) -> Option<Ejection> {
        let mut course = self.course();
        let restored = course.restore(Instant::now());
        self.answers.store(0, Ordering::Relaxed);
        self.is_suspect.store(false, Ordering::Relaxed);
        self.is_ejected.store(false, Ordering::Release);
        restored
    }

    /// Whether a check is under way.
    pub(super) fn is_checked(&self) -> bool {
        self.is_checked.load(Ordering::Relaxed)
    }

    /// `None`: one is under way.
    pub(super) fn begin_check(&self) -> Option<RunningCheck<'_>> {
        let is_under_way = self.is_checked.swap(true, Ordering::AcqRel);
        (!is_under_way).then_some(RunningCheck(self))
    }

    pub(super) fn report(&self) -> ServiceReport {
        let course = self.course();
        ServiceReport {
            in_flight: self.in_flight(),
            ejected: course.ejected().cloned(),
            ejections: course.ejections(),
        }
    }

    fn course(&self) -> MutexGuard<'_, ReplicaService> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CountedRequest {
    /// The response has ended too early. Counts for the next choice between replicas.
    pub(super) fn cut(self, cut: CutResponse) {
        let Self(service) = &self;
        let mut cuts = service.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        // More say no more.
        if cuts.len() < MAX_CUTS {
            cuts.push(cut);
        }
        service.has_cuts.store(true, Ordering::Release);
    }
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for CountedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedRequest")
    }
}

const MAX_CUTS: usize = 16;

impl Drop for RunningCheck<'_> {
    fn drop(&mut self) {
        self.0.is_checked.store(false, Ordering::Release);
    }
}
