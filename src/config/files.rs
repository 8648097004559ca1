//! Reads the configuration directory: `moorgate.toml` with what it names, and the list of domain
//! files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use secrecy::{ExposeSecret, SecretString};

use super::domain_file;
use super::exposed;
use super::foreign;
use super::named_file::{groups, read_help, unreadable};
use super::problem::{Problem, Problems};
use super::raw::{self, DOMAIN_FILE, RawCa, Setting};
use super::resolve::{DomainFile, MainFile};
use super::snapshot::MAIN_FILE;
use super::source::{Source, open_regular};

/// The problem of a configuration directory that cannot be read.
pub(super) fn directory_problems(directory: &Path) -> Problems {
    let mut problems = Problems::default();
    if let Err(error) = std::fs::read_dir(directory) {
        let message = format!("the configuration directory cannot be read: {error}");
        problems.push(Problem::in_file(
            directory,
            message,
            "name the one that holds conf.d: `--config DIR`",
        ));
    }
    problems
}

/// Reads `moorgate.toml`; a missing file counts as an empty one.
pub(super) fn main_file(directory: &Path, problems: &mut Problems) -> MainFile {
    let path = directory.join(MAIN_FILE);
    let source = match Source::read(&path) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Source::new(path, String::new()),
        Err(error) => {
            problems.push(unreadable(&path, &error));
            // Not an empty file: it may have changed the defaults.
            return MainFile {
                raw: raw::RawMain::unknown(),
                source: Arc::new(Source::new(path, String::new())),
                bindings: Vec::new(),
                groups: None,
            };
        }
    };
    let source = Arc::new(source);
    let raw = raw::main(&source, problems);
    let bindings = raw.ca.given().into_iter().flatten();
    let bindings = bindings
        .map(|ca| binding(&source, ca.get_ref(), problems))
        .collect();
    let groups = groups(&source, &raw.rules, problems);
    MainFile {
        raw,
        source,
        bindings,
        groups,
    }
}

/// The files that `moorgate.toml` names.
pub(super) fn named_by_main(main: &MainFile) -> Vec<PathBuf> {
    let authorities = main.raw.ca.given().into_iter().flatten();
    let named = authorities.flat_map(|ca| {
        let ca = ca.get_ref();
        let secret = ca.eab_hmac_key.given().and_then(|secret| secret.file());
        let roots = ca.roots.given().map(PathBuf::as_path);
        secret.into_iter().chain(roots)
    });
    let groups = main.raw.rules.groups_file.given().map(PathBuf::as_path);
    let named = named.chain(groups);
    named.map(|path| main.source.beside(path)).collect()
}

/// Reads the key of an external account binding, and checks that the CA's `roots` are readable.
fn binding(source: &Arc<Source>, ca: &RawCa, problems: &mut Problems) -> Option<SecretString> {
    if let Setting::Given(written, span) = &ca.roots
        && let Err(error) = open_regular(&source.beside(written))
    {
        let help = "name a PEM file, or leave `roots` out for the system's";
        let message = format!(
            "`ca.roots` cannot be read: {}: {error}",
            source.beside(written).display()
        );
        problems.push(Problem::at(source, span, message, read_help(&error, help)));
    }
    let Setting::Given(secret, span) = &ca.eab_hmac_key else {
        return None;
    };
    exposed::warn_of_secret(source, "ca.eab_hmac_key", (secret, span), problems);
    let revealed = secret.reveal(|path| source.beside(path));
    let secret = revealed
        .map_err(|error| (error.to_string(), error.help()))
        .and_then(|secret| {
            // CAs print it with or without padding.
            let key = secret
                .expose_secret()
                .trim_end_matches('=')
                .replace('+', "-")
                .replace('/', "_");
            match BASE64_URL_SAFE_NO_PAD.decode(&key) {
                Ok(bytes) if bytes.len() >= 16 => Ok(SecretString::from(key)),
                Ok(_) | Err(_) => Err((
                    "is not a key in base64url".to_owned(),
                    "copy it again from the CA's page",
                )),
            }
        });
    secret
        .map_err(|(what, help)| {
            problems.push(Problem::at(
                source,
                span,
                format!("`ca.eab_hmac_key` {what}"),
                help,
            ));
        })
        .ok()
}

/// Reads the domain files, sorted by name, and reports those that cannot be read.
pub(super) fn domain_files(directory: &Path, problems: &mut Problems) -> Vec<Arc<DomainFile>> {
    let paths = domain_paths(directory, problems);
    let read = paths.iter().filter_map(|path| {
        let read = domain_file::read(path, None);
        problems.extend(read.problems);
        read.file
    });
    read.collect()
}

/// The paths of the domain files, sorted by name. Warns of files that look like some, and are none.
/// It is an error if there is none.
pub(super) fn domain_paths(directory: &Path, problems: &mut Problems) -> Vec<PathBuf> {
    let folder = domain_folder(directory);
    warn_of_misplaced(directory, problems);
    let paths = match list(&folder) {
        Ok(files) => {
            problems.extend(files.passed_over.iter().map(|path| passed_over(path)));
            files.domains
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems.push(unreadable(&folder, &error));
            return Vec::new();
        }
    };
    if paths.is_empty() {
        problems.push(Problem::in_file(
            &folder,
            "there is no domain",
            format!("write the first one, conf.d/registry.toml:\n{DOMAIN_FILE}"),
        ));
    }
    paths
}

/// The directory of the domain files.
pub(super) fn domain_folder(directory: &Path) -> PathBuf {
    directory.join("conf.d")
}

/// The warning about a file of another program.
fn passed_over(path: &Path) -> Problem {
    let message = "this file is passed over: only *.toml is read";
    let help = if is_of_caddy(path) {
        format!(
            "`moorgate import caddy {}` translates it; then move it away",
            path.display()
        )
    } else {
        format!(
            "move it away, and write what it says into a domain file, `{}`, which docs/configuration.md \
             explains",
            path.with_extension("toml").display()
        )
    };
    Problem::in_file(path, message, help).warning()
}

/// The files of a folder that matter, each list sorted.
#[derive(Default)]
pub(super) struct DomainFiles {
    pub(super) domains: Vec<PathBuf>,
    /// Those of other programs.
    passed_over: Vec<PathBuf>,
}

/// Lists `*.toml` without hidden files, which editors create beside the file that they write.
pub(super) fn list(folder: &Path) -> io::Result<DomainFiles> {
    let mut files = DomainFiles::default();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.domains.push(path);
        } else if foreign::is_passed_over(&path) {
            files.passed_over.push(path);
        }
    }
    files.domains.sort();
    files.passed_over.sort();
    Ok(files)
}

fn is_of_caddy(path: &Path) -> bool {
    Source::read(path).is_ok_and(|source| foreign::is_of_caddy(source.text()))
}

/// Warns of domain files beside `moorgate.toml` in place of `conf.d`.
fn warn_of_misplaced(directory: &Path, problems: &mut Problems) {
    let files = list(directory).unwrap_or_default().domains;
    let others = files.iter().filter(|path| !path.ends_with(MAIN_FILE));
    for source in others.filter_map(|path| Source::read(path).ok()) {
        if source.find(&["domain".to_owned()]).is_some() {
            let message = "this domain file is passed over: only those in conf.d are read";
            let help = format!("move it to {}", domain_folder(directory).display());
            problems.push(Problem::in_file(source.path(), message, help).warning());
        }
    }
}
