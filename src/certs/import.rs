//! Imports certificates with their keys and ACME accounts from another server, so that a switch to
//! moorgate orders nothing. Reads the files of the other server and changes none of them.

mod acme_sh;
mod caddy;
mod certbot;
mod keys;
mod known;
mod store;
#[cfg(test)]
mod tests;
mod traefik;

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::inspect::Rfc3339;
use crate::certs::state::paths::CaId;
use crate::config::acme::CertifiedName;
use crate::registry::host::HostName;
pub(crate) use keys::KeyFault;

/// A server or client whose files can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Caddy 0.x and 1.x.
    Caddy1,
    /// Caddy 2.
    Caddy2,
    /// certbot.
    Certbot,
    /// acme.sh.
    AcmeSh,
    /// Traefik 1 to 3.
    Traefik,
}

/// A domain of the configuration that certificates are imported for.
#[derive(Clone, Debug)]
pub(crate) struct ImportTarget {
    /// Its name, under which certificates are stored.
    pub domain: HostName,
    /// The names of its certificate.
    pub names: Vec<CertifiedName>,
}

/// What to import.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImportOptions<'a> {
    /// The directory of one of the tools, or one that contains it, or an `acme.json`.
    pub from: &'a Path,
    /// The directory `state`.
    pub state: &'a Path,
    /// Certificates of other names are not imported.
    pub targets: &'a [ImportTarget],
    /// The domains of the configuration that use no ACME CA, for the messages about skipped items.
    pub others: &'a [HostName],
    /// The CAs that the configuration names.
    pub authorities: &'a [CaId],
    /// The CA of items that do not name their CA.
    pub ca: Option<&'a CaId>,
    /// Write nothing, only report.
    pub dry_run: bool,
    pub now: SystemTime,
}

/// An item that was found, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImportedItem {
    /// Where it was found.
    pub from: PathBuf,
    /// The name of the domain, or the URL of the account.
    pub what: String,
    pub outcome: ImportOutcome,
}

/// The outcome for one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImportOutcome {
    /// Imported, or importable in a dry run; with remarks for the administrator.
    Imported(Vec<String>),
    /// The stored item is as good or newer.
    Unchanged,
    /// The item cannot be used; the reason.
    Skipped(String),
    /// The item could not be written; the reason.
    Failed(String),
}

impl ImportedItem {
    /// A line for people. Of a dry run, it tells what would be done.
    pub(crate) fn line(&self, dry_run: bool) -> String {
        let Self {
            from,
            what,
            outcome,
        } = self;
        let text = match outcome {
            ImportOutcome::Imported(notes) => {
                let verb = if dry_run { "would import" } else { "imported " };
                let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
                format!("{verb} {what}{notes}")
            }
            ImportOutcome::Unchanged => {
                format!("kept      {what}: what is below `state` is as good or better")
            }
            ImportOutcome::Skipped(why) => format!("skipped   {what}: {why}"),
            ImportOutcome::Failed(why) => format!("FAILED    {what}: {why}"),
        };
        format!("{text}  ({})", from.display())
    }
}

/// Why there is nothing to import.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("there is no {}", .0.display())]
    Missing(PathBuf),
    #[error("{0}{help}", help = cure(.0))]
    Unreadable(SourceFileError),
    /// No files of a known tool were found.
    #[error(
        "found no certificates of Caddy, certbot, acme.sh or Traefik in {}: name the directory that holds them, \
         like ~/.caddy, ~/.local/share/caddy, /etc/letsencrypt or ~/.acme.sh, or Traefik's acme.json",
        .0.display()
    )]
    NothingFound(PathBuf),
}

fn cure(error: &SourceFileError) -> &'static str {
    match error {
        SourceFileError::Unreadable { source, .. }
            if source.kind() == ErrorKind::PermissionDenied =>
        {
            ": run this as root or as the owner of these files; what root imports belongs to the owner of `state`"
        }
        _ => "",
    }
}

/// Why a file of another tool cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceFileError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is too large to be what it should be", .0.display())]
    TooLarge(PathBuf),
    #[error("{} is not JSON: {source}", path.display())]
    NotJson {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// Imports all usable items and returns the outcome of each.
pub(crate) fn import(options: ImportOptions<'_>) -> Result<Vec<ImportedItem>, ImportError> {
    let mut found = FoundFiles::default();
    if let Err(source) = std::fs::metadata(options.from) {
        let path = options.from.to_owned();
        return Err(match source.kind() {
            ErrorKind::NotFound => ImportError::Missing(path),
            _ => ImportError::Unreadable(SourceFileError::Unreadable { path, source }),
        });
    }
    for place in places(options.from, &mut found) {
        let read = [
            caddy::read_v1,
            caddy::read_v2,
            certbot::read_certbot,
            acme_sh::read_acme_sh,
            traefik::read_traefik,
        ];
        read.iter().for_each(|read| read(&place, &mut found));
    }
    let FoundFiles {
        certificates,
        accounts,
        tools,
        mut unusable,
        unreadable,
    } = found;
    if tools.is_empty() {
        return Err(match unreadable.into_iter().next() {
            Some((path, source)) => {
                ImportError::Unreadable(SourceFileError::Unreadable { path, source })
            }
            None => ImportError::NothingFound(options.from.to_owned()),
        });
    }
    let mut lines = store::certificates(certificates, &options);
    lines.extend(store::accounts(accounts, &options));
    lines.append(&mut unusable);
    lines.extend(unreadable.into_iter().map(|(path, error)| ImportedItem {
        what: file_name(&path),
        outcome: ImportOutcome::Failed(format!("it cannot be read: {error}")),
        from: path,
    }));
    Ok(lines)
}

/// The paths below `from` at which tools store their files, `from` included.
fn places(from: &Path, found: &mut FoundFiles) -> Vec<PathBuf> {
    let below = [
        "",
        ".caddy",
        "caddy",
        ".local/share/caddy",
        "data/caddy",
        "letsencrypt",
        "etc/letsencrypt",
        ".acme.sh",
        "acme.sh",
        "acme.json",
    ];
    let mut places: Vec<PathBuf> = Vec::new();
    for path in below.iter().map(|name| {
        if name.is_empty() {
            from.to_owned()
        } else {
            from.join(name)
        }
    }) {
        // Symbolic links may lead to the same path twice.
        let Some(path) = found.there(&path, path.canonicalize()) else {
            continue;
        };
        if !places.contains(&path) {
            places.push(path);
        }
    }
    places
}

/// The items found at all paths.
#[derive(Default)]
struct FoundFiles {
    tools: Vec<Tool>,
    certificates: Vec<FoundCertificate>,
    accounts: Vec<FoundAccount>,
    unusable: Vec<ImportedItem>,
    /// What this user may not read, or what fails to be read, so that nobody takes it for missing.
    unreadable: BTreeMap<PathBuf, std::io::Error>,
}

/// A certificate as stored by another tool.
struct FoundCertificate {
    /// The path for messages.
    from: PathBuf,
    /// Its name in the other tool.
    name: String,
    ca: Option<CaId>,
    /// PEM, leaf first.
    chain: Vec<u8>,
    /// PEM.
    key: Vec<u8>,
}

/// An account as stored by another tool.
struct FoundAccount {
    /// The path for messages.
    from: PathBuf,
    ca: Option<CaId>,
    url: Option<String>,
    contacts: Vec<String>,
    /// PKCS#8 in PEM, if it is an ECDSA P-256 key.
    key: Result<String, KeyFault>,
    /// When it was last modified: of several accounts at a CA, the newest is imported.
    changed: Option<SystemTime>,
}

impl FoundFiles {
    /// What was read of a path; `None` if there is nothing. Records other errors.
    fn there<T>(&mut self, path: &Path, read: std::io::Result<T>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                None
            }
            Err(error) => {
                self.unreadable.insert(path.to_owned(), error);
                None
            }
        }
    }

    fn is_file(&mut self, path: &Path) -> bool {
        self.there(path, std::fs::metadata(path))
            .is_some_and(|data| data.is_file())
    }

    fn is_directory(&mut self, path: &Path) -> bool {
        self.there(path, std::fs::metadata(path))
            .is_some_and(|data| data.is_dir())
    }

    /// The entries of a directory, sorted by name; none if there is no directory.
    fn entries(&mut self, path: &Path) -> Vec<PathBuf> {
        let read = || -> std::io::Result<Vec<PathBuf>> {
            std::fs::read_dir(path)?
                .map(|entry| Ok(entry?.path()))
                .collect()
        };
        let mut all = self.there(path, read()).unwrap_or_default();
        all.sort();
        all
    }

    /// The subdirectories, sorted by name.
    fn directories(&mut self, path: &Path) -> Vec<PathBuf> {
        let mut all = self.entries(path);
        all.retain(|path| self.is_directory(path));
        all
    }

    /// The content of a file that may be missing.
    fn content(&mut self, path: &Path) -> Option<Vec<u8>> {
        match read(path) {
            Ok(content) => Some(content),
            Err(SourceFileError::Unreadable { path, source }) => self.there(&path, Err(source)),
            Err(_) => None,
        }
    }

    fn tool(&mut self, tool: Tool) {
        self.tools.push(tool);
    }

    /// Adds a certificate in two files.
    fn pair(&mut self, name: &str, ca: Option<CaId>, chain: &Path, key: &Path) {
        match (read(chain), read(key)) {
            (Ok(chain_pem), Ok(key_pem)) => self.certificates.push(FoundCertificate {
                from: chain.to_owned(),
                name: name.to_owned(),
                ca,
                chain: chain_pem,
                key: key_pem,
            }),
            (Err(error), _) | (_, Err(error)) => self.unusable(name, chain, &error),
        }
    }

    /// Adds what a file that cannot be used is about. One that cannot be read is a failure: whoever
    /// may read it can import it.
    fn unusable(&mut self, what: &str, from: &Path, error: &SourceFileError) {
        let outcome = match error {
            SourceFileError::Unreadable { source, .. } if source.kind() != ErrorKind::NotFound => {
                ImportOutcome::Failed(error.to_string())
            }
            _ => ImportOutcome::Skipped(error.to_string()),
        };
        self.unusable.push(ImportedItem {
            from: from.to_owned(),
            what: what.to_owned(),
            outcome,
        });
    }

    fn skip(&mut self, what: &str, from: &Path, reason: impl fmt::Display) {
        self.unusable.push(ImportedItem {
            from: from.to_owned(),
            what: what.to_owned(),
            outcome: ImportOutcome::Skipped(reason.to_string()),
        });
    }
}

/// Reads a file of another tool, up to [`MAX_FILE_BYTES`].
fn read(path: &Path) -> Result<Vec<u8>, SourceFileError> {
    let unreadable = |source| SourceFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(SourceFileError::TooLarge(path.to_owned()));
    }
    std::fs::read(path).map_err(unreadable)
}

fn read_json(path: &Path) -> Result<serde_json::Value, SourceFileError> {
    serde_json::from_slice(&read(path)?).map_err(|source| SourceFileError::NotJson {
        path: path.to_owned(),
        source,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|data| data.modified())
        .ok()
}

fn until(at: SystemTime) -> String {
    format!("until {}", Rfc3339(at))
}

/// Traefik stores everything in one file.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
