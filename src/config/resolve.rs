//! Checks the settings of all files together: defaults, settings that require or exclude each
//! other, conflicts of names and listeners. Pure: everything was read before.

mod access;
mod acme;
mod conflicts;
mod domain;
mod lists;
mod loops;
mod process;
mod retention;
mod tls;
mod upstream;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use self::process::Process;
use super::access::RuleLocation;
use super::problem::{Problem, Problems};
use super::raw::{List, RawDomain, RawMain};
use super::snapshot::{LogSettings, Snapshot, WrittenListener};
use super::source::{Source, Span};
use super::vhost::{ListenAddress, SharedVirtualHost};
use crate::registry::host::HostName;

/// `moorgate.toml`; an empty text if there is none.
#[derive(Debug)]
pub(super) struct MainFile {
    pub(super) source: Arc<Source>,
    pub(super) raw: RawMain,
    /// The secret of each `[[ca]]`; `None` without `eab_hmac_key`, or if it cannot be read, which is
    /// already reported.
    pub(super) bindings: Vec<Option<SecretString>>,
    /// The text of `groups_file`; `None` without one, or if it cannot be read, which is already
    /// reported.
    pub(super) groups: Option<Arc<Source>>,
}

/// A domain file with valid syntax.
#[derive(Debug)]
pub(super) struct DomainFile {
    pub(super) source: Arc<Source>,
    pub(super) raw: RawDomain,
    /// The text of `groups_file`; `None` without one, or if it cannot be read, which is already
    /// reported.
    pub(super) groups: Option<Arc<Source>>,
}

impl MainFile {
    /// Whether it says the same, with all that is read from the files that it names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let secrets = |file: &Self| -> Vec<Option<String>> {
            let bindings = file.bindings.iter();
            let exposed = |secret: &SecretString| secret.expose_secret().to_owned();
            bindings
                .map(|secret| secret.as_ref().map(exposed))
                .collect()
        };
        let groups = |file: &Self| file.groups.as_ref().map(|groups| groups.text().to_owned());
        self.source.text() == other.source.text()
            && groups(self) == groups(other)
            && secrets(self) == secrets(other)
    }
}

impl DomainFile {
    /// The name of the domain, if it is valid.
    pub(super) fn name(&self) -> Option<&HostName> {
        self.raw.domain.given()
    }

    /// The problem of a missing key: at the table that lacks it, or of the file where the table is
    /// missing as well.
    fn missing(&self, table: Option<&Span>, message: &str, help: &str) -> Problem {
        match table {
            Some(span) => Problem::at(&self.source, span, message, help),
            None => Problem::in_file(self.source.path(), message, help),
        }
    }
}

/// Where a rule is. `directory` is the configuration directory.
fn rule_location(source: &Source, directory: &Path, rule: &Span) -> RuleLocation {
    let path = source.path();
    let (line, _) = source.position(rule.start);
    RuleLocation {
        file: path.strip_prefix(directory).unwrap_or(path).to_owned(),
        line,
    }
}

/// `moorgate.toml`, checked by itself.
#[derive(Debug)]
pub(super) struct ResolvedMain {
    pub(super) file: MainFile,
    process: Process,
    pub(super) problems: Problems,
}

impl ResolvedMain {
    pub(super) fn new(file: MainFile, directory: &Path) -> Self {
        let mut problems = Problems::default();
        let process = Process::resolve(&file, directory, &mut problems);
        Self {
            file,
            process,
            problems,
        }
    }

    pub(super) fn log_settings(&self) -> &LogSettings {
        &self.process.log
    }
}

/// A domain file, checked against `moorgate.toml` and not yet against other domains.
#[derive(Debug)]
pub(super) struct ResolvedDomain {
    pub(super) file: Arc<DomainFile>,
    listen: Vec<RequestedListener>,
    /// `None` after an error.
    pub(super) host: Option<SharedVirtualHost>,
    pub(super) problems: Problems,
}

impl ResolvedDomain {
    /// An unchanged host stays the one `before`, so that its live parts can.
    pub(super) fn new(
        file: Arc<DomainFile>,
        main: &ResolvedMain,
        directory: &Path,
        before: Option<&SharedVirtualHost>,
    ) -> Self {
        let mut problems = Problems::default();
        let listen = listen(&file, &main.process, &mut problems);
        let host = domain::virtual_host(&file, &listen, directory, &main.process, &mut problems);
        let host = host.map(|host| match before {
            Some(before) if **before == host => before.clone(),
            Some(_) | None => Arc::new(host),
        });
        Self {
            file,
            listen,
            host,
            problems,
        }
    }
}

/// Two files that exclude each other.
#[derive(Debug)]
pub(super) struct Conflict {
    /// At one of them.
    pub(super) problem: Problem,
    /// At the other one, unless that is a default.
    pub(super) opposite: Option<Problem>,
}

/// The conflicts between files.
pub(super) fn conflicts(domains: &[&ResolvedDomain], main: &ResolvedMain) -> Vec<Conflict> {
    let mut found = conflicts::names(domains);
    found.extend(conflicts::listeners(domains, &main.process));
    found.extend(conflicts::stores(domains));
    found
}

/// Adds what is only a warning, and only of all files together.
pub(super) fn warn(domains: &[&ResolvedDomain], main: &ResolvedMain, problems: &mut Problems) {
    let files: Vec<&DomainFile> = domains.iter().map(|domain| &*domain.file).collect();
    let process = &main.process;
    access::warn_about_shared(
        &main.file,
        &files,
        &process.rules,
        &process.trusted_proxies,
        problems,
    );
    loops::upstreams(domains, process, problems);
}

/// The configuration, if all domains could be built. `problems` decide whether it may be used.
pub(super) fn snapshot(
    directory: &Path,
    main: MainFile,
    domains: Vec<Arc<DomainFile>>,
    problems: &mut Problems,
) -> Option<Snapshot> {
    let mut main = ResolvedMain::new(main, directory);
    problems.extend(std::mem::take(&mut main.problems));
    let resolved = domains.into_iter().map(|file| {
        let mut resolved = ResolvedDomain::new(file, &main, directory, None);
        problems.extend(std::mem::take(&mut resolved.problems));
        resolved
    });
    let domains: Vec<_> = resolved.collect();
    let domains: Vec<_> = domains.iter().collect();
    let conflicts = conflicts(&domains, &main).into_iter();
    problems.extend(conflicts.map(|conflict| conflict.problem));
    warn(&domains, &main, problems);
    assemble(directory, &main, &domains)
}

/// The configuration of these files; `None` if one of them has an error.
pub(super) fn assemble(
    directory: &Path,
    main: &ResolvedMain,
    domains: &[&ResolvedDomain],
) -> Option<Snapshot> {
    let process = &main.process;
    let listeners = || domains.iter().flat_map(|domain| &domain.listen);
    let written_listeners = listeners()
        .chain(&process.http)
        .chain(&process.admin)
        .filter_map(RequestedListener::written)
        .collect();
    let hosts = domains.iter().map(|domain| domain.host.clone());
    Some(Snapshot {
        directory: directory.to_owned(),
        state: process.state.clone(),
        written_listeners,
        https: addresses(listeners()),
        http: addresses(process.http.iter()),
        domains: hosts.collect::<Option<_>>()?,
        shared_users: process.rules.written_users(),
        acme: process.acme.clone(),
        admin: process.admin.as_ref().map(|listener| listener.address.0),
        trusted_proxies: process.trusted_proxies.clone(),
        failures: process.failures,
        log: process.log.clone(),
        connection: process.connection,
    })
}

/// Each address once, in order of first mention.
fn addresses<'a>(listeners: impl Iterator<Item = &'a RequestedListener>) -> Vec<ListenAddress> {
    let mut known = HashSet::new();
    listeners
        .map(|listener| listener.address)
        .filter(|address| known.insert(*address))
        .collect()
}

/// The state directory alone; `None` if the setting is invalid.
pub(super) fn state(main: &MainFile) -> Option<PathBuf> {
    let is_wrong = main.raw.state.given().is_none() && !main.raw.state.is_absent();
    (!is_wrong).then(|| process::state(main))
}

/// An address and its position in a file; a default has none.
#[derive(Clone, Debug)]
struct RequestedListener {
    address: ListenAddress,
    written: Option<(Arc<Source>, Span)>,
}

impl RequestedListener {
    fn written(&self) -> Option<WrittenListener> {
        let (source, span) = self.written.as_ref()?;
        Some(WrittenListener {
            address: self.address,
            file: source.path().to_owned(),
            span: span.clone(),
        })
    }
}

/// The listeners of a domain.
fn listen(file: &DomainFile, process: &Process, problems: &mut Problems) -> Vec<RequestedListener> {
    if file.raw.listen.is_absent() {
        return process.https.clone();
    }
    if let Some(span) = file
        .raw
        .listen
        .span()
        .filter(|_| file.raw.listen.given().is_some_and(Vec::is_empty))
    {
        let help =
            "write an address, or leave the key out for the https listeners of moorgate.toml";
        problems.push(Problem::at(
            &file.source,
            span,
            "`listen` is empty: nobody could reach this domain",
            help,
        ));
    }
    written(&file.source, "listen", &file.raw.listen, problems)
}

/// The addresses of a list, each once.
fn written(
    source: &Arc<Source>,
    key: &str,
    list: &List<ListenAddress>,
    problems: &mut Problems,
) -> Vec<RequestedListener> {
    let mut listeners: Vec<RequestedListener> = Vec::new();
    for entry in list.given().into_iter().flatten() {
        let address = *entry.get_ref();
        if listeners.iter().any(|listener| listener.address == address) {
            let message = format!("`{key}` names `{address}` twice");
            problems.push(
                Problem::at(source, &entry.span(), message, "leave one of them out").warning(),
            );
            continue;
        }
        listeners.push(RequestedListener {
            address,
            written: Some((Arc::clone(source), entry.span())),
        });
    }
    listeners
}

#[cfg(test)]
mod tests;
