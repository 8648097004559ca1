//! Why an order has to wait and until when, as a value and as text.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::limits::Rate;
use crate::certs::inspect::Rfc3339;

/// When an order may be placed, and what blocks it until then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not before {}: {why}", Rfc3339(*.at))]
pub struct RetryAt {
    pub at: SystemTime,
    pub why: BlockReason,
}

/// What blocks an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockReason {
    /// Attempts have failed.
    BackingOff {
        /// Consecutive failures.
        times: u32,
        /// The message of the last failure.
        last: String,
    },
    /// The CA sent a `Retry-After`.
    RetryAfter { last: String },
    /// A limit of the CA is used up.
    Limit {
        limit: Limit,
        rate: Rate,
        /// What the limit applies to: a name, names, a domain or an account.
        of: String,
    },
    /// The CA would pause the name after one more consecutive failed validation.
    Paused { name: String, times: u32 },
    /// The ledger has reached its maximum number of attempts.
    Full,
}

/// A kind of limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// New accounts of this machine.
    Accounts,
    /// New orders of the account.
    Orders,
    /// Failed authorizations of a name.
    Failures,
    /// Certificates for the same names.
    Duplicates,
    /// New certificates below a registered domain.
    Domain,
    /// Renewals that replace a certificate (RFC 9773 §5): our own limit.
    Replacements,
}

impl Limit {
    /// The value of the label `limit` in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Orders => "orders",
            Self::Failures => "failed_authorizations",
            Self::Duplicates => "duplicate_certificates",
            Self::Domain => "certificates_per_domain",
            Self::Replacements => "replacements",
        }
    }
}

impl fmt::Display for BlockReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackingOff { times: 1, last } => write!(f, "the last attempt failed: {last}"),
            Self::BackingOff { times, last } => {
                write!(
                    f,
                    "the last {times} attempts failed, the newest with: {last}"
                )
            }
            Self::RetryAfter { last } => write!(f, "the CA asked to wait: {last}"),
            Self::Limit {
                limit,
                rate: Rate { most, per },
                of,
            } => {
                let what = match limit {
                    Limit::Accounts => "new accounts",
                    Limit::Orders => "new orders",
                    Limit::Failures => "failed validations",
                    Limit::Duplicates => "certificates for the same names",
                    Limit::Domain => "new certificates for a domain",
                    Limit::Replacements => "renewals of the same certificate",
                };
                write!(
                    f,
                    "the limit of {most} {what} in {} is used up for {of}",
                    Period(*per)
                )
            }
            Self::Paused { name, times } => {
                write!(
                    f,
                    "{times} consecutive validations of {name} have failed, the CA pauses the name after one more"
                )
            }
            Self::Full => f.write_str("the ledger of attempts is full"),
        }
    }
}

/// Printed in minutes below an hour, in hours up to three days, in days beyond.
struct Period(Duration);

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.0.as_secs() / 3600;
        match hours {
            0 => write!(f, "{} minutes", self.0.as_secs() / 60),
            1 => f.write_str("an hour"),
            2..=72 => write!(f, "{hours} hours"),
            _ => write!(f, "{} days", hours / 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_text() {
        let hour = Duration::from_secs(3600);
        let limit = |limit, most, hours: u32, of: &str| BlockReason::Limit {
            limit,
            rate: Rate {
                most,
                per: hour * hours,
            },
            of: of.to_owned(),
        };
        let all = [
            BlockReason::BackingOff {
                times: 1,
                last: "connection refused".into(),
            },
            BlockReason::BackingOff {
                times: 4,
                last: "connection refused".into(),
            },
            BlockReason::RetryAfter {
                last: "too many new orders recently".into(),
            },
            limit(Limit::Accounts, 10, 3, "this machine"),
            limit(Limit::Orders, 300, 3, "the account"),
            limit(Limit::Failures, 5, 1, "a.example.com"),
            BlockReason::Limit {
                limit: Limit::Failures,
                rate: Rate {
                    most: 5,
                    per: hour / 6,
                },
                of: "a.example.com".into(),
            },
            limit(Limit::Duplicates, 5, 170, "a.example.com, b.example.com"),
            limit(Limit::Domain, 50, 168, "example.com"),
            limit(Limit::Replacements, 3, 24, "a.example.com"),
            BlockReason::Paused {
                name: "a.example.com".into(),
                times: 1151,
            },
            BlockReason::Full,
        ];
        let shown: Vec<_> = all
            .into_iter()
            .map(|why| {
                RetryAt {
                    at: SystemTime::UNIX_EPOCH,
                    why,
                }
                .to_string()
            })
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        not before 1970-01-01T00:00:00Z: the last attempt failed: connection refused
        not before 1970-01-01T00:00:00Z: the last 4 attempts failed, the newest with: connection refused
        not before 1970-01-01T00:00:00Z: the CA asked to wait: too many new orders recently
        not before 1970-01-01T00:00:00Z: the limit of 10 new accounts in 3 hours is used up for this machine
        not before 1970-01-01T00:00:00Z: the limit of 300 new orders in 3 hours is used up for the account
        not before 1970-01-01T00:00:00Z: the limit of 5 failed validations in an hour is used up for a.example.com
        not before 1970-01-01T00:00:00Z: the limit of 5 failed validations in 10 minutes is used up for a.example.com
        not before 1970-01-01T00:00:00Z: the limit of 5 certificates for the same names in 7 days is used up for a.example.com, b.example.com
        not before 1970-01-01T00:00:00Z: the limit of 50 new certificates for a domain in 7 days is used up for example.com
        not before 1970-01-01T00:00:00Z: the limit of 3 renewals of the same certificate in 24 hours is used up for a.example.com
        not before 1970-01-01T00:00:00Z: 1151 consecutive validations of a.example.com have failed, the CA pauses the name after one more
        not before 1970-01-01T00:00:00Z: the ledger of attempts is full
        ");
    }
}
