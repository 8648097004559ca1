//! What a client connection is doing, and the deadline by which it must make progress.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::frames::FrameEvents;
use crate::clock::Deadline;
use crate::config::snapshot::ConnectionSettings;

/// The progress of one client connection, which its socket and its requests report.
#[derive(Debug)]
pub(crate) struct Activity {
    limits: ActivityLimits,
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
    /// With pending writes, of which the client takes nothing.
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
            ..
        } = *settings;
        Self {
            first_head,
            head,
            idle,
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
    pub(crate) fn new(accepted: Instant, limits: ActivityLimits) -> Self {
        let state = ActivityState {
            phase: ConnectionPhase::FirstHead,
            since: accepted,
            requests: 0,
            blocked: None,
            head_open: None,
            written: 0,
            last_write: accepted,
            ending: None,
        };
        Self {
            limits,
            state: Mutex::new(state),
        }
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
        if events.progress {
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
    pub(crate) fn request(self: &std::sync::Arc<Self>) -> RequestGuard {
        let mut state = self.state();
        state.requests += 1;
        state.phase = ConnectionPhase::Busy;
        state.since = Instant::now();
        let open = state.requests;
        drop(state);
        RequestGuard {
            activity: self.clone(),
            open,
        }
    }
}

/// A running request.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    activity: std::sync::Arc<Activity>,
    /// How many requests were running when this one began, itself included.
    pub(crate) open: u32,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.activity.state();
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

impl Deadline for std::sync::Arc<Activity> {
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let limits = &self.limits;
        let phase = match state.phase {
            ConnectionPhase::FirstHead if state.ending.is_none() => state.since + limits.first_head,
            ConnectionPhase::Head => state.since + limits.head,
            ConnectionPhase::Idle if state.ending.is_none() => state.since + limits.idle,
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_closing_connection_has_the_time_to_read_what_is_under_way() {
        let second = Duration::from_secs(1);
        let limits = ActivityLimits {
            first_head: 15 * second,
            head: 30 * second,
            idle: 300 * second,
            stall: 120 * second,
            busy: 900 * second,
        };
        for (written, seconds) in [(0, 5), (1 << 20, 5 + 16), (1 << 30, 5 + 128)] {
            let activity = std::sync::Arc::new(Activity::new(Instant::now(), limits));
            let due = |activity: &std::sync::Arc<Activity>| {
                activity.deadline().expect("always one") - Instant::now()
            };
            drop(activity.request());
            activity.record_write(written);
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
