//! Proves the names of an order: chooses a challenge for each, puts the answers in place, and takes
//! them away when the CA has looked.

mod command;
mod texts;

use std::net::SocketAddr;
use std::sync::Arc;

use self::command::{CommandError, DnsCommand};
use self::texts::Texts;
use super::Issuer;
use super::attempt::Stop;
use crate::certs::acme::{AcmeError, Offer, Order, Proof};
use crate::certs::challenge::{Answer, Challenges};
use crate::certs::preflight::dns::Resolver;
use crate::certs::preflight::dns_persist::PersistRecord;
use crate::certs::state::storage::Txt;
use crate::config::acme::{AcmeRequest, AcmeSettings, CertifiedName, ChallengeKind};
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

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

/// What was tried.
#[derive(Default)]
pub(super) struct Used {
    /// The challenges whose answers were put in place.
    pub(super) kinds: Vec<ChallengeKind>,
    /// Those that cannot be answered here, or that the CA would not look at.
    pub(super) failed: Vec<ChallengeKind>,
}

/// What answers a challenge.
enum InPlace {
    /// Gone when it is dropped.
    Served(Answer),
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
    pub(super) async fn prove(&self, order: &mut Order) -> (Used, Result<(), Stop>) {
        let (mut used, mut in_place) = (Used::default(), Vec::new());
        let result = self.answer_all(order, &mut used, &mut in_place).await;
        for answer in in_place {
            self.take_away(answer).await;
        }
        (used, result.map_err(Stop::from))
    }

    async fn answer_all(
        &self,
        order: &mut Order,
        used: &mut Used,
        in_place: &mut Vec<InPlace>,
    ) -> Result<(), AcmeError> {
        let proofs = order.proofs().await?;
        let mut begun = Vec::new();
        for proof in &proofs {
            let (kind, answer) = self.answer(proof, used).await?;
            in_place.push(answer);
            if !used.kinds.contains(&kind) {
                used.kinds.push(kind);
            }
            begun.push((proof, kind));
        }
        // All answers are there before the CA looks for the first.
        for (proof, kind) in begun {
            let begun = order.begin(&proof.name, proof.wildcard, kind).await;
            if matches!(begun, Err(AcmeError::Refused(_))) {
                used.failed.push(kind);
            }
            begun?;
        }
        order.authorized().await
    }

    /// Puts an answer in place, in the most promising way that can be gone: the order is there, and
    /// what stands in one way need not stand in another.
    async fn answer(
        &self,
        proof: &Proof,
        used: &mut Used,
    ) -> Result<(ChallengeKind, InPlace), AcmeError> {
        let name = self.asked_for(proof)?;
        let mut reasons = Vec::new();
        for kind in self.order.iter().filter(|kind| kind.proves(name)) {
            let Some(offer) = proof.offers.iter().find(|offer| offer.kind == *kind) else {
                continue;
            };
            match self.put(name, proof, offer).await {
                Ok(answer) if reasons.is_empty() => return Ok((*kind, answer)),
                Ok(answer) => {
                    let reasons = reasons.join("; ");
                    tracing::warn!(%name, %kind, reasons, "a challenge cannot be answered, the next one is tried");
                    return Ok((*kind, answer));
                }
                Err(reason) => {
                    used.failed.push(*kind);
                    reasons.push(reason);
                }
            }
        }
        Err(match reasons.is_empty() {
            true => AcmeError::NoChallenge {
                name: name.to_string(),
                offered: proof.offered.clone(),
            },
            false => AcmeError::Unanswerable(reasons.join("; ")),
        })
    }

    /// A CA's word becomes part of file names and of a command's arguments: only what we asked for.
    fn asked_for(&self, proof: &Proof) -> Result<&CertifiedName, AcmeError> {
        let is_it = |name: &&CertifiedName| {
            name.base().as_str() == proof.name && name.is_wildcard() == proof.wildcard
        };
        let ours = self.names.iter().find(is_it);
        ours.ok_or_else(|| AcmeError::Nonsense(format!("{:?} was not asked for", proof.name)))
    }

    /// An error says in words why not.
    async fn put(
        &self,
        name: &CertifiedName,
        proof: &Proof,
        offer: &Offer,
    ) -> Result<InPlace, String> {
        let challenges = self.challenges.clone();
        match offer.kind {
            ChallengeKind::Http01 => {
                let Offer {
                    token,
                    key_authorization,
                    ..
                } = offer.clone();
                let answer =
                    run_blocking(move || challenges.answer_http(&token, &key_authorization)).await;
                answer
                    .map(InPlace::Served)
                    .map_err(|error| error.to_string())
            }
            ChallengeKind::TlsAlpn01 => {
                let (name, digest) = (proof.name.clone(), offer.digest.clone());
                let answer =
                    run_blocking(move || challenges.answer_handshake(&name, &digest)).await;
                answer
                    .map(InPlace::Served)
                    .map_err(|error| error.to_string())
            }
            ChallengeKind::Dns01 => self.set_txt(proof, offer).await,
            ChallengeKind::DnsPersist01 => self.find_standing(name).await,
        }
    }

    async fn set_txt(&self, proof: &Proof, offer: &Offer) -> Result<InPlace, String> {
        let name = format!("_acme-challenge.{}", proof.name);
        let txt = Txt {
            name,
            value: offer.dns_value.clone(),
        };
        let command = self.command.as_ref().ok_or("there is no `dns_command`")?;
        self.texts
            .note(&txt)
            .await
            .map_err(|error| error.to_string())?;
        match command.present(&txt.name, &txt.value).await {
            Ok(()) => Ok(InPlace::Txt(txt)),
            Err(error) => {
                // Whether one that did not end has set it is not known.
                if !matches!(error, CommandError::Endless { .. }) {
                    self.texts.forget(&txt).await;
                }
                Err(error.to_string())
            }
        }
    }

    /// Looks for the record that stays, so that no attempt is spent on one that is not there.
    async fn find_standing(&self, name: &CertifiedName) -> Result<InPlace, String> {
        let Identity { issuers, account } = &self.identity;
        if issuers.is_empty() {
            return Err("the CA does not say under which domain it stands in DNS".to_owned());
        }
        let servers = self.resolvers.to_vec();
        let resolver = run_blocking(move || Resolver::of(&servers)).await;
        match PersistRecord::missing(name, issuers, account, &resolver).await {
            Ok(None) => Ok(InPlace::Standing),
            Ok(Some(record)) => Err(record.to_string()),
            Err(error) => Err(format!("the record of {name} cannot be looked up: {error}")),
        }
    }

    async fn take_away(&self, answer: InPlace) {
        let txt = match answer {
            InPlace::Txt(txt) => txt,
            InPlace::Served(answer) => return run_blocking(move || drop(answer)).await,
            InPlace::Standing => return,
        };
        let Some(command) = &self.command else { return };
        match command.cleanup(&txt.name, &txt.value).await {
            Ok(()) => self.texts.forget(&txt).await,
            // It is tried once more before the next order.
            Err(error) => {
                tracing::warn!(name = txt.name, %error, "the TXT record of a challenge was not taken away")
            }
        }
    }
}
