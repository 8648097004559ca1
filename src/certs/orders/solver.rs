//! Completes the authorizations of an order: chooses a challenge for each, puts the responses in
//! place, and removes them when the CA has validated them.

pub(super) mod command;
mod txt_records;

use std::net::SocketAddr;
use std::sync::Arc;

use self::command::CommandError;
pub(super) use self::command::DnsCommand;
pub(super) use self::txt_records::TxtRecords;
pub(super) use self::txt_records::clean_up;
use super::order_error::{OrderError, ResponseError};
use crate::certs::acme::{AcmeError, Authorization, Challenge, Order, join};
use crate::certs::challenge::{ChallengeResponse, Challenges};
use crate::certs::preflight::dns::Resolver;
use crate::certs::preflight::dns_persist::PersistRecord;
use crate::certs::state::storage::Txt;
use crate::config::acme::{CertifiedName, ChallengeKind};
use crate::state_file::run_blocking;

/// Completes the authorizations of one order.
pub(super) struct ChallengeSolver<'a> {
    pub(super) challenges: Arc<Challenges>,
    pub(super) command: Option<DnsCommand<'a>>,
    pub(super) txt_records: TxtRecords,
    /// The names of the order.
    pub(super) names: &'a [CertifiedName],
    pub(super) resolvers: &'a [SocketAddr],
    /// The kinds of challenges that may be used, the most promising first.
    pub(super) kinds: Vec<ChallengeKind>,
    pub(super) identity: CaIdentity,
}

/// The CA and the account as a dns-persist-01 record names them.
pub(super) struct CaIdentity {
    /// The domains that identify the CA, the preferred one first.
    pub(super) issuers: Vec<String>,
    /// The URL of the account.
    pub(super) account: String,
}

/// What was tried.
#[derive(Default)]
pub(super) struct ChallengesTried {
    /// The kinds of challenges whose responses were put in place.
    pub(super) kinds: Vec<ChallengeKind>,
    /// Those that cannot be answered here, or that the CA refused to validate.
    pub(super) failed: Vec<ChallengeKind>,
    /// The names of which the CA was told to validate a challenge.
    pub(super) names: Vec<String>,
}

/// A response that is in place.
enum ActiveResponse {
    /// Removed when it is dropped.
    Served(ChallengeResponse),
    /// A TXT record that the command has set.
    Txt(Txt),
    /// A TXT record that the administrator has set for good.
    Persistent,
}

impl ChallengeSolver<'_> {
    /// Completes the pending authorizations of an order. The responses are removed when the CA has
    /// validated them, or has not. What was tried is returned on failure as well.
    pub(super) async fn solve(
        &self,
        order: &mut Order,
    ) -> (ChallengesTried, Result<(), OrderError>) {
        let mut tried = ChallengesTried::default();
        let mut active = Vec::new();
        let result = self.respond_all(order, &mut tried, &mut active).await;
        for response in active {
            self.remove_response(response).await;
        }
        (tried, result)
    }

    async fn respond_all(
        &self,
        order: &mut Order,
        tried: &mut ChallengesTried,
        active: &mut Vec<ActiveResponse>,
    ) -> Result<(), OrderError> {
        let authorizations = order.pending_authorizations().await?;
        let mut prepared = Vec::new();
        for authorization in &authorizations {
            let (kind, response) = self.prepare_first(authorization, tried).await?;
            active.push(response);
            if !tried.kinds.contains(&kind) {
                tried.kinds.push(kind);
            }
            prepared.push((authorization, kind));
        }
        // All responses are in place before the CA validates the first.
        for (authorization, kind) in prepared {
            let name = self.requested_name(authorization)?;
            tried.names.push(name.to_string());
            let accepted = order
                .respond(&authorization.name, authorization.wildcard, kind)
                .await;
            if matches!(accepted, Err(AcmeError::Refused(_))) {
                tried.failed.push(kind);
            }
            accepted?;
        }
        Ok(order.wait_authorized().await?)
    }

    /// Puts a response in place for the first challenge for which that works: the order exists, and
    /// what prevents one response need not prevent another.
    async fn prepare_first(
        &self,
        authorization: &Authorization,
        tried: &mut ChallengesTried,
    ) -> Result<(ChallengeKind, ActiveResponse), OrderError> {
        let name = self.requested_name(authorization)?;
        let mut reasons = Vec::new();
        for kind in self.kinds.iter().filter(|kind| kind.proves(name)) {
            let Some(challenge) = authorization
                .challenges
                .iter()
                .find(|challenge| challenge.kind == *kind)
            else {
                continue;
            };
            match self.prepare_response(name, authorization, challenge).await {
                Ok(response) => {
                    if !reasons.is_empty() {
                        let reasons = join(&reasons, "; ");
                        tracing::warn!(%name, %kind, reasons, "challenge cannot be answered, using the next one");
                    }
                    return Ok((*kind, response));
                }
                Err(reason) => {
                    tried.failed.push(*kind);
                    reasons.push(reason);
                }
            }
        }
        if reasons.is_empty() {
            return Err(OrderError::NoChallenge {
                name: name.clone(),
                offered: authorization.offered_types.clone(),
            });
        }
        Err(OrderError::Unanswerable(reasons))
    }

    /// The name of an authorization, if we have ordered it: it becomes part of file names and of a
    /// command's arguments.
    fn requested_name(&self, authorization: &Authorization) -> Result<&CertifiedName, OrderError> {
        let is_it = |name: &&CertifiedName| {
            name.base().as_str() == authorization.name
                && name.is_wildcard() == authorization.wildcard
        };
        let ours = self.names.iter().find(is_it);
        ours.ok_or_else(|| OrderError::UnknownName(authorization.name.clone()))
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
                let response =
                    run_blocking(move || challenges.answer_http(&token, &key_authorization)).await;
                Ok(ActiveResponse::Served(response?))
            }
            ChallengeKind::TlsAlpn01 => {
                let (name, digest) = (authorization.name.clone(), challenge.digest.clone());
                let response =
                    run_blocking(move || challenges.answer_handshake(&name, &digest)).await;
                Ok(ActiveResponse::Served(response?))
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
                // A command that did not end may have set the record.
                if !matches!(error, CommandError::TimedOut { .. }) {
                    self.txt_records.remove(&txt).await;
                }
                Err(error.into())
            }
        }
    }

    /// Looks up the persistent record, so that no attempt is spent on a missing one.
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
                name: name.clone(),
                source,
            }),
        }
    }

    async fn remove_response(&self, response: ActiveResponse) {
        let txt = match response {
            ActiveResponse::Txt(txt) => txt,
            ActiveResponse::Served(response) => return run_blocking(move || drop(response)).await,
            ActiveResponse::Persistent => return,
        };
        let Some(command) = &self.command else { return };
        match command.cleanup(&txt.name, &txt.value).await {
            Ok(()) => self.txt_records.remove(&txt).await,
            // It is tried again before the next order.
            Err(error) => {
                tracing::warn!(name = txt.name, %error, "TXT record of a challenge cannot be removed")
            }
        }
    }
}
