//! Addresses of upstreams that lead back to moorgate itself, as far as the files say.

use super::process::Process;
use super::{DomainFile, RequestedListener};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::Setting;
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::config::vhost::ListenAddress;
use crate::registry::host::HostName;

/// The domains and listeners to which an address may lead.
struct OwnAddresses<'a> {
    files: &'a [DomainFile],
    listeners: &'a [Vec<RequestedListener>],
    process: &'a Process,
}

/// Warns of each `url` that leads to a listener of moorgate and not on to a registry.
pub(super) fn upstreams(
    files: &[DomainFile],
    listeners: &[Vec<RequestedListener>],
    process: &Process,
    problems: &mut Problems,
) {
    let own = OwnAddresses {
        files,
        listeners,
        process,
    };
    for file in files {
        let upstream = file.raw.upstream.given().map(|upstream| &upstream.url);
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
    /// The own listener to which an address leads, unless a domain there leads on to something
    /// else: a domain may stand in front of another one of the same process.
    fn dead_end(&self, url: &'a UpstreamUrl) -> Option<ListenAddress> {
        let listener = self.listener(url)?;
        let mut url = url;
        for _ in self.files {
            let Some(next) = self.domain(url) else {
                return self.listener(url).map(|_| listener);
            };
            let upstream = next.raw.upstream.given()?;
            url = upstream.url.given()?;
        }
        // More steps than domains: it goes round.
        Some(listener)
    }

    /// The own listener at an address.
    fn listener(&self, url: &UpstreamUrl) -> Option<ListenAddress> {
        let at_domain = self.files.iter().zip(self.listeners);
        let of_domain = at_domain
            .filter(|(file, _)| is_named(file, &url.host, url.port))
            .flat_map(|(_, listeners)| listeners.iter().chain(&self.process.http))
            .find(|listener| listener.address.0.port() == url.port);
        if let Some(listener) = of_domain {
            return Some(listener.address);
        }
        let process = self.process.http.iter().chain(&self.process.admin);
        let mut all = self.listeners.iter().flatten().chain(process);
        all.find(|listener| is_reached(listener.address, url))
            .map(|listener| listener.address)
    }

    /// The domain that answers for the host of an address.
    fn domain(&self, url: &UpstreamUrl) -> Option<&'a DomainFile> {
        let mut all = self.files.iter().zip(self.listeners);
        let found = all.find(|(file, listeners)| {
            let mut ports = listeners.iter().map(|listener| listener.address.0.port());
            is_named(file, &url.host, url.port) && ports.any(|port| port == url.port)
        });
        found
            .filter(|_| url.scheme == Scheme::Https)
            .map(|(file, _)| file)
    }
}

fn is_named(file: &DomainFile, host: &HostName, port: u16) -> bool {
    let mut aliases = file.raw.aliases.given().into_iter().flatten();
    file.raw.domain.given() == Some(host)
        || aliases.any(|alias| {
            let alias = alias.get_ref();
            alias.host == *host && alias.port.is_none_or(|own| own == port)
        })
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
