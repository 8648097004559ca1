//! The rate of requests that moorgate makes on its own account, for which nobody waits: slow enough
//! that clients of the same registry do not feel them, and silent for as long as the registry says
//! that it is asked too often.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The rate of requests to one registry, which its callers share.
#[derive(Debug)]
pub(in crate::request) struct Pace {
    state: Mutex<PaceState>,
}

#[derive(Debug)]
struct PaceState {
    /// When the next request may be sent.
    next: Instant,
    /// How often the registry has refused since it last answered.
    refused: u32,
}

/// The registry takes no more requests, also after waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::request) struct StillThrottled;

/// At 50 in a second, 100,000 tags are read in half an hour.
const INTERVAL: Duration = Duration::from_millis(20);
/// The first wait where the registry does not say how long; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Registries that want more than this have a quota of hours or of a day: the next run comes sooner.
const MAX_WAIT: Duration = Duration::from_mins(5);
/// Refusals in a row, by any request. With waits of their own: 1 + 2 + ... + 64 s.
const MAX_REFUSALS: u32 = 7;

impl Pace {
    pub(in crate::request) fn new() -> Self {
        Self {
            state: Mutex::new(PaceState {
                next: Instant::now(),
                refused: 0,
            }),
        }
    }

    /// Waits until a request may be sent.
    pub(in crate::request) async fn permit(&self) {
        loop {
            let now = Instant::now();
            let next = {
                let mut state = self.state();
                if state.next <= now {
                    state.next = now + INTERVAL;
                    return;
                }
                state.next
            };
            // Nobody has a place in the queue: what is refused meanwhile holds up all of them.
            tokio::time::sleep_until(next).await;
        }
    }

    /// The registry has answered a request.
    pub(in crate::request) fn answered(&self) {
        self.state().refused = 0;
    }

    /// The registry wants no more requests for some seconds, if it says how many. All callers wait.
    ///
    /// Errors: it has said so too often, or names a time for which no run waits.
    pub(in crate::request) fn throttled(&self, seconds: Option<u16>) -> Result<(), StillThrottled> {
        let mut state = self.state();
        let wait = match seconds {
            Some(seconds) => Duration::from_secs(seconds.max(1).into()),
            None => FIRST_WAIT * 2_u32.saturating_pow(state.refused.min(MAX_REFUSALS)),
        };
        state.refused += 1;
        if wait > MAX_WAIT || state.refused > MAX_REFUSALS {
            return Err(StillThrottled);
        }
        state.next = state.next.max(Instant::now() + wait);
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, PaceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_come_at_the_rate_and_wait_while_the_registry_refuses() {
        let pace = Pace::new();
        let begun = Instant::now();
        for _ in 0..51 {
            pace.permit().await;
        }
        // A timer of tokio may be a millisecond late.
        assert!((1_000..1_060).contains(&begun.elapsed().as_millis()));
        pace.throttled(Some(7)).expect("a wait");
        let refused = Instant::now();
        pace.permit().await;
        assert_eq!(refused.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let pace = Pace::new();
        assert_eq!(pace.throttled(Some(301)), Err(StillThrottled));
        pace.answered();
        let begun = Instant::now();
        for _ in 0..MAX_REFUSALS {
            pace.throttled(None).expect("a wait");
            pace.permit().await;
        }
        assert_eq!(begun.elapsed().as_secs(), 127);
        assert_eq!(pace.throttled(None), Err(StillThrottled));
        pace.answered();
        assert_eq!(pace.throttled(None), Ok(()));
    }
}
