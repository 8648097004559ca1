//! One step of a domain: checks its certificate, fetches renewal information, and orders where that
//! is due.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attempt::{AttemptResult, CertificateAttempt};
use super::context::OrderContext;
use super::domain::Trigger;
use super::domain_state::{AttemptOutcome, DomainState};
use super::local_error::LocalError;
use super::plan::request_of;
use super::solver::clean_up;
use crate::certs::acme::{AcmeError, AcmeSession};
use crate::certs::renewal::{AriAnswer, AriWindow, Seed, Validity, ask_ari_again, renewal};
use crate::certs::served::manager::Issued;
use crate::certs::served::report::AcmeStatus;
use crate::certs::served::status;
use crate::certs::served::stored;
use crate::certs::settings_digest::settings_digest;
use crate::certs::state::paths::{CaId, StoredAccount};
use crate::certs::state::storage::{Account, DomainRecord, RenewalAdvice, UnusedCertificate};
use crate::config::acme::AcmeRequest;
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// The result of a step.
pub(super) struct StepResult {
    pub(super) state: DomainState,
    pub(super) status: AcmeStatus,
    /// `None`: no order was needed, or another process orders.
    pub(super) outcome: Option<AttemptOutcome>,
}

impl OrderContext {
    /// Takes one step of a domain.
    pub(super) async fn step(
        self: &Arc<Self>,
        host: &SharedVirtualHost,
        trigger: Trigger,
    ) -> StepResult {
        let Trigger {
            requested,
            mut changed,
        } = trigger;
        let Some(request) = request_of(host) else {
            return StepResult {
                state: DomainState::New,
                status: AcmeStatus::default(),
                outcome: None,
            };
        };
        // Read before anything is decided by the certificate.
        let previous_serial = self.serial(&host.domain);
        clean_up(self, &host.domain).await;
        let mut record = match self.current_record(host, request).await {
            Ok((record, was_corrected)) => {
                // Also after a restart, at which no other change of the settings is known.
                changed |= was_corrected;
                record
            }
            Err(error) => {
                return self
                    .disk_failed(host, request, DomainRecord::default(), error)
                    .await;
            }
        };
        if !requested && let Some(state) = self.unless_due(host, request, &mut record).await {
            let outcome = None;
            return self.step_result(host, request, &record, AttemptResult { state, outcome });
        }
        let attempt = CertificateAttempt {
            context: self,
            host,
            request,
            requested,
            changed,
            previous_serial,
        };
        match attempt.run(&mut record).await {
            Ok(result) => self.step_result(host, request, &record, result),
            Err(error) => self.disk_failed(host, request, record, error).await,
        }
    }

    /// The state of a certificate that satisfies the request and needs no renewal yet; `None`: an
    /// attempt is due, or the certificate that is not in force may be put in force.
    async fn unless_due(
        self: &Arc<Self>,
        host: &SharedVirtualHost,
        request: &AcmeRequest,
        record: &mut DomainRecord,
    ) -> Option<DomainState> {
        let is_ready = |unused: &UnusedCertificate| unused.is_usable(self.now());
        if record.unused.as_ref().is_some_and(is_ready) {
            return None;
        }
        let issued = self.satisfying_certificate(host, request, record)?;
        if let Err(error) = self.refresh_renewal_info(host, &issued, record).await {
            tracing::debug!(domain = %host.domain, %error, "renewal information cannot be stored");
        }
        let state = planned(&issued, record, self.now());
        state
            .next()
            .is_some_and(|renewal| self.now() < renewal)
            .then_some(state)
    }

    /// The record of the domain without a failure with other settings, and whether there was one.
    async fn current_record(
        &self,
        host: &SharedVirtualHost,
        request: &AcmeRequest,
    ) -> Result<(DomainRecord, bool), LocalError> {
        let mut record = self.load_record(&host.domain).await?;
        let digest = settings_digest(&self.plan.load().settings, request);
        let was_corrected = record.forget_failure_of_others(&digest);
        if was_corrected && let Err(error) = self.forget_failure(&host.domain, digest).await {
            tracing::debug!(domain = %host.domain, %error, "outdated failure cannot be removed");
        }
        Ok((record, was_corrected))
    }

    /// Removes a failure with other settings from the record on disk, unless another process has
    /// locked the domain: it writes a record of its own then.
    async fn forget_failure(&self, domain: &HostName, digest: String) -> Result<(), LocalError> {
        let (storage, domain) = (self.storage.clone(), domain.clone());
        let forgotten = run_blocking(move || {
            let Some(_lock) = storage.try_lock(&domain)? else {
                return Ok(());
            };
            let mut record = storage.record(&domain)?;
            if record.forget_failure_of_others(&digest) {
                storage.write_record(&domain, &record)?;
            }
            Ok(())
        });
        let forgotten: std::io::Result<()> = forgotten.await;
        Ok(forgotten?)
    }

    /// The certificate of the domain, if it satisfies the request. Clients must be able to verify its
    /// chain. One that was ordered here must
    /// have exactly these names and the profile, and come from a CA that is still configured. An
    /// imported one, whose profile is not known, satisfies until its renewal: also with more names,
    /// and from any CA as long as nothing was ordered here.
    fn satisfying_certificate(
        &self,
        host: &SharedVirtualHost,
        request: &AcmeRequest,
        record: &DomainRecord,
    ) -> Option<Issued> {
        let issued = self.certificates.issued(&host.domain)?;
        let facts = &issued.certificate.facts;
        if !issued.is_sound {
            return None;
        }
        let plan = self.plan.load();
        let its_ca = plan.authority(&issued.ca);
        let is_good = match &record.serial {
            Some(serial) if *serial == facts.serial => {
                let wanted = request
                    .profile
                    .as_ref()
                    .or(its_ca.and_then(|ca| ca.profile.as_ref()));
                its_ca.is_some()
                    && stored::is_for(facts, request)
                    && record.profile.as_ref() == wanted
            }
            before => stored::covers(facts, request) && (its_ca.is_some() || before.is_none()),
        };
        is_good.then_some(issued)
    }

    /// The result of an error of this machine: nothing is ordered that could not be stored.
    async fn disk_failed(
        &self,
        host: &SharedVirtualHost,
        request: &AcmeRequest,
        record: DomainRecord,
        error: LocalError,
    ) -> StepResult {
        tracing::error!(domain = %host.domain, %error, "certificates cannot be ordered");
        let until = self.now() + DISK_RETRY_DELAY;
        let record = DomainRecord {
            error: Some(error.to_string()),
            ..record
        };
        let state = DomainState::Waiting {
            until,
            why: error.to_string(),
        };
        let result = AttemptResult {
            state,
            outcome: Some(AttemptOutcome::Failed),
        };
        self.step_result(host, request, &record, result)
    }

    fn step_result(
        &self,
        host: &SharedVirtualHost,
        request: &AcmeRequest,
        record: &DomainRecord,
        result: AttemptResult,
    ) -> StepResult {
        let issued = self.certificates.issued(&host.domain);
        let facts = issued.as_ref().map(|issued| &issued.certificate.facts);
        let plan = self.plan.load();
        let ca = match &issued {
            Some(issued) => issued.ca.to_string(),
            None => plan
                .settings
                .authorities
                .first()
                .map_or_else(String::new, |ca| ca.directory.to_string()),
        };
        StepResult {
            state: result.state,
            outcome: result.outcome,
            status: AcmeStatus {
                ca,
                ..status::status(record, request, facts)
            },
        }
    }

    /// Fetches the CA's renewal information, if it is due.
    async fn refresh_renewal_info(
        self: &Arc<Self>,
        host: &SharedVirtualHost,
        issued: &Issued,
        record: &mut DomainRecord,
    ) -> Result<(), LocalError> {
        let now = self.now();
        let serial = &issued.certificate.facts.serial;
        let before = record
            .advice
            .take()
            .filter(|advice| advice.serial == *serial);
        // A time beyond the longest interval was decided on while the clock was wrong.
        let is_due = |at: SystemTime| at <= now || now + MAX_RENEWAL_INFO_INTERVAL < at;
        if let Some(known) = before.as_ref().filter(|advice| !is_due(advice.ask_again)) {
            record.advice = Some(known.clone());
            return Ok(());
        }
        let answer = self.fetch_renewal_info(issued).await;
        let known = before
            .as_ref()
            .and_then(|before| before.explanation.clone());
        let advice = advice(serial, before, answer, now);
        if let Some(url) = advice
            .explanation
            .as_ref()
            .filter(|url| known.as_ref() != Some(*url))
        {
            tracing::info!(domain = %host.domain, url, "CA explains when it wants the certificate renewed");
        }
        record.advice = Some(advice);
        self.store_advice(&host.domain, record).await
    }

    /// `Ok(None)`: the CA offers no renewal information, or is not configured any more.
    async fn fetch_renewal_info(
        self: &Arc<Self>,
        issued: &Issued,
    ) -> Result<Option<RenewalInfoResponse>, RenewalInfoError> {
        let plan = self.plan.load_full();
        let id = issued.ca.clone();
        let (Some(ca), Some(leaf)) = (plan.authority(&id), issued.certificate.key.cert.first())
        else {
            return Ok(None);
        };
        let (storage, ca_id) = (self.storage.clone(), id.clone());
        let account = run_blocking(move || storage.account(&ca_id)).await?;
        let account = account.map_or_else(|| unregistered_account(id), Ok)?;
        let session = AcmeSession::open(ca, &account).await?;
        let info = session.renewal_info(leaf).await?;
        Ok(info.map(|info| RenewalInfoResponse {
            window: AriWindow::new(info.start, info.end),
            explanation: info.explanation,
            // The transport dates it by the system's clock, which need not be the issuer's.
            retry_after: info
                .retry_at
                .and_then(|at| at.duration_since(SystemTime::now()).ok()),
        }))
    }

    /// Stores the renewal information beside what another process may have written meanwhile. While
    /// another process has locked the domain, nothing is stored: it is about to replace the
    /// certificate.
    pub(super) async fn store_advice(
        &self,
        domain: &HostName,
        record: &mut DomainRecord,
    ) -> Result<(), LocalError> {
        let (storage, domain, advice) =
            (self.storage.clone(), domain.clone(), record.advice.clone());
        let stored = run_blocking(move || {
            let Some(_lock) = storage.try_lock(&domain)? else {
                return Ok(None);
            };
            let merged = DomainRecord {
                advice,
                ..storage.record(&domain)?
            };
            storage.write_record(&domain, &merged)?;
            Ok(Some(merged))
        });
        let stored: std::io::Result<Option<DomainRecord>> = stored.await;
        *record = stored?.unwrap_or_else(|| std::mem::take(record));
        Ok(())
    }
}

/// An account that the CA does not know. Renewal information is public and requested without a
/// signature (RFC 9773 §4.1), so that certificates imported without their account have it too.
fn unregistered_account(directory: CaId) -> Result<Account, rcgen::Error> {
    let key = rcgen::KeyPair::generate()?.serialize_pem();
    let url = format!("{directory}/nobody");
    Ok(Account {
        stored: StoredAccount {
            directory,
            url,
            contacts: Vec::new(),
            identities: Vec::new(),
        },
        key,
    })
}

/// Why there is no renewal information.
#[derive(Debug, thiserror::Error)]
enum RenewalInfoError {
    #[error(transparent)]
    Ca(#[from] AcmeError),
    #[error("the account cannot be read: {0}")]
    Account(#[from] std::io::Error),
    #[error("a key cannot be created: {0}")]
    Key(#[from] rcgen::Error),
}

struct RenewalInfoResponse {
    window: Option<AriWindow>,
    explanation: Option<String>,
    retry_after: Option<Duration>,
}

/// The renewal information after a request. A failed one leaves the window that was known before.
fn advice(
    serial: &str,
    before: Option<RenewalAdvice>,
    answer: Result<Option<RenewalInfoResponse>, RenewalInfoError>,
    now: SystemTime,
) -> RenewalAdvice {
    let serial = serial.to_owned();
    match answer {
        Ok(answer) => {
            let retry_after = answer.as_ref().and_then(|answer| answer.retry_after);
            let (window, explanation) =
                answer.map_or((None, None), |answer| (answer.window, answer.explanation));
            let window = window.map(|window| (window.start(), window.end()));
            let ask_again = ask_ari_again(now, AriAnswer::Answered { retry_after });
            RenewalAdvice {
                serial,
                window,
                explanation,
                ask_again,
                failures: 0,
            }
        }
        Err(error) => {
            tracing::debug!(%error, "renewal information cannot be fetched");
            let times = before
                .as_ref()
                .map_or(0, |before| before.failures)
                .saturating_add(1);
            let ask_again = ask_ari_again(
                now,
                AriAnswer::Failed {
                    times,
                    retry_after: None,
                },
            );
            RenewalAdvice {
                serial,
                window: before.as_ref().and_then(|before| before.window),
                explanation: before.and_then(|before| before.explanation),
                ask_again,
                failures: times,
            }
        }
    }
}

/// The state of a certificate until its renewal.
fn planned(issued: &Issued, record: &DomainRecord, now: SystemTime) -> DomainState {
    let facts = &issued.certificate.facts;
    let life = Validity {
        not_before: facts.not_before,
        not_after: facts.not_after,
    };
    let advice = record.advice.as_ref();
    let window = advice
        .and_then(|advice| advice.window)
        .and_then(|(start, end)| AriWindow::new(start, end));
    let next = renewal(life, window, Seed::of(&facts.serial));
    let recheck = advice.map_or(next.at, |advice| advice.ask_again);
    let unused = record.unused.as_ref().and_then(|unused| unused.usable_from);
    let recheck = unused
        .filter(|at| now < *at)
        .map_or(recheck, |at| at.min(recheck));
    DomainState::Good {
        renewal: next.at,
        recheck,
        why: next.why.to_string(),
    }
}

const DISK_RETRY_DELAY: Duration = Duration::from_mins(1);
/// As long as `ask_ari_again` waits at most.
const MAX_RENEWAL_INFO_INTERVAL: Duration = Duration::from_hours(24);
