//! Which names and addresses a site gets, and which sites get none: those that are no registries,
//! that have no name, or whose name another site has.

use std::collections::BTreeMap;

use super::address::{SiteAddress, SiteScheme};
use super::lexer::CaddyVersion;
use super::report::{DirectiveOutcome, ImportReport};
use super::scope::{RegistryScope, of_prefix};
use super::site::{ImportedProcess, ImportedSite, SiteCertificate};

/// A site with its domain.
#[derive(Debug)]
pub(super) struct PlacedSite<'s> {
    pub(super) site: &'s ImportedSite,
    pub(super) domain: String,
    pub(super) aliases: Vec<String>,
    /// `None` for the addresses of `moorgate.toml`.
    pub(super) listen: Option<Vec<String>>,
    pub(super) certificate: SiteCertificate,
}

/// What placing depends on besides the sites.
pub(super) struct PlacementOptions<'a> {
    pub(super) process: &'a ImportedProcess,
    /// The name for a site without one.
    pub(super) domain: Option<&'a str>,
    pub(super) local_certificates: bool,
}

/// Gives each site its names and addresses.
pub(super) fn place<'s>(
    sites: &'s [ImportedSite],
    options: &PlacementOptions<'_>,
    report: &mut ImportReport,
) -> Vec<PlacedSite<'s>> {
    let mut claimed: BTreeMap<(String, u16), usize> = BTreeMap::new();
    let mut placed: Vec<PlacedSite<'_>> = Vec::new();
    for (index, site) in sites.iter().enumerate() {
        let mut placement = Placement {
            site,
            sites,
            options,
            report,
        };
        if placement.is_claimed(&mut claimed, index) || !placement.is_registry() {
            continue;
        }
        let Some(next) = placement.placed() else {
            continue;
        };
        let taken = placed
            .iter()
            .find(|other| other.domain == next.domain || other.aliases.contains(&next.domain));
        if let Some(other) = taken {
            let text = format!(
                "`{}` is a domain already, by {}: moorgate has one domain for a name, whatever its ports; this site is left out",
                next.domain, other.site.at
            );
            report.add_at(&site.at, "site", DirectiveOutcome::Decision, text);
            continue;
        }
        placed.push(next);
    }
    placed
}

struct Placement<'s, 'a> {
    site: &'s ImportedSite,
    sites: &'s [ImportedSite],
    options: &'a PlacementOptions<'a>,
    report: &'a mut ImportReport,
}

impl<'s> Placement<'s, '_> {
    /// Whether another site has one of the addresses, which Caddy refuses as well.
    fn is_claimed(&mut self, claimed: &mut BTreeMap<(String, u16), usize>, index: usize) -> bool {
        let mut is_claimed = false;
        for address in &self.site.addresses {
            let key = (
                format!("{}{}", address.host, address.path),
                address.port.unwrap_or(0),
            );
            match claimed.get(&key) {
                Some(other) if *other != index => {
                    is_claimed = true;
                    let other = self
                        .sites
                        .get(*other)
                        .map_or(&self.site.at, |site| &site.at);
                    let text = format!("{other} has the same name and port");
                    self.report.add_at(
                        &address.at,
                        address.to_string(),
                        DirectiveOutcome::Error,
                        text,
                    );
                }
                _ => {
                    claimed.insert(key, index);
                }
            }
        }
        is_claimed
    }

    /// Whether there is a registry behind the site that moorgate can stand in front of.
    fn is_registry(&mut self) -> bool {
        let site = self.site;
        let is_plain = |address: &SiteAddress| address.scheme == Some(SiteScheme::Http);
        let all_plain = site.addresses.iter().all(is_plain);
        let has_secure_twin = |address: &SiteAddress| {
            let mut all = self.sites.iter().flat_map(|site| &site.addresses);
            !address.host.is_empty()
                && all.any(|other| other.host == address.host && !is_plain(other))
        };
        let (outcome, text) = if all_plain && site.addresses.iter().all(has_secure_twin) {
            let text = "plain HTTP only redirects to https, where the same name is a domain";
            match site.registry {
                None => (DirectiveOutcome::Redundant, text),
                Some(_) => (DirectiveOutcome::Dropped, text),
            }
        } else if all_plain && site.registry.is_none() {
            let text = "plain HTTP only redirects to https";
            (DirectiveOutcome::Dropped, text)
        } else if site.registry.is_none() {
            let text = "no registry is found behind this site: it is left out, and needs another web server";
            (DirectiveOutcome::Decision, text)
        } else if !site
            .addresses
            .iter()
            .all(|one| of_prefix(&one.path) == RegistryScope::Whole)
        {
            let text =
                "this site is a part of a domain: moorgate serves whole domains, and leaves it out";
            (DirectiveOutcome::Decision, text)
        } else {
            return true;
        };
        self.report
            .add_at(&site.at, self.addresses(), outcome, text);
        false
    }

    fn addresses(&self) -> String {
        let all: Vec<_> = self
            .site
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        super::report::one_line(&all.join(", "))
    }

    fn decision(&mut self, text: impl Into<String>) {
        let addresses = self.addresses();
        self.report
            .add_at(&self.site.at, addresses, DirectiveOutcome::Decision, text);
    }

    fn placed(mut self) -> Option<PlacedSite<'s>> {
        let addresses = self.served();
        let (domain, named) = self.domain(&addresses)?;
        let ports: Vec<u16> = addresses
            .iter()
            .filter_map(|address| address.port)
            .collect();
        let mut ports = ports;
        ports.sort_unstable();
        ports.dedup();
        let aliases = self.aliases(&domain, &addresses, ports.len() > 1);
        let listen = self.listen(&ports);
        let certificate = self.certificate(named.as_ref());
        if self.site.access.users.is_empty() && self.site.access.closed.is_empty() {
            self.decision(format!(
                "Caddy asked nobody for a password here, so everybody could push and delete. moorgate lets nobody in until \
                 `moorgate htpasswd` adds users to credentials/{domain}.htpasswd; if the registry has users of its own, copy \
                 its htpasswd file there and write authorization = \"pass\" in [upstream]; anonymous = \"pull\" in [auth] \
                 opens pulls to everybody"
            ));
        }
        Some(PlacedSite {
            site: self.site,
            domain,
            aliases,
            listen,
            certificate,
        })
    }

    /// The addresses with TLS, or, where there are none, the plain ones.
    fn served(&mut self) -> Vec<SiteAddress> {
        let all = &self.site.addresses;
        let is_secure = |address: &&SiteAddress| address.scheme == Some(SiteScheme::Https);
        let secure: Vec<_> = all.iter().filter(is_secure).cloned().collect();
        if !secure.is_empty() {
            return secure;
        }
        self.decision(
            "Caddy served this in the clear, and moorgate speaks TLS only: choose a certificate in [tls], or put moorgate in \
             the place of what ended TLS before Caddy",
        );
        let (http, https) = (
            self.options.process.http_port.unwrap_or(80),
            self.options.process.https_port.unwrap_or(443),
        );
        let mut plain = all.clone();
        for address in &mut plain {
            let is_http = address.port.is_some_and(|port| port == http || port == 80);
            if is_http {
                address.port = Some(https);
            }
        }
        plain
    }

    /// The first name, and the address that it is from.
    fn domain(&mut self, addresses: &[SiteAddress]) -> Option<(String, Option<SiteAddress>)> {
        let wildcard = addresses.iter().find(|address| address.host.contains('*'));
        let named = addresses
            .iter()
            .find(|address| address.name().is_some_and(|name| name.ip().is_none()));
        if let (Some(address), Some(_)) = (named, wildcard) {
            self.decision(format!(
                "a domain has no wildcards: besides {}, name each as an alias",
                address.host
            ));
        }
        if let Some(address) = named {
            let name = address.name()?;
            return Some((name.as_str().to_owned(), Some(address.clone())));
        }
        if let Some(domain) = self.options.domain {
            return Some((domain.to_owned(), None));
        }
        let text = match wildcard {
            Some(_) => {
                "a wildcard is no domain: name one by `--domain NAME`, or write a site for each name"
            }
            None => "this site has no name: give it one by `--domain NAME`",
        };
        self.decision(text);
        None
    }

    fn aliases(&self, domain: &str, addresses: &[SiteAddress], with_ports: bool) -> Vec<String> {
        let mut aliases = Vec::new();
        for address in addresses {
            let Some(name) = address.name().filter(|name| name.as_str() != domain) else {
                continue;
            };
            let same = addresses.iter().filter(|other| other.host == address.host);
            let alias = match address.port {
                Some(port) if with_ports && same.count() == 1 => name.authority(port, 0),
                _ => name.as_str().to_owned(),
            };
            if !aliases.contains(&alias) {
                aliases.push(alias);
            }
        }
        aliases
    }

    fn listen(&self, ports: &[u16]) -> Option<Vec<String>> {
        let process = self.options.process;
        let default = process.https_port.unwrap_or(443);
        if ports == [default] && self.site.bind.is_empty() {
            return None;
        }
        let bind = if self.site.bind.is_empty() {
            &process.bind
        } else {
            &self.site.bind
        };
        Some(
            ports
                .iter()
                .flat_map(|port| addresses(bind, *port))
                .collect(),
        )
    }

    fn certificate(&mut self, named: Option<&SiteAddress>) -> SiteCertificate {
        let process = self.options.process;
        let is_public = named.is_none_or(SiteAddress::is_public);
        let has_own_ca = process.authority.is_some();
        match &self.site.certificate {
            SiteCertificate::Acme { email } if is_public || has_own_ca => {
                let is_mail = |email: &&String| email.contains('@');
                SiteCertificate::Acme {
                    email: email.as_ref().filter(is_mail).cloned(),
                }
            }
            SiteCertificate::Acme { .. } => {
                self.decision(
                    "no public CA certifies this name: it has a certificate of moorgate's own CA",
                );
                SiteCertificate::Internal
            }
            SiteCertificate::Automatic if self.options.local_certificates => {
                SiteCertificate::Internal
            }
            SiteCertificate::Automatic
                if is_public && named.is_some_and(|one| one.scheme == Some(SiteScheme::Https)) =>
            {
                SiteCertificate::Acme { email: None }
            }
            SiteCertificate::Automatic | SiteCertificate::Internal | SiteCertificate::Plain => {
                SiteCertificate::Internal
            }
            files @ SiteCertificate::Files { .. } => files.clone(),
        }
    }
}

/// `:443`, or each address of the machine with the port.
pub(super) fn addresses(bind: &[String], port: u16) -> Vec<String> {
    if bind.is_empty() {
        return vec![format!(":{port}")];
    }
    let with_port = bind.iter().map(|address| {
        if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        }
    });
    with_port.collect()
}

/// Where Caddy listened for plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HttpListening {
    Off,
    /// At these addresses of the machine; as `moorgate.toml` says if there are none.
    At(Vec<String>),
}

/// For redirects of managed names, or for plain sites; where all sites name addresses, at those.
pub(super) fn plain_http(
    sites: &[ImportedSite],
    placed: &[PlacedSite<'_>],
    version: CaddyVersion,
) -> HttpListening {
    let is_plain = |address: &SiteAddress| address.scheme == Some(SiteScheme::Http);
    let is_managed = |site: &PlacedSite<'_>| {
        version == CaddyVersion::V2 || matches!(site.certificate, SiteCertificate::Acme { .. })
    };
    let mut all = sites.iter().flat_map(|site| &site.addresses);
    if !placed.iter().any(is_managed) && !all.any(is_plain) {
        return HttpListening::Off;
    }
    if placed.iter().any(|placed| placed.site.bind.is_empty()) {
        return HttpListening::At(Vec::new());
    }
    let mut bind: Vec<String> = placed
        .iter()
        .flat_map(|placed| placed.site.bind.clone())
        .collect();
    bind.sort();
    bind.dedup();
    HttpListening::At(bind)
}
