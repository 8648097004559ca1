//! Whether an upstream works, as the requests to it show: nothing is sent to find out. Logs when it
//! begins to fail, once a minute while it fails, and when it has recovered.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokio::time::Instant;

use crate::config::upstream::UpstreamUrl;
use crate::observe::repeats::PACED;

/// What an upstream serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamRole {
    /// `/v2/`.
    Registry,
    /// The pages outside it.
    Browser,
}

impl UpstreamRole {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Browser => "browser",
        }
    }
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureReason {
    /// Its name has no address.
    Lookup,
    Refused,
    /// Any other error of a connection.
    Unreachable,
    ConnectTimeout,
    Tls,
    /// It accepted the request and did not answer.
    Timeout,
    /// It closed the connection before its response.
    Closed,
    /// It closed the connection before the end of its response.
    Cut,
    /// Its response is not one of HTTP/1.
    Protocol,
    /// It answered 502, 503 or 504.
    Status,
    /// It refused moorgate's own credentials.
    Credentials,
}

impl FailureReason {
    const ALL: [Self; 11] = [
        Self::Lookup,
        Self::Refused,
        Self::Unreachable,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Timeout,
        Self::Closed,
        Self::Cut,
        Self::Protocol,
        Self::Status,
        Self::Credentials,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect-timeout",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Cut => "cut",
            Self::Protocol => "protocol",
            Self::Status => "status",
            Self::Credentials => "credentials",
        }
    }

    /// How many such failures without a success between them mean that the upstream fails. One
    /// request may get a 503 of a registry that serves all others.
    fn threshold(self) -> u64 {
        match self {
            Self::Status | Self::Cut => 3,
            _ => 1,
        }
    }
}

/// Whether an upstream works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthState {
    /// No request has shown it.
    Unknown,
    Healthy,
    Failing,
}

impl HealthState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
        }
    }
}

/// The health of one upstream of a domain.
#[derive(Debug)]
pub(crate) struct UpstreamHealth {
    role: UpstreamRole,
    domain: String,
    url: String,
    /// Whether it is healthy and its last request succeeded: a further success changes nothing.
    steady: AtomicBool,
    /// In seconds since 1970; 0: none.
    last_success: AtomicU64,
    failures: [AtomicU64; FailureReason::ALL.len()],
    course: Mutex<HealthCourse>,
}

#[derive(Debug)]
struct HealthCourse {
    state: HealthState,
    since: SystemTime,
    changed: Instant,
    /// Without a success between them.
    consecutive: u64,
    last_failure: Option<LastFailure>,
    /// When the beginning of failures was last logged, by reason.
    logged: [Option<Instant>; FailureReason::ALL.len()],
    /// Failures since the last line.
    left_out: u64,
    /// Whether it was logged that it fails.
    announced: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct LastFailure {
    pub(crate) time: SystemTime,
    pub(crate) reason: FailureReason,
    /// The cause and the remedy, without credentials and queries.
    pub(crate) error: String,
}

/// The health as it is now.
#[derive(Clone, Debug)]
pub(crate) struct HealthReport {
    pub(crate) state: HealthState,
    /// When the state began; `None` for an unknown one.
    pub(crate) since: Option<SystemTime>,
    pub(crate) last_success: Option<SystemTime>,
    pub(crate) consecutive_failures: u64,
    pub(crate) last_failure: Option<LastFailure>,
}

impl UpstreamHealth {
    pub(crate) fn new(role: UpstreamRole, domain: &str, url: &UpstreamUrl) -> Self {
        let course = HealthCourse {
            state: HealthState::Unknown,
            since: SystemTime::UNIX_EPOCH,
            changed: Instant::now(),
            consecutive: 0,
            last_failure: None,
            logged: [None; FailureReason::ALL.len()],
            left_out: 0,
            announced: false,
        };
        Self {
            role,
            domain: domain.to_owned(),
            url: url.to_string(),
            steady: AtomicBool::new(false),
            last_success: AtomicU64::new(0),
            failures: [const { AtomicU64::new(0) }; FailureReason::ALL.len()],
            course: Mutex::new(course),
        }
    }

    pub(crate) fn role(&self) -> UpstreamRole {
        self.role
    }

    pub(super) fn domain(&self) -> &str {
        &self.domain
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The upstream has answered with this status.
    pub(super) fn answered(&self, status: StatusCode) {
        match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let error = format!("the upstream answers {status}: see its own log");
                self.failed(FailureReason::Status, error);
            }
            // Whether that refuses the client's credentials or moorgate's own is decided by who
            // knows which were sent.
            StatusCode::UNAUTHORIZED if self.role == UpstreamRole::Registry => {}
            _ => self.succeeded(),
        }
    }

    /// The upstream has answered as one that works. Costs a reading of the clock and two loads
    /// unless something changes.
    pub(crate) fn succeeded(&self) {
        let now = SystemTime::now();
        let seconds = seconds(now);
        if self.last_success.load(Ordering::Relaxed) != seconds {
            self.last_success.store(seconds, Ordering::Relaxed);
        }
        if !self.steady.load(Ordering::Relaxed) {
            self.recover(now);
        }
    }

    #[cold]
    fn recover(&self, now: SystemTime) {
        let mut course = self.course();
        course.consecutive = 0;
        let before = std::mem::replace(&mut course.state, HealthState::Healthy);
        self.steady.store(true, Ordering::Relaxed);
        if before == HealthState::Healthy {
            return;
        }
        let failing_s = course.changed.elapsed().as_secs();
        course.since = now;
        course.changed = Instant::now();
        if std::mem::take(&mut course.announced) {
            let Self {
                domain, url, role, ..
            } = self;
            let role = role.as_str();
            tracing::info!(
                target: PACED,
                domain,
                role,
                upstream = url,
                failing_s,
                "upstream has recovered"
            );
        }
    }

    /// The upstream has failed. `error`: the cause and the remedy.
    pub(crate) fn failed(&self, reason: FailureReason, error: String) {
        if let Some(count) = self.failures.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let (now, time) = (Instant::now(), SystemTime::now());
        let mut course = self.course();
        self.steady.store(false, Ordering::Relaxed);
        course.consecutive += 1;
        course.left_out += 1;
        course.last_failure = Some(LastFailure {
            time,
            reason,
            error,
        });
        if course.state != HealthState::Failing {
            if course.consecutive < reason.threshold() {
                return;
            }
            course.state = HealthState::Failing;
            course.since = time;
            course.changed = now;
        }
        self.log_failure(&mut course, now);
    }

    /// Logs that it fails, if a line is due: at the beginning, at another reason, once a minute.
    /// With answers that alternate between success and failure, this is one line a minute as well.
    fn log_failure(&self, course: &mut HealthCourse, now: Instant) {
        let Some(LastFailure { reason, error, .. }) = &course.last_failure else {
            return;
        };
        let Some(logged) = course.logged.get_mut(*reason as usize) else {
            return;
        };
        if logged.is_some_and(|at| now.duration_since(at) < LINE_INTERVAL) {
            return;
        }
        *logged = Some(now);
        course.announced = true;
        let failures = std::mem::take(&mut course.left_out);
        let Self {
            domain, url, role, ..
        } = self;
        let (role, reason) = (role.as_str(), reason.as_str());
        tracing::warn!(
            target: PACED,
            domain,
            role,
            upstream = url,
            reason,
            error,
            failures,
            failing_s = now.duration_since(course.changed).as_secs(),
            "upstream fails"
        );
    }

    pub(crate) fn state(&self) -> HealthState {
        self.course().state
    }

    pub(crate) fn report(&self) -> HealthReport {
        let last_success = self.last_success.load(Ordering::Relaxed);
        let course = self.course();
        HealthReport {
            state: course.state,
            since: (course.state != HealthState::Unknown).then_some(course.since),
            last_success: (last_success > 0)
                .then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(last_success)),
            consecutive_failures: course.consecutive,
            last_failure: course.last_failure.clone(),
        }
    }

    /// The failures since the start of the process, by reason, of those that occurred.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (FailureReason, u64)> {
        let counts = FailureReason::ALL.into_iter().zip(&self.failures);
        let counts = counts.map(|(reason, count)| (reason, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }

    fn course(&self) -> MutexGuard<'_, HealthCourse> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

const LINE_INTERVAL: Duration = Duration::from_mins(1);
