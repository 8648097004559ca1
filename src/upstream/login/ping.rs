//! What a registry answers to `/v2/` without credentials: how it takes them, and with that which
//! product it is. Asked once, beside the first request, which does not wait for it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout};

use super::error::LoginError;
use super::single_exchange::SingleExchange;
use crate::certs::library_error::with_sources;
use crate::upstream::Upstream;
use crate::upstream::error::UpstreamError;
use crate::upstream::health::FailureReason;
use crate::upstream::known_product::KnownProduct;
use crate::upstream::transfer::TransferLimits;

/// The question to one registry, and its answer.
pub(super) struct RegistryPing {
    product: Arc<KnownProduct>,
    answer: OnceLock<PingAnswer>,
    exchange: Arc<SingleExchange>,
}

/// What a registry answers who has no credentials.
pub(super) struct PingAnswer {
    pub(super) status: StatusCode,
    /// With the challenges.
    pub(super) headers: HeaderMap,
}

impl RegistryPing {
    pub(super) fn new(product: Arc<KnownProduct>) -> Arc<Self> {
        Arc::new(Self {
            product,
            answer: OnceLock::new(),
            exchange: Arc::default(),
        })
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answer.get().is_some()
    }

    /// Asks, unless that is under way already or failed a moment ago.
    #[cold]
    pub(super) fn begin(self: &Arc<Self>, upstream: &Arc<Upstream>, limits: TransferLimits) {
        // Who needs the answer gets the error; nobody does here.
        let _ = self.run(upstream, limits);
    }

    /// Waits for the answer.
    ///
    /// Errors: there is none, and was none a moment ago.
    pub(super) async fn answer(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        limits: TransferLimits,
    ) -> Result<&PingAnswer, Arc<LoginError>> {
        loop {
            let ended = self.exchange.ended();
            if let Some(answer) = self.answer.get() {
                return Ok(answer);
            }
            self.run(upstream, limits)?;
            // Ends with the exchange, which has a time limit.
            ended.await;
        }
    }

    fn run(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        limits: TransferLimits,
    ) -> Result<(), Arc<LoginError>> {
        if self.exchange.begin(Instant::now())? {
            let (ping, upstream) = (self.clone(), upstream.clone());
            self.exchange
                .run(async move { ping.ask(&upstream, limits).await });
        }
        Ok(())
    }

    async fn ask(&self, upstream: &Upstream, limits: TransferLimits) -> Result<(), LoginError> {
        let answer = timeout(ANSWER_TIMEOUT, upstream.ping(limits)).await;
        let response = answer
            .unwrap_or(Err(UpstreamError::TimedOut))
            .map_err(|error| unanswered(&error))?;
        let status = response.status();
        // It is overloaded or broken, or what stands before it.
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(LoginError::NoChallenge {
                cause: format!("it answered {status}"),
                reason: FailureReason::Status,
            });
        }
        let headers = response.into_parts().0.headers;
        self.product.learn(&headers);
        self.answer.get_or_init(|| PingAnswer { status, headers });
        Ok(())
    }
}

fn unanswered(error: &UpstreamError) -> LoginError {
    LoginError::NoChallenge {
        cause: with_sources(error),
        reason: error.reason().unwrap_or(FailureReason::Unreachable),
    }
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
