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
    /// Whether the last request had a body, of which some may be unread.
    had_body: bool,
    /// Since when the socket has taken none of the pending bytes.
    blocked: Option<Instant>,
    /// Since when an HTTP/2 head is incomplete.
    head_open: Option<Instant>,
}

impl ActivityState {
    /// A request made progress. It may be over for us and still be on its way to the client: HTTP/2
    /// buffers the end of a response until there is a window for it.
    fn record_progress(&mut self) {
        if matches!(self.phase, ConnectionPhase::Busy | ConnectionPhase::Idle) {
            self.since = Instant::now();
        }
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
            had_body: false,
            blocked: None,
            head_open: None,
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

    /// The socket took bytes, or everything that was pending.
    pub(super) fn record_write(&self) {
        self.state().blocked = None;
    }

    /// The socket takes no more bytes for now.
    pub(super) fn record_blocked(&self) {
        let mut state = self.state();
        if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
        }
    }

    /// Nothing more will be sent. Returns whether the client's remaining bytes have to be read
    /// first: closing a socket with unread bytes resets it, and the reset overtakes the response
    /// (RFC 9112 §9.6).
    pub(super) fn begin_closing(&self) -> bool {
        let mut state = self.state();
        if state.phase != ConnectionPhase::Closing {
            state.phase = ConnectionPhase::Closing;
            state.since = Instant::now();
        }
        state.had_body
    }

    /// A request begins; it ends when the guard is dropped.
    pub(crate) fn request(self: &std::sync::Arc<Self>, has_body: bool) -> RequestGuard {
        let mut state = self.state();
        state.had_body = has_body;
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

/// How long the client's remaining bytes are read and dropped after the last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

impl Deadline for std::sync::Arc<Activity> {
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let limits = &self.limits;
        let phase = state.since
            + match state.phase {
                ConnectionPhase::FirstHead => limits.first_head,
                ConnectionPhase::Head => limits.head,
                ConnectionPhase::Idle => limits.idle,
                ConnectionPhase::Busy => limits.busy,
                ConnectionPhase::Closing => LINGER_TIMEOUT,
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
