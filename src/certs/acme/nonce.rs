//! How long a request is repeated whose nonce the CA refuses. A CA of several servers that do not
//! share their nonces refuses most of them, and one of ten may be good (RFC 8555 §6.5).

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The retries of one request, bounded in time, with pauses for a CA that refuses every nonce.
pub(super) struct NonceRetries {
    end: Instant,
    pause: Duration,
}

impl NonceRetries {
    pub(super) fn new() -> Self {
        Self {
            end: Instant::now() + NONCE_TIMEOUT,
            pause: MIN_NONCE_PAUSE,
        }
    }

    /// Waits before the next try. Returns whether there is one.
    pub(super) async fn pause(&mut self) -> bool {
        if Instant::now() >= self.end {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_NONCE_PAUSE);
        true
    }
}

/// With nine of ten nonces refused and 100 ms for each answer, one request in a million fails.
const NONCE_TIMEOUT: Duration = Duration::from_mins(1);
const MIN_NONCE_PAUSE: Duration = Duration::from_millis(5);
/// At most a dozen requests in a second, as the library sends three between two pauses.
const MAX_NONCE_PAUSE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn retries_end_after_a_minute_and_not_by_their_number() {
        let mut retries = NonceRetries::new();
        let began = Instant::now();
        let mut count = 0;
        while retries.pause().await {
            count += 1;
        }
        let elapsed = began.elapsed();
        assert!(
            (NONCE_TIMEOUT..NONCE_TIMEOUT + MAX_NONCE_PAUSE * 2).contains(&elapsed),
            "{elapsed:?}"
        );
        assert!((200..400).contains(&count), "{count}");
    }
}
