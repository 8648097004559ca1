//! What a client connection is doing, and the deadline by which it must make progress.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::drain::ConnectionDrain;
use super::frames::FrameEvents;
use crate::clock::Deadline;
use crate::config::snapshot::ConnectionSettings;
use crate::listen::open_connections::{ConnectionClass, OpenConnection};

/// The progress of one client connection, which its socket and its requests report.
#[derive(Debug)]
pub(crate) struct Activity {
    limits: ActivityLimits,
    open: Arc<OpenConnection>,
    drain: ConnectionDrain,
    state: Mutex<ActivityState>,
}

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActivityLimits {
    /// From accept to the end of the first head.
    pub(crate) first_head: Duration,
    /// From the first byte of a later head to its last.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// The same before the first login.
    pub(crate) idle_unauthenticated: Duration,
    /// With pending writes, or with responses to an unauthenticated client that are not read.
    pub(crate) stall: Duration,
    /// With requests, but without a frame of any of them. Longer than an upstream may take to
    /// respond, so that it only closes connections whose streams nobody reads.
    pub(crate) busy: Duration,
}

impl ActivityLimits {
    /// `stall` and `busy` are the maximum over all virtual hosts, since a connection may serve any.
    pub(crate) fn new(settings: &ConnectionSettings, stall: Duration, busy: Duration) -> Self {
        let ConnectionSettings {
            first_head,
            head,
            idle,
            idle_unauthenticated,
            ..
        } = *settings;
        Self {
            first_head,
            head,
            idle,
            idle_unauthenticated: idle_unauthenticated.min(idle),
            stall,
            busy,
        }
    }
}

#[derive(Debug)]
struct ActivityState {
    phase: ConnectionPhase,
    /// When the phase began or last made progress.
    since: Instant,
    requests: u32,
    /// Those of the requests of which nothing is left but that the client reads the response.
    answered: u32,
    /// Since when the socket has taken none of the pending bytes.
    blocked: Option<Instant>,
    /// Since when an HTTP/2 head is incomplete.
    head_open: Option<Instant>,
    /// Bytes that the socket has taken.
    written: u64,
    last_write: Instant,
    /// Since when the connection is to end as soon as no request is running.
    ending: Option<Instant>,
}

impl ActivityState {
    /// A request made progress. It may be over for us and still be on its way to the client: HTTP/2
    /// buffers the end of a response until there is a window for it.
    fn record_progress(&mut self) {
        if matches!(self.phase, ConnectionPhase::Busy | ConnectionPhase::Idle) {
            self.since = Instant::now();
        }
    }

    /// How long a connection that ends is kept for a client that does not close it.
    fn closing_deadline(&self) -> Instant {
        let under_way = self.written.min(MAX_UNDER_WAY) / MIN_RATE;
        let last_write = self.last_write + Duration::from_secs(under_way);
        self.ending.unwrap_or(self.since).max(last_write) + LINGER_TIMEOUT
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionPhase {
    FirstHead,
    Head,
    Idle,
    Busy,
    Closing,
}

impl Activity {
    /// For a connection accepted at `accepted`.
    pub(crate) fn new(
        accepted: Instant,
        limits: ActivityLimits,
        open: Arc<OpenConnection>,
        drain: ConnectionDrain,
    ) -> Self {
        let state = ActivityState {
            phase: ConnectionPhase::FirstHead,
            since: accepted,
            requests: 0,
            answered: 0,
            blocked: None,
            head_open: None,
            written: 0,
            last_write: accepted,
            ending: None,
        };
        Self {
            limits,
            open,
            drain,
            state: Mutex::new(state),
        }
    }

    /// When the connection is to end for the process.
    pub(super) fn drain(&self) -> &ConnectionDrain {
        &self.drain
    }

    fn state(&self) -> MutexGuard<'_, ActivityState> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of HTTP/1.1 came: of the running request or, without one, the beginning of a head.
    pub(super) fn read_http1(&self) {
        let mut state = self.state();
        match state.phase {
            ConnectionPhase::Busy => state.since = Instant::now(),
            ConnectionPhase::Idle => {
                state.phase = ConnectionPhase::Head;
                state.since = Instant::now();
            }
            ConnectionPhase::FirstHead | ConnectionPhase::Head | ConnectionPhase::Closing => {}
        }
    }

    /// Frames of HTTP/2 came. `head_open`: a head has begun and its last frame has not come.
    pub(super) fn read_http2(&self, events: FrameEvents, head_open: bool) {
        let mut state = self.state();
        if !head_open {
            state.head_open = None;
        } else if events.ended || state.head_open.is_none() {
            state.head_open = Some(Instant::now());
        }
        // An unauthenticated client does not renew its idle time by reading: the writes that follow
        // do, if something is left to be written.
        let is_progress = state.phase != ConnectionPhase::Idle || self.is_authenticated();
        if events.progress && is_progress {
            state.record_progress();
        }
    }

    /// More was written than a control frame.
    pub(super) fn record_progress(&self) {
        self.state().record_progress();
    }

    /// The socket took so many bytes.
    pub(super) fn record_write(&self, bytes: usize) {
        let mut state = self.state();
        state.blocked = None;
        state.written = state.written.saturating_add(bytes as u64);
        state.last_write = Instant::now();
    }

    /// The socket took everything that was pending.
    pub(super) fn record_flush(&self) {
        self.state().blocked = None;
    }

    /// The socket takes no more bytes for now.
    pub(super) fn record_blocked(&self) {
        let mut state = self.state();
        if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
        }
    }

    /// The connection is to end when no request is running any more. Until its client has closed
    /// it, an idle connection has the time of a closing one.
    pub(super) fn begin_ending(&self) {
        let mut state = self.state();
        state.ending.get_or_insert_with(Instant::now);
    }

    /// Begins to end a connection that has been idle for as long as it may; false for any other.
    pub(super) fn end_idle(&self) -> bool {
        let mut state = self.state();
        let is_idle = state.phase == ConnectionPhase::Idle && state.head_open.is_none();
        if is_idle {
            state.ending.get_or_insert_with(Instant::now);
        }
        is_idle
    }

    /// Ready when the connection is to end for another one.
    pub(super) fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.open.poll_evicted(cx)
    }

    /// Begins to end an evicted connection. False if a head has begun, or a client does not read what
    /// it was answered: it ends at once.
    pub(super) fn end_evicted(&self) -> bool {
        let mut state = self.state();
        let is_regular = match state.phase {
            ConnectionPhase::FirstHead | ConnectionPhase::Idle => state.head_open.is_none(),
            ConnectionPhase::Busy => state.requests > state.answered,
            ConnectionPhase::Closing => true,
            ConnectionPhase::Head => false,
        };
        if is_regular {
            state.ending.get_or_insert_with(Instant::now);
        }
        is_regular
    }

    /// A request had a valid login.
    pub(super) fn authenticate(&self) {
        self.open.authenticate();
    }

    fn idle_deadline(&self, state: &ActivityState) -> Instant {
        let limits = &self.limits;
        if self.is_authenticated() {
            return state.since + limits.idle;
        }
        let mut limit = limits.idle_unauthenticated;
        // A head that has begun in time has its own limit. One short frame after another has not.
        if state.head_open.is_some() {
            limit += limits.head;
        }
        // What is left of a response may be written slowly, and so may answers to PINGs.
        let renewed = self.open.idle_since() + limits.stall;
        state.since.min(renewed) + limit
    }

    fn is_authenticated(&self) -> bool {
        self.open.class() == ConnectionClass::Authenticated
    }

    /// Whether no request is running.
    pub(super) fn is_idle(&self) -> bool {
        self.state().requests == 0
    }

    /// Nothing more will be sent.
    pub(super) fn begin_closing(&self) {
        let mut state = self.state();
        if state.phase != ConnectionPhase::Closing {
            let now = Instant::now();
            state.phase = ConnectionPhase::Closing;
            state.since = now;
            state.ending = Some(now);
            state.head_open = None;
        }
    }

    /// A request begins; it ends when the guard is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> RequestGuard {
        self.open.begin_request();
        let mut state = self.state();
        state.requests += 1;
        state.phase = ConnectionPhase::Busy;
        state.since = Instant::now();
        let open = state.requests;
        drop(state);
        RequestGuard {
            activity: self.clone(),
            open,
            is_answered: false,
        }
    }
}

/// A running request.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    activity: Arc<Activity>,
    /// How many requests were running when this one began, itself included.
    pub(crate) open: u32,
    is_answered: bool,
}

impl RequestGuard {
    /// The whole response is in memory. An unauthenticated client that does not read it occupies the
    /// connection no more than one that makes no request.
    pub(super) fn answered(&mut self) {
        if !self.is_answered && !self.activity.is_authenticated() {
            self.is_answered = true;
            self.activity.state().answered += 1;
            self.activity.open.end_request();
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if !self.is_answered {
            self.activity.open.end_request();
        }
        let mut state = self.activity.state();
        state.answered = state.answered.saturating_sub(self.is_answered.into());
        state.requests = state.requests.saturating_sub(1);
        if state.phase == ConnectionPhase::Busy {
            state.since = Instant::now();
            if state.requests == 0 {
                state.phase = ConnectionPhase::Idle;
            }
        }
    }
}

/// How long at least the client's remaining bytes are read and dropped after the last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// As much as the kernels of both sides buffer of a response (`tcp_wmem` and `tcp_rmem` of Linux).
const MAX_UNDER_WAY: u64 = 8 * 1024 * 1024;
/// Bytes per second that a client reads at least. Together: two minutes after 8 MiB.
const MIN_RATE: u64 = 64 * 1024;

impl Deadline for Arc<Activity> {
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let limits = &self.limits;
        let phase = match state.phase {
            ConnectionPhase::FirstHead if state.ending.is_none() => state.since + limits.first_head,
            ConnectionPhase::Head => state.since + limits.head,
            ConnectionPhase::Idle if state.ending.is_none() => self.idle_deadline(&state),
            ConnectionPhase::Busy if state.requests == state.answered => state.since + limits.stall,
            ConnectionPhase::Busy => state.since + limits.busy,
            ConnectionPhase::FirstHead | ConnectionPhase::Idle | ConnectionPhase::Closing => {
                state.closing_deadline()
            }
        };
        let blocked = state.blocked.map(|since| since + limits.stall);
        let head = state.head_open.map(|since| since + limits.head);
        Some(
            [blocked, head]
                .into_iter()
                .flatten()
                .fold(phase, Instant::min),
        )
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::listen::open_connections::tests::connection;

    #[tokio::test(start_paused = true)]
    async fn a_closing_connection_has_the_time_to_read_what_is_under_way() {
        let second = Duration::from_secs(1);
        let limits = ActivityLimits {
            first_head: 15 * second,
            head: 30 * second,
            idle: 300 * second,
            idle_unauthenticated: 15 * second,
            stall: 120 * second,
            busy: 900 * second,
        };
        for (written, seconds) in [(0, 5), (1 << 20, 5 + 16), (1 << 30, 5 + 128)] {
            let activity = Arc::new(Activity::new(
                Instant::now(),
                limits,
                connection(),
                ConnectionDrain::new(CancellationToken::new()),
            ));
            let due = |activity: &Arc<Activity>| {
                activity.deadline().expect("always one") - Instant::now()
            };
            drop(activity.request());
            activity.record_write(written);
            assert_eq!(due(&activity), limits.idle_unauthenticated);
            activity.authenticate();
            assert_eq!(due(&activity), limits.idle);
            activity.begin_ending();
            assert_eq!(due(&activity), second * seconds);
            // A request that came meanwhile is answered.
            let request = activity.request();
            assert_eq!(due(&activity), limits.busy);
            drop(request);
            // The client has read for as long as nothing was written.
            tokio::time::advance(16 * second).await;
            activity.begin_closing();
            assert_eq!(due(&activity), second * seconds.saturating_sub(16).max(5));
        }
    }
}
