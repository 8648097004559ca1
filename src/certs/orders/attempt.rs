//! An attempt to get a certificate: from the right to try to the file below `state`. Everything
//! that must not be done twice is on disk before it is done.

mod account;
mod found;
mod held;
mod outcome;
mod place;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};

use self::found::identities;
pub(super) use self::outcome::Stop;
use self::outcome::{failure, next_wait};
use super::Issuer;
use super::prove::{Identity, Prover};
use super::state::{Outcome, State};
use crate::certs::acme::{AcmeError, Order, Stage};
use crate::certs::names::NameSet;
use crate::certs::orders::issued;
use crate::certs::preflight::Findings;
use crate::certs::state::ledger::{Event, OrderKind, OrderRequest};
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::{Record, sorted};
use crate::config::acme::{AcmeRequest, AcmeSettings, CaSettings};
use crate::config::vhost::SharedVirtualHost;
use crate::state_file::run_blocking;

/// What is to be tried, and for whom.
pub(super) struct Attempt<'a> {
    pub(super) issuer: &'a Arc<Issuer>,
    pub(super) host: &'a SharedVirtualHost,
    pub(super) request: &'a AcmeRequest,
    /// Whether somebody has asked for it.
    pub(super) forced: bool,
    /// Whether the configuration has changed since the last attempt.
    pub(super) changed: bool,
    /// The serial number of what was held before it was decided that an order is wanted.
    pub(super) held: Option<String>,
}

/// How an attempt ended that the disk took part in.
pub(super) struct End {
    pub(super) state: State,
    /// `None`: another process has the domain in hand.
    pub(super) outcome: Option<Outcome>,
}

/// What the ledger is asked about, and told.
#[derive(Clone)]
struct Ask {
    ca: CaId,
    account: String,
    names: NameSet,
    kind: OrderKind,
    held_until: Option<SystemTime>,
}

/// One CA during an attempt.
struct At<'a> {
    settings: &'a AcmeSettings,
    ca: &'a CaSettings,
    profile: Option<&'a str>,
    ask: Ask,
    /// The certificate that would be replaced.
    replaces: Option<CertificateDer<'static>>,
    /// What was found out about the names, if they were looked at.
    found: Option<Findings>,
}

impl Ask {
    fn request(&self) -> OrderRequest<'_> {
        let Self {
            ca,
            account,
            names,
            kind,
            held_until,
        } = self;
        OrderRequest {
            ca,
            account,
            names,
            kind: *kind,
            held_until: *held_until,
        }
    }
}

impl Attempt<'_> {
    /// An error is the disk's: nothing was ordered, or nothing is lost.
    pub(super) async fn run(&self, record: &mut Record) -> Result<End, String> {
        let plan = self.issuer.plan.load_full();
        let cas: Vec<_> = plan.authorities().collect();
        let Some(_lock) = self
            .lock(cas.iter().map(|(_, id)| id.clone()).collect())
            .await?
        else {
            let until = (self.issuer.wall)() + LOOK_ELSEWHERE;
            return Ok(End {
                state: State::Elsewhere { until },
                outcome: None,
            });
        };
        if self.was_renewed_elsewhere().await {
            return Ok(End {
                state: State::New,
                outcome: None,
            });
        }
        // What another process has written into it before we had the lock.
        *record = self.issuer.record(&self.host.domain).await?;
        if self.forced {
            self.confirm().await?;
        } else if self.changed {
            self.forgive().await?;
        }
        if let Some(held) = self.held(&plan.settings, record).await? {
            return Ok(End {
                state: held,
                outcome: Some(Outcome::Postponed),
            });
        }
        self.ask(&plan.settings, cas, record).await
    }

    /// Asks one CA after the other.
    async fn ask(
        &self,
        settings: &AcmeSettings,
        cas: Vec<(&CaSettings, CaId)>,
        record: &mut Record,
    ) -> Result<End, String> {
        let mut waits: Vec<(SystemTime, String)> = Vec::new();
        let mut errors: Vec<String> = Vec::new();
        let mut outcome = Outcome::Postponed;
        let mut found: Option<Vec<String>> = None;
        for (ca, id) in cas {
            let mut at = self.at(settings, ca, id);
            let ended = self.from(&mut at, record).await;
            if let Some(findings) = &at.found {
                found.get_or_insert_default().extend(findings.texts());
            }
            match ended {
                Ok(()) => {
                    self.tidy(&at, record).await?;
                    return Ok(End {
                        state: State::New,
                        outcome: Some(Outcome::Issued),
                    });
                }
                Err(Stop::Wait(at, why)) => waits.push((at, why)),
                Err(Stop::Local(error)) => return Err(error),
                Err(Stop::Failed(error)) => {
                    // What takes long goes on, and so does the wish for it.
                    if !matches!(error, AcmeError::Slow { .. }) {
                        outcome = Outcome::Failed;
                    }
                    errors.push(format!("{}: {error}", ca.directory));
                    waits.push(self.failed(&at, record, &error).await?);
                }
            }
        }
        if !errors.is_empty() {
            record.error = Some(errors.join("; "));
        }
        if let Some(found) = found {
            record.findings = found;
            record.findings.dedup();
        }
        self.issuer.keep(&self.host.domain, record).await?;
        Ok(End {
            state: next_wait(waits, (self.issuer.wall)()),
            outcome: Some(outcome),
        })
    }

    /// The right to order for the domain; `None` while another process has it.
    async fn lock(&self, cas: Vec<CaId>) -> Result<Option<crate::state_file::FileLock>, String> {
        let (storage, domain) = (self.issuer.storage.clone(), self.host.domain.clone());
        let locked = run_blocking(move || {
            cas.iter().try_for_each(|ca| storage.prepare(ca))?;
            storage.try_lock(&domain)
        });
        locked
            .await
            .map_err(|error| format!("the state directory cannot be used: {error}"))
    }

    /// Whether the certificate is another than when this attempt was decided on. What it was is not
    /// asked here: the files are looked at each second, and another process may have been through
    /// before we had the lock.
    async fn was_renewed_elsewhere(&self) -> bool {
        self.refresh().await;
        !self.forced && self.issuer.serial(&self.host.domain) != self.held
    }

    async fn refresh(&self) {
        let certificates = self.issuer.certificates.clone();
        run_blocking(move || certificates.refresh()).await;
    }

    fn names(&self) -> NameSet {
        NameSet::new(sorted(&self.request.names)).expect("a request has a name")
    }

    fn at<'p>(&'p self, settings: &'p AcmeSettings, ca: &'p CaSettings, id: CaId) -> At<'p> {
        let held = self.issuer.certificates.issued(&self.host.domain);
        let held_until = held.as_ref().map(|held| held.certificate.facts.not_after);
        let renews = self
            .issuer
            .for_names(self.host, self.request)
            .filter(|held| held.ca == id);
        let kind = if renews.is_some() {
            OrderKind::Renewal
        } else {
            OrderKind::New
        };
        let replaces = renews.and_then(|held| held.certificate.key.cert.first().cloned());
        let profile = self.request.profile.as_deref().or(ca.profile.as_deref());
        let ask = Ask {
            ca: id,
            account: String::new(),
            names: self.names(),
            kind,
            held_until,
        };
        At {
            settings,
            ca,
            profile,
            ask,
            replaces,
            found: None,
        }
    }

    /// Gets the certificate from one CA.
    async fn from(&self, at: &mut At<'_>, record: &mut Record) -> Result<(), Stop> {
        let pending = self.pending(at).await?;
        self.may_order(at, pending.is_some()).await?;
        let mut session = self.session(at, pending.is_some()).await?;
        if pending.is_none() {
            self.look(at, &session, record).await?;
        }
        let resumed = match pending {
            Some((open, key)) => self
                .resume(at, &session, &open)
                .await?
                .map(|order| (order, key)),
            None => None,
        };
        let (mut order, key) = match resumed {
            Some(resumed) => resumed,
            None => self.place_anew(at, &mut session).await?,
        };
        if order.stage() == Stage::Pending {
            let issuers = identities(at.ca, &session);
            let identity = Identity {
                issuers,
                account: session.account_url().to_owned(),
            };
            let kinds = at.rank(record);
            let prover = Prover::new(
                self.issuer,
                &self.host.domain,
                at.settings,
                self.request,
                kinds,
                identity,
            );
            let (used, proved) = prover.prove(&mut order).await;
            match proved {
                Ok(()) => record.note_worked(&used.kinds),
                Err(stop) => {
                    record.note_failed(&used.failed, &at.settings.challenges);
                    return Err(stop);
                }
            }
        }
        let chain = self.issue(at, &mut order, &key).await?;
        let chain = issued::preferred(chain, &session, at.ca.chain.as_deref()).await;
        let facts = issued::check(key.expose_secret(), &chain, &self.request.names);
        let facts = facts.map_err(AcmeError::Nonsense)?;
        self.store(at, key, chain).await?;
        (record.serial, record.profile) = (Some(facts.serial), at.profile.map(str::to_owned));
        Ok(())
    }

    async fn may_order(&self, at: &At<'_>, resumes: bool) -> Result<(), Stop> {
        let ask = at.ask.clone();
        let allowed = self
            .issuer
            .ledger(move |ledger, now| ledger.may_order(&ask.request(), now));
        outcome::allowed(allowed.await.map_err(Stop::Local)?, resumes)
    }

    /// Asks for the certificate, if that was not done yet, and waits for its chain.
    async fn issue(
        &self,
        at: &At<'_>,
        order: &mut Order,
        key: &SecretString,
    ) -> Result<String, Stop> {
        if matches!(order.stage(), Stage::Pending | Stage::Invalid) {
            // It says why.
            order.authorized().await?;
        }
        if order.stage() == Stage::Ready {
            let request = issued::signing_request(key.expose_secret(), &self.request.names)
                .map_err(Stop::Local)?;
            self.tell(at, |ask| Event::Finalizing(ask.request()))
                .await?;
            order.finalize(&request).await?;
        }
        Ok(order.chain().await?)
    }

    /// The order stays until the certificate is on disk, so that a full disk loses neither.
    async fn store(&self, at: &At<'_>, key: SecretString, chain: String) -> Result<(), Stop> {
        let (storage, domain, id) = (
            self.issuer.storage.clone(),
            self.host.domain.clone(),
            at.ask.ca.clone(),
        );
        let written = run_blocking(move || {
            storage.write_certificate(&id, &domain, key.expose_secret(), &chain)
        })
        .await;
        written.map_err(|error| Stop::Local(format!("the certificate cannot be kept: {error}")))?;
        self.tell(at, |ask| Event::Issued(ask.request())).await
    }

    async fn tell(
        &self,
        at: &At<'_>,
        event: impl for<'e> FnOnce(&'e Ask) -> Event<'e> + Send + 'static,
    ) -> Result<(), Stop> {
        let ask = at.ask.clone();
        let told = self
            .issuer
            .ledger(move |ledger, now| ledger.record(event(&ask), now))
            .await;
        told.map_err(Stop::Local)
    }

    async fn forget(&self, at: &At<'_>) -> Result<(), String> {
        let (storage, domain, id) = (
            self.issuer.storage.clone(),
            self.host.domain.clone(),
            at.ask.ca.clone(),
        );
        run_blocking(move || storage.remove_order(&id, &domain))
            .await
            .map_err(|error| error.to_string())
    }

    /// After a success.
    async fn tidy(&self, at: &At<'_>, record: &mut Record) -> Result<(), String> {
        record.error = None;
        record.findings.clear();
        record.postponed.clear();
        record.advice = None;
        self.issuer.keep(&self.host.domain, record).await?;
        self.forget(at).await?;
        self.refresh().await;
        tracing::info!(domain = %self.host.domain, ca = %at.ca.directory, "the CA has issued a certificate");
        Ok(())
    }

    /// Takes down a failure; answers when the next attempt at this CA may be made.
    async fn failed(
        &self,
        at: &At<'_>,
        record: &mut Record,
        error: &AcmeError,
    ) -> Result<(SystemTime, String), String> {
        let now = (self.issuer.wall)();
        tracing::warn!(domain = %self.host.domain, ca = %at.ca.directory, %error, "no certificate from this CA");
        if !error.leaves_order() {
            self.forget(at).await?;
        }
        record.error = Some(error.to_string());
        // Anything else says nothing about how the names can be proved.
        if let AcmeError::NotAuthorized(unproved) = error {
            let kinds: Vec<_> = unproved
                .iter()
                .filter_map(|unproved| unproved.kind)
                .collect();
            record.note_failed(&kinds, &at.settings.challenges);
        }
        let (ask, failure) = (at.ask.clone(), failure(error));
        let is_over = matches!(error, AcmeError::OrderOver(_));
        let next = self.issuer.ledger(move |ledger, now| {
            if is_over {
                ledger.record(Event::NotIssued(ask.request()), now);
            }
            ledger.record(Event::Failed(ask.request(), failure), now);
            ledger.may_order(&ask.request(), now)
        });
        Ok(match next.await? {
            Ok(()) => (now + SHORTEST_WAIT, error.to_string()),
            Err(until) => (until.at, until.why.to_string()),
        })
    }
}

/// How soon to look what became of another process's order.
const LOOK_ELSEWHERE: Duration = Duration::from_secs(5);
/// Where the ledger sees no reason to wait.
const SHORTEST_WAIT: Duration = Duration::from_secs(60);
