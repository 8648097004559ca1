//! One step of a domain: is what is held good, does the CA want it renewed, or is an order to be
//! made.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::attempt::{AttemptResult, OrderAttempt};
use super::context::OrderContext;
use super::domain::Trigger;
use super::domain_state::{AttemptOutcome, DomainState};
use super::local_error::LocalError;
use super::plan::request_of;
use super::solver::clean_up;
use crate::certs::acme::{AcmeError, AcmeSession};
use crate::certs::renewal::{AriAnswer, AriWindow, Life, Seed, ask_ari_again, renewal};
use crate::certs::served::manager::Issued;
use crate::certs::served::report::AcmeStatus;
use crate::certs::served::status;
use crate::certs::served::stored;
use crate::certs::state::paths::{CaId, StoredAccount};
use crate::certs::state::storage::{Account, DomainRecord, RenewalAdvice};
use crate::config::acme::AcmeRequest;
use crate::config::vhost::SharedVirtualHost;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// What a step has come to.
pub(super) struct StepResult {
    pub(super) state: DomainState,
    pub(super) status: AcmeStatus,
    /// `None`: no order was wanted, or another process has it in hand.
    pub(super) outcome: Option<AttemptOutcome>,
}

impl OrderContext {
    /// Looks after a domain once.
    pub(super) async fn step(
        self: &Arc<Self>,
        host: &SharedVirtualHost,
        trigger: Trigger,
    ) -> StepResult {
        let Trigger { requested, changed } = trigger;
        let Some(request) = request_of(host) else {
            return StepResult {
                state: DomainState::New,
                status: AcmeStatus::default(),
                outcome: None,
            };
        };
        // Before anything is decided by it.
        let held = self.serial(&host.domain);
        clean_up(self, &host.domain).await;
        let mut record = match self.load_record(&host.domain).await {
            Ok(record) => record,
            Err(error) => {
                return self
                    .disk_failed(host, request, DomainRecord::default(), error)
                    .await;
            }
        };
        if !requested && let Some(issued) = self.satisfying_certificate(host, request, &record) {
            if let Err(error) = self.refresh_renewal_info(host, &issued, &mut record).await {
                tracing::debug!(domain = %host.domain, %error, "the CA's advice could not be kept");
            }
            let next = planned(&issued, &record);
            if next.next().is_some_and(|renewal| self.now() < renewal) {
                let result = AttemptResult {
                    state: next,
                    outcome: None,
                };
                return self.step_result(host, request, &record, result);
            }
        }
        let attempt = OrderAttempt {
            context: self,
            host,
            request,
            requested,
            changed,
            previous_serial: held,
        };
        match attempt.run(&mut record).await {
            Ok(result) => self.step_result(host, request, &record, result),
            Err(error) => self.disk_failed(host, request, record, error).await,
        }
    }

    /// What is held, if it is what is wanted. Where it was ordered here, it is for just these
    /// names, from a CA that is still named, and with the profile. With which profile one was made
    /// that was taken over cannot be known; it is good until it is to be renewed, also with more
    /// names, and, where nothing was ordered here since, of any CA.
    fn satisfying_certificate(
        &self,
        host: &SharedVirtualHost,
        request: &AcmeRequest,
        record: &DomainRecord,
    ) -> Option<Issued> {
        let issued = self.certificates.issued(&host.domain)?;
        let facts = &issued.certificate.facts;
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

    /// The disk does not do its part: nothing is ordered that could not be kept.
    async fn disk_failed(
        &self,
        host: &SharedVirtualHost,
        request: &AcmeRequest,
        record: DomainRecord,
        error: LocalError,
    ) -> StepResult {
        tracing::error!(domain = %host.domain, %error, "nothing can be ordered");
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

    /// Asks the CA when to renew, if it is time to ask.
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
        // A moment beyond any that is ever waited for was decided on while the clock was wrong.
        let is_to_be_asked = |at: SystemTime| at <= now || now + MAX_RENEWAL_INFO_INTERVAL < at;
        if let Some(known) = before
            .as_ref()
            .filter(|advice| !is_to_be_asked(advice.ask_again))
        {
            record.advice = Some(known.clone());
            return Ok(());
        }
        let answer = self.fetch_renewal_info(issued).await;
        record.advice = Some(advice(serial, before, answer, now));
        self.store_advice(&host.domain, record).await
    }

    /// `Ok(None)`: this CA gives no advice, or is not asked any more.
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
        let (storage, its) = (self.storage.clone(), id.clone());
        let account = run_blocking(move || storage.account(&its)).await?;
        let account = account.map_or_else(|| unregistered_account(id), Ok)?;
        let leaf: CertificateDer<'static> = leaf.clone();
        let asked = async {
            AcmeSession::open(ca, &account)
                .await?
                .renewal_info(&leaf)
                .await
        };
        match asked.await {
            Ok(Some(advice)) => Ok(Some(RenewalInfoResponse {
                window: AriWindow::new(advice.start, advice.end),
                // The transport has dated it by the system's clock, which need not be the issuer's.
                retry_after: advice
                    .retry_at
                    .and_then(|at| at.duration_since(SystemTime::now()).ok()),
            })),
            Ok(None) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps what the CA has advised beside what another process may have written meanwhile. One
    /// that is about to order will write about another certificate.
    pub(super) async fn store_advice(
        &self,
        domain: &HostName,
        record: &mut DomainRecord,
    ) -> Result<(), LocalError> {
        let (storage, domain, advice) =
            (self.storage.clone(), domain.clone(), record.advice.clone());
        let kept = run_blocking(move || {
            let Some(_lock) = storage.try_lock(&domain)? else {
                return Ok(None);
            };
            let kept = DomainRecord {
                advice,
                ..storage.record(&domain)?
            };
            storage.write_record(&domain, &kept)?;
            Ok(Some(kept))
        });
        let kept: std::io::Result<Option<DomainRecord>> = kept.await;
        *record = kept?.unwrap_or_else(|| std::mem::take(record));
        Ok(())
    }
}

/// An account that the CA knows nothing of. Its advice is for everybody, and asked for without a
/// signature (RFC 9773 §4.1): what was taken over without its account is renewed when its CA
/// suggests, too.
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

/// Why a CA has not said when to renew.
#[derive(Debug, thiserror::Error)]
enum RenewalInfoError {
    #[error(transparent)]
    Ca(#[from] AcmeError),
    #[error("the account cannot be read: {0}")]
    Account(#[from] std::io::Error),
    #[error("a key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
}

struct RenewalInfoResponse {
    window: Option<AriWindow>,
    retry_after: Option<Duration>,
}

/// What is known after a question. An unanswered one leaves the window that was known before.
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
            let window = answer
                .and_then(|answer| answer.window)
                .map(|window| (window.start(), window.end()));
            let ask_again = ask_ari_again(now, AriAnswer::Answered { retry_after });
            RenewalAdvice {
                serial,
                window,
                ask_again,
                failures: 0,
            }
        }
        Err(error) => {
            tracing::debug!(%error, "the CA was asked when to renew, and did not say");
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
                window: before.and_then(|before| before.window),
                ask_again,
                failures: times,
            }
        }
    }
}

/// The state of a certificate that is good until it is to be renewed.
fn planned(issued: &Issued, record: &DomainRecord) -> DomainState {
    let facts = &issued.certificate.facts;
    let life = Life {
        not_before: facts.not_before,
        not_after: facts.not_after,
    };
    let advice = record.advice.as_ref();
    let window = advice
        .and_then(|advice| advice.window)
        .and_then(|(start, end)| AriWindow::new(start, end));
    let next = renewal(life, window, Seed::of(&facts.serial));
    let recheck = advice.map_or(next.at, |advice| advice.ask_again);
    DomainState::Good {
        renewal: next.at,
        recheck,
        why: next.why.to_string(),
    }
}

const DISK_RETRY_DELAY: Duration = Duration::from_secs(60);
/// As long as `ask_ari_again` waits at most.
const MAX_RENEWAL_INFO_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
