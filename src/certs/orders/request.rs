//! Requests to renew a certificate now: schedules the order, and says when it will be placed.

use std::fmt;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::Issuer;
use super::local_error::LocalError;
use super::plan::{Plan, request_of};
use crate::certs::inspect::Rfc3339;
use crate::certs::names::NameSet;
use crate::certs::renewal::Validity;
use crate::certs::state::ledger::{Event, Ledger, OrderKind, OrderRequest, RetryAt};
use crate::certs::state::paths::CaId;
use crate::certs::state::storage::sorted;
use crate::registry::host::HostName;
use crate::state_file::run_blocking;

/// A request that was not passed on yet.
#[derive(Debug)]
pub(super) struct RequestedRenewal {
    pub(super) domain: HostName,
    /// The serial number of the certificate that is to be renewed.
    pub(super) served: Option<String>,
}

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

/// The order that a request will place.
struct WantedOrder {
    names: NameSet,
    /// The CA of the certificate that it renews.
    renews: Option<CaId>,
    held: Option<Validity>,
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
        let served = self.context.serial(&domain);
        self.requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(RequestedRenewal { domain, served });
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
        let cas = self.usable_cas(&plan).await;
        let issued = self.context.certificates.issued(domain);
        let wanted = WantedOrder {
            names,
            renews,
            held: issued.map(|issued| Validity::of(&issued.certificate.facts)),
        };
        let name = domain.clone();
        let record = move |ledger: &mut Ledger, now| {
            ledger.record(
                Event::Confirmed {
                    domain: name.as_str(),
                    names: &wanted.names,
                },
                now,
            );
            wanted.soonest(ledger, &cas, now)
        };
        let scheduled = self.context.ledger(record).await?;
        self.renew(domain.clone());
        Ok(scheduled)
    }

    /// The CAs in the order in which they are tried. An account that cannot be read is left to the
    /// order, which fails with the reason.
    async fn usable_cas(&self, plan: &Plan) -> Vec<UsableCa> {
        let storage = self.context.storage.clone();
        let cas: Vec<(String, CaId)> = plan
            .authorities()
            .map(|(ca, id)| (ca.directory.to_string(), id))
            .collect();
        run_blocking(move || {
            let usable = cas.into_iter().map(|(name, id)| UsableCa {
                name,
                has_account: !matches!(storage.account(&id), Ok(None)),
                id,
            });
            usable.collect()
        })
        .await
    }
}

/// A CA that may be used.
struct UsableCa {
    /// Its directory, as the configuration names it.
    name: String,
    id: CaId,
    /// Whether there is an account: otherwise one is created first.
    has_account: bool,
}

impl WantedOrder {
    /// When the first of the CAs may be used.
    fn soonest(&self, ledger: &Ledger, cas: &[UsableCa], now: SystemTime) -> ScheduledOrder {
        let mut soonest: Option<RetryAt> = None;
        for ca in cas {
            match self.may_order(ledger, ca, now) {
                Ok(()) => {
                    return ScheduledOrder::Now {
                        ca: ca.name.clone(),
                    };
                }
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

    fn may_order(&self, ledger: &Ledger, ca: &UsableCa, now: SystemTime) -> Result<(), RetryAt> {
        if !ca.has_account {
            ledger.may_create_account(&ca.id, now)?;
        }
        let renews = self.renews.as_ref() == Some(&ca.id);
        let request = OrderRequest {
            ca: &ca.id,
            account: ledger.account(&ca.id).unwrap_or_default(),
            names: &self.names,
            kind: if renews {
                OrderKind::Renewal
            } else {
                OrderKind::New
            },
            held: self.held,
        };
        ledger.may_order(&request, now)
    }
}
