//! An attempt to get a certificate for a domain, from the lock of the domain to the file below
//! `state`. What must not be done twice is recorded on disk before it is done.

mod place;
mod preflight;
mod received;

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

use self::preflight::identities;
use self::received::ReceivedCertificate;
use super::attempt_error::{AttemptError, Wait, allowed, earliest_wait, failure};
use super::context::OrderContext;
use super::domain_state::{AttemptOutcome, DomainState};
use super::local_error::LocalError;
use super::order_error::OrderError;
use super::solver::{CaIdentity, ChallengeSolver, DnsCommand, TxtRecords};
use crate::certs::acme::{AcmeError, AcmeSession, CountedRequestError, Order, OrderStatus};
use crate::certs::names::NameSet;
use crate::certs::orders::issued;
use crate::certs::preflight::Findings;
use crate::certs::renewal::Validity;
use crate::certs::settings_digest::settings_digest;
use crate::certs::state::ledger::{Event, OrderKind, OrderRequest};
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::{DomainRecord, sorted};
use crate::config::acme::{AcmeRequest, AcmeSettings, CaSettings};
use crate::config::vhost::SharedVirtualHost;
use crate::state_file::run_blocking;

/// An attempt for one domain.
pub(super) struct CertificateAttempt<'a> {
    pub(super) context: &'a Arc<OrderContext>,
    pub(super) host: &'a SharedVirtualHost,
    pub(super) request: &'a AcmeRequest,
    /// Whether the administrator has requested it.
    pub(super) requested: bool,
    /// Whether the configuration has changed since the last attempt.
    pub(super) changed: bool,
    /// The serial number of the certificate that was served when the attempt was decided on.
    pub(super) previous_serial: Option<String>,
}

/// The result of an attempt that no error of this machine has ended.
pub(super) struct AttemptResult {
    pub(super) state: DomainState,
    /// `None`: another process orders for the domain.
    pub(super) outcome: Option<AttemptOutcome>,
}

/// An order as the ledger identifies it.
#[derive(Clone)]
struct OrderKey {
    ca: CaId,
    account: String,
    names: NameSet,
    kind: OrderKind,
    held: Option<Validity>,
}

/// The part of an attempt at one CA.
struct CaAttempt<'a> {
    settings: &'a AcmeSettings,
    ca: &'a CaSettings,
    profile: Option<&'a str>,
    key: OrderKey,
    /// The certificate that the order replaces (RFC 9773 §5).
    replaces: Option<CertificateDer<'static>>,
    /// The findings of the preflight, if there was one.
    found: Option<Findings>,
    /// The names of which the CA may have been told to validate a challenge, and those that it has
    /// validated.
    challenged: Vec<String>,
    validated: Vec<String>,
}

impl OrderKey {
    fn request(&self) -> OrderRequest<'_> {
        let Self {
            ca,
            account,
            names,
            kind,
            held,
        } = self;
        OrderRequest {
            ca,
            account,
            names,
            kind: *kind,
            held: *held,
        }
    }
}

impl CaAttempt<'_> {
    /// The names whose authorizations are known not to have failed.
    fn not_failed(&self) -> Vec<String> {
        // In the spelling of the order, which the CA need not use.
        let spelled = |names: &[String]| NameSet::new(names).ok();
        let (challenged, validated) = (spelled(&self.challenged), spelled(&self.validated));
        let has = |set: &Option<NameSet>, name| set.as_ref().is_some_and(|set| set.contains(name));
        let names = self.key.names.iter();
        let not_failed = names.filter(|name| !has(&challenged, name) || has(&validated, name));
        not_failed.map(str::to_owned).collect()
    }
}

impl CertificateAttempt<'_> {
    /// Runs the attempt. After an error either nothing was ordered, or the order is stored.
    pub(super) async fn run(&self, record: &mut DomainRecord) -> Result<AttemptResult, LocalError> {
        let plan = self.context.plan.load_full();
        let cas: Vec<_> = plan.authorities().collect();
        let Some(_lock) = self
            .lock(cas.iter().map(|(_, id)| id.clone()).collect())
            .await?
        else {
            let until = self.context.now() + OTHER_PROCESS_POLL_INTERVAL;
            return Ok(AttemptResult {
                state: DomainState::Elsewhere { until },
                outcome: None,
            });
        };
        if self.was_renewed_elsewhere().await {
            return Ok(AttemptResult {
                state: DomainState::New,
                outcome: None,
            });
        }
        // Another process may have written it before the lock was taken.
        *record = self.context.load_record(&self.host.domain).await?;
        if let Some(is_used) = received::use_unused(self, record).await?
            && !self.requested
        {
            return Ok(AttemptResult {
                state: DomainState::New,
                outcome: is_used.then_some(AttemptOutcome::Issued),
            });
        }
        if self.requested {
            self.confirm().await?;
        } else if self.changed {
            self.reset_backoff().await?;
        }
        if let Some(state) = self.check_lost_state(&plan.settings, record).await? {
            return Ok(AttemptResult {
                state,
                outcome: Some(AttemptOutcome::Postponed),
            });
        }
        if let Some(wait) = received::wait_for_unused(self, record) {
            return Ok(AttemptResult {
                state: earliest_wait(vec![wait], self.context.now()),
                outcome: Some(AttemptOutcome::Postponed),
            });
        }
        self.try_authorities(&plan.settings, cas, record).await
    }

    /// Tries one CA after the other.
    async fn try_authorities(
        &self,
        settings: &AcmeSettings,
        cas: Vec<(&CaSettings, CaId)>,
        record: &mut DomainRecord,
    ) -> Result<AttemptResult, LocalError> {
        let mut waits: Vec<Wait> = Vec::new();
        let mut errors: Vec<String> = Vec::new();
        let mut outcome = AttemptOutcome::Postponed;
        let mut found: Option<Vec<String>> = None;
        for (ca, id) in cas {
            let mut at = self.at(settings, ca, id);
            let ended = self.order_from(&mut at, record).await;
            if let Some(findings) = &at.found {
                found.get_or_insert_default().extend(findings.texts());
            }
            match ended {
                Ok(()) => {
                    self.finish(&at, record).await?;
                    return Ok(AttemptResult {
                        state: DomainState::New,
                        outcome: Some(AttemptOutcome::Issued),
                    });
                }
                Err(AttemptError::Wait(wait)) => waits.push(wait),
                Err(AttemptError::Local(error)) => return Err(error),
                Err(AttemptError::Failed(error)) => {
                    // An order that takes long goes on, and so does the request for it.
                    if !matches!(error, OrderError::Acme(AcmeError::NotFinished { .. })) {
                        outcome = AttemptOutcome::Failed;
                    }
                    errors.push(format!("{}: {error}", ca.directory));
                    waits.push(self.record_failure(&at, record, &error).await?);
                }
            }
        }
        if !errors.is_empty() {
            record.error = Some(errors.join("; "));
            record.failed_settings = Some(settings_digest(settings, self.request));
        }
        if let Some(found) = found {
            record.findings = found;
            record.findings.dedup();
        }
        self.context.store_record(&self.host.domain, record).await?;
        let now = self.context.now();
        waits.extend(received::usable_later(self, record, now));
        Ok(AttemptResult {
            state: earliest_wait(waits, now),
            outcome: Some(outcome),
        })
    }

    /// Locks the domain; `None`: another process has locked it.
    async fn lock(
        &self,
        cas: Vec<CaId>,
    ) -> Result<Option<crate::state_file::FileLock>, LocalError> {
        let (storage, domain) = (self.context.storage.clone(), self.host.domain.clone());
        let locked = run_blocking(move || {
            cas.iter().try_for_each(|ca| storage.prepare(ca))?;
            storage.try_lock(&domain)
        });
        locked.await.map_err(LocalError::StateDirectory)
    }

    /// Whether the certificate has changed since the attempt was decided on: another process may
    /// have renewed it before the lock was taken.
    async fn was_renewed_elsewhere(&self) -> bool {
        self.refresh().await;
        !self.requested && self.context.serial(&self.host.domain) != self.previous_serial
    }

    async fn refresh(&self) {
        let certificates = self.context.certificates.clone();
        let now = self.context.now();
        run_blocking(move || certificates.refresh_at(now)).await;
    }

    fn names(&self) -> NameSet {
        NameSet::new(sorted(&self.request.names)).expect("a request has a name")
    }

    fn at<'p>(&'p self, settings: &'p AcmeSettings, ca: &'p CaSettings, id: CaId) -> CaAttempt<'p> {
        let issued = self.context.certificates.issued(&self.host.domain);
        let held = issued.map(|issued| Validity::of(&issued.certificate.facts));
        let renews = self
            .context
            .issued_for_names(self.host, self.request)
            .filter(|issued| issued.ca == id);
        let kind = if renews.is_some() {
            OrderKind::Renewal
        } else {
            OrderKind::New
        };
        let replaces = renews.and_then(|issued| issued.certificate.key.cert.first().cloned());
        let profile = self.request.profile.as_deref().or(ca.profile.as_deref());
        let key = OrderKey {
            ca: id,
            account: String::new(),
            names: self.names(),
            kind,
            held,
        };
        CaAttempt {
            settings,
            ca,
            profile,
            key,
            replaces,
            found: None,
            challenged: Vec::new(),
            validated: Vec::new(),
        }
    }

    /// Orders the certificate from one CA, or resumes the pending order.
    async fn order_from(
        &self,
        at: &mut CaAttempt<'_>,
        record: &mut DomainRecord,
    ) -> Result<(), AttemptError> {
        let pending = self.pending(at).await?;
        self.may_order(at, pending.is_some()).await?;
        let mut session = self.session(at, pending.is_some()).await?;
        if pending.is_none() {
            self.run_preflight(at, &session, record).await?;
        }
        let resumed = match pending {
            Some((open, key)) => self
                .resume(at, &session, &open)
                .await?
                .map(|order| (order, key)),
            None => None,
        };
        let (mut order, key) = match resumed {
            Some(resumed) => {
                at.challenged = sorted(&self.request.names);
                resumed
            }
            None => self.place_with_known_account(at, &mut session).await?,
        };
        if order.status() == OrderStatus::Pending {
            self.authorize(at, &session, &mut order, record).await?;
        }
        let chain = self.issue(at, &mut order, &key).await?;
        let chain = issued::preferred(chain, &session, at.ca.chain.as_deref()).await;
        let received = ReceivedCertificate {
            attempt: self,
            at,
            key,
            chain,
        };
        received.take(session.ca_time(), record).await
    }

    /// Completes the authorizations of an order, and records which challenges work.
    async fn authorize(
        &self,
        at: &mut CaAttempt<'_>,
        session: &AcmeSession,
        order: &mut Order,
        record: &mut DomainRecord,
    ) -> Result<(), AttemptError> {
        let solver = ChallengeSolver {
            challenges: self.context.certificates.table().challenges().clone(),
            command: at.settings.dns_command.as_deref().map(DnsCommand),
            txt_records: TxtRecords::new(&self.context.storage, &self.host.domain),
            names: &self.request.names,
            resolvers: &at.settings.resolvers,
            kinds: at.ranked_challenges(record),
            identity: CaIdentity {
                issuers: identities(at.ca, session),
                account: session.account_url().to_owned(),
            },
        };
        let (tried, result) = solver.solve(order).await;
        at.challenged.extend(tried.names);
        match &result {
            Ok(()) => record.record_success(&tried.kinds),
            Err(error) => {
                record.record_failure(&tried.failed, &at.settings.challenges);
                if matches!(error, OrderError::Acme(AcmeError::NotAuthorized(_))) {
                    at.validated = order.validated_names().await;
                }
            }
        }
        Ok(result?)
    }

    async fn may_order(&self, at: &CaAttempt<'_>, resumes: bool) -> Result<(), AttemptError> {
        let key = at.key.clone();
        let answer = self
            .context
            .ledger(move |ledger, now| ledger.may_order(&key.request(), now));
        allowed(answer.await?, resumes)
    }

    /// Finalizes the order, if that was not done yet, and downloads the chain.
    async fn issue(
        &self,
        at: &mut CaAttempt<'_>,
        order: &mut Order,
        key: &SecretString,
    ) -> Result<String, AttemptError> {
        if matches!(order.status(), OrderStatus::Pending | OrderStatus::Invalid)
            // Fails with the reason.
            && let Err(error) = order.wait_authorized().await
        {
            if matches!(error, AcmeError::NotAuthorized(_)) {
                at.validated = order.validated_names().await;
            }
            return Err(error.into());
        }
        if order.status() == OrderStatus::Ready {
            let request = issued::signing_request(key.expose_secret(), &self.request.names)
                .map_err(LocalError::SigningRequest)?;
            self.record_event(at, |key| Event::Finalizing(key.request()))
                .await?;
            if let Err(CountedRequestError { error, may_count }) = order.finalize(&request).await {
                if !may_count {
                    self.record_event(at, |key| Event::NotFinalized(key.request()))
                        .await?;
                }
                return Err(error.into());
            }
        }
        Ok(order.download_chain().await?)
    }

    async fn record_event(
        &self,
        at: &CaAttempt<'_>,
        event: impl for<'e> FnOnce(&'e OrderKey) -> Event<'e> + Send + 'static,
    ) -> Result<(), AttemptError> {
        let key = at.key.clone();
        let recorded = self
            .context
            .ledger(move |ledger, now| ledger.record(event(&key), now));
        Ok(recorded.await?)
    }

    async fn remove_order(&self, at: &CaAttempt<'_>) -> Result<(), LocalError> {
        let (storage, domain, id) = (
            self.context.storage.clone(),
            self.host.domain.clone(),
            at.key.ca.clone(),
        );
        Ok(run_blocking(move || storage.remove_order(&id, &domain)).await?)
    }

    /// Records success and removes the order.
    async fn finish(
        &self,
        at: &CaAttempt<'_>,
        record: &mut DomainRecord,
    ) -> Result<(), LocalError> {
        (record.error, record.failed_settings) = (None, None);
        record.findings.clear();
        record.postponed.clear();
        record.advice = None;
        let unused = record.unused.take();
        self.context.store_record(&self.host.domain, record).await?;
        self.remove_order(at).await?;
        if let Some(unused) = unused {
            let (storage, domain) = (self.context.storage.clone(), self.host.domain.clone());
            run_blocking(move || storage.remove_unused(&unused.ca, &domain)).await?;
        }
        self.refresh().await;
        tracing::info!(domain = %self.host.domain, ca = %at.ca.directory, "certificate issued");
        Ok(())
    }

    /// Records a failure. Returns when the next attempt at this CA may be made.
    async fn record_failure(
        &self,
        at: &CaAttempt<'_>,
        record: &mut DomainRecord,
        error: &OrderError,
    ) -> Result<Wait, LocalError> {
        let now = self.context.now();
        tracing::warn!(domain = %self.host.domain, ca = %at.ca.directory, %error, "certificate order failed");
        if !error.is_order_resumable() {
            self.remove_order(at).await?;
        }
        record.error = Some(error.to_string());
        // Other errors say nothing about the challenges.
        if let OrderError::Acme(AcmeError::NotAuthorized(failures)) = error {
            let kinds: Vec<_> = failures.iter().filter_map(|failure| failure.kind).collect();
            record.record_failure(&kinds, &at.settings.challenges);
        }
        let (key, failure) = (at.key.clone(), failure(error, at.not_failed()));
        let is_over = error.is_order_failed();
        let next = self.context.ledger(move |ledger, now| {
            if is_over {
                ledger.record(Event::NotIssued(key.request()), now);
            }
            ledger.record(Event::Failed(key.request(), failure), now);
            ledger.may_order(&key.request(), now)
        });
        Ok(match next.await? {
            Ok(()) => Wait {
                until: now + MIN_RETRY_DELAY,
                why: error.to_string(),
            },
            Err(blocked) => Wait {
                until: blocked.at,
                why: blocked.why.to_string(),
            },
        })
    }
}

/// How often to check for the result of another process's order.
const OTHER_PROCESS_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Where the ledger sets no other delay.
const MIN_RETRY_DELAY: Duration = Duration::from_mins(1);
