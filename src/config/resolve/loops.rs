//! Addresses of upstreams that lead back to moorgate itself, as far as the files say.

use std::collections::{BTreeSet, HashMap};

use super::process::Process;
use super::{DomainFile, ResolvedDomain};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::Setting;
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::config::vhost::ListenAddress;
use crate::registry::host::HostName;

/// The domains and listeners to which an address may lead.
struct OwnAddresses<'a> {
    /// By each of its names; of an alias with a port, the port.
    by_name: HashMap<&'a HostName, Vec<(&'a ResolvedDomain, Option<u16>)>>,
    domains: usize,
    /// Those of domains before those of the process.
    listeners: Vec<ListenAddress>,
    process: &'a Process,
}

/// Warns of each `url` that leads to a listener of moorgate and not on to a registry.
pub(super) fn upstreams(domains: &[&ResolvedDomain], process: &Process, problems: &mut Problems) {
    let own = OwnAddresses::new(domains, process);
    for domain in domains {
        let file = &domain.file;
        let raw = file.raw.upstream.given();
        let upstream = raw.map(|upstream| &upstream.url);
        let urls = raw.and_then(|upstream| upstream.urls.given());
        for url in urls.into_iter().flatten().skip(1) {
            let setting = Setting::Given(url.get_ref().clone(), url.span());
            warn("upstream.urls", Some(&setting), file, &own, problems);
        }
        let browser = file.raw.browser.given().map(|browser| &browser.url);
        warn("upstream.url", upstream, file, &own, problems);
        warn("browser.url", browser, file, &own, problems);
    }
}

fn warn(
    key: &str,
    setting: Option<&Setting<UpstreamUrl>>,
    file: &DomainFile,
    own: &OwnAddresses<'_>,
    problems: &mut Problems,
) {
    let Some(Setting::Given(url, span)) = setting else {
        return;
    };
    if let Some(listener) = own.dead_end(url) {
        let help = "write the address of the server behind this domain: requests that come back are \
                    refused with 508";
        let message = format!("`{key}` leads back to moorgate, to its listener `{listener}`");
        problems.push(Problem::at(&file.source, span, message, help).warning());
    }
}

impl<'a> OwnAddresses<'a> {
    fn new(domains: &[&'a ResolvedDomain], process: &'a Process) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        let mut listeners = Vec::new();
        let mut known = BTreeSet::new();
        for &domain in domains {
            let raw = &domain.file.raw;
            if let Some(name) = raw.domain.given() {
                by_name.entry(name).or_default().push((domain, None));
            }
            for alias in raw.aliases.given().into_iter().flatten() {
                let alias = alias.get_ref();
                let named = by_name.entry(&alias.host).or_default();
                named.push((domain, alias.port));
            }
            let addresses = domain.listen.iter().map(|listener| listener.address);
            listeners.extend(addresses.filter(|address| known.insert(*address)));
        }
        let of_process = process.http.iter().chain(&process.admin);
        listeners.extend(of_process.map(|listener| listener.address));
        Self {
            by_name,
            domains: domains.len(),
            listeners,
            process,
        }
    }

    /// The own listener to which an address leads, unless a domain there leads on to something
    /// else: a domain may stand in front of another one of the same process.
    fn dead_end(&self, url: &'a UpstreamUrl) -> Option<ListenAddress> {
        let listener = self.listener(url)?;
        let mut url = url;
        for _ in 0..self.domains {
            let Some(next) = self.domain(url) else {
                return self.listener(url).map(|_| listener);
            };
            let upstream = next.raw.upstream.given()?;
            url = upstream.url.given()?;
        }
        // More steps than domains: it goes round.
        Some(listener)
    }

    /// The domains that have the host of an address among their names.
    fn named(&self, url: &UpstreamUrl) -> impl Iterator<Item = &'a ResolvedDomain> {
        let port = url.port;
        let named = self.by_name.get(&url.host).into_iter().flatten();
        let named = named.filter(move |(_, own)| own.is_none_or(|own| own == port));
        named.map(|(domain, _)| *domain)
    }

    /// The own listener at an address.
    fn listener(&self, url: &UpstreamUrl) -> Option<ListenAddress> {
        let of_domain = self
            .named(url)
            .flat_map(|domain| domain.listen.iter().chain(&self.process.http))
            .find(|listener| listener.address.0.port() == url.port);
        if let Some(listener) = of_domain {
            return Some(listener.address);
        }
        let mut all = self.listeners.iter();
        all.find(|listener| is_reached(**listener, url)).copied()
    }

    /// The domain that answers for the host of an address.
    fn domain(&self, url: &UpstreamUrl) -> Option<&'a DomainFile> {
        let found = self.named(url).find(|domain| {
            let mut ports = domain.listen.iter();
            ports.any(|listener| listener.address.0.port() == url.port)
        });
        found
            .filter(|_| url.scheme == Scheme::Https)
            .map(|domain| &*domain.file)
    }
}

/// Whether the host of an address is the own host for certain, and the listener is there.
fn is_reached(listener: ListenAddress, url: &UpstreamUrl) -> bool {
    let own = listener.0.ip();
    if listener.0.port() != url.port || url.port == 0 {
        return false;
    }
    match url.host.ip() {
        // Unspecified addresses connect to the own host.
        Some(ip) if own.is_unspecified() => ip.is_loopback() || ip.is_unspecified(),
        Some(ip) => ip == own || ip.is_unspecified() && own.is_loopback(),
        // RFC 6761 §6.3
        None => {
            let is_localhost =
                url.host.as_str() == "localhost" || url.host.as_str().ends_with(".localhost");
            is_localhost && (own.is_unspecified() || own.is_loopback())
        }
    }
}
