//! What a client's connection is doing, and until when it may go on without doing more.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::frames::Fed;
use crate::clock::Deadline;
use crate::config::snapshot::ConnectionSettings;

/// The progress of one client connection, as its socket and its requests report it.
#[derive(Debug)]
pub(crate) struct Activity {
    limits: ActivityLimits,
    state: Mutex<State>,
}

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActivityLimits {
    /// From accept to the end of the first head.
    pub(crate) first_head: Duration,
    /// From a later head's first byte to its last.
    pub(crate) head: Duration,
    /// Without a request.
    pub(crate) idle: Duration,
    /// With bytes to write that the client does not take.
    pub(crate) stall: Duration,
    /// With requests, but without a frame of any of them. Longer than an upstream may take to
    /// answer: it only ends connections whose streams nobody will ever read.
    pub(crate) busy: Duration,
}

impl ActivityLimits {
    /// `stall` and `busy` are the longest of all virtual hosts', since a connection may serve any.
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
struct State {
    phase: Phase,
    /// When the phase began, or something moved in it.
    since: Instant,
    requests: u32,
    /// Whether the last request had a body, of which something may be left.
    had_body: bool,
    /// Since when the socket has not taken a byte although there are some.
    blocked: Option<Instant>,
    /// Since when an HTTP/2 head has begun and not ended.
    head_open: Option<Instant>,
}

impl State {
    /// Something of a request moved. It may be over for us and still be on its way to the client:
    /// HTTP/2 keeps the last part of an answer until there is a window for it.
    fn moved(&mut self) {
        if matches!(self.phase, Phase::Busy | Phase::Idle) {
            self.since = Instant::now();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    FirstHead,
    Head,
    Idle,
    Busy,
    Closing,
}

impl Activity {
    /// A connection accepted at `accepted`.
    pub(crate) fn new(accepted: Instant, limits: ActivityLimits) -> Self {
        let state = State {
            phase: Phase::FirstHead,
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

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of HTTP/1.1 came: of the request that goes on, or without one the beginning of a head.
    pub(super) fn read_http1(&self) {
        let mut state = self.state();
        match state.phase {
            Phase::Busy => state.since = Instant::now(),
            Phase::Idle => {
                state.phase = Phase::Head;
                state.since = Instant::now();
            }
            Phase::FirstHead | Phase::Head | Phase::Closing => {}
        }
    }

    /// Frames of HTTP/2 came. `head_open`: a head has begun and its last frame has not come.
    pub(super) fn read_http2(&self, fed: Fed, head_open: bool) {
        let mut state = self.state();
        if !head_open {
            state.head_open = None;
        } else if fed.ended || state.head_open.is_none() {
            state.head_open = Some(Instant::now());
        }
        if fed.moved {
            state.moved();
        }
    }

    /// More was written than a frame that any connection sends by itself.
    pub(super) fn moved(&self) {
        self.state().moved();
    }

    /// The socket took bytes, or has taken everything there was.
    pub(super) fn socket_took(&self) {
        self.state().blocked = None;
    }

    /// The socket takes no more bytes now.
    pub(super) fn blocked(&self) {
        let mut state = self.state();
        if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
        }
    }

    /// Nothing more will be sent. Returns whether what the client still sends has to be taken off
    /// the socket, since closing one with unread bytes resets it, and a reset overtakes the answer
    /// (RFC 9112 §9.6).
    pub(super) fn closing(&self) -> bool {
        let mut state = self.state();
        if state.phase != Phase::Closing {
            state.phase = Phase::Closing;
            state.since = Instant::now();
        }
        state.had_body
    }

    /// A request has come; it goes on until the guard is dropped.
    pub(crate) fn request(self: &std::sync::Arc<Self>, has_body: bool) -> RequestGuard {
        let mut state = self.state();
        state.had_body = has_body;
        state.requests += 1;
        state.phase = Phase::Busy;
        state.since = Instant::now();
        let open = state.requests;
        drop(state);
        RequestGuard {
            activity: self.clone(),
            open,
        }
    }
}

/// A request that goes on.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    activity: std::sync::Arc<Activity>,
    /// How many went on when this one came, itself included.
    pub(crate) open: u32,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.requests = state.requests.saturating_sub(1);
        if state.phase == Phase::Busy {
            state.since = Instant::now();
            if state.requests == 0 {
                state.phase = Phase::Idle;
            }
        }
    }
}

/// How long what a client still sends is taken off the socket after the last answer.
const LINGER: Duration = Duration::from_secs(5);

impl Deadline for std::sync::Arc<Activity> {
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let limits = &self.limits;
        let phase = state.since
            + match state.phase {
                Phase::FirstHead => limits.first_head,
                Phase::Head => limits.head,
                Phase::Idle => limits.idle,
                Phase::Busy => limits.busy,
                Phase::Closing => LINGER,
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
