//! One token: exchanged once however many requests wait for it, renewed before it ends without a
//! request that waits, and not asked for again at once where that has failed.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::time::Instant;

use super::error::LoginError;
use super::single_exchange::SingleExchange;

/// What an exchange gave. Times are those of the monotonic clock, so that nothing depends on a
/// clock that is set.
#[derive(Debug)]
pub(super) struct UpstreamToken {
    /// The value of `Authorization`, marked sensitive.
    pub(super) authorization: HeaderValue,
    /// What it allows, where the answer of the exchange says so (RFC 6749 §5.1).
    pub(super) scope: Option<Box<str>>,
    /// When its life ends.
    pub(super) expires: Instant,
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
            scope: None,
            expires: begun + life,
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
    exchange: Arc<SingleExchange>,
}

impl TokenSlot {
    /// The token, exchanged by `exchange` where there is none or where it ends soon.
    ///
    /// Errors: what the last exchange said a moment ago.
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
        if now >= token.renew && self.exchange.begin(now).is_ok_and(|begins| begins) {
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
            let ended = self.exchange.ended();
            if let Some(token) = self.usable(&exchange) {
                return Ok(AuthorizationValue { is_new, ..token });
            }
            if self.exchange.begin(Instant::now())? {
                self.run(exchange());
            }
            // Ends with the exchange, which has a time limit.
            ended.await;
            is_new = true;
        }
    }

    fn run(
        self: &Arc<Self>,
        exchange: impl Future<Output = Result<UpstreamToken, LoginError>> + Send + 'static,
    ) {
        let slot = self.clone();
        self.exchange.run(async move {
            slot.token.store(Some(Arc::new(exchange.await?)));
            Ok(())
        });
    }

    /// The registry has refused this token: another one is exchanged, unless there is one already.
    pub(super) fn invalidate(&self, refused: &HeaderValue) {
        let current = self.token.load();
        if current
            .as_ref()
            .is_some_and(|token| token.authorization == refused)
        {
            self.token.compare_and_swap(&current, None);
        }
    }

    /// The registry has refused a token that was just exchanged.
    pub(super) fn refuse(&self, refused: &HeaderValue, error: Arc<LoginError>) {
        self.invalidate(refused);
        self.exchange.fail(error);
    }

    /// Another attempt may succeed: the credentials have changed.
    pub(super) fn forget_failure(&self) {
        self.exchange.forget_failure();
    }

    /// The token as it is now.
    pub(super) fn current(&self) -> Option<Arc<UpstreamToken>> {
        self.token.load_full()
    }

    /// Whether it has a token for later requests.
    pub(super) fn is_in_use(&self, now: Instant) -> bool {
        let token = self.token.load();
        token.as_ref().is_some_and(|token| now < token.end) || self.exchange.is_running()
    }
}
