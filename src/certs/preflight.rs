//! What can be found out about the names of a domain before a CA is asked: whether DNS knows them,
//! whether they lead here, and whether the CA may issue for them.

mod caa;
pub(crate) mod dns;
pub mod dns_persist;
pub mod hold;
pub(crate) mod postpone;
mod probe;
mod served;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use self::caa::forbidden;
use self::probe::{Probe, Sight};
pub(crate) use self::served::served;
use crate::certs::challenge::Challenges;
use crate::certs::preflight::dns::Resolver;
use crate::certs::preflight::dns_persist::PersistRecord;
use crate::certs::preflight::postpone::Weight;
use crate::config::acme::{CertifiedName, ChallengeKind, ValidationPorts};

/// How names are looked at.
pub(crate) struct Look<'a> {
    pub(crate) resolver: &'a Resolver,
    pub(crate) challenges: &'a Arc<Challenges>,
    /// The ways in which names may be proved.
    pub(crate) kinds: &'a [ChallengeKind],
    /// The domains that stand for the CA in DNS; none: CAA is not looked at.
    pub(crate) identities: &'a [String],
    pub(crate) ports: ValidationPorts,
}

/// What was found; nothing where all is well.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) all: Vec<Finding>,
    /// Challenges that would fail while another may work.
    pub(crate) unfit: Vec<ChallengeKind>,
}

/// Something that stands against an order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) text: String,
    pub(crate) weight: Weight,
}

impl Findings {
    /// The heaviest, if there is any.
    pub(crate) fn weight(&self) -> Option<Weight> {
        self.all.iter().map(|finding| finding.weight).max()
    }

    /// In words.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.all
            .iter()
            .map(|finding| finding.text.clone())
            .collect()
    }

    fn certain(&mut self, text: String) {
        self.all.push(Finding {
            text,
            weight: Weight::Certain,
        });
    }

    fn doubtful(&mut self, text: String) {
        self.all.push(Finding {
            text,
            weight: Weight::Doubtful,
        });
    }
}

impl Look<'_> {
    /// Looks at all names, as long as that takes a minute at most.
    pub(crate) async fn at(&self, names: &[CertifiedName]) -> Findings {
        let mut findings = Findings::default();
        let looking = async {
            for name in names {
                self.at_one(name, &mut findings).await;
            }
        };
        if timeout(LONGEST, looking).await.is_err() {
            findings.doubtful("looking at the names took too long".to_owned());
        }
        findings
    }

    /// Looks for the record of each name that nothing else can prove. It is the administrator's to
    /// set, perhaps hours from now: no order is spent before.
    pub(crate) async fn for_standing(
        &self,
        names: &[CertifiedName],
        account: &str,
        findings: &mut Findings,
    ) {
        let only_stands = |name: &&CertifiedName| {
            let mut kinds = self
                .kinds
                .iter()
                .filter(|kind| kind.proves(name))
                .peekable();
            kinds.peek().is_some() && kinds.all(|kind| *kind == ChallengeKind::DnsPersist01)
        };
        for name in names.iter().filter(only_stands) {
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

    async fn at_one(&self, name: &CertifiedName, findings: &mut Findings) {
        let base = name.base();
        if base.ip().is_none() && !self.identities.is_empty() {
            match forbidden(self.resolver, name, self.identities).await {
                Ok(None) => {}
                Ok(Some(forbidden)) => findings.certain(forbidden),
                Err(error) => {
                    findings.doubtful(format!(
                        "the CAA records of {base} cannot be looked up: {error}"
                    ));
                    return;
                }
            }
        }
        let probed = [ChallengeKind::Http01, ChallengeKind::TlsAlpn01];
        let probed: Vec<_> = probed
            .into_iter()
            .filter(|kind| self.kinds.contains(kind))
            .collect();
        if name.is_wildcard() || probed.is_empty() {
            return;
        }
        // Where DNS can prove the name, it need not lead anywhere.
        let needed = !self
            .kinds
            .iter()
            .any(|kind| !probed.contains(kind) && kind.proves(name));
        let addresses = match base.ip() {
            Some(address) => vec![address],
            None => match self.resolver.addresses(base.as_str()).await {
                Ok(addresses) => addresses,
                Err(error) if needed => {
                    findings.doubtful(format!("{base} cannot be looked up: {error}"));
                    return;
                }
                Err(_) => return,
            },
        };
        if addresses.is_empty() {
            findings.unfit.extend(&probed);
            if needed {
                findings.certain(format!(
                    "{base} does not resolve: DNS knows no address for it"
                ));
            }
            return;
        }
        self.follow(name, &addresses, &probed, needed, findings)
            .await;
    }

    /// Looks where a name leads.
    async fn follow(
        &self,
        name: &CertifiedName,
        addresses: &[IpAddr],
        kinds: &[ChallengeKind],
        needed: bool,
        findings: &mut Findings,
    ) {
        let probe = Probe {
            challenges: self.challenges,
            name: name.base(),
            ports: self.ports,
        };
        let mut sights = Vec::new();
        for kind in kinds {
            sights.push((*kind, probe.all(*kind, addresses).await));
        }
        if sights.iter().any(|(_, sight)| *sight == Sight::Here) {
            let others = sights.iter().filter(|(_, sight)| *sight != Sight::Here);
            findings.unfit.extend(others.map(|(kind, _)| kind));
            return;
        }
        if !needed {
            findings.unfit.extend(kinds);
            return;
        }
        let is_certain = sights
            .iter()
            .all(|(_, sight)| matches!(sight, Sight::Elsewhere(_)));
        let words = sights.into_iter().filter_map(|(kind, sight)| match sight {
            Sight::Here => None,
            Sight::Elsewhere(words) | Sight::Unknown(words) => Some(format!("{words} ({kind})")),
        });
        let words = words.collect::<Vec<_>>().join("; ");
        if is_certain {
            findings.certain(format!("{} does not lead here: {words}", name.base()));
        } else {
            findings.doubtful(format!(
                "it cannot be seen whether {} leads here: {words}",
                name.base()
            ));
        }
    }
}

const LONGEST: Duration = Duration::from_secs(60);
