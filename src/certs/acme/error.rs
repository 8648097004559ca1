//! Why a CA has not done what was requested, by what follows from it.

use std::fmt;
use std::time::SystemTime;

use super::problem::{CaProblem, printable};
use super::transport::{Transport, TransportError};
use crate::certs::library_error::with_sources;
use crate::certs::roots::RootsError;
use crate::config::acme::ChallengeKind;

/// Why a CA has not done what was requested.
#[derive(Debug, thiserror::Error)]
pub(in crate::certs) enum AcmeError {
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The network, or the server of the CA.
    #[error("{}", with_sources(.0))]
    Unreachable(#[source] TransportError),
    #[error("the CA's limit is reached: {problem}")]
    RateLimited {
        #[source]
        problem: CaProblem,
        until: Option<SystemTime>,
    },
    #[error("the CA is unavailable: {problem}")]
    Unavailable {
        #[source]
        problem: CaProblem,
        until: Option<SystemTime>,
    },
    #[error("the CA does not know the account: {0}")]
    AccountGone(#[source] CaProblem),
    /// The stored key of the account cannot be read.
    #[error("the key of the account is damaged; another account is registered")]
    AccountKey,
    #[error("the CA does not know the order: {0}")]
    OrderGone(#[source] CaProblem),
    /// The order may be made, but not as a replacement.
    #[error("the CA does not accept a replacement: {0}")]
    ReplacesRefused(#[source] CaProblem),
    #[error("the CA does not accept a replacement: the CA knows no renewal information")]
    ReplacesUnsupported,
    #[error("the CA has no profile \"{wanted}\": set `profile` to one that it has, {}", Quoted(.offered))]
    NoProfile {
        wanted: String,
        offered: Vec<String>,
    },
    /// The CA has found challenges not to be met.
    #[error("{}", join(.0, "; "))]
    NotAuthorized(Vec<FailedAuthorization>),
    /// Any other refusal.
    #[error("the CA refuses: {0}")]
    Refused(#[source] CaProblem),
    /// Neither the order nor its authorizations say why.
    #[error("the CA refuses: the order has become invalid, and it does not say why")]
    OrderInvalid,
    /// The order has ended without a certificate, and this is why.
    #[error("{0}")]
    OrderFailed(#[source] Box<AcmeError>),
    /// The CA has not finished the order in time. The order stays.
    #[error("the CA has not finished the order yet; the order stays and is looked at again")]
    NotFinished { until: Option<SystemTime> },
    /// The CA does not keep to the protocol.
    #[error("the CA's answer cannot be used: {}", response_fault(.0))]
    InvalidResponse(#[source] instant_acme::Error),
    #[error("the CA's answer cannot be used: an order without a URL")]
    NoOrderUrl,
    #[error("the CA's answer cannot be used: no {kind} for {name}")]
    ChallengeGone { kind: ChallengeKind, name: String },
}

/// A request that counts towards a limit of the CA, and has failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(in crate::certs) struct CountedRequestError {
    #[source]
    pub(in crate::certs) error: AcmeError,
    /// Whether the CA may have counted it nevertheless.
    pub(in crate::certs) may_count: bool,
}

impl CountedRequestError {
    /// The request was not sent.
    pub(super) fn unsent(error: AcmeError) -> Self {
        Self {
            error,
            may_count: false,
        }
    }
}

/// A name that the CA could not validate, and why.
#[derive(Clone, Debug)]
pub(in crate::certs) struct FailedAuthorization {
    pub(in crate::certs) name: String,
    /// `None`: a challenge of a kind that is not known here.
    pub(in crate::certs) kind: Option<ChallengeKind>,
    pub(in crate::certs) problem: CaProblem,
}

/// Words in quotation marks, with commas between them.
pub(in crate::certs) struct Quoted<'a>(pub(in crate::certs) &'a [String]);

impl fmt::Display for FailedAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            kind,
            problem,
        } = self;
        match kind {
            Some(kind) => write!(f, "{name} was not validated by {kind}: {problem}"),
            None => write!(f, "{name} was not validated: {problem}"),
        }
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<_> = self.0.iter().map(|word| format!("\"{word}\"")).collect();
        if quoted.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&quoted.join(", "))
    }
}

impl AcmeError {
    /// The Retry-After of the CA.
    pub(in crate::certs) fn retry_at(&self) -> Option<SystemTime> {
        match self {
            Self::RateLimited { until, .. }
            | Self::Unavailable { until, .. }
            | Self::NotFinished { until } => *until,
            Self::OrderFailed(why) => why.retry_at(),
            Self::Roots(_)
            | Self::Unreachable(_)
            | Self::AccountGone(_)
            | Self::AccountKey
            | Self::OrderGone(_)
            | Self::ReplacesRefused(_)
            | Self::ReplacesUnsupported
            | Self::NoProfile { .. }
            | Self::NotAuthorized(_)
            | Self::Refused(_)
            | Self::OrderInvalid
            | Self::InvalidResponse(_)
            | Self::NoOrderUrl
            | Self::ChallengeGone { .. } => None,
        }
    }

    /// Whether the order may still come to a certificate and is resumed later. One that has ended
    /// may not, whatever ended it: not even an outage of the CA.
    pub(in crate::certs) fn is_order_resumable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Unavailable { .. }
                | Self::NotFinished { .. }
                | Self::RateLimited { .. }
        )
    }

    pub(super) fn from_library(error: instant_acme::Error, transport: &Transport) -> Self {
        let response = transport.last_response();
        match error {
            instant_acme::Error::Api(problem) => Self::from_problem(&problem, response.retry_after),
            instant_acme::Error::Other(error) => match error.downcast::<TransportError>() {
                Ok(error) => Self::Unreachable(*error),
                Err(error) => Self::InvalidResponse(instant_acme::Error::Other(error)),
            },
            // The library makes other errors of a refusal that it cannot read.
            error => match response.status {
                Some(status) if status.is_server_error() || status.as_u16() == 429 => {
                    Self::Unavailable {
                        problem: CaProblem::from_status(status),
                        until: response.retry_after,
                    }
                }
                _ => Self::InvalidResponse(error),
            },
        }
    }

    /// By the type of the problem (RFC 8555 §6.7), then by the status.
    pub(super) fn from_problem(problem: &instant_acme::Problem, until: Option<SystemTime>) -> Self {
        let status = problem.status;
        let problem = CaProblem::from(problem);
        match (problem.kind(), status) {
            ("rateLimited", _) | (_, Some(429)) => Self::RateLimited { problem, until },
            ("accountDoesNotExist", _) => Self::AccountGone(problem),
            ("alreadyReplaced", _) => Self::ReplacesRefused(problem),
            ("serverInternal" | "badNonce", _) | (_, Some(500..=599)) => {
                Self::Unavailable { problem, until }
            }
            _ => Self::Refused(problem),
        }
    }

    /// A refused order that names a certificate to be replaced may have been refused for that.
    pub(super) fn into_refused_replacement(self, replaces: bool) -> Self {
        match self {
            Self::Refused(problem) if replaces => Self::ReplacesRefused(problem),
            other => other,
        }
    }

    /// An invalid order stays invalid (RFC 8555 §7.1.6). A refusal to finalize ends an order for us
    /// as well: the same request would be refused again.
    pub(super) fn ending_order(self) -> Self {
        Self::OrderFailed(Box::new(self))
    }

    /// A refusal to show an order means that it is not there, or not ours.
    pub(super) fn into_missing_order(self) -> Self {
        match self {
            Self::Refused(problem) => Self::OrderGone(problem),
            other => other,
        }
    }
}

/// Why an answer is not one of an ACME server.
fn response_fault(error: &instant_acme::Error) -> String {
    match error {
        instant_acme::Error::Json(_) => {
            "it is not the JSON that RFC 8555 demands: is `directory` the URL of an ACME directory?"
                .to_owned()
        }
        instant_acme::Error::Api(problem) => CaProblem::from(problem).to_string(),
        instant_acme::Error::Http(_) | instant_acme::Error::InvalidUri(_) => {
            "it contains a URL that is not valid".to_owned()
        }
        instant_acme::Error::Crypto | instant_acme::Error::KeyRejected => {
            "the key of the account cannot sign".to_owned()
        }
        instant_acme::Error::Unsupported(feature) => format!("the CA has no {feature}"),
        instant_acme::Error::Str(reason) => (*reason).to_owned(),
        instant_acme::Error::Other(error) => printable(&with_sources(&**error)),
        // Nothing here waits by the library.
        _ => "it came too late".to_owned(),
    }
}

pub(in crate::certs) fn join(all: &[impl fmt::Display], separator: &str) -> String {
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    texts.join(separator)
}

#[cfg(test)]
mod tests {
    use std::io;

    use http::StatusCode;

    use super::super::connection::ExchangeError;
    use super::super::problem::ERROR_NAMESPACE;
    use super::*;
    use crate::certs::library_error;

    fn problem(document: &str) -> instant_acme::Problem {
        serde_json::from_str(document).expect("a problem")
    }

    fn refused(kind: &str, detail: &str) -> AcmeError {
        let problem = problem(&format!(
            r#"{{"type": "{ERROR_NAMESPACE}{kind}", "detail": "{detail}"}}"#
        ));
        AcmeError::from_problem(&problem, None)
    }

    fn library(error: impl Into<instant_acme::Error>) -> AcmeError {
        AcmeError::InvalidResponse(error.into())
    }

    #[test]
    fn every_error_is_a_sentence_with_its_cause() {
        let unknown = rustls::Error::from(rustls::CertificateError::UnknownIssuer);
        let host = || "ca.example".to_owned();
        let not_json = serde_json::from_str::<u8>("<html>").expect_err("no JSON");
        let failed = FailedAuthorization {
            name: "a.example".to_owned(),
            kind: Some(ChallengeKind::Http01),
            problem: (&problem(
                r#"{"type": "urn:ietf:params:acme:error:connection", "detail": "timeout"}"#,
            ))
                .into(),
        };
        let other = FailedAuthorization {
            kind: None,
            ..failed.clone()
        };
        let all = [
            RootsError::NoSystemRoots.into(),
            AcmeError::Unreachable(TransportError::Connect {
                host: host(),
                source: library_error::described(io::Error::other(unknown)),
            }),
            AcmeError::Unreachable(TransportError::TimedOut(host())),
            AcmeError::Unreachable(TransportError::Broken {
                host: host(),
                source: ExchangeError::TooLarge(StatusCode::OK),
            }),
            AcmeError::Unreachable(TransportError::Address("ftp://x".to_owned())),
            refused("rateLimited", "too many new orders"),
            refused("serverInternal", "down"),
            refused("badNonce", "JWS has an invalid anti-replay nonce"),
            refused("accountDoesNotExist", "no such account"),
            AcmeError::AccountKey,
            refused("malformed", "no such order").into_missing_order(),
            refused("malformed", "no").into_refused_replacement(true),
            AcmeError::ReplacesUnsupported,
            AcmeError::NoProfile {
                wanted: "shortlifed".to_owned(),
                offered: vec!["classic".to_owned(), "shortlived".to_owned()],
            },
            AcmeError::NotAuthorized(vec![failed, other]),
            refused("caa", "CAA record for a.example prevents issuance"),
            refused("externalAccountRequired", "no binding"),
            refused("invalidContact", "no such domain"),
            refused("rejectedIdentifier", "not a.example"),
            refused("x", "\\u001b[31mred\\u0007"),
            refused("malformed", ""),
            AcmeError::from_problem(
                &problem(
                    r#"{"detail": "no", "subproblems": [{"detail": "bad", "identifier": {"type": "dns", "value": "b.example"}}]}"#,
                ),
                None,
            ),
            AcmeError::OrderInvalid,
            AcmeError::OrderInvalid.ending_order(),
            AcmeError::NotFinished { until: None },
            library(not_json),
            library(instant_acme::Error::Str("no order URL found")),
            library(instant_acme::Error::Unsupported(
                "ACME renewal information (ARI)",
            )),
            library(instant_acme::Error::KeyRejected),
            AcmeError::NoOrderUrl,
            AcmeError::ChallengeGone {
                kind: ChallengeKind::Http01,
                name: "a.example".to_owned(),
            },
        ];
        let texts = all.map(|error| error.to_string()).join("\n");
        insta::assert_snapshot!(texts, @r#"
        this system has no root certificates: install ca-certificates, or set `roots`
        ca.example cannot be reached: the server's certificate is from a CA that is not trusted here: name the file of that CA's certificate in `roots`
        ca.example does not answer
        no valid response from ca.example: the body of the response exceeds the limit (HTTP 200 OK)
        the CA names the URL "ftp://x", which is not one of https
        the CA's limit is reached: too many new orders (rateLimited)
        the CA is unavailable: down (serverInternal)
        the CA is unavailable: JWS has an invalid anti-replay nonce (badNonce); it has refused every nonce for a minute, and is asked again
        the CA does not know the account: no such account (accountDoesNotExist)
        the key of the account is damaged; another account is registered
        the CA does not know the order: no such order (malformed)
        the CA does not accept a replacement: no (malformed)
        the CA does not accept a replacement: the CA knows no renewal information
        the CA has no profile "shortlifed": set `profile` to one that it has, "classic", "shortlived"
        a.example was not validated by http-01: timeout (connection); the CA must reach this server: check DNS, firewalls and port forwarding; a.example was not validated: timeout (connection); the CA must reach this server: check DNS, firewalls and port forwarding
        the CA refuses: CAA record for a.example prevents issuance (caa); allow the CA in the CAA records of the domain
        the CA refuses: no binding (externalAccountRequired); get a key from the CA, and set `eab_key_id` and `eab_hmac_key` in [[ca]]
        the CA refuses: no such domain (invalidContact); correct the mail address in `acme`
        the CA refuses: not a.example (rejectedIdentifier); this CA does not certify the name: take it out, or use another [[ca]]
        the CA refuses:  [31mred  (x)
        the CA refuses: no reason given (malformed)
        the CA refuses: no; b.example: bad
        the CA refuses: the order has become invalid, and it does not say why
        the CA refuses: the order has become invalid, and it does not say why
        the CA has not finished the order yet; the order stays and is looked at again
        the CA's answer cannot be used: it is not the JSON that RFC 8555 demands: is `directory` the URL of an ACME directory?
        the CA's answer cannot be used: no order URL found
        the CA's answer cannot be used: the CA has no ACME renewal information (ARI)
        the CA's answer cannot be used: the key of the account cannot sign
        the CA's answer cannot be used: an order without a URL
        the CA's answer cannot be used: no http-01 for a.example
        "#);
    }
}
