//! One token: exchanged once however many requests wait for it, renewed before it ends without a
//! request that waits, and not asked for again at once where that has failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::error::LoginError;

/// What an exchange gave. Times are those of the monotonic clock, so that nothing depends on a
/// clock that is set.
#[derive(Debug)]
pub(super) struct UpstreamToken {
    /// The value of `Authorization`, marked sensitive.
    pub(super) authorization: HeaderValue,
    renew: Instant,
    end: Instant,
}

/// At which part of its life a token is renewed.
#[derive(Clone, Copy, Debug)]
pub(super) enum RenewalPoint {
    /// At 80 %, for tokens of minutes.
    Late,
    /// At half, for passwords of hours.
    Half,
}

impl UpstreamToken {
    /// A token that lives so long from the beginning of its exchange on. Unused for the last tenth
    /// of its life, in which it could end on its way.
    pub(super) fn new(
        mut authorization: HeaderValue,
        begun: Instant,
        life: Duration,
        renewal: RenewalPoint,
    ) -> Self {
        authorization.set_sensitive(true);
        let life = life.clamp(MIN_LIFE, MAX_LIFE);
        let renew = match renewal {
            RenewalPoint::Late => life / 5 * 4,
            RenewalPoint::Half => life / 2,
        };
        Self {
            authorization,
            renew: begun + renew,
            end: begun + life / 10 * 9,
        }
    }
}

const MIN_LIFE: Duration = Duration::from_secs(1);
const MAX_LIFE: Duration = Duration::from_hours(24);

/// The value of `Authorization` for one request.
#[derive(Clone, Debug)]
pub(super) struct AuthorizationValue {
    pub(super) value: HeaderValue,
    /// Whether it was obtained while the request waited: another one would be no better.
    pub(super) is_new: bool,
    /// Whether it was exchanged, and does not stand in the configuration.
    pub(super) is_exchanged: bool,
}

/// The place of one token.
#[derive(Debug, Default)]
pub(super) struct TokenSlot {
    token: ArcSwapOption<UpstreamToken>,
    state: Mutex<SlotState>,
    exchanged: Notify,
}

#[derive(Debug, Default)]
struct SlotState {
    is_exchanging: bool,
    failure: Option<FailedExchange>,
}

#[derive(Debug)]
struct FailedExchange {
    error: Arc<LoginError>,
    until: Instant,
}

impl TokenSlot {
    /// The token, exchanged by `exchange` where there is none or where it ends soon.
    ///
    /// Errors: what the last exchange said, for [`FAILURE_MEMORY`].
    pub(super) async fn token<F>(
        self: &Arc<Self>,
        exchange: impl Fn() -> F,
    ) -> Result<AuthorizationValue, Arc<LoginError>>
    where
        F: Future<Output = Result<UpstreamToken, LoginError>> + Send + 'static,
    {
        if let Some(token) = self.usable(&exchange) {
            return Ok(token);
        }
        // Boxed to keep this rare future out of every request's future.
        Box::pin(self.wait(exchange)).await
    }

    fn usable<F>(self: &Arc<Self>, exchange: impl Fn() -> F) -> Option<AuthorizationValue>
    where
        F: Future<Output = Result<UpstreamToken, LoginError>> + Send + 'static,
    {
        let now = Instant::now();
        let token = self.token.load();
        let token = token.as_ref().filter(|token| now < token.end)?;
        if now >= token.renew && self.begin(now).is_ok_and(|begins| begins) {
            self.run(exchange());
        }
        Some(AuthorizationValue {
            value: token.authorization.clone(),
            is_new: false,
            is_exchanged: true,
        })
    }

    async fn wait<F>(
        self: &Arc<Self>,
        exchange: impl Fn() -> F,
    ) -> Result<AuthorizationValue, Arc<LoginError>>
    where
        F: Future<Output = Result<UpstreamToken, LoginError>> + Send + 'static,
    {
        let mut is_new = false;
        loop {
            // Made before the state is read, so that no end of an exchange is missed.
            let exchanged = self.exchanged.notified();
            if let Some(token) = self.usable(&exchange) {
                return Ok(AuthorizationValue { is_new, ..token });
            }
            if self.begin(Instant::now())? {
                self.run(exchange());
            }
            // Ends with the exchange, which has a time limit.
            exchanged.await;
            is_new = true;
        }
    }

    /// Whether the caller has to exchange. Errors: it failed a moment ago.
    fn begin(&self, now: Instant) -> Result<bool, Arc<LoginError>> {
        let mut state = self.state();
        if let Some(failure) = state.failure.as_ref().filter(|failure| now < failure.until) {
            return Err(failure.error.clone());
        }
        Ok(!std::mem::replace(&mut state.is_exchanging, true))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an exchange goes on when its client leaves; ends by its time limit"
    )]
    fn run(
        self: &Arc<Self>,
        exchange: impl Future<Output = Result<UpstreamToken, LoginError>> + Send + 'static,
    ) {
        let running = RunningExchange(self.clone());
        tokio::spawn(async move {
            let result = timeout(EXCHANGE_TIMEOUT, exchange).await;
            running
                .0
                .finish(result.unwrap_or(Err(LoginError::Interrupted)));
        });
    }

    fn finish(&self, result: Result<UpstreamToken, LoginError>) {
        let mut state = self.state();
        state.is_exchanging = false;
        match result {
            Ok(token) => {
                self.token.store(Some(Arc::new(token)));
                state.failure = None;
            }
            Err(error) => state.failure = Some(FailedExchange::new(Arc::new(error))),
        }
        drop(state);
        self.exchanged.notify_waiters();
    }

    /// The registry has refused this token: another one is exchanged, unless there is one already.
    pub(super) fn invalidate(&self, refused: &HeaderValue) {
        let _state = self.state();
        let current = self.token.load();
        if current
            .as_ref()
            .is_some_and(|token| token.authorization == refused)
        {
            self.token.store(None);
        }
    }

    /// The registry has refused a token that was just exchanged.
    pub(super) fn refuse(&self, refused: &HeaderValue, error: Arc<LoginError>) {
        self.invalidate(refused);
        self.state().failure = Some(FailedExchange::new(error));
    }

    /// Another attempt may succeed: the credentials have changed.
    pub(super) fn forget_failure(&self) {
        self.state().failure = None;
    }

    /// Whether it has a token for later requests.
    pub(super) fn is_in_use(&self, now: Instant) -> bool {
        let token = self.token.load();
        token.as_ref().is_some_and(|token| now < token.end) || self.state().is_exchanging
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
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
struct RunningExchange(Arc<TokenSlot>);

impl Drop for RunningExchange {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if std::mem::take(&mut state.is_exchanging) {
            drop(state);
            self.0.exchanged.notify_waiters();
        }
    }
}

/// How long a failed exchange answers all requests that would make another: long enough that
/// thousands of requests make one, and short enough that a remedy shows at once.
const FAILURE_MEMORY: Duration = Duration::from_secs(5);
/// For all requests of one exchange, each of which has its own limit.
const EXCHANGE_TIMEOUT: Duration = Duration::from_mins(1);
