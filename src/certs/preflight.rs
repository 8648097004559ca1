//! Checks of the names of an order before it is placed: whether they resolve, whether a CA would
//! reach this process under them, and whether CAA records allow the CA.

pub(crate) mod backoff;
mod caa;
pub(crate) mod dns;
pub(crate) mod dns_persist;
pub(crate) mod lost_state_guard;
mod probe;
mod served_certificate;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use self::caa::forbidden;
use self::probe::{Probe, Reachability};
pub(crate) use self::served_certificate::served_certificate;
use crate::certs::challenge::Challenges;
use crate::certs::preflight::backoff::Certainty;
use crate::certs::preflight::dns::{DnsError, Resolver};
use crate::certs::preflight::dns_persist::PersistRecord;
use crate::config::acme::{CertifiedName, ChallengeKind, ValidationPorts};
use crate::registry::host::HostName;

/// The checks before an order at one CA.
pub(crate) struct Preflight<'a> {
    pub(crate) resolver: &'a Resolver,
    pub(crate) challenges: &'a Arc<Challenges>,
    /// The kinds of challenges that are configured.
    pub(crate) kinds: &'a [ChallengeKind],
    /// The domains that identify the CA in DNS; none: CAA records are not checked.
    pub(crate) identities: &'a [String],
    pub(crate) ports: ValidationPorts,
}

/// What speaks against an order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) all: Vec<Finding>,
    /// Challenges that would fail while another may work.
    pub(crate) unfit: Vec<ChallengeKind>,
}

/// A reason against an order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) text: String,
    pub(crate) certainty: Certainty,
}

/// A name to which a CA connects to validate it.
struct ProbeTarget<'a> {
    name: &'a HostName,
    addresses: Vec<IpAddr>,
    /// The challenges for which it connects.
    kinds: Vec<ChallengeKind>,
    /// Whether no other challenge can prove the name.
    required: bool,
}

impl Findings {
    /// The highest certainty of all findings; `None`: there are none.
    pub(crate) fn certainty(&self) -> Option<Certainty> {
        self.all.iter().map(|finding| finding.certainty).max()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.all
            .iter()
            .map(|finding| finding.text.clone())
            .collect()
    }

    fn certain(&mut self, text: String) {
        self.all.push(Finding {
            text,
            certainty: Certainty::Certain,
        });
    }

    fn doubtful(&mut self, text: String) {
        self.all.push(Finding {
            text,
            certainty: Certainty::Doubtful,
        });
    }
}

impl Preflight<'_> {
    /// Checks all names, for a minute at most.
    pub(crate) async fn check(&self, names: &[CertifiedName]) -> Findings {
        let mut findings = Findings::default();
        let checks = async {
            for name in names {
                self.check_name(name, &mut findings).await;
            }
        };
        if timeout(PREFLIGHT_TIMEOUT, checks).await.is_err() {
            findings.doubtful("the checks of the names did not end within a minute".to_owned());
        }
        findings
    }

    /// Checks the dns-persist-01 records of the names that no other challenge can prove. The
    /// administrator has to set them, perhaps hours from now: no order is spent before.
    pub(crate) async fn check_persistent_records(
        &self,
        names: &[CertifiedName],
        account: &str,
        findings: &mut Findings,
    ) {
        let needs_record = |name: &&CertifiedName| {
            let mut kinds = self
                .kinds
                .iter()
                .filter(|kind| kind.proves(name))
                .peekable();
            kinds.peek().is_some() && kinds.all(|kind| *kind == ChallengeKind::DnsPersist01)
        };
        for name in names.iter().filter(needs_record) {
            match PersistRecord::missing(name, self.identities, account, self.resolver).await {
                Ok(None) => {}
                Ok(Some(record)) => findings.certain(record.to_string()),
                Err(error) => {
                    findings.doubtful(format!("the record of {name} cannot be looked up: {error}"));
                    return;
                }
            }
        }
    }

    async fn check_name(&self, name: &CertifiedName, findings: &mut Findings) {
        if self.check_caa(name, findings).await {
            self.check_reachability(name, findings).await;
        }
    }

    /// Checks the CAA records (RFC 8659). Returns whether DNS answered.
    async fn check_caa(&self, name: &CertifiedName, findings: &mut Findings) -> bool {
        let base = name.base();
        if base.ip().is_some() || self.identities.is_empty() {
            return true;
        }
        match forbidden(self.resolver, name, self.identities).await {
            Ok(None) => {}
            Ok(Some(forbidden)) => findings.certain(forbidden),
            Err(error) => {
                findings.doubtful(format!(
                    "the CAA records of {base} cannot be looked up: {error}"
                ));
                return false;
            }
        }
        true
    }

    /// Checks that the name leads here, where a challenge of the order needs it.
    async fn check_reachability(&self, name: &CertifiedName, findings: &mut Findings) {
        let base = name.base();
        let probed = [ChallengeKind::Http01, ChallengeKind::TlsAlpn01];
        let probed: Vec<_> = probed
            .into_iter()
            .filter(|kind| self.kinds.contains(kind))
            .collect();
        if name.is_wildcard() || probed.is_empty() {
            return;
        }
        // A name that DNS can prove need not point to this server.
        let required = !self
            .kinds
            .iter()
            .any(|kind| !probed.contains(kind) && kind.proves(name));
        match self.addresses(base).await {
            Ok(addresses) if addresses.is_empty() => {
                findings.unfit.extend(&probed);
                if required {
                    findings.certain(format!(
                        "{base} does not resolve: DNS knows no address for it"
                    ));
                }
            }
            Ok(addresses) => {
                let target = ProbeTarget {
                    name: base,
                    addresses,
                    kinds: probed,
                    required,
                };
                self.probe(&target, findings).await;
            }
            Err(error) if required => {
                findings.doubtful(format!("{base} cannot be looked up: {error}"));
            }
            Err(_) => {}
        }
    }

    async fn addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, DnsError> {
        match name.ip() {
            Some(address) => Ok(vec![address]),
            None => self.resolver.addresses(name.as_str()).await,
        }
    }

    /// Connects to a name as a CA would for each kind of challenge.
    async fn probe(&self, target: &ProbeTarget<'_>, findings: &mut Findings) {
        let probe = Probe {
            challenges: self.challenges,
            name: target.name,
            ports: self.ports,
        };
        let mut results = Vec::new();
        for kind in &target.kinds {
            results.push((*kind, probe.all(*kind, &target.addresses).await));
        }
        if results
            .iter()
            .any(|(_, result)| *result == Reachability::Here)
        {
            let others = results
                .iter()
                .filter(|(_, result)| *result != Reachability::Here);
            findings.unfit.extend(others.map(|(kind, _)| kind));
            return;
        }
        if !target.required {
            findings.unfit.extend(&target.kinds);
            return;
        }
        let is_certain = results
            .iter()
            .all(|(_, result)| matches!(result, Reachability::Elsewhere(_)));
        let reasons = results
            .into_iter()
            .filter_map(|(kind, result)| match result {
                Reachability::Here => None,
                Reachability::Elsewhere(reason) | Reachability::Unknown(reason) => {
                    Some(format!("{reason} ({kind})"))
                }
            });
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        let name = target.name;
        if is_certain {
            findings.certain(format!("{name} does not point to this server: {reasons}"));
        } else {
            findings.doubtful(format!(
                "cannot check whether {name} points to this server: {reasons}"
            ));
        }
    }
}

const PREFLIGHT_TIMEOUT: Duration = Duration::from_mins(1);
