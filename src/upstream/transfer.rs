//! The progress of one connection to an upstream: what it waits for, since when, and for how long
//! at most. Decides every timeout of a transfer, from its progress, never from its total time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::first_bytes::FirstBytes;
use crate::clock::Deadline;
use crate::config::vhost::Timeouts;

/// The progress of one connection, shared by the task that drives it, the request body and the
/// response body.
#[derive(Debug)]
pub(crate) struct TransferProgress {
    state: Mutex<TransferState>,
    /// What came since the request began. Outside the mutex: every read adds to it, and no deadline
    /// depends on it.
    first_bytes: FirstBytes,
    /// How many bytes may still come before the head of the response; [`NO_BOUND`] after it.
    before_head: AtomicU32,
}

/// What comes before the head of a response: interim responses, of which hyper reads any number.
const MAX_BYTES_BEFORE_HEAD: u32 = 512 * 1024;
const NO_BOUND: u32 = u32::MAX;

#[derive(Debug)]
struct TransferState {
    phase: TransferPhase,
    /// When the last byte moved.
    since: Instant,
    limits: TransferLimits,
    stalled_side: Option<StalledSide>,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransferPhase {
    /// The next request.
    Idle,
    /// The first byte of the request's body, from the client.
    FirstBodyByte,
    /// More of the request's body, from the client.
    ClientBody,
    /// The upstream, to read what was written.
    UpstreamReads,
    /// The response head.
    ResponseHead,
    /// More of the response body.
    ResponseBody,
    /// The client, to read the part of the response that is here.
    ClientReads,
}

/// The timeouts of one request and its response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransferLimits {
    pub(crate) first_body_byte: Duration,
    pub(crate) stall: Duration,
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
}

impl TransferLimits {
    /// Those of a virtual host. `commit`: for the calls that a registry may answer late.
    pub(crate) fn new(timeouts: &Timeouts, commit: bool) -> Self {
        let Timeouts {
            first_body_byte,
            stall,
            upstream_connect: _,
            upstream_head,
            upstream_commit,
            upstream_idle,
        } = *timeouts;
        let head = if commit {
            upstream_commit
        } else {
            upstream_head
        };
        Self {
            first_body_byte,
            stall,
            head,
            idle: upstream_idle,
        }
    }
}

/// The side that made no progress until the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StalledSide {
    /// The client sent no more of its body, or read no more of the response.
    Client,
    /// The upstream.
    Upstream,
}

impl TransferProgress {
    pub(crate) fn new(idle: Duration) -> Self {
        let limits = TransferLimits {
            first_body_byte: idle,
            stall: idle,
            head: idle,
            idle,
        };
        let state = TransferState {
            phase: TransferPhase::Idle,
            since: Instant::now(),
            limits,
            stalled_side: None,
        };
        Self {
            state: Mutex::new(state),
            first_bytes: FirstBytes::default(),
            before_head: AtomicU32::new(NO_BOUND),
        }
    }

    fn state(&self) -> MutexGuard<'_, TransferState> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: TransferPhase) -> Instant {
        let mut state = self.state();
        state.phase = phase;
        state.since = Instant::now();
        state.since
    }

    /// A request begins.
    pub(crate) fn begin(&self, limits: TransferLimits, has_body: bool) {
        self.first_bytes.clear();
        self.before_head
            .store(MAX_BYTES_BEFORE_HEAD, Ordering::Relaxed);
        let phase = if has_body {
            TransferPhase::FirstBodyByte
        } else {
            TransferPhase::ResponseHead
        };
        *self.state() = TransferState {
            phase,
            since: Instant::now(),
            limits,
            stalled_side: None,
        };
    }

    /// The connection wants more of the request body, and there is none yet.
    pub(crate) fn body_pending(&self) {
        let mut state = self.state();
        if state.phase == TransferPhase::UpstreamReads {
            state.phase = TransferPhase::ClientBody;
            state.since = Instant::now();
        }
    }

    /// A frame of the request body went to the connection.
    pub(crate) fn sent_data(&self) {
        let mut state = self.state();
        if matches!(
            state.phase,
            TransferPhase::FirstBodyByte | TransferPhase::ClientBody | TransferPhase::UpstreamReads
        ) {
            state.phase = TransferPhase::UpstreamReads;
        }
        // Also with a response before the end of the body: the body keeps the transfer alive.
        state.since = Instant::now();
    }

    /// The request body is complete.
    pub(crate) fn body_complete(&self) {
        let mut state = self.state();
        if matches!(
            state.phase,
            TransferPhase::FirstBodyByte | TransferPhase::ClientBody | TransferPhase::UpstreamReads
        ) {
            state.phase = TransferPhase::ResponseHead;
            state.since = Instant::now();
        }
    }

    /// Bytes were written to the socket.
    pub(crate) fn wrote(&self) {
        let mut state = self.state();
        if state.phase == TransferPhase::UpstreamReads {
            state.since = Instant::now();
        }
    }

    /// Bytes were read from the socket. Returns whether they are few enough: of a body any number.
    pub(super) fn received(&self, bytes: &[u8]) -> bool {
        self.first_bytes.add(bytes);
        let left = self.before_head.load(Ordering::Relaxed);
        if left == NO_BOUND {
            return true;
        }
        let count = u32::try_from(bytes.len()).unwrap_or(NO_BOUND);
        self.before_head
            .store(left.saturating_sub(count), Ordering::Relaxed);
        count <= left
    }

    /// Whether too much came without the head of a response.
    pub(super) fn is_head_missing(&self) -> bool {
        self.before_head.load(Ordering::Relaxed) == 0
    }

    /// What came in response to this request.
    pub(super) fn first_bytes(&self) -> &FirstBytes {
        &self.first_bytes
    }

    /// The response head is here.
    pub(crate) fn head_received(&self) {
        self.before_head.store(NO_BOUND, Ordering::Relaxed);
        self.enter(TransferPhase::ClientReads);
    }

    /// The client wants more of the response body, and there is none yet.
    pub(crate) fn response_pending(&self) {
        let mut state = self.state();
        if state.phase != TransferPhase::ResponseBody {
            state.phase = TransferPhase::ResponseBody;
            state.since = Instant::now();
        }
    }

    /// A frame of the response body went to the client.
    pub(crate) fn response_data(&self) {
        self.enter(TransferPhase::ClientReads);
    }

    /// The response is complete and the connection waits for the next request. Returns the time.
    pub(crate) fn end(&self) -> Instant {
        self.enter(TransferPhase::Idle)
    }

    /// The side that stalled, if the deadline has passed.
    pub(crate) fn stalled_side(&self) -> Option<StalledSide> {
        self.state().stalled_side
    }

    /// The deadline has passed: records which side stalled, for those who find the connection
    /// closed.
    pub(crate) fn expire(&self) {
        let mut state = self.state();
        state.stalled_side = match state.phase {
            TransferPhase::Idle => None,
            TransferPhase::FirstBodyByte
            | TransferPhase::ClientBody
            | TransferPhase::ClientReads => Some(StalledSide::Client),
            TransferPhase::UpstreamReads
            | TransferPhase::ResponseHead
            | TransferPhase::ResponseBody => Some(StalledSide::Upstream),
        };
    }
}

impl Deadline for &TransferProgress {
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let limit = match state.phase {
            TransferPhase::Idle => state.limits.idle,
            TransferPhase::FirstBodyByte => state.limits.first_body_byte,
            TransferPhase::ResponseHead => state.limits.head,
            TransferPhase::ClientBody
            | TransferPhase::UpstreamReads
            | TransferPhase::ResponseBody
            | TransferPhase::ClientReads => state.limits.stall,
        };
        Some(state.since + limit)
    }
}

impl Deadline for std::sync::Arc<TransferProgress> {
    fn deadline(&self) -> Option<Instant> {
        (&**self).deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TransferLimits = TransferLimits {
        first_body_byte: Duration::from_secs(600),
        stall: Duration::from_secs(120),
        head: Duration::from_secs(900),
        idle: Duration::from_secs(90),
    };

    fn left(progress: &TransferProgress) -> u64 {
        progress
            .deadline()
            .expect("always one")
            .duration_since(Instant::now())
            .as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_limit() {
        let progress = TransferProgress::new(LIMITS.idle);
        assert_eq!(left(&progress), 90);
        progress.begin(LIMITS, true);
        progress.body_pending();
        assert_eq!(left(&progress), 600);
        progress.sent_data();
        assert_eq!(left(&progress), 120);
        tokio::time::advance(Duration::from_secs(100)).await;
        progress.wrote();
        assert_eq!(left(&progress), 120);
        progress.body_complete();
        assert_eq!(left(&progress), 900);
        progress.head_received();
        assert_eq!(left(&progress), 120);
        progress.end();
        assert_eq!(left(&progress), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn the_stalled_side_is_the_one_that_was_waited_for() {
        let progress = TransferProgress::new(LIMITS.idle);
        let stalled = |progress: &TransferProgress| {
            progress.expire();
            progress.stalled_side()
        };
        progress.begin(LIMITS, true);
        assert_eq!(stalled(&progress), Some(StalledSide::Client));
        progress.sent_data();
        assert_eq!(stalled(&progress), Some(StalledSide::Upstream));
        progress.body_pending();
        assert_eq!(stalled(&progress), Some(StalledSide::Client));
        progress.body_complete();
        assert_eq!(stalled(&progress), Some(StalledSide::Upstream));
        progress.response_data();
        assert_eq!(stalled(&progress), Some(StalledSide::Client));
        progress.response_pending();
        assert_eq!(stalled(&progress), Some(StalledSide::Upstream));
    }
}
