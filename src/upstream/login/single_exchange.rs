//! One exchange at a time however many wait for it, and none at once after one that failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout};

use super::error::LoginError;

/// An exchange that many requests may need at once. What it gives is kept by its owner.
#[derive(Debug, Default)]
pub(super) struct SingleExchange {
    state: Mutex<ExchangeState>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct ExchangeState {
    is_running: bool,
    failure: Option<FailedExchange>,
}

#[derive(Debug)]
struct FailedExchange {
    error: Arc<LoginError>,
    until: Instant,
}

impl SingleExchange {
    /// Its next end. To be made before the caller looks for a result, so that no end is missed.
    pub(super) fn ended(&self) -> Notified<'_> {
        self.ended.notified()
    }

    /// Whether the caller has to [run](Self::run) it. Errors: what the last one said, for
    /// [`FAILURE_MEMORY`].
    pub(super) fn begin(&self, now: Instant) -> Result<bool, Arc<LoginError>> {
        let mut state = self.state();
        if let Some(failure) = state.failure.as_ref().filter(|failure| now < failure.until) {
            return Err(failure.error.clone());
        }
        Ok(!std::mem::replace(&mut state.is_running, true))
    }

    /// Runs what keeps its result before it ends.
    #[expect(
        clippy::disallowed_methods,
        reason = "an exchange goes on when its client leaves; ends by its time limit"
    )]
    pub(super) fn run(
        self: &Arc<Self>,
        exchange: impl Future<Output = Result<(), LoginError>> + Send + 'static,
    ) {
        let running = RunningExchange(self.clone());
        tokio::spawn(async move {
            let result = timeout(EXCHANGE_TIMEOUT, exchange).await;
            running
                .0
                .finish(result.unwrap_or(Err(LoginError::Interrupted)));
        });
    }

    fn finish(&self, result: Result<(), LoginError>) {
        let mut state = self.state();
        state.is_running = false;
        state.failure = result
            .err()
            .map(|error| FailedExchange::new(Arc::new(error)));
        drop(state);
        self.ended.notify_waiters();
    }

    /// What it gave has turned out to be of no use.
    pub(super) fn fail(&self, error: Arc<LoginError>) {
        self.state().failure = Some(FailedExchange::new(error));
    }

    /// Another attempt may succeed: the credentials have changed.
    pub(super) fn forget_failure(&self) {
        self.state().failure = None;
    }

    pub(super) fn is_running(&self) -> bool {
        self.state().is_running
    }

    fn state(&self) -> MutexGuard<'_, ExchangeState> {
        // Plain data: a panic elsewhere leaves nothing half-done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FailedExchange {
    fn new(error: Arc<LoginError>) -> Self {
        Self {
            error,
            until: Instant::now() + FAILURE_MEMORY,
        }
    }
}

/// An exchange under way. One that is dropped before its end, with its runtime or by a panic, lets
/// the next request begin another.
struct RunningExchange(Arc<SingleExchange>);

impl Drop for RunningExchange {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if std::mem::take(&mut state.is_running) {
            drop(state);
            self.0.ended.notify_waiters();
        }
    }
}

/// How long a failed exchange answers all requests that would make another: long enough that
/// thousands of requests make one, and short enough that a remedy shows at once.
const FAILURE_MEMORY: Duration = Duration::from_secs(5);
/// For all requests of one exchange, each of which has its own limit.
const EXCHANGE_TIMEOUT: Duration = Duration::from_mins(1);
