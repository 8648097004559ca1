//! Proves the names of an order: chooses a challenge for each, puts the answers in place, and takes
//! them away when the CA has looked.

mod command;
mod txt_records;

use std::net::SocketAddr;
use std::sync::Arc;

use self::command::{CommandError, DnsCommand};
use self::txt_records::TxtRecords;
pub(super) use self::txt_records::clean_up;
use super::attempt_error::AttemptError;
use super::context::OrderContext;
use crate::certs::acme::{AcmeError, Authorization, Challenge, Order};
use crate::certs::challenge::{ChallengeResponse, ChallengeResponseError, Challenges};
use crate::certs::preflight::dns::{DnsError, Resolver};
use crate::certs::preflight::dns_persist::PersistRecord;
use crate::certs::state::storage::Txt;
use crate::config::acme::{AcmeRequest, AcmeSettings, CertifiedName, ChallengeKind};
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// How names are proved, the most promising way first.
pub(super) struct ChallengeSolver<'a> {
    challenges: Arc<Challenges>,
    command: Option<DnsCommand<'a>>,
    txt_records: TxtRecords,
    names: &'a [CertifiedName],
    resolvers: &'a [SocketAddr],
    order: Vec<ChallengeKind>,
    identity: CaIdentity,
}

/// Who issues, and for whom, as a TXT record says it.
pub(super) struct CaIdentity {
    /// The domains that stand for the CA, its favourite first.
    pub(super) issuers: Vec<String>,
    /// The URL of the account.
    pub(super) account: String,
}

/// What was tried.
#[derive(Default)]
pub(super) struct ChallengesTried {
    /// The challenges whose answers were put in place.
    pub(super) kinds: Vec<ChallengeKind>,
    /// Those that cannot be answered here, or that the CA would not look at.
    pub(super) failed: Vec<ChallengeKind>,
}

/// What answers a challenge.
enum ActiveResponse {
    /// Gone when it is dropped.
    Served(ChallengeResponse),
    /// A TXT record that the command has set.
    Txt(Txt),
    /// A TXT record that the administrator has set for good.
    Persistent,
}

/// Why a response cannot be put in place.
#[derive(Debug, thiserror::Error)]
enum ResponseError {
    #[error(transparent)]
    Response(#[from] ChallengeResponseError),
    #[error("there is no `dns_command`")]
    NoCommand,
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    StoreTxt(std::io::Error),
    #[error("the CA does not say under which domain it stands in DNS")]
    NoCaIdentity,
    #[error("{0}")]
    MissingRecord(PersistRecord),
    #[error("the record of {name} cannot be looked up: {source}")]
    Lookup { name: String, source: DnsError },
}

impl<'a> ChallengeSolver<'a> {
    pub(super) fn new(
        context: &OrderContext,
        domain: &HostName,
        settings: &'a AcmeSettings,
        request: &'a AcmeRequest,
        order: Vec<ChallengeKind>,
        identity: CaIdentity,
    ) -> Self {
        Self {
            challenges: context.certificates.table().challenges().clone(),
            command: settings.dns_command.as_deref().map(DnsCommand),
            txt_records: TxtRecords::new(&context.storage, domain),
            names: &request.names,
            resolvers: &settings.resolvers,
            order,
            identity,
        }
    }

    /// Proves what is not proved yet.
    pub(super) async fn prove(
        &self,
        order: &mut Order,
    ) -> (ChallengesTried, Result<(), AttemptError>) {
        let (mut used, mut in_place) = (ChallengesTried::default(), Vec::new());
        let result = self.respond_all(order, &mut used, &mut in_place).await;
        for answer in in_place {
            self.remove_response(answer).await;
        }
        (used, result.map_err(AttemptError::from))
    }

    async fn respond_all(
        &self,
        order: &mut Order,
        used: &mut ChallengesTried,
        in_place: &mut Vec<ActiveResponse>,
    ) -> Result<(), AcmeError> {
        let authorizations = order.pending_authorizations().await?;
        let mut begun = Vec::new();
        for authorization in &authorizations {
            let (kind, answer) = self.answer(authorization, used).await?;
            in_place.push(answer);
            if !used.kinds.contains(&kind) {
                used.kinds.push(kind);
            }
            begun.push((authorization, kind));
        }
        // All answers are there before the CA looks for the first.
        for (authorization, kind) in begun {
            let begun = order
                .respond(&authorization.name, authorization.wildcard, kind)
                .await;
            if matches!(begun, Err(AcmeError::Refused(_))) {
                used.failed.push(kind);
            }
            begun?;
        }
        order.wait_authorized().await
    }

    /// Puts an answer in place, in the most promising way that can be gone: the order is there, and
    /// what stands in one way need not stand in another.
    async fn answer(
        &self,
        authorization: &Authorization,
        used: &mut ChallengesTried,
    ) -> Result<(ChallengeKind, ActiveResponse), AcmeError> {
        let name = self.requested_name(authorization)?;
        let mut reasons = Vec::new();
        for kind in self.order.iter().filter(|kind| kind.proves(name)) {
            let Some(challenge) = authorization
                .challenges
                .iter()
                .find(|challenge| challenge.kind == *kind)
            else {
                continue;
            };
            match self.prepare_response(name, authorization, challenge).await {
                Ok(answer) if reasons.is_empty() => return Ok((*kind, answer)),
                Ok(answer) => {
                    let reasons = reasons.join("; ");
                    tracing::warn!(%name, %kind, reasons, "a challenge cannot be answered, the next one is tried");
                    return Ok((*kind, answer));
                }
                Err(reason) => {
                    used.failed.push(*kind);
                    reasons.push(reason.to_string());
                }
            }
        }
        Err(match reasons.is_empty() {
            true => AcmeError::NoChallenge {
                name: name.to_string(),
                offered: authorization.offered_types.clone(),
            },
            false => AcmeError::Unanswerable(reasons.join("; ")),
        })
    }

    /// A CA's word becomes part of file names and of a command's arguments: only what we asked for.
    fn requested_name(&self, authorization: &Authorization) -> Result<&CertifiedName, AcmeError> {
        let is_it = |name: &&CertifiedName| {
            name.base().as_str() == authorization.name
                && name.is_wildcard() == authorization.wildcard
        };
        let ours = self.names.iter().find(is_it);
        ours.ok_or_else(|| {
            AcmeError::InvalidResponse(format!("{:?} was not asked for", authorization.name))
        })
    }

    async fn prepare_response(
        &self,
        name: &CertifiedName,
        authorization: &Authorization,
        challenge: &Challenge,
    ) -> Result<ActiveResponse, ResponseError> {
        let challenges = self.challenges.clone();
        match challenge.kind {
            ChallengeKind::Http01 => {
                let Challenge {
                    token,
                    key_authorization,
                    ..
                } = challenge.clone();
                let answer =
                    run_blocking(move || challenges.answer_http(&token, &key_authorization)).await;
                Ok(ActiveResponse::Served(answer?))
            }
            ChallengeKind::TlsAlpn01 => {
                let (name, digest) = (authorization.name.clone(), challenge.digest.clone());
                let answer =
                    run_blocking(move || challenges.answer_handshake(&name, &digest)).await;
                Ok(ActiveResponse::Served(answer?))
            }
            ChallengeKind::Dns01 => self.set_txt(authorization, challenge).await,
            ChallengeKind::DnsPersist01 => self.find_persistent_record(name).await,
        }
    }

    async fn set_txt(
        &self,
        authorization: &Authorization,
        challenge: &Challenge,
    ) -> Result<ActiveResponse, ResponseError> {
        let name = format!("_acme-challenge.{}", authorization.name);
        let txt = Txt {
            name,
            value: challenge.dns_value.clone(),
        };
        let command = self.command.as_ref().ok_or(ResponseError::NoCommand)?;
        self.txt_records
            .add(&txt)
            .await
            .map_err(ResponseError::StoreTxt)?;
        match command.present(&txt.name, &txt.value).await {
            Ok(()) => Ok(ActiveResponse::Txt(txt)),
            Err(error) => {
                // Whether one that did not end has set it is not known.
                if !matches!(error, CommandError::TimedOut { .. }) {
                    self.txt_records.remove(&txt).await;
                }
                Err(error.into())
            }
        }
    }

    /// Looks for the record that stays, so that no attempt is spent on one that is not there.
    async fn find_persistent_record(
        &self,
        name: &CertifiedName,
    ) -> Result<ActiveResponse, ResponseError> {
        let CaIdentity { issuers, account } = &self.identity;
        if issuers.is_empty() {
            return Err(ResponseError::NoCaIdentity);
        }
        let servers = self.resolvers.to_vec();
        let resolver = run_blocking(move || Resolver::from_servers(&servers)).await;
        match PersistRecord::missing(name, issuers, account, &resolver).await {
            Ok(None) => Ok(ActiveResponse::Persistent),
            Ok(Some(record)) => Err(ResponseError::MissingRecord(record)),
            Err(source) => Err(ResponseError::Lookup {
                name: name.to_string(),
                source,
            }),
        }
    }

    async fn remove_response(&self, answer: ActiveResponse) {
        let txt = match answer {
            ActiveResponse::Txt(txt) => txt,
            ActiveResponse::Served(answer) => return run_blocking(move || drop(answer)).await,
            ActiveResponse::Persistent => return,
        };
        let Some(command) = &self.command else { return };
        match command.cleanup(&txt.name, &txt.value).await {
            Ok(()) => self.txt_records.remove(&txt).await,
            // It is tried once more before the next order.
            Err(error) => {
                tracing::warn!(name = txt.name, %error, "the TXT record of a challenge was not taken away")
            }
        }
    }
}
