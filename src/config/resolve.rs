//! What the files mean together: defaults, settings that need or exclude each other, names and
//! listeners that collide. Pure: whatever it needs was read before.

mod access;
mod acme;
mod conflicts;
mod domain;
mod process;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use self::process::Process;
use super::problem::{Problem, Problems};
use super::raw::{List, RawDomain, RawMain};
use super::snapshot::Snapshot;
use super::source::{Source, Span};
use super::vhost::ListenAddress;

/// `moorgate.toml`, an empty text where there is none.
#[derive(Debug)]
pub(super) struct MainFile {
    pub(super) source: Arc<Source>,
    pub(super) raw: RawMain,
    /// The secrets that `eab_hmac_key` of each `[[ca]]` leads to; none where it is not written or
    /// cannot be had, which is noted already.
    pub(super) bindings: Vec<Option<SecretString>>,
}

/// A domain file whose syntax is right.
#[derive(Debug)]
pub(super) struct DomainFile {
    pub(super) source: Arc<Source>,
    pub(super) raw: RawDomain,
    /// The secret that `raw.upstream.password` leads to; none where it cannot be had, which is
    /// noted already.
    pub(super) password: Option<SecretString>,
    /// The text of `groups_file`; none where there is none or it cannot be read, which is noted
    /// already.
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

/// The whole configuration, where each domain could be made. Whether it may be used is for
/// `problems` to say.
pub(super) fn snapshot(
    directory: &Path,
    main: &MainFile,
    domains: &[DomainFile],
    problems: &mut Problems,
) -> Option<Snapshot> {
    let process = Process::resolve(main, problems);
    let mut listeners = Vec::new();
    let mut hosts = Vec::new();
    for file in domains {
        let listen = listen(file, &process, problems);
        hosts.push(
            domain::virtual_host(file, &listen, (directory, &process), problems).map(Arc::new),
        );
        listeners.push(listen);
    }
    conflicts::names(domains, &listeners, problems);
    conflicts::listeners(&listeners, &process, problems);
    conflicts::stores(domains, problems);

    let mut https: Vec<ListenAddress> = Vec::new();
    for listener in listeners.iter().flatten() {
        if !https.contains(&listener.address) {
            https.push(listener.address);
        }
    }
    Some(Snapshot {
        directory: directory.to_owned(),
        state: process.state,
        https,
        http: process
            .http
            .iter()
            .map(|listener| listener.address)
            .collect(),
        domains: hosts.into_iter().collect::<Option<_>>()?,
        acme: process.acme,
        admin: process.admin.map(|listener| listener.address.0),
        trusted_proxies: process.trusted_proxies,
        failures: process.failures,
        log: process.log,
        connection: process.connection,
    })
}

/// The state directory alone; none where what is written for it is wrong.
pub(super) fn state(main: &MainFile) -> Option<PathBuf> {
    let is_wrong = main.raw.state.given().is_none() && !main.raw.state.is_absent();
    (!is_wrong).then(|| process::state(main))
}

/// An address and where it is written; nowhere, if it is a default.
#[derive(Clone, Debug)]
struct RequestedListener {
    address: ListenAddress,
    written: Option<(Arc<Source>, Span)>,
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
