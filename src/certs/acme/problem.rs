//! A problem document of a CA (RFC 8555 §6.7), as it is classified and as people read it.

use std::fmt;

use http::StatusCode;

/// A problem document of a CA (RFC 8555 §6.7), or the status of an answer without one. It is
/// displayed with its type, and with what it says of single names (RFC 8555 §6.7.1).
#[derive(Clone, Debug)]
pub(in crate::certs) struct CaProblem(instant_acme::Problem);

impl CaProblem {
    pub(super) fn from_status(status: StatusCode) -> Self {
        Self(instant_acme::Problem {
            r#type: None,
            detail: Some(no_reason(status)),
            status: Some(status.as_u16()),
            subproblems: Vec::new(),
        })
    }

    /// The type without the namespace of ACME; empty where it has none.
    pub(super) fn kind(&self) -> &str {
        problem_type(&self.0).unwrap_or_default()
    }
}

impl From<&instant_acme::Problem> for CaProblem {
    fn from(problem: &instant_acme::Problem) -> Self {
        Self(problem.clone())
    }
}

impl std::error::Error for CaProblem {}

impl fmt::Display for CaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(problem) = self;
        let detail = problem.detail.as_deref().unwrap_or_default();
        f.write_str(&printable(detail))?;
        if detail.trim().is_empty() {
            f.write_str("no reason given")?;
        }
        for sub in problem.subproblems.iter().take(MAX_SUBPROBLEMS) {
            let name = sub.identifier.as_ref();
            let name = name.map(|name| name.clone().authorized(false).to_string());
            let name = name.unwrap_or_else(|| "the order".to_owned());
            let reason = sub.detail.as_deref().unwrap_or("no reason given");
            write!(f, "; {}: {}", printable(&name), printable(reason))?;
        }
        let Some(kind) = problem_type(problem) else {
            return Ok(());
        };
        write!(f, " ({})", printable(kind))?;
        match cure(kind) {
            Some(cure) => write!(f, "; {cure}"),
            None => Ok(()),
        }
    }
}

/// Whether only the nonce was refused: the CA has done nothing, and the same request may be repeated
/// (RFC 8555 §6.5).
pub(super) fn is_bad_nonce(error: &instant_acme::Error) -> bool {
    is_of_kind(error, "badNonce")
}

/// Whether the order cannot be finalized in its present status (RFC 8555 §7.4).
pub(super) fn is_not_ready(error: &instant_acme::Error) -> bool {
    is_of_kind(error, "orderNotReady")
}

fn is_of_kind(error: &instant_acme::Error, wanted: &str) -> bool {
    matches!(error, instant_acme::Error::Api(problem) if problem_type(problem) == Some(wanted))
}

/// The type without the namespace of ACME; `None`: it has no type of ACME.
pub(super) fn problem_type(problem: &instant_acme::Problem) -> Option<&str> {
    problem.r#type.as_deref()?.strip_prefix(ERROR_NAMESPACE)
}

/// What the administrator can do about a problem of this type (RFC 8555 §6.7), where the type says
/// it.
fn cure(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "badNonce" => "it has refused every nonce for a minute, and is asked again",
        "caa" => "allow the CA in the CAA records of the domain",
        "connection" => "the CA must reach this server: check DNS, firewalls and port forwarding",
        "dns" => "check the name servers of the domain",
        "externalAccountRequired" => {
            "get a key from the CA, and set `eab_key_id` and `eab_hmac_key` in [[ca]]"
        }
        "incorrectResponse" => "check that the name leads to this server and to no other",
        "invalidContact" | "unsupportedContact" => "correct the mail address in `acme`",
        "invalidProfile" => "set `profile` to one that the CA has",
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "this CA does not certify the name: take it out, or use another [[ca]]"
        }
        "tls" => "check that no other server ends TLS for the name",
        "userActionRequired" => "do what the CA's page demands, then `moorgate certs renew`",
        _ => return None,
    })
}

/// What a refusal is said to be that contains no reason.
pub(super) fn no_reason(status: StatusCode) -> String {
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            format!("HTTP {status} without a reason: is `directory` the URL of an ACME directory?")
        }
        _ => format!("HTTP {status} without a reason"),
    }
}

/// A text of the CA without control characters, which terminals obey, and of a bounded length.
pub(super) fn printable(text: &str) -> String {
    let letters = text.trim().chars().take(MAX_TEXT_CHARS);
    letters
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

pub(super) const ERROR_NAMESPACE: &str = "urn:ietf:params:acme:error:";
/// A CA may send a whole page, and one problem for each of a hundred names.
const MAX_TEXT_CHARS: usize = 600;
const MAX_SUBPROBLEMS: usize = 10;
