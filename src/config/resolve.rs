//! Checks the settings of all files together: defaults, settings that require or exclude each
//! other, conflicts of names and listeners. Pure: everything was read before.

mod access;
mod acme;
mod conflicts;
mod domain;
mod loops;
mod process;
mod tls;
mod upstream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use self::process::Process;
use super::problem::{Problem, Problems};
use super::raw::{List, RawDomain, RawMain};
use super::snapshot::{Snapshot, WrittenListener};
use super::source::{Source, Span};
use super::vhost::ListenAddress;

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

impl DomainFile {
    /// The problem of a missing key: at the table that lacks it, or of the file where the table is
    /// missing as well.
    fn missing(&self, table: Option<&Span>, message: &str, help: &str) -> Problem {
        match table {
            Some(span) => Problem::at(&self.source, span, message, help),
            None => Problem::in_file(self.source.path(), message, help),
        }
    }
}

/// The configuration, if all domains could be built. `problems` decide whether it may be used.
pub(super) fn snapshot(
    directory: &Path,
    main: &MainFile,
    domains: &[DomainFile],
    problems: &mut Problems,
) -> Option<Snapshot> {
    let process = Process::resolve(main, directory, problems);
    let mut listeners = Vec::new();
    let mut hosts = Vec::new();
    for file in domains {
        let listen = listen(file, &process, problems);
        hosts
            .push(domain::virtual_host(file, &listen, directory, &process, problems).map(Arc::new));
        listeners.push(listen);
    }
    conflicts::names(domains, &listeners, problems);
    conflicts::listeners(&listeners, &process, problems);
    conflicts::stores(domains, problems);
    access::warn_about_shared(
        main,
        domains,
        &process.rules,
        &process.trusted_proxies,
        problems,
    );
    loops::upstreams(domains, &listeners, &process, problems);

    let written_listeners = listeners
        .iter()
        .flatten()
        .chain(&process.http)
        .chain(&process.admin)
        .filter_map(RequestedListener::written)
        .collect();
    Some(Snapshot {
        directory: directory.to_owned(),
        state: process.state,
        written_listeners,
        https: addresses(&listeners),
        http: process
            .http
            .iter()
            .map(|listener| listener.address)
            .collect(),
        domains: hosts.into_iter().collect::<Option<_>>()?,
        shared_users: process.rules.into_written(),
        acme: process.acme,
        admin: process.admin.map(|listener| listener.address.0),
        trusted_proxies: process.trusted_proxies,
        failures: process.failures,
        log: process.log,
        connection: process.connection,
    })
}

/// All addresses of domains, each once, in order of first mention.
fn addresses(listeners: &[Vec<RequestedListener>]) -> Vec<ListenAddress> {
    let mut addresses = Vec::new();
    for listener in listeners.iter().flatten() {
        if !addresses.contains(&listener.address) {
            addresses.push(listener.address);
        }
    }
    addresses
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
