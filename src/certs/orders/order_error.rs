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
        "the CA offers no challenge for {name} that can be met: it offers {}; add one of them to `challenges`",
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
    #[error("the CA's answer cannot be used: it is about {0:?}, which was not ordered")]
    UnknownName(String),
    #[error("what the CA sent in place of the certificate cannot be used: {0}")]
    UnusableChain(#[from] IssuedError),
    #[error(transparent)]
    Defective(#[from] DefectiveCertificate),
}

/// A certificate that a CA has issued and that is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate that the CA has issued is not as it should be: {defect}{}; {}",
    clock.map(|clock| format!("; {clock}")).unwrap_or_default(),
    self.outcome()
)]
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
    #[error("dns-01 needs a program: set `dns_command` in [acme]")]
    NoCommand,
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("the TXT record cannot be recorded below `state`: {0}")]
    StoreTxt(io::Error),
    #[error(
        "the CA does not say which domain identifies it in DNS, so that dns-persist-01 cannot be used with it"
    )]
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

impl DefectiveCertificate {
    /// What follows from the defect, or what the administrator can do.
    fn outcome(&self) -> &'static str {
        match (&self.defect, self.is_used) {
            (_, true) => {
                "it is served, as nothing better is there, and another one will be ordered"
            }
            (IssuedDefect::NotYetValid(_), false) => {
                "it is kept below `state` and will be served from then on"
            }
            (_, false) => {
                "it is kept below `state` and not served; if the next one has the same defect, tell \
                 the CA's operator"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::certs::chain::ChainDefect;
    use crate::certs::orders::clock::ClockReading;
    use crate::certs::orders::local_error::LocalError;
    use crate::certs::testing::name;

    fn denied() -> io::Error {
        io::Error::from(io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn every_error_of_an_order_is_a_sentence_with_its_cause() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let clocks = ClockReading {
            ours: at + Duration::from_hours(24 * 30),
            of_the_ca: Some(at),
        };
        let defective = |defect, is_used| DefectiveCertificate {
            defect,
            clock: None,
            is_used,
        };
        let host = || CertifiedName::Host(name("a.example"));
        let chain = ChainDefect::NotX509(2);
        let all: Vec<OrderError> = vec![
            AcmeError::OrderInvalid.into(),
            OrderError::NoChallenge {
                name: host(),
                offered: vec!["dns-01".to_owned()],
            },
            OrderError::Unanswerable(vec![
                ChallengeResponseError::Token.into(),
                ChallengeResponseError::Write(denied()).into(),
                ChallengeResponseError::Key(rustls::Error::DecryptError).into(),
                ResponseError::NoCommand,
                CommandError::Start {
                    program: "set-txt".to_owned(),
                    source: denied(),
                }
                .into(),
                CommandError::TimedOut {
                    program: "set-txt".to_owned(),
                    action: "present",
                }
                .into(),
                ResponseError::StoreTxt(denied()),
                ResponseError::NoCaIdentity,
                ResponseError::Lookup {
                    name: host(),
                    source: DnsError::NoAnswer,
                },
            ]),
            OrderError::UnknownName("b.example".to_owned()),
            IssuedError::NoCertificate.into(),
            IssuedError::NotPem.into(),
            IssuedError::NotX509.into(),
            IssuedError::OtherKey.into(),
            IssuedError::DamagedKey.into(),
            DefectiveCertificate {
                defect: IssuedDefect::Expired(at),
                clock: clocks.difference(),
                is_used: false,
            }
            .into(),
            defective(IssuedDefect::Expired(at), true).into(),
            defective(IssuedDefect::NotYetValid(at), false).into(),
            defective(IssuedDefect::MissingName("b.example".to_owned()), false).into(),
            defective(IssuedDefect::Chain(chain), false).into(),
            defective(IssuedDefect::RenewalDue(at), true).into(),
        ];
        let mut texts: Vec<_> = all.iter().map(ToString::to_string).collect();
        texts.extend(
            [
                LocalError::StateDirectory(denied()),
                LocalError::ReadAccount(denied()),
                LocalError::StoreAccount(denied()),
                LocalError::ReadOrder(denied()),
                LocalError::StoreOrder(denied()),
                LocalError::StoreCertificate(denied()),
                LocalError::SigningRequest(rcgen::Error::CouldNotParseKeyPair),
            ]
            .map(|error| error.to_string()),
        );
        insta::assert_snapshot!(texts.join("\n"), @r#"
        the CA refuses: the order has become invalid, and it does not say why
        the CA offers no challenge for a.example that can be met: it offers "dns-01"; add one of them to `challenges`
        the challenge cannot be answered: the token of the challenge is invalid; the response to the challenge cannot be written: permission denied; the key of the challenge cannot be used: TLS has failed: decrypt error; dns-01 needs a program: set `dns_command` in [acme]; `set-txt` cannot be started: permission denied; `set-txt present` did not end within 10 minutes; the TXT record cannot be recorded below `state`: permission denied; the CA does not say which domain identifies it in DNS, so that dns-persist-01 cannot be used with it; the record of a.example cannot be looked up: no DNS server answers
        the CA's answer cannot be used: it is about "b.example", which was not ordered
        what the CA sent in place of the certificate cannot be used: it contains no certificate in PEM
        what the CA sent in place of the certificate cannot be used: its PEM is damaged
        what the CA sent in place of the certificate cannot be used: its first certificate is not valid X.509
        what the CA sent in place of the certificate cannot be used: the certificate is for another key than the order's
        what the CA sent in place of the certificate cannot be used: the stored key of the order is damaged
        the certificate that the CA has issued is not as it should be: it ended on 2001-09-09T01:46:40Z; the clock of this machine is 30 days ahead of the CA's: set it; it is kept below `state` and not served; if the next one has the same defect, tell the CA's operator
        the certificate that the CA has issued is not as it should be: it ended on 2001-09-09T01:46:40Z; it is served, as nothing better is there, and another one will be ordered
        the certificate that the CA has issued is not as it should be: it is not valid before 2001-09-09T01:46:40Z; it is kept below `state` and will be served from then on
        the certificate that the CA has issued is not as it should be: it lacks the name b.example; it is kept below `state` and not served; if the next one has the same defect, tell the CA's operator
        the certificate that the CA has issued is not as it should be: certificate 2 of the chain is not valid X.509; it is kept below `state` and not served; if the next one has the same defect, tell the CA's operator
        the certificate that the CA has issued is not as it should be: it ends on 2001-09-09T01:46:40Z, so that its renewal is due already; it is served, as nothing better is there, and another one will be ordered
        the directory `state` cannot be used: permission denied; it must belong to moorgate's user
        the account cannot be read: permission denied
        the account cannot be stored: permission denied
        the order cannot be read: permission denied
        the order cannot be stored: permission denied
        the certificate cannot be stored: permission denied
        the signing request cannot be created: Could not parse key pair; please report this
        "#);
    }
}
