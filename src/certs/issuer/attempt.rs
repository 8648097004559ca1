//! An attempt to get a certificate: from the right to try to the file below `state`. Everything that must
//! not be done twice is on disk before it is done.

mod account;
mod outcome;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

pub(super) use self::outcome::Stop;
use self::outcome::{failure, next_wait};
use super::prove::Prover;
use super::state::State;
use super::{Issuer, on_disk};
use crate::certs::acme::{AcmeError, Order, Session, Stage, Wish};
use crate::certs::issued;
use crate::certs::ledger::{Event, OrderKind, OrderRequest};
use crate::certs::names::NameSet;
use crate::certs::state::CaId;
use crate::certs::storage::{PendingOrder, Record, sorted};
use crate::config::acme::{AcmeRequest, AcmeSettings, CaSettings};
use crate::config::vhost::SharedVirtualHost;

/// What is to be tried, and for whom.
pub(super) struct Attempt<'a> {
    pub(super) issuer: &'a Arc<Issuer>,
    pub(super) host: &'a SharedVirtualHost,
    pub(super) request: &'a AcmeRequest,
    /// Whether somebody has asked for it.
    pub(super) forced: bool,
}

/// How an attempt ended that the disk took part in.
pub(super) enum End {
    /// With a new certificate below `state`.
    Issued,
    /// Without one.
    Nothing(State),
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
}

impl Ask {
    fn request(&self) -> OrderRequest<'_> {
        let Self { ca, account, names, kind, held_until } = self;
        OrderRequest { ca, account, names, kind: *kind, held_until: *held_until }
    }
}

impl Attempt<'_> {
    /// Asks one CA after the other. An error is the disk's: nothing was ordered, or nothing is lost.
    pub(super) async fn run(&self, record: &mut Record) -> Result<End, String> {
        let plan = self.issuer.plan.load_full();
        let cas =
            plan.settings.authorities.iter().filter_map(|ca| Some((ca, CaId::new(ca.directory.url()).ok()?)));
        let cas: Vec<_> = cas.collect();
        let Some(_lock) = self.lock(cas.iter().map(|(_, id)| id.clone()).collect()).await? else {
            return Ok(End::Nothing(State::Elsewhere { until: (self.issuer.wall)() + LOOK_ELSEWHERE }));
        };
        if self.was_renewed_elsewhere().await {
            return Ok(End::Nothing(State::New));
        }
        if self.forced {
            self.confirm().await?;
        }
        let mut waits: Vec<(SystemTime, String)> = Vec::new();
        let mut errors: Vec<String> = Vec::new();
        for (ca, id) in cas {
            let mut at = self.at(&plan.settings, ca, id);
            match self.from(&mut at, record).await {
                Ok(()) => {
                    self.tidy(&at, record).await?;
                    return Ok(End::Issued);
                }
                Err(Stop::Wait(at, why)) => waits.push((at, why)),
                Err(Stop::Local(error)) => return Err(error),
                Err(Stop::Failed(error)) => {
                    errors.push(format!("{}: {error}", ca.directory));
                    waits.push(self.failed(&at, record, &error).await?);
                }
            }
        }
        if !errors.is_empty() {
            record.error = Some(errors.join("; "));
        }
        self.issuer.keep(&self.host.domain, record).await?;
        Ok(End::Nothing(next_wait(waits, (self.issuer.wall)())))
    }

    /// The right to order for the domain; `None` while another process has it.
    async fn lock(&self, cas: Vec<CaId>) -> Result<Option<std::fs::File>, String> {
        let (storage, domain) = (self.issuer.storage.clone(), self.host.domain.clone());
        let locked = on_disk(move || {
            cas.iter().try_for_each(|ca| storage.prepare(ca))?;
            storage.try_lock(&domain)
        });
        locked.await.map_err(|error| format!("the state directory cannot be used: {error}"))
    }

    /// Whether the certificate is another than when this attempt was decided on.
    async fn was_renewed_elsewhere(&self) -> bool {
        let serial =
            || self.issuer.certificates.issued(&self.host.domain).map(|i| i.certificate.facts.serial);
        let before = serial();
        self.refresh().await;
        !self.forced && serial() != before
    }

    async fn refresh(&self) {
        let certificates = self.issuer.certificates.clone();
        on_disk(move || certificates.refresh()).await;
    }

    async fn confirm(&self) -> Result<(), String> {
        let (domain, names) = (self.host.domain.clone(), self.names());
        let confirm = move |ledger: &mut crate::certs::ledger::Ledger, now| {
            ledger.record(Event::Confirmed { domain: domain.as_str(), names: &names }, now);
        };
        self.issuer.ledger(confirm).await
    }

    fn names(&self) -> NameSet {
        NameSet::new(sorted(&self.request.names)).expect("a request has a name")
    }

    fn at<'p>(&'p self, settings: &'p AcmeSettings, ca: &'p CaSettings, id: CaId) -> At<'p> {
        let held = self.issuer.certificates.issued(&self.host.domain);
        let held_until = held.as_ref().map(|held| held.certificate.facts.not_after);
        let renews = self.issuer.good(self.host, self.request).filter(|held| held.ca == id);
        let kind = if renews.is_some() { OrderKind::Renewal } else { OrderKind::New };
        let replaces = renews.and_then(|held| held.certificate.key.cert.first().cloned());
        let profile = self.request.profile.as_deref().or(ca.profile.as_deref());
        let ask = Ask { ca: id, account: String::new(), names: self.names(), kind, held_until };
        At { settings, ca, profile, ask, replaces }
    }

    /// Gets the certificate from one CA.
    async fn from(&self, at: &mut At<'_>, record: &mut Record) -> Result<(), Stop> {
        let pending = self.pending(at).await?;
        self.may_order(at, pending.is_some()).await?;
        let mut session = self.session(at, pending.is_some()).await?;
        let (mut order, key) = match pending {
            Some((pending, key)) => (self.resume(at, &session, &pending).await?, key),
            None => match self.place(at, &session).await {
                Err(Stop::Failed(AcmeError::AccountGone(reason))) => {
                    tracing::warn!(ca = %at.ca.directory, reason, "the CA has forgotten the account, it is made again");
                    self.tell(at, |ask| Event::Abandoned(ask.request())).await?;
                    session = self.register(at).await?;
                    (self.place(at, &session).await?, None)
                }
                placed => (placed?, None),
            },
        };
        if order.stage() == Stage::Pending {
            let prover = Prover::new(&self.issuer.certificates, at.settings, self.request, record);
            let used = prover.prove(&mut order).await;
            record.note_challenges(&used.kinds, used.result.is_ok(), &at.settings.challenges);
            used.result?;
        }
        let (key, chain) = self.issue(at, &session, &mut order, key).await?;
        let chain = issued::preferred(chain, &session, at.ca.chain.as_deref()).await;
        issued::check(&key, &chain, &self.request.names).map_err(AcmeError::Nonsense)?;
        self.store(at, key, chain).await
    }

    /// The order that is in flight at the CA, if it is still the one that is wanted.
    async fn pending(&self, at: &At<'_>) -> Result<Option<(PendingOrder, Option<String>)>, Stop> {
        let (storage, domain, id) =
            (self.issuer.storage.clone(), self.host.domain.clone(), at.ask.ca.clone());
        let wanted = (sorted(&self.request.names), at.profile.map(str::to_owned));
        let read = on_disk(move || {
            let Some((order, key)) = storage.order(&id, &domain)? else { return Ok(None) };
            if (&order.names, &order.profile) == (&wanted.0, &wanted.1) {
                return Ok(Some((order, key)));
            }
            storage.remove_order(&id, &domain)?;
            Ok(None)
        });
        read.await.map_err(|error: std::io::Error| Stop::Local(error.to_string()))
    }

    async fn may_order(&self, at: &At<'_>, resumes: bool) -> Result<(), Stop> {
        let ask = at.ask.clone();
        let allowed = self.issuer.ledger(move |ledger, now| ledger.may_order(&ask.request(), now));
        outcome::allowed(allowed.await.map_err(Stop::Local)?, resumes)
    }

    async fn resume(&self, at: &At<'_>, session: &Session, pending: &PendingOrder) -> Result<Order, Stop> {
        tracing::info!(domain = %self.host.domain, ca = %at.ca.directory, "taking up an order");
        Ok(session.resume(&pending.url).await?)
    }

    /// Places an order: in the ledger, at the CA, and in its file.
    async fn place(&self, at: &mut At<'_>, session: &Session) -> Result<Order, Stop> {
        if !session.knows_renewal_info() {
            at.replaces = None;
        }
        loop {
            if at.replaces.is_some() {
                at.ask.kind = OrderKind::Replacement;
            }
            let ask = at.ask.clone();
            let placed = self.issuer.ledger(move |ledger, now| ledger.place(ask.request(), now)).await;
            outcome::allowed(placed.map_err(Stop::Local)?, false)?;
            let wish =
                Wish { names: &self.request.names, profile: at.profile, replaces: at.replaces.as_ref() };
            match session.order(&wish).await {
                Ok(order) => {
                    self.note_order(at, session, &order).await?;
                    return Ok(order);
                }
                Err(AcmeError::ReplacesRefused(reason)) if at.replaces.is_some() => {
                    tracing::info!(domain = %self.host.domain, reason, "the CA does not take it as a replacement");
                    self.tell(at, |ask| Event::Abandoned(ask.request())).await?;
                    at.replaces = None;
                    at.ask.kind = OrderKind::Renewal;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn note_order(&self, at: &At<'_>, session: &Session, order: &Order) -> Result<(), Stop> {
        let pending = PendingOrder {
            account: session.account_url().to_owned(),
            url: order.url().to_owned(),
            names: sorted(&self.request.names),
            profile: at.profile.map(str::to_owned),
        };
        let (storage, domain, id) =
            (self.issuer.storage.clone(), self.host.domain.clone(), at.ask.ca.clone());
        let written = on_disk(move || storage.write_order(&id, &domain, &pending)).await;
        written.map_err(|error| Stop::Local(format!("the order cannot be kept: {error}")))
    }

    /// Asks for the certificate, if that was not done yet, and waits for it.
    async fn issue(
        &self,
        at: &At<'_>,
        _session: &Session,
        order: &mut Order,
        key: Option<String>,
    ) -> Result<(String, String), Stop> {
        let asked = matches!(order.stage(), Stage::Processing | Stage::Valid);
        let key = match key {
            Some(key) => key,
            None if asked => {
                return Err(AcmeError::OrderGone("the key that belongs to it is lost".to_owned()).into());
            }
            None => self.make_key(at).await?,
        };
        if order.stage() == Stage::Pending || order.stage() == Stage::Invalid {
            // It says why.
            order.authorized().await?;
        }
        if !asked {
            let request = issued::signing_request(&key, &self.request.names).map_err(Stop::Local)?;
            self.tell(at, |ask| Event::Finalizing(ask.request())).await?;
            order.finalize(&request).await?;
        }
        Ok((key, order.chain().await?))
    }

    /// A new key, which is on disk before anybody is told of it.
    async fn make_key(&self, at: &At<'_>) -> Result<String, Stop> {
        let (storage, domain, id) =
            (self.issuer.storage.clone(), self.host.domain.clone(), at.ask.ca.clone());
        let made = on_disk(move || {
            let key = rcgen::KeyPair::generate().map_err(std::io::Error::other)?.serialize_pem();
            storage.write_order_key(&id, &domain, &key)?;
            Ok(key)
        });
        let made: Result<String, std::io::Error> = made.await;
        made.map_err(|error| Stop::Local(format!("the key cannot be kept: {error}")))
    }

    /// The order stays until the certificate is on disk, so that a full disk loses neither.
    async fn store(&self, at: &At<'_>, key: String, chain: String) -> Result<(), Stop> {
        let (storage, domain, id) =
            (self.issuer.storage.clone(), self.host.domain.clone(), at.ask.ca.clone());
        let written = on_disk(move || storage.write_certificate(&id, &domain, &key, &chain)).await;
        written.map_err(|error| Stop::Local(format!("the certificate cannot be kept: {error}")))?;
        self.tell(at, |ask| Event::Issued(ask.request())).await
    }

    async fn tell(
        &self,
        at: &At<'_>,
        event: impl for<'e> FnOnce(&'e Ask) -> Event<'e> + Send + 'static,
    ) -> Result<(), Stop> {
        let ask = at.ask.clone();
        let told = self.issuer.ledger(move |ledger, now| ledger.record(event(&ask), now)).await;
        told.map_err(Stop::Local)
    }

    /// After a success.
    async fn tidy(&self, at: &At<'_>, record: &mut Record) -> Result<(), String> {
        record.error = None;
        record.findings.clear();
        record.advice = None;
        record.profile = at.profile.map(str::to_owned);
        self.issuer.keep(&self.host.domain, record).await?;
        let (storage, domain, id) =
            (self.issuer.storage.clone(), self.host.domain.clone(), at.ask.ca.clone());
        on_disk(move || storage.remove_order(&id, &domain)).await.map_err(|error| error.to_string())?;
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
            let (storage, domain, id) =
                (self.issuer.storage.clone(), self.host.domain.clone(), at.ask.ca.clone());
            on_disk(move || storage.remove_order(&id, &domain)).await.map_err(|error| error.to_string())?;
        }
        record.error = Some(error.to_string());
        let (ask, failure) = (at.ask.clone(), failure(error, now));
        let next = self.issuer.ledger(move |ledger, now| {
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
