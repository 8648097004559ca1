//! Proves the names of an order: chooses a challenge for each, puts the answers in place, and takes them
//! away when the CA has looked.

mod command;
mod texts;

use std::net::SocketAddr;
use std::sync::Arc;

use self::command::{CommandError, DnsCommand};
use self::texts::Texts;
use super::attempt::Stop;
use super::{Issuer, on_disk};
use crate::certs::acme::{AcmeError, Offer, Order, Proof};
use crate::certs::challenge::{Answer, Challenges};
use crate::certs::dns::Resolver;
use crate::certs::dns_persist::PersistRecord;
use crate::certs::storage::Txt;
use crate::config::acme::{AcmeRequest, AcmeSettings, CertifiedName, ChallengeKind};
use crate::registry::host::HostName;

/// How names are proved, the most promising way first.
pub(super) struct Prover<'a> {
    challenges: Arc<Challenges>,
    command: Option<DnsCommand<'a>>,
    texts: Texts,
    names: &'a [CertifiedName],
    resolvers: &'a [SocketAddr],
    order: Vec<ChallengeKind>,
    identity: Identity,
}

/// Who issues, and for whom, as a TXT record says it.
pub(super) struct Identity {
    /// The domains that stand for the CA, its favourite first.
    pub(super) issuers: Vec<String>,
    /// The URL of the account.
    pub(super) account: String,
}

/// What was tried, and what came of it.
pub(super) struct Used {
    pub(super) kinds: Vec<ChallengeKind>,
    pub(super) result: Result<(), Stop>,
}

/// What answers a challenge.
enum InPlace {
    /// Gone when it is dropped.
    Served(#[expect(dead_code, reason = "it is there as long as this is")] Answer),
    /// A TXT record that the command has set.
    Txt(Txt),
    /// A TXT record that the administrator has set for good.
    Standing,
}

impl<'a> Prover<'a> {
    pub(super) fn new(
        issuer: &Issuer,
        domain: &HostName,
        settings: &'a AcmeSettings,
        request: &'a AcmeRequest,
        order: Vec<ChallengeKind>,
        identity: Identity,
    ) -> Self {
        Self {
            challenges: issuer.certificates.table().challenges().clone(),
            command: settings.dns_command.as_deref().map(DnsCommand),
            texts: Texts::new(&issuer.storage, domain),
            names: &request.names,
            resolvers: &settings.resolvers,
            order,
            identity,
        }
    }

    /// Proves what is not proved yet.
    pub(super) async fn prove(&self, order: &mut Order) -> Used {
        let mut kinds = Vec::new();
        let mut in_place = Vec::new();
        let result = self.answer_all(order, &mut kinds, &mut in_place).await;
        for answer in in_place {
            self.take_away(answer).await;
        }
        Used { kinds, result: result.map_err(Stop::from) }
    }

    async fn answer_all(
        &self,
        order: &mut Order,
        kinds: &mut Vec<ChallengeKind>,
        in_place: &mut Vec<InPlace>,
    ) -> Result<(), AcmeError> {
        let proofs = order.proofs().await?;
        let mut begun = Vec::new();
        for proof in &proofs {
            let offer = self.choose(proof)?;
            if !kinds.contains(&offer.kind) {
                kinds.push(offer.kind);
            }
            in_place.push(self.put(proof, offer).await?);
            begun.push((proof, offer.kind));
        }
        // All answers are there before the CA looks for the first.
        for (proof, kind) in begun {
            order.begin(&proof.name, proof.wildcard, kind).await?;
        }
        order.authorized().await
    }

    fn choose<'p>(&self, proof: &'p Proof) -> Result<&'p Offer, AcmeError> {
        // A CA's word becomes part of file names and of a command's arguments: only what we asked for.
        let ours = self
            .names
            .iter()
            .find(|name| name.base().as_str() == proof.name && name.is_wildcard() == proof.wildcard);
        let name = ours.ok_or_else(|| AcmeError::Nonsense(format!("{:?} was not asked for", proof.name)))?;
        let mut kinds = self.order.iter().filter(|kind| kind.proves(name));
        let chosen = kinds.find_map(|kind| proof.offers.iter().find(|offer| offer.kind == *kind));
        chosen
            .ok_or_else(|| AcmeError::NoChallenge { name: name.to_string(), offered: proof.offered.clone() })
    }

    async fn put(&self, proof: &Proof, offer: &Offer) -> Result<InPlace, AcmeError> {
        let unanswerable = |error: &dyn std::fmt::Display| AcmeError::Unanswerable(error.to_string());
        match offer.kind {
            ChallengeKind::Http01 => {
                let answer = self.challenges.answer_http(&offer.token, &offer.key_authorization);
                answer.map(InPlace::Served).map_err(|error| unanswerable(&error))
            }
            ChallengeKind::TlsAlpn01 => {
                let answer = self.challenges.answer_handshake(&proof.name, &offer.digest);
                answer.map(InPlace::Served).map_err(|error| unanswerable(&error))
            }
            ChallengeKind::Dns01 => {
                let name = format!("_acme-challenge.{}", proof.name);
                let txt = Txt { name, value: offer.dns_value.clone() };
                let Some(command) = &self.command else {
                    return Err(unanswerable(&"there is no `dns_command`"));
                };
                self.texts.note(&txt).await.map_err(|error| unanswerable(&error))?;
                match command.present(&txt.name, &txt.value).await {
                    Ok(()) => Ok(InPlace::Txt(txt)),
                    Err(error) => {
                        // Whether one that did not end has set it is not known.
                        if !matches!(error, CommandError::Endless { .. }) {
                            self.texts.forget(&txt).await;
                        }
                        Err(unanswerable(&error))
                    }
                }
            }
            ChallengeKind::DnsPersist01 => self.find_standing(proof).await,
        }
    }

    /// Looks for the record that stays, so that no attempt is spent on one that is not there.
    async fn find_standing(&self, proof: &Proof) -> Result<InPlace, AcmeError> {
        let Identity { issuers, account } = &self.identity;
        let mut names = self.names.iter();
        let name =
            names.find(|name| name.base().as_str() == proof.name && name.is_wildcard() == proof.wildcard);
        let name = name.ok_or_else(|| AcmeError::Nonsense(format!("{:?} was not asked for", proof.name)))?;
        if issuers.is_empty() {
            return Err(AcmeError::Unanswerable(
                "the CA does not say under which domain it stands in DNS".to_owned(),
            ));
        }
        let servers = self.resolvers.to_vec();
        let resolver = on_disk(move || Resolver::of(&servers)).await;
        match PersistRecord::missing(name, issuers, account, &resolver).await {
            Ok(None) => Ok(InPlace::Standing),
            Ok(Some(record)) => Err(AcmeError::Unanswerable(record.to_string())),
            Err(error) => {
                Err(AcmeError::Unanswerable(format!("the record of {name} cannot be looked up: {error}")))
            }
        }
    }

    async fn take_away(&self, answer: InPlace) {
        let (InPlace::Txt(txt), Some(command)) = (&answer, &self.command) else { return };
        match command.cleanup(&txt.name, &txt.value).await {
            Ok(()) => self.texts.forget(txt).await,
            // It is tried once more before the next order.
            Err(error) => {
                tracing::warn!(name = txt.name, %error, "the TXT record of a challenge was not taken away")
            }
        }
    }
}
