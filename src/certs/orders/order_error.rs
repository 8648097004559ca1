//! Why an order has not come to a certificate, and why a challenge of it cannot be answered.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::clock::ClockDifference;
use super::issued::{IssuedDefect, IssuedError};
use super::solver::command::CommandError;
use crate::certs::acme::{AcmeError, Quoted, join};
use crate::certs::challenge::ChallengeResponseError;
use crate::certs::preflight::dns::DnsError;
use crate::certs::preflight::dns_persist::PersistRecord;
use crate::config::acme::CertifiedName;

/// Why there is no certificate from a CA.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// The account could not be registered, for this domain or just before for another one.
    #[error(transparent)]
    Registration(Arc<AcmeError>),
    #[error(
        "the CA offers no challenge for {name} that can be met: it offers {}",
        Quoted(.offered)
    )]
    NoChallenge {
        name: CertifiedName,
        offered: Vec<String>,
    },
    /// In all ways in which it could be, in order.
    #[error("the challenge cannot be answered: {}", join(.0, "; "))]
    Unanswerable(Vec<ResponseError>),
    /// The order has an authorization for another name.
    #[error("the CA's answer cannot be used: {0:?} was not ordered")]
    UnknownName(String),
    #[error("what the CA sent in place of the certificate cannot be used: {0}")]
    UnusableChain(#[from] IssuedError),
    #[error(transparent)]
    Defective(#[from] DefectiveCertificate),
}

/// A certificate that a CA has issued and that is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("the certificate that the CA has issued is not as it should be: {defect}{}{}", clock.map(|clock| format!("; {clock}")).unwrap_or_default(), outcome(*is_used))]
pub(super) struct DefectiveCertificate {
    pub(super) defect: IssuedDefect,
    pub(super) clock: Option<ClockDifference>,
    /// Whether it is put in force all the same.
    pub(super) is_used: bool,
}

/// Why the response to a challenge cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResponseError {
    #[error(transparent)]
    Response(#[from] ChallengeResponseError),
    #[error("there is no `dns_command`")]
    NoCommand,
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    StoreTxt(io::Error),
    #[error("the CA does not publish the domain that identifies it in DNS")]
    NoCaIdentity,
    #[error("{0}")]
    MissingRecord(PersistRecord),
    #[error("the record of {name} cannot be looked up: {source}")]
    Lookup {
        name: CertifiedName,
        source: DnsError,
    },
}

impl OrderError {
    /// The Retry-After of the CA.
    pub(super) fn retry_at(&self) -> Option<SystemTime> {
        match self {
            Self::Acme(error) => error.retry_at(),
            Self::Registration(error) => error.retry_at(),
            Self::NoChallenge { .. }
            | Self::Unanswerable(_)
            | Self::UnknownName(_)
            | Self::UnusableChain(_)
            | Self::Defective(_) => None,
        }
    }

    /// Whether the order may still come to a certificate and is resumed later.
    pub(super) fn is_order_resumable(&self) -> bool {
        matches!(self, Self::Acme(error) if error.is_order_resumable())
    }

    /// Whether the CA has ended the order without a certificate.
    pub(super) fn is_order_failed(&self) -> bool {
        matches!(self, Self::Acme(AcmeError::OrderFailed(_)))
    }
}

fn outcome(is_used: bool) -> &'static str {
    if is_used {
        "; it is served, as nothing better is there"
    } else {
        "; it is kept below `state` and not served"
    }
}
