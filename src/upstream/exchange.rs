//! The progress of one connection to an upstream: what it waits for, since when, and for how long
//! at most. Every timeout of a transfer is decided here, from progress, never from its whole time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Deadline;
use crate::config::vhost::Timeouts;

/// One connection's progress. It is shared by the task that drives the connection, the request body
/// that feeds it and the response body that drains it.
#[derive(Debug)]
pub(crate) struct Exchange {
    state: Mutex<State>,
    /// Whether a byte has come since the request began. Apart from the state: it is set with every
    /// read, and no deadline depends on it.
    heard: AtomicBool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The last moment at which something moved.
    since: Instant,
    limits: ExchangeLimits,
    verdict: Option<Verdict>,
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A next request.
    Idle,
    /// The first byte of the request's body, from the client.
    FirstBodyByte,
    /// More of the request's body, from the client.
    ClientBody,
    /// The upstream, to take what was given to it.
    UpstreamTakes,
    /// The head of the answer.
    Head,
    /// More of the answer.
    Answer,
    /// The client, to take the part of the answer that is here.
    ClientTakes,
}

/// The limits of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExchangeLimits {
    pub(crate) first_body_byte: Duration,
    pub(crate) stall: Duration,
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
}

impl ExchangeLimits {
    /// Those of a virtual host; `commit` for the calls that a registry answers late.
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

/// Who kept the other side waiting too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client sent no more of its body, or took no more of the answer.
    Client,
    /// The upstream.
    Upstream,
}

impl Exchange {
    pub(crate) fn new(idle: Duration) -> Self {
        let limits = ExchangeLimits {
            first_body_byte: idle,
            stall: idle,
            head: idle,
            idle,
        };
        let state = State {
            phase: Phase::Idle,
            since: Instant::now(),
            limits,
            verdict: None,
        };
        Self {
            state: Mutex::new(state),
            heard: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.since = Instant::now();
    }

    /// A request goes out.
    pub(crate) fn begin(&self, limits: ExchangeLimits, has_body: bool) {
        self.heard.store(false, Ordering::Relaxed);
        let phase = if has_body {
            Phase::FirstBodyByte
        } else {
            Phase::Head
        };
        *self.state() = State {
            phase,
            since: Instant::now(),
            limits,
            verdict: None,
        };
    }

    /// The connection asked for more of the request's body and there is none yet.
    pub(crate) fn waits_for_body(&self) {
        let mut state = self.state();
        if state.phase == Phase::UpstreamTakes {
            state.phase = Phase::ClientBody;
            state.since = Instant::now();
        }
    }

    /// A part of the request's body was handed to the connection.
    pub(crate) fn sent_part(&self) {
        let mut state = self.state();
        if matches!(
            state.phase,
            Phase::FirstBodyByte | Phase::ClientBody | Phase::UpstreamTakes
        ) {
            state.phase = Phase::UpstreamTakes;
        }
        // An answer that comes while the body still goes up is kept alive by the body.
        state.since = Instant::now();
    }

    /// The request's body is complete.
    pub(crate) fn sent_all(&self) {
        let mut state = self.state();
        if matches!(
            state.phase,
            Phase::FirstBodyByte | Phase::ClientBody | Phase::UpstreamTakes
        ) {
            state.phase = Phase::Head;
            state.since = Instant::now();
        }
    }

    /// Bytes went into the upstream's socket.
    pub(crate) fn wrote(&self) {
        let mut state = self.state();
        if state.phase == Phase::UpstreamTakes {
            state.since = Instant::now();
        }
    }

    /// Bytes came out of the upstream's socket.
    pub(crate) fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the upstream has said anything to this request.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// The head of the answer is here.
    pub(crate) fn answered(&self) {
        self.enter(Phase::ClientTakes);
    }

    /// The answer's reader asked for more and there is none yet.
    pub(crate) fn waits_for_answer(&self) {
        let mut state = self.state();
        if state.phase != Phase::Answer {
            state.phase = Phase::Answer;
            state.since = Instant::now();
        }
    }

    /// A part of the answer went to its reader.
    pub(crate) fn took_part(&self) {
        self.enter(Phase::ClientTakes);
    }

    /// The exchange is over and the connection waits for the next one.
    pub(crate) fn rest(&self) {
        self.enter(Phase::Idle);
    }

    /// Who kept whom waiting, if the deadline has passed.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.state().verdict
    }

    /// The deadline has passed: says whose fault it is, for those who find the connection gone.
    pub(crate) fn expire(&self) {
        let mut state = self.state();
        state.verdict = match state.phase {
            Phase::Idle => None,
            Phase::FirstBodyByte | Phase::ClientBody | Phase::ClientTakes => Some(Verdict::Client),
            Phase::UpstreamTakes | Phase::Head | Phase::Answer => Some(Verdict::Upstream),
        };
    }
}

impl Deadline for &Exchange {
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let limit = match state.phase {
            Phase::Idle => state.limits.idle,
            Phase::FirstBodyByte => state.limits.first_body_byte,
            Phase::Head => state.limits.head,
            Phase::ClientBody | Phase::UpstreamTakes | Phase::Answer | Phase::ClientTakes => {
                state.limits.stall
            }
        };
        Some(state.since + limit)
    }
}

impl Deadline for std::sync::Arc<Exchange> {
    fn deadline(&self) -> Option<Instant> {
        (&**self).deadline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ExchangeLimits = ExchangeLimits {
        first_body_byte: Duration::from_secs(600),
        stall: Duration::from_secs(120),
        head: Duration::from_secs(900),
        idle: Duration::from_secs(90),
    };

    fn left(exchange: &Exchange) -> u64 {
        exchange
            .deadline()
            .expect("always one")
            .duration_since(Instant::now())
            .as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_limit() {
        let exchange = Exchange::new(LIMITS.idle);
        assert_eq!(left(&exchange), 90);
        exchange.begin(LIMITS, true);
        exchange.waits_for_body();
        assert_eq!(left(&exchange), 600);
        exchange.sent_part();
        assert_eq!(left(&exchange), 120);
        tokio::time::advance(Duration::from_secs(100)).await;
        exchange.wrote();
        assert_eq!(left(&exchange), 120);
        exchange.sent_all();
        assert_eq!(left(&exchange), 900);
        exchange.answered();
        assert_eq!(left(&exchange), 120);
        exchange.rest();
        assert_eq!(left(&exchange), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn the_verdict_names_who_was_waited_for() {
        let exchange = Exchange::new(LIMITS.idle);
        let verdict = |exchange: &Exchange| {
            exchange.expire();
            exchange.verdict()
        };
        exchange.begin(LIMITS, true);
        assert_eq!(verdict(&exchange), Some(Verdict::Client));
        exchange.sent_part();
        assert_eq!(verdict(&exchange), Some(Verdict::Upstream));
        exchange.waits_for_body();
        assert_eq!(verdict(&exchange), Some(Verdict::Client));
        exchange.sent_all();
        assert_eq!(verdict(&exchange), Some(Verdict::Upstream));
        exchange.took_part();
        assert_eq!(verdict(&exchange), Some(Verdict::Client));
        exchange.waits_for_answer();
        assert_eq!(verdict(&exchange), Some(Verdict::Upstream));
    }
}
