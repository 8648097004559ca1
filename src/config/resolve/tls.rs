//! The source of a domain's certificate: a CA, files, or moorgate's own CA.

use toml::Spanned;

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
    let has_false = refuse_false(file, &raw, problems);
    if has_false || matches!(internal, Setting::Invalid) || matches!(acme, Setting::Invalid) {
        return None;
    }
    let has_files = !(certificate.is_absent() && key.is_absent());
    if internal.is_absent() && acme.is_absent() && !has_files {
        let message = "no source of the certificate is given";
        problems.push(file.missing(header, message, HELP));
        return None;
    }
    let files = certificate.span().or(key.span());
    let mut sources: Vec<&Span> = [acme.span(), internal.span(), files]
        .into_iter()
        .flatten()
        .collect();
    sources.sort_by_key(|span| span.start);
    if let [_, .., last] = sources[..] {
        let message = "`tls` names two sources of the certificate";
        problems.push(Problem::at(&file.source, last, message, HELP));
        return None;
    }
    // Of two sources, one of them invalid, that one is reported already.
    if acme.given().is_some() {
        let request = || AcmeDomain::new(file, &raw, aliases, process)?.request(problems);
        return (!has_files).then(request)?.map(CertificateSource::Acme);
    }
    refuse_acme_keys(file, &raw, problems);
    if internal.given().is_some() {
        return (!has_files).then_some(CertificateSource::Internal);
    }
    from_files(file, &raw, header, problems)
}

/// Reports `acme = false` and `internal = false`; whether there is one of them.
fn refuse_false(file: &DomainFile, raw: &RawTls, problems: &mut Problems) -> bool {
    let is_false = matches!(raw.acme.given(), Some(RawAcme::Flag(false)));
    let acme = raw.acme.span().filter(|_| is_false);
    let is_false = raw.internal.given() == Some(&false);
    let internal = raw.internal.span().filter(|_| is_false);
    for (span, key) in [(acme, "acme"), (internal, "internal")] {
        let Some(span) = span else { continue };
        let message = format!("`tls.{key}` is false, which has no effect");
        problems.push(Problem::at(&file.source, span, message, HELP));
    }
    acme.is_some() || internal.is_some()
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
        let message = format!("`tls.{key}` has no effect without `acme`");
        problems.push(Problem::at(&file.source, span, message, "leave it out"));
    }
}

/// A domain that gets its certificate from a CA.
struct AcmeDomain<'a> {
    file: &'a DomainFile,
    raw: &'a RawTls,
    /// What `acme` says.
    acme: &'a RawAcme,
    domain: &'a HostName,
    aliases: &'a [Authority],
    process: &'a Process,
}

impl<'a> AcmeDomain<'a> {
    /// `None` for a domain without a name or without `acme`.
    fn new(
        file: &'a DomainFile,
        raw: &'a RawTls,
        aliases: &'a [Authority],
        process: &'a Process,
    ) -> Option<Self> {
        Some(Self {
            file,
            raw,
            acme: raw.acme.given()?,
            domain: file.raw.domain.given()?,
            aliases,
            process,
        })
    }

    fn request(&self, problems: &mut Problems) -> Option<AcmeRequest> {
        let names = match &self.raw.names {
            Setting::Invalid => return None,
            Setting::Absent => self.own_names(problems)?,
            Setting::Given(written, span) => self.written_names(written, span, problems),
        };
        self.report_unprovable(&names, problems);
        let contact = match self.acme {
            RawAcme::Contact(contact) => Some(contact.clone()),
            RawAcme::Flag(_) => self.process.email.clone(),
        };
        Some(AcmeRequest {
            contact,
            names,
            profile: self.raw.profile.given().cloned(),
            fallback: self.raw.fallback.or_empty(),
        })
    }

    /// Each name of `tls.names` once.
    fn written_names(
        &self,
        written: &[Spanned<CertifiedName>],
        span: &Span,
        problems: &mut Problems,
    ) -> Vec<CertifiedName> {
        let source = &self.file.source;
        if written.is_empty() {
            let help = "leave the key out for the domain and its aliases";
            problems.push(Problem::at(source, span, "`tls.names` is empty", help));
        }
        let mut names: Vec<CertifiedName> = Vec::new();
        for name in written {
            if !names.contains(name.get_ref()) {
                names.push(name.get_ref().clone());
            }
        }
        let hosts =
            std::iter::once(self.domain).chain(self.aliases.iter().map(|alias| &alias.host));
        for host in hosts.filter(|host| !names.iter().any(|name| name.covers(host))) {
            let message = format!("no name in `tls.names` covers `{host}`");
            problems.push(Problem::at(source, span, message, "add it").warning());
        }
        names
    }

    /// The domain and its aliases, without those that a public CA would refuse.
    fn own_names(&self, problems: &mut Problems) -> Option<Vec<CertifiedName>> {
        let mut authorities = self.process.acme.authorities.iter();
        let is_public_ca = authorities.any(|ca| ca.directory.is_public());
        let is_refused = |name: &HostName| is_public_ca && !name.is_public();
        if is_refused(self.domain) {
            let message = format!("no public CA certifies `{}`", self.domain);
            let help = "write internal = true in [tls], or name a CA of your own in moorgate.toml";
            let span = self.file.raw.domain.span()?;
            problems.push(Problem::at(&self.file.source, span, message, help));
            return None;
        }
        let mut names = vec![CertifiedName::Host(self.domain.clone())];
        for alias in self.aliases {
            let name = CertifiedName::Host(alias.host.clone());
            if !is_refused(&alias.host) && !names.contains(&name) {
                names.push(name);
            }
        }
        Some(names)
    }

    /// Reports the names that none of the challenges can prove.
    fn report_unprovable(&self, names: &[CertifiedName], problems: &mut Problems) {
        let challenges = &self.process.acme.challenges;
        let can_prove = |name| challenges.iter().any(|kind| kind.proves(name));
        for name in names.iter().filter(|name| !can_prove(name)) {
            let help = match name {
                CertifiedName::Wildcard(_) => {
                    "set `dns_command` in [acme] of moorgate.toml: a wildcard is proved by DNS"
                }
                CertifiedName::Host(_) => {
                    "allow \"tls-alpn-01\" or \"http-01\" in `challenges` of moorgate.toml"
                }
            };
            let message = format!("no challenge can prove `{name}`");
            let span = self.raw.names.span().or(self.raw.acme.span());
            problems.extend(span.map(|span| Problem::at(&self.file.source, span, message, help)));
        }
    }
}

const HELP: &str = "write acme = true, `certificate` and `key`, or internal = true, in [tls]";
