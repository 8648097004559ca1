//! Requests to renew a certificate now: schedules the order, and says when it will be placed.

use std::fmt;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::Issuer;
use super::local_error::LocalError;
use super::plan::request_of;
use crate::certs::inspect::Rfc3339;
use crate::certs::names::NameSet;
use crate::certs::state::ledger::{Event, Ledger, OrderKind, OrderRequest, RetryAt};
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::sorted;
use crate::registry::host::HostName;

/// When a requested certificate is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduledOrder {
    Now {
        /// The directory of the CA that is tried first.
        ca: String,
    },
    /// As soon as a limit or an earlier failure allows.
    Later(RetryAt),
}

/// Why a requested certificate is not ordered.
#[derive(Debug, thiserror::Error)]
pub enum RenewRequestError {
    /// The domain file does not say `acme`, or there is none.
    #[error("no CA is asked for the certificate of {0}: its [tls] does not say `acme`")]
    NotAcme(HostName),
    /// The request cannot be recorded, and nothing is ordered without a record.
    #[error("nothing can be ordered: {0}")]
    Disk(#[from] LocalError),
}

impl fmt::Display for ScheduledOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now { ca } => {
                write!(
                    f,
                    "it is being ordered from {ca} now; `moorgate certs` shows what comes of it"
                )
            }
            Self::Later(RetryAt { at, why }) => {
                write!(f, "it will be ordered at {}: {why}", Rfc3339(*at))
            }
        }
    }
}

impl Issuer {
    /// The domain whose certificate has this name.
    pub(crate) fn domain_of_name(&self, name: &HostName) -> Option<HostName> {
        let plan = self.context.plan.load();
        plan.hosts
            .iter()
            .find(|host| host.is_named(name))
            .map(|host| host.domain.clone())
    }

    /// Renews a domain's certificate as soon as limits allow: due or not, and in spite of preflight
    /// findings, a suspected loss of state, or earlier failures.
    pub fn renew(&self, domain: HostName) {
        self.requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(domain);
        self.wake.notify_one();
    }

    /// Records the request as a confirmation, and renews the certificate as [`renew`](Self::renew)
    /// does. Returns when it will be ordered.
    pub async fn order_now(&self, domain: &HostName) -> Result<ScheduledOrder, RenewRequestError> {
        let plan = self.context.plan.load_full();
        let host = plan.hosts.iter().find(|host| host.domain == *domain);
        let Some((host, request)) = host.and_then(|host| Some((host, request_of(host)?))) else {
            return Err(RenewRequestError::NotAcme(domain.clone()));
        };
        let names = NameSet::new(sorted(&request.names)).expect("a request has a name");
        let renews = self
            .context
            .issued_for_names(host, request)
            .map(|issued| issued.ca);
        let cas: Vec<(String, CaId)> = plan
            .authorities()
            .map(|(ca, id)| (ca.directory.to_string(), id))
            .collect();
        let name = domain.clone();
        let record = move |ledger: &mut Ledger, now| {
            ledger.record(
                Event::Confirmed {
                    domain: name.as_str(),
                    names: &names,
                },
                now,
            );
            soonest(ledger, &cas, &names, renews.as_ref(), now)
        };
        let scheduled = self.context.ledger(record).await?;
        self.renew(domain.clone());
        Ok(scheduled)
    }
}

/// When the first of the CAs may be used.
fn soonest(
    ledger: &Ledger,
    cas: &[(String, CaId)],
    names: &NameSet,
    renews: Option<&CaId>,
    now: SystemTime,
) -> ScheduledOrder {
    let mut soonest: Option<RetryAt> = None;
    for (name, ca) in cas {
        let kind = if renews == Some(ca) {
            OrderKind::Renewal
        } else {
            OrderKind::New
        };
        let account = ledger.account(ca).unwrap_or_default();
        match ledger.may_order(
            &OrderRequest {
                ca,
                account,
                names,
                kind,
                held: None,
            },
            now,
        ) {
            Ok(()) => return ScheduledOrder::Now { ca: name.clone() },
            Err(until) if soonest.as_ref().is_none_or(|known| until.at < known.at) => {
                soonest = Some(until)
            }
            Err(_) => {}
        }
    }
    soonest.map_or_else(
        || ScheduledOrder::Now {
            ca: "a CA".to_owned(),
        },
        ScheduledOrder::Later,
    )
}
