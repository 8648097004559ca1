//! Whether a first order waits for a confirmation because the state directory seems to have been
//! lost: each such order would use up a new account and one of five certificates in a week.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::certs::inspect::{CertificateFacts, Rfc3339};

/// The facts before the first order for the names of a domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LostStateFacts<'a> {
    /// Whether the CA has the limits of production: `CaLimits::is_production`.
    pub is_production: bool,
    /// Whether a certificate for the domain, however old, or an order is below `state`.
    pub is_known: bool,
    /// Whether the administrator has confirmed the order: `Ledger::is_confirmed`.
    pub is_confirmed: bool,
    /// When the state directory was created: `Ledger::founded`.
    pub founded: SystemTime,
    /// The certificate that is served under the domain at its public address, if its issuer is a
    /// public CA.
    pub found: Option<&'a CertificateFacts>,
}

/// Why an order waits for the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostStateWarning {
    domain: String,
    issuer: String,
    since: SystemTime,
    until: SystemTime,
    founded: SystemTime,
}

/// The record of an order that waits for the administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedOrder {
    /// Why, and what to do.
    pub why: String,
    /// The end of the certificate that was found. The order does not wait longer.
    pub until: SystemTime,
}

/// Why the order has to wait: the domain is served with a valid certificate of a public CA that is
/// older than the state directory and not in it. Either the directory was lost or is created anew at
/// each start, or the certificates of another server were not imported.
///
/// `None` for a domain that is new, or whose certificate has expired.
pub(crate) fn lost_state_guard(
    domain: &str,
    facts: LostStateFacts<'_>,
    now: SystemTime,
) -> Option<LostStateWarning> {
    let LostStateFacts {
        is_production,
        is_known,
        is_confirmed,
        founded,
        found,
    } = facts;
    if !is_production || is_known || is_confirmed {
        return None;
    }
    let found = found.filter(|found| found.not_before < founded && now < found.not_after)?;
    Some(LostStateWarning {
        domain: domain.into(),
        issuer: found.issuer.clone(),
        since: found.not_before,
        until: found.not_after,
        founded,
    })
}

impl LostStateWarning {
    /// The end of the certificate that was found.
    pub(crate) fn until(&self) -> SystemTime {
        self.until
    }
}

impl fmt::Display for LostStateWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            issuer,
            since,
            until: _,
            founded,
        } = self;
        write!(
            f,
            "no certificate is ordered yet: {domain} is being served with one by {issuer} of {}, but `state` is \
             empty since {}. If a volume is missing, mount it; if another server had the domain, run \
             `moorgate certs import`; if a new certificate is right, run `moorgate certs renew {domain}`",
            Rfc3339(*since),
            Rfc3339(*founded),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn day(n: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_hours(24 * n)
    }

    fn certificate() -> CertificateFacts {
        CertificateFacts {
            issuer: "CN=R12, O=Let's Encrypt, C=US".into(),
            serial: "01".into(),
            names: Vec::new(),
            not_before: day(10),
            not_after: day(100),
        }
    }

    fn facts(found: &CertificateFacts) -> LostStateFacts<'_> {
        LostStateFacts {
            is_production: true,
            is_known: false,
            is_confirmed: false,
            founded: day(30),
            found: Some(found),
        }
    }

    #[test]
    fn a_domain_that_had_a_certificate_yesterday_waits() {
        let found = certificate();
        let warning = lost_state_guard("a.example.com", facts(&found), day(30)).expect("a warning");
        insta::assert_snapshot!(warning, @"no certificate is ordered yet: a.example.com is being served with one by CN=R12, O=Let's Encrypt, C=US of 1970-01-11T00:00:00Z, but `state` is empty since 1970-01-31T00:00:00Z. If a volume is missing, mount it; if another server had the domain, run `moorgate certs import`; if a new certificate is right, run `moorgate certs renew a.example.com`");
    }

    #[test]
    fn other_domains_do_not_wait() {
        let found = certificate();
        let free = [
            (
                LostStateFacts {
                    is_production: false,
                    ..facts(&found)
                },
                day(30),
            ),
            (
                LostStateFacts {
                    is_known: true,
                    ..facts(&found)
                },
                day(30),
            ),
            (
                LostStateFacts {
                    is_confirmed: true,
                    ..facts(&found)
                },
                day(30),
            ),
            (
                LostStateFacts {
                    found: None,
                    ..facts(&found)
                },
                day(30),
            ),
            (
                LostStateFacts {
                    founded: day(9),
                    ..facts(&found)
                },
                day(30),
            ),
            (facts(&found), day(100)),
        ];
        for (facts, now) in free {
            assert_eq!(
                lost_state_guard("a.example.com", facts, now),
                None,
                "{facts:?}"
            );
        }
    }
}
