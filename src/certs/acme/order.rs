//! An order (RFC 8555 §7.1.3) from its authorizations to its chain.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use instant_acme::{AuthorizationStatus, ChallengeType};
use tokio::time::{Instant, sleep};

use super::problem::is_not_ready;
use super::transport::Transport;
use super::{AcmeError, CountedRequestError, FailedAuthorization};
use crate::config::acme::ChallengeKind;

/// An order at a CA.
pub(in crate::certs) struct Order {
    inner: instant_acme::Order,
    /// The thumbprint of the account's key (RFC 7638).
    thumbprint: String,
    transport: Arc<Transport>,
}

/// The status of an order (RFC 8555 §7.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::certs) enum OrderStatus {
    /// It has authorizations that are not valid yet.
    Pending,
    /// It can be finalized.
    Ready,
    /// The certificate is being issued.
    Processing,
    /// The certificate is issued.
    Valid,
    /// There will be no certificate.
    Invalid,
}

/// A pending authorization of a name (RFC 8555 §7.1.4).
#[derive(Clone, Debug)]
pub(in crate::certs) struct Authorization {
    /// Without the star of a wildcard.
    pub(in crate::certs) name: String,
    pub(in crate::certs) wildcard: bool,
    /// The challenges that the CA offers and moorgate knows.
    pub(in crate::certs) challenges: Vec<Challenge>,
    /// The types of all challenges that the CA offers.
    pub(in crate::certs) offered_types: Vec<String>,
}

/// A challenge and the values of its response.
#[derive(Clone, Debug)]
pub(in crate::certs) struct Challenge {
    pub(in crate::certs) kind: ChallengeKind,
    pub(in crate::certs) token: String,
    /// The content of the token's URL (RFC 8555 §8.1, §8.3).
    pub(in crate::certs) key_authorization: String,
    /// The SHA-256 of the key authorization, for a handshake (RFC 8737 §3).
    pub(in crate::certs) digest: Vec<u8>,
    /// The digest in base64url, for a TXT record (RFC 8555 §8.4).
    pub(in crate::certs) dns_value: String,
}

impl Challenge {
    fn new(kind: ChallengeKind, token: &str, thumbprint: &str) -> Self {
        let key_authorization = format!("{token}.{thumbprint}");
        let digest = digest(&SHA256, key_authorization.as_bytes())
            .as_ref()
            .to_vec();
        let dns_value = BASE64_URL_SAFE_NO_PAD.encode(&digest);
        Self {
            kind,
            token: token.to_owned(),
            key_authorization,
            digest,
            dns_value,
        }
    }
}

impl Order {
    pub(super) fn new(
        inner: instant_acme::Order,
        thumbprint: &str,
        transport: Arc<Transport>,
    ) -> Self {
        Self {
            inner,
            thumbprint: thumbprint.to_owned(),
            transport,
        }
    }

    pub(in crate::certs) fn url(&self) -> &str {
        self.inner.url()
    }

    /// The status as of the last response.
    pub(in crate::certs) fn status(&mut self) -> OrderStatus {
        match self.inner.state().status {
            instant_acme::OrderStatus::Pending => OrderStatus::Pending,
            instant_acme::OrderStatus::Ready => OrderStatus::Ready,
            instant_acme::OrderStatus::Processing => OrderStatus::Processing,
            instant_acme::OrderStatus::Valid => OrderStatus::Valid,
            instant_acme::OrderStatus::Invalid => OrderStatus::Invalid,
        }
    }

    /// Fetches the authorizations that are pending.
    pub(in crate::certs) async fn pending_authorizations(
        &mut self,
    ) -> Result<Vec<Authorization>, AcmeError> {
        // The library caches each authorization, so that a repeated request fetches the rest.
        retry_bad_nonce!(self.fetch_authorizations())
            .map_err(|error| AcmeError::from_library(error, &self.transport))
    }

    async fn fetch_authorizations(&mut self) -> Result<Vec<Authorization>, instant_acme::Error> {
        let mut pending_authorizations = Vec::new();
        let mut authorizations = self.inner.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = authorization
                .identifier()
                .identifier
                .authorized(false)
                .to_string();
            let wildcard = authorization.wildcard;
            let offered_types = authorization
                .challenges
                .iter()
                .map(|one| challenge_type_name(&one.r#type).to_owned())
                .collect();
            let challenges = ChallengeKind::ALL.into_iter().filter_map(|kind| {
                let challenge = authorization
                    .challenges
                    .iter()
                    .find(|one| one.r#type == challenge_type(kind))?;
                Some(Challenge::new(kind, &challenge.token, &self.thumbprint))
            });
            let challenges = challenges.collect();
            pending_authorizations.push(Authorization {
                name,
                wildcard,
                challenges,
                offered_types,
            });
        }
        Ok(pending_authorizations)
    }

    /// Tells the CA that the response to a challenge is in place (RFC 8555 §7.5.1). A challenge that
    /// has failed by the time of the CA's answer is a failed authorization, as one that fails later.
    pub(in crate::certs) async fn respond(
        &mut self,
        name: &str,
        wildcard: bool,
        kind: ChallengeKind,
    ) -> Result<(), AcmeError> {
        let Some(result) = self.set_ready(name, wildcard, kind).await else {
            return Err(AcmeError::ChallengeGone {
                kind,
                name: name.to_owned(),
            });
        };
        let Err(error) = result else { return Ok(()) };
        // The library makes the same error of a refused request and of a challenge that has failed.
        let is_problem = matches!(error, instant_acme::Error::Api(_));
        let error = AcmeError::from_library(error, &self.transport);
        let failed_authorizations = if is_problem {
            self.failed_authorizations().await
        } else {
            Vec::new()
        };
        Err(if failed_authorizations.is_empty() {
            error
        } else {
            AcmeError::NotAuthorized(failed_authorizations)
        })
    }

    /// `None`: the order has no such challenge.
    async fn set_ready(
        &mut self,
        name: &str,
        wildcard: bool,
        kind: ChallengeKind,
    ) -> Option<Result<(), instant_acme::Error>> {
        let mut authorizations = self.inner.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = match authorization {
                Ok(authorization) => authorization,
                Err(error) => return Some(Err(error)),
            };
            let its_name = authorization
                .identifier()
                .identifier
                .authorized(false)
                .to_string();
            if its_name != name || authorization.wildcard != wildcard {
                continue;
            }
            let Some(mut challenge) = authorization.challenge(challenge_type(kind)) else {
                continue;
            };
            return Some(retry_bad_nonce!(challenge.set_ready()));
        }
        None
    }

    /// Waits until all authorizations are valid, for five minutes at most.
    pub(in crate::certs) async fn wait_authorized(&mut self) -> Result<(), AcmeError> {
        match self
            .poll_until(
                |status| status != OrderStatus::Pending,
                AUTHORIZATION_TIMEOUT,
            )
            .await?
        {
            OrderStatus::Invalid => Err(self.failure().await),
            OrderStatus::Pending
            | OrderStatus::Ready
            | OrderStatus::Processing
            | OrderStatus::Valid => Ok(()),
        }
    }

    /// Finalizes the order with a signing request in DER (RFC 8555 §7.4).
    pub(in crate::certs) async fn finalize(
        &mut self,
        request: &[u8],
    ) -> Result<(), CountedRequestError> {
        // Earlier requests of the session say nothing about this one.
        self.transport.forget_last_post();
        let Err(error) = retry_bad_nonce!(self.inner.finalize_csr(request)) else {
            return Ok(());
        };
        if is_not_ready(&error) {
            // The response to an earlier request may have been lost, and the certificate issued.
            let counted = |error| CountedRequestError {
                error,
                may_count: true,
            };
            self.refresh().await.map_err(counted)?;
            match self.status() {
                OrderStatus::Processing | OrderStatus::Valid => return Ok(()),
                OrderStatus::Invalid => return Err(counted(self.failure().await)),
                OrderStatus::Pending | OrderStatus::Ready => {}
            }
        }
        let may_count = self.transport.last_response().last_post.may_count();
        let error = match AcmeError::from_library(error, &self.transport) {
            refused @ AcmeError::Refused(_) => refused.ending_order(),
            other => other,
        };
        Err(CountedRequestError { error, may_count })
    }

    /// Waits until the certificate is issued, for two minutes at most, and downloads its chain in
    /// PEM.
    pub(in crate::certs) async fn download_chain(&mut self) -> Result<String, AcmeError> {
        let done = |status| matches!(status, OrderStatus::Valid | OrderStatus::Invalid);
        if !done(self.status()) {
            self.poll_until(done, ORDER_TIMEOUT).await?;
        }
        if self.status() == OrderStatus::Invalid {
            return Err(self.failure().await);
        }
        let chain = retry_bad_nonce!(self.inner.certificate())
            .map_err(|error| AcmeError::from_library(error, &self.transport))?;
        chain.ok_or(AcmeError::NotFinished { until: None })
    }

    /// Polls the status until it is `done` or the limit has passed, at the CA's Retry-After. One that
    /// lies beyond the limit is ignored: some CAs say a day for what takes seconds.
    async fn poll_until(
        &mut self,
        done: impl Fn(OrderStatus) -> bool,
        limit: Duration,
    ) -> Result<OrderStatus, AcmeError> {
        let end = Instant::now() + limit;
        let mut pause = MIN_POLL_INTERVAL;
        loop {
            self.refresh().await?;
            let status = self.status();
            if done(status) {
                return Ok(status);
            }
            let until = self.transport.last_response().retry_after;
            let retry_after = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
            let left = end.saturating_duration_since(Instant::now());
            let wait = retry_after.filter(|wait| *wait <= left).unwrap_or(pause);
            if wait > left {
                return Err(AcmeError::NotFinished { until });
            }
            sleep(wait.max(MIN_POLL_INTERVAL)).await;
            pause = (pause * 2).min(MAX_POLL_INTERVAL);
        }
    }

    async fn refresh(&mut self) -> Result<(), AcmeError> {
        let refreshed = retry_bad_nonce!(self.inner.refresh()).map(|_| ());
        refreshed
            .map_err(|error| AcmeError::from_library(error, &self.transport).into_missing_order())
    }

    /// Why the order became invalid: by its authorizations, or else by the order itself.
    async fn failure(&mut self) -> AcmeError {
        let failed_authorizations = self.failed_authorizations().await;
        if !failed_authorizations.is_empty() {
            return AcmeError::NotAuthorized(failed_authorizations);
        }
        let why = match &self.inner.state().error {
            Some(problem) => AcmeError::from_problem(problem, None),
            None => AcmeError::OrderInvalid,
        };
        why.ending_order()
    }

    /// The names that the CA has validated, as of the last responses.
    pub(in crate::certs) async fn validated_names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        let mut authorizations = self.inner.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            if authorization.status == AuthorizationStatus::Valid {
                names.push(authorization.identifier().to_string());
            }
        }
        names
    }

    /// Fetches the errors of the challenges.
    async fn failed_authorizations(&mut self) -> Vec<FailedAuthorization> {
        let mut failed_authorizations = Vec::new();
        // Of a resumed order they are not known yet.
        if retry_bad_nonce!(self.fetch_authorizations()).is_err() {
            return failed_authorizations;
        }
        let mut authorizations = self.inner.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if retry_bad_nonce!(authorization.refresh()).is_err() {
                continue;
            }
            let name = authorization.identifier().to_string();
            let errors = authorization.challenges.iter().filter_map(|challenge| {
                let problem = challenge.error.as_ref()?;
                let kind = ChallengeKind::ALL
                    .into_iter()
                    .find(|kind| challenge_type(*kind) == challenge.r#type);
                Some(FailedAuthorization {
                    name: name.clone(),
                    kind,
                    problem: problem.into(),
                })
            });
            failed_authorizations.extend(errors);
        }
        failed_authorizations
    }
}

fn challenge_type(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::Dns01 => ChallengeType::Dns01,
        ChallengeKind::DnsPersist01 => ChallengeType::Unknown(kind.name().to_owned()),
    }
}

fn challenge_type_name(kind: &ChallengeType) -> &str {
    match kind {
        ChallengeType::Http01 => "http-01",
        ChallengeType::Dns01 => "dns-01",
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        ChallengeType::Unknown(name) => name,
        _ => "unknown",
    }
}

const MIN_POLL_INTERVAL: Duration = Duration::from_millis(250);
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Longer than a CA usually takes. The order is resumed later.
const ORDER_TIMEOUT: Duration = Duration::from_mins(2);
/// The responses to the challenges are removed afterwards.
const AUTHORIZATION_TIMEOUT: Duration = Duration::from_mins(5);
