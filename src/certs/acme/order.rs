//! An order (RFC 8555 §7.1.3) from its authorizations to its chain.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use instant_acme::{AuthorizationStatus, ChallengeType, OrderStatus};
use tokio::time::{Instant, sleep};

use super::error::{is_not_ready, words};
use super::transport::Transport;
use super::{AcmeError, Unproved};
use crate::config::acme::ChallengeKind;

/// An order at a CA.
pub(in crate::certs) struct Order {
    inner: instant_acme::Order,
    /// Of the account's key (RFC 7638).
    thumbprint: String,
    transport: Arc<Transport>,
}

/// How far an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::certs) enum Stage {
    /// Names are still to be proved.
    Pending,
    /// The certificate may be asked for.
    Ready,
    /// It has been asked for.
    Processing,
    /// It is there.
    Valid,
    /// There will never be one.
    Invalid,
}

/// A name that is to be proved.
#[derive(Clone, Debug)]
pub(in crate::certs) struct Proof {
    /// Without the star of a wildcard.
    pub(in crate::certs) name: String,
    pub(in crate::certs) wildcard: bool,
    /// What the CA accepts.
    pub(in crate::certs) offers: Vec<Offer>,
    /// The same in its own words.
    pub(in crate::certs) offered: Vec<String>,
}

/// A challenge, and what answers it.
#[derive(Clone, Debug)]
pub(in crate::certs) struct Offer {
    pub(in crate::certs) kind: ChallengeKind,
    pub(in crate::certs) token: String,
    /// What stands at the token's URL (RFC 8555 §8.1).
    pub(in crate::certs) key_authorization: String,
    /// Its SHA-256, for a handshake (RFC 8737 §3).
    pub(in crate::certs) digest: Vec<u8>,
    /// The same in base64url, for a TXT record (RFC 8555 §8.4).
    pub(in crate::certs) dns_value: String,
}

impl Offer {
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

    /// Where it is.
    pub(in crate::certs) fn url(&self) -> &str {
        self.inner.url()
    }

    /// How far it was when it was last looked at.
    pub(in crate::certs) fn stage(&mut self) -> Stage {
        match self.inner.state().status {
            OrderStatus::Pending => Stage::Pending,
            OrderStatus::Ready => Stage::Ready,
            OrderStatus::Processing => Stage::Processing,
            OrderStatus::Valid => Stage::Valid,
            OrderStatus::Invalid => Stage::Invalid,
        }
    }

    /// The names that are still to be proved.
    pub(in crate::certs) async fn proofs(&mut self) -> Result<Vec<Proof>, AcmeError> {
        // What has been fetched is not fetched again, so that starting over costs nothing.
        again!(self.fetch_proofs()).map_err(|error| AcmeError::of(error, &self.transport))
    }

    async fn fetch_proofs(&mut self) -> Result<Vec<Proof>, instant_acme::Error> {
        let mut proofs = Vec::new();
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
            let offered = authorization
                .challenges
                .iter()
                .map(|one| word(&one.r#type).to_owned())
                .collect();
            let offers = ChallengeKind::ALL.into_iter().filter_map(|kind| {
                let challenge = authorization
                    .challenges
                    .iter()
                    .find(|one| one.r#type == of_kind(kind))?;
                Some(Offer::new(kind, &challenge.token, &self.thumbprint))
            });
            let offers = offers.collect();
            proofs.push(Proof {
                name,
                wildcard,
                offers,
                offered,
            });
        }
        Ok(proofs)
    }

    /// Tells the CA that the answer to a challenge is in place. One that it has found not to be met
    /// by the time of its answer is a failed proof, as one that it finds later.
    pub(in crate::certs) async fn begin(
        &mut self,
        name: &str,
        wildcard: bool,
        kind: ChallengeKind,
    ) -> Result<(), AcmeError> {
        let Some(told) = self.set_ready(name, wildcard, kind).await else {
            return Err(AcmeError::Nonsense(format!("no {kind} for {name}")));
        };
        let Err(error) = told else { return Ok(()) };
        // The library makes the same error of a refused request and of a challenge that has failed.
        let is_said = matches!(error, instant_acme::Error::Api(_));
        let error = AcmeError::of(error, &self.transport);
        let unproved = if is_said {
            self.unproved().await
        } else {
            Vec::new()
        };
        Err(if unproved.is_empty() {
            error
        } else {
            AcmeError::NotAuthorized(unproved)
        })
    }

    /// `None`: there is no such challenge.
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
            let Some(mut challenge) = authorization.challenge(of_kind(kind)) else {
                continue;
            };
            return Some(again!(challenge.set_ready()));
        }
        None
    }

    /// Waits until the names are proved.
    pub(in crate::certs) async fn authorized(&mut self) -> Result<(), AcmeError> {
        match self
            .until(|stage| stage != Stage::Pending, PATIENCE_WITH_PROOFS)
            .await?
        {
            Stage::Invalid => Err(self.failure().await),
            Stage::Pending | Stage::Ready | Stage::Processing | Stage::Valid => Ok(()),
        }
    }

    /// Asks for the certificate of a signing request, in DER.
    pub(in crate::certs) async fn finalize(&mut self, request: &[u8]) -> Result<(), AcmeError> {
        let Err(error) = again!(self.inner.finalize_csr(request)) else {
            return Ok(());
        };
        if is_not_ready(&error) {
            // The answer to an earlier request may have been lost: then there may be a certificate
            // all the same.
            self.look().await?;
            match self.stage() {
                Stage::Processing | Stage::Valid => return Ok(()),
                Stage::Invalid => return Err(self.failure().await),
                Stage::Pending | Stage::Ready => {}
            }
        }
        match AcmeError::of(error, &self.transport) {
            refused @ AcmeError::Refused(_) => Err(refused.about_the_end()),
            other => Err(other),
        }
    }

    /// Waits for the chain, in PEM.
    pub(in crate::certs) async fn chain(&mut self) -> Result<String, AcmeError> {
        let done = |stage| matches!(stage, Stage::Valid | Stage::Invalid);
        if !done(self.stage()) {
            self.until(done, PATIENCE).await?;
        }
        if self.stage() == Stage::Invalid {
            return Err(self.failure().await);
        }
        let chain = again!(self.inner.certificate())
            .map_err(|error| AcmeError::of(error, &self.transport))?;
        chain.ok_or(AcmeError::Slow { until: None })
    }

    /// Looks again, as often as the CA wishes, until `done` or until patience is over. A CA that
    /// wants to be asked again after that is asked at our own pace until then: some say "in a day"
    /// of what takes seconds.
    async fn until(
        &mut self,
        done: impl Fn(Stage) -> bool,
        patience: Duration,
    ) -> Result<Stage, AcmeError> {
        let end = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            self.look().await?;
            let stage = self.stage();
            if done(stage) {
                return Ok(stage);
            }
            let until = self.transport.seen().retry_after;
            let asked = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
            let left = end.saturating_duration_since(Instant::now());
            let wait = asked.filter(|asked| *asked <= left).unwrap_or(pause);
            if wait > left {
                return Err(AcmeError::Slow { until });
            }
            sleep(wait.max(FIRST_PAUSE)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn look(&mut self) -> Result<(), AcmeError> {
        let looked = again!(self.inner.refresh()).map(|_| ());
        looked.map_err(|error| AcmeError::of(error, &self.transport).about_order())
    }

    /// Why an order became invalid: what each authorization says, or else the order itself.
    async fn failure(&mut self) -> AcmeError {
        let unproved = self.unproved().await;
        if !unproved.is_empty() {
            return AcmeError::NotAuthorized(unproved);
        }
        let why = match &self.inner.state().error {
            Some(problem) => AcmeError::said(problem, None),
            None => AcmeError::Refused("the order has become invalid".to_owned()),
        };
        why.about_the_end()
    }

    /// The challenges that the CA has found not to be met.
    async fn unproved(&mut self) -> Vec<Unproved> {
        let mut unproved = Vec::new();
        let mut authorizations = self.inner.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if again!(authorization.refresh()).is_err() {
                continue;
            }
            let name = authorization.identifier().to_string();
            let errors = authorization.challenges.iter().filter_map(|challenge| {
                let problem = challenge.error.as_ref()?;
                let kind = ChallengeKind::ALL
                    .into_iter()
                    .find(|kind| of_kind(*kind) == challenge.r#type);
                Some(Unproved {
                    name: name.clone(),
                    kind,
                    text: words(problem),
                })
            });
            unproved.extend(errors);
        }
        unproved
    }
}

fn of_kind(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::Dns01 => ChallengeType::Dns01,
        ChallengeKind::DnsPersist01 => ChallengeType::Unknown(kind.name().to_owned()),
    }
}

fn word(kind: &ChallengeType) -> &str {
    match kind {
        ChallengeType::Http01 => "http-01",
        ChallengeType::Dns01 => "dns-01",
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        ChallengeType::Unknown(word) => word,
        _ => "another",
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longer than a CA usually takes; the order is taken up again later.
const PATIENCE: Duration = Duration::from_secs(120);
/// What answers the challenges is taken away afterwards, so that one who looks late has seen
/// nothing.
const PATIENCE_WITH_PROOFS: Duration = Duration::from_secs(300);
