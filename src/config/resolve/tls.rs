//! Where the certificate of a domain comes from: a CA, files, or moorgate itself.

use std::net::IpAddr;

use super::DomainFile;
use super::process::Process;
use crate::config::acme::{AcmeRequest, CertifiedName};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawTls, Setting};
use crate::config::source::Span;
use crate::config::values::RawAcme;
use crate::config::vhost::CertificateSource;
use crate::registry::host::{Authority, HostName};

/// Exactly one of `acme`, `certificate` with `key`, and `internal`.
pub(super) fn certificate(
    file: &DomainFile,
    aliases: &[Authority],
    process: &Process,
    problems: &mut Problems,
) -> Option<CertificateSource> {
    let (raw, header) = file.raw.tls.table()?;
    let RawTls {
        acme,
        names: _,
        profile: _,
        fallback: _,
        certificate,
        key,
        internal,
    } = &raw;
    let mut said = false;
    let flag = matches!(acme.given(), Some(RawAcme::Flag(false)))
        .then_some(acme.span())
        .flatten();
    let flags = [
        (flag, "acme"),
        (
            internal.span().filter(|_| internal.given() == Some(&false)),
            "internal",
        ),
    ];
    for (span, name) in flags {
        let Some(span) = span else { continue };
        let message = format!("`tls.{name}` is false, which says nothing");
        problems.push(Problem::at(&file.source, span, message, HELP));
        said = true;
    }
    if said || matches!(internal, Setting::Invalid) || matches!(acme, Setting::Invalid) {
        return None;
    }
    let files = certificate.span().or(key.span());
    let is_absent = certificate.is_absent() && key.is_absent();
    if internal.is_absent() && acme.is_absent() && is_absent {
        let message = "nothing says where the certificate comes from";
        problems.push(file.missing(header, message, HELP));
        return None;
    }
    let mut sources: Vec<&Span> = [acme.span(), internal.span(), files]
        .into_iter()
        .flatten()
        .collect();
    sources.sort_by_key(|span| span.start);
    if let [_, .., last] = sources[..] {
        problems.push(Problem::at(
            &file.source,
            last,
            "`tls` names two sources of the certificate",
            HELP,
        ));
        return None;
    }
    if let Some(acme) = acme.given() {
        return is_absent
            .then(|| request(file, &raw, acme, aliases, process, problems))
            .flatten();
    }
    refuse_acme_keys(file, &raw, problems);
    if internal.span().is_some() {
        return is_absent.then_some(CertificateSource::Internal);
    }
    from_files(file, &raw, header, problems)
}

fn from_files(
    file: &DomainFile,
    RawTls {
        certificate, key, ..
    }: &RawTls,
    header: Option<&Span>,
    problems: &mut Problems,
) -> Option<CertificateSource> {
    if certificate.is_absent() {
        let help = "write certificate = \"PATH\", the chain that belongs to the key";
        let place = key.span().or(header);
        problems.push(file.missing(place, "`tls.certificate` is missing", help));
    }
    if key.is_absent() {
        let help = "write key = \"PATH\", the private key of the certificate";
        let place = certificate.span().or(header);
        problems.push(file.missing(place, "`tls.key` is missing", help));
    }
    let beside = |path| file.source.beside(path);
    Some(CertificateSource::Files {
        certificate: certificate.given().map(|path| beside(path))?,
        key: key.given().map(|path| beside(path))?,
    })
}

fn refuse_acme_keys(file: &DomainFile, raw: &RawTls, problems: &mut Problems) {
    let RawTls {
        names,
        profile,
        fallback,
        ..
    } = raw;
    for (span, key) in [
        (names.span(), "names"),
        (profile.span(), "profile"),
        (fallback.span(), "fallback"),
    ] {
        let Some(span) = span else { continue };
        let message = format!("`tls.{key}` says nothing without `acme`");
        problems.push(Problem::at(&file.source, span, message, "leave it out"));
    }
}

fn request(
    file: &DomainFile,
    raw: &RawTls,
    acme: &RawAcme,
    aliases: &[Authority],
    process: &Process,
    problems: &mut Problems,
) -> Option<CertificateSource> {
    let domain = file.raw.domain.given()?;
    let names = match &raw.names {
        Setting::Invalid => return None,
        Setting::Absent => own_names(file, domain, aliases, process, problems)?,
        Setting::Given(written, span) => {
            if written.is_empty() {
                let help = "leave the key out for the domain and its aliases";
                problems.push(Problem::at(
                    &file.source,
                    span,
                    "`tls.names` is empty",
                    help,
                ));
            }
            let mut names: Vec<CertifiedName> = Vec::new();
            for name in written {
                if !names.contains(name.get_ref()) {
                    names.push(name.get_ref().clone());
                }
            }
            let hosts = std::iter::once(domain).chain(aliases.iter().map(|alias| &alias.host));
            for host in hosts.filter(|host| !names.iter().any(|name| name.covers(host))) {
                let message = format!("no name in `tls.names` covers `{host}`");
                problems.push(Problem::at(&file.source, span, message, "add it").warning());
            }
            names
        }
    };
    unprovable(file, raw, &names, process, problems);
    let contact = match acme {
        RawAcme::Contact(contact) => Some(contact.clone()),
        RawAcme::Flag(_) => process.email.clone(),
    };
    Some(CertificateSource::Acme(AcmeRequest {
        contact,
        names,
        profile: raw.profile.given().cloned(),
        fallback: raw.fallback.or_empty(),
    }))
}

/// The domain and its aliases, without those that a public CA would refuse.
fn own_names(
    file: &DomainFile,
    domain: &HostName,
    aliases: &[Authority],
    process: &Process,
    problems: &mut Problems,
) -> Option<Vec<CertifiedName>> {
    let public = process
        .acme
        .authorities
        .iter()
        .any(|ca| ca.directory.is_public());
    let refused = |name: &HostName| public && !is_public(name);
    if refused(domain) {
        let message = format!("no public CA certifies `{domain}`");
        let help = "write internal = true in [tls], or name a CA of your own in moorgate.toml";
        problems.push(Problem::at(
            &file.source,
            file.raw.domain.span()?,
            message,
            help,
        ));
        return None;
    }
    let mut names = vec![CertifiedName::Host(domain.clone())];
    for alias in aliases {
        let name = CertifiedName::Host(alias.host.clone());
        if !refused(&alias.host) && !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// Notes the names that none of the challenges can prove.
fn unprovable(
    file: &DomainFile,
    raw: &RawTls,
    names: &[CertifiedName],
    process: &Process,
    problems: &mut Problems,
) {
    for name in names {
        if process.acme.challenges.iter().any(|kind| kind.proves(name)) {
            continue;
        }
        let help = match name {
            CertifiedName::Wildcard(_) => {
                "set `dns_command` in [acme] of moorgate.toml: a wildcard is proved by DNS"
            }
            CertifiedName::Host(_) => {
                "allow \"tls-alpn-01\" or \"http-01\" in `challenges` of moorgate.toml"
            }
        };
        let message = format!("no challenge can prove `{name}`");
        let place = raw.names.span().or(raw.acme.span());
        problems.extend(place.map(|span| Problem::at(&file.source, span, message, help)));
    }
}

/// Whether anybody outside could mean the same by this name or address (RFC 6761, RFC 6762, RFC
/// 6890).
fn is_public(name: &HostName) -> bool {
    match name.ip() {
        Some(IpAddr::V4(ip)) => {
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified())
        }
        Some(IpAddr::V6(ip)) => {
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local())
        }
        None => {
            let top = name.as_str().rsplit_once('.').map(|(_, top)| top);
            top.is_some_and(|top| !PRIVATE.contains(&top))
        }
    }
}

const PRIVATE: &[&str] = &[
    "localhost",
    "local",
    "internal",
    "test",
    "invalid",
    "lan",
    "home",
];
const HELP: &str = "write acme = true, `certificate` and `key`, or internal = true, in [tls]";
