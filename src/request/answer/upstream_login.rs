//! What a 401 of an upstream means at which moorgate has no login of its own: whose credentials it
//! refuses, and whether it would accept any.

use http::{HeaderMap, StatusCode, header};

use crate::config::upstream::UpstreamAuthorization;
use crate::registry::challenge;
use crate::request::rejection::{Rejection, UpstreamLoginError};
use crate::request::route::UpstreamRoute;
use crate::request::site::{Backend, Site};
use crate::upstream::health::FailureReason;

/// Waits until the product of the upstream is known, before something is decided by what it can.
pub(super) async fn know_product(
    UpstreamRoute { route, backend }: UpstreamRoute<'_>,
) -> Result<(), Rejection> {
    let known = backend.know_product(route.transfer_limits()).await;
    known.map_err(|error| {
        if let Some(reason) = error.reason() {
            for health in backend.upstream.healths() {
                health.failed(reason, error.to_string());
            }
        }
        Rejection::upstream(error, 0)
    })
}

/// Checks that an answer is not the refusal of a login that its client can do nothing about. Whether
/// it is decides what a 401 says of the upstream's health.
pub(super) fn check(
    UpstreamRoute { route, backend }: UpstreamRoute<'_>,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<(), Rejection> {
    let answered = AnsweredLogin {
        site: route.site(),
        backend,
        has_user: route.principal().user.is_some(),
    };
    answered.check(status, headers)
}

/// The login with which a request was sent.
#[derive(Clone, Copy)]
pub(super) struct AnsweredLogin<'a> {
    pub(super) site: &'a Site,
    pub(super) backend: &'a Backend,
    /// Whether its client has logged in.
    pub(super) has_user: bool,
}

impl AnsweredLogin<'_> {
    /// The same, for a request of moorgate itself.
    pub(super) fn check(self, status: StatusCode, headers: &HeaderMap) -> Result<(), Rejection> {
        let Self {
            site,
            backend,
            has_user,
        } = self;
        if status != StatusCode::UNAUTHORIZED {
            return Ok(());
        }
        let Some(upstream) = site.host.registry.upstream() else {
            return Ok(());
        };
        backend.product.learn(headers);
        let challenges = || headers.get_all(header::WWW_AUTHENTICATE).iter();
        let offers = |scheme| {
            let mut challenges = challenges().filter_map(|value| value.to_str().ok());
            challenges.any(|value| challenge::offers(value, scheme))
        };
        let wants_tokens = offers("bearer") && !offers("basic");
        let refused = match &upstream.authorization {
            UpstreamAuthorization::Strip if wants_tokens => UpstreamLoginError::WantsTokens,
            UpstreamAuthorization::Strip => UpstreamLoginError::NoCredentials,
            // Never: its refusals are errors of the login.
            UpstreamAuthorization::Login(_) => UpstreamLoginError::NoCredentials,
            // Who has not logged in may do so; after that, no other password would help.
            UpstreamAuthorization::Pass if wants_tokens && has_user => {
                UpstreamLoginError::WantsTokensNotClients
            }
            UpstreamAuthorization::Pass => {
                for health in backend.upstream.healths() {
                    health.succeeded();
                }
                return Ok(());
            }
        };
        for health in backend.upstream.healths() {
            health.failed(FailureReason::Credentials, refused.to_string());
        }
        Err(Rejection::upstream_unauthorized(refused))
    }
}
