//! Reads the configuration directory: its files, the secrets that they name, and whether other
//! files that they name exist.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use secrecy::{ExposeSecret, SecretString};

use super::exposed;
use super::foreign;
use super::problem::{Problem, Problems};
use super::raw::access::RawRules;
use super::raw::{self, DOMAIN_FILE, RawCa, RawDomain, Setting};
use super::resolve::{DomainFile, MainFile};
use super::secret::RawSecret;
use super::source::{Source, open_regular};

/// Reads `moorgate.toml`; a missing file counts as an empty one.
pub(super) fn main_file(directory: &Path, problems: &mut Problems) -> MainFile {
    let path = directory.join("moorgate.toml");
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
pub(super) fn domain_files(directory: &Path, problems: &mut Problems) -> Vec<DomainFile> {
    let folder = directory.join("conf.d");
    warn_of_misplaced(directory, problems);
    let paths = match list(&folder) {
        Ok(files) => {
            for path in &files.passed_over {
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
                problems.push(Problem::in_file(path, message, help).warning());
            }
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
        .iter()
        .filter_map(|path| domain_file(path, problems))
        .collect()
}

fn domain_file(path: &Path, problems: &mut Problems) -> Option<DomainFile> {
    let source = match Source::read(path) {
        Ok(source) => Arc::new(source),
        Err(error) => {
            problems.push(unreadable(path, &error));
            return None;
        }
    };
    let raw = raw::domain(&source, problems)?;
    check_named_files(&source, &raw, problems);
    if let Some(tls) = raw.tls.given()
        && let Setting::Given(key, span) = &tls.key
    {
        exposed::warn_of_key(&source, &source.beside(key), span, problems);
    }
    check_secrets(&source, &raw, problems);
    let groups = groups(&source, &raw.rules, problems);
    Some(DomainFile {
        source,
        raw,
        groups,
    })
}

/// Checks that the secrets of `[upstream]` can be read, and only by those who should.
fn check_secrets(source: &Arc<Source>, raw: &RawDomain, problems: &mut Problems) {
    let Some(upstream) = raw.upstream.given() else {
        return;
    };
    let mut check = |key: &str, setting: &Setting<RawSecret>, is_whole: bool| {
        let Setting::Given(secret, span) = setting else {
            return;
        };
        exposed::warn_of_secret(source, key, (secret, span), problems);
        let secret = secret.source(|path| source.beside(path));
        let read = if is_whole {
            secret.read_whole()
        } else {
            secret.read()
        };
        if let Err(error) = read {
            let message = format!("`{key}` {error}");
            problems.push(Problem::at(source, span, message, error.help()));
        }
    };
    for (key, setting) in upstream.secrets() {
        check(key, setting, false);
    }
    if let Some(login) = upstream.login.given() {
        check(
            "upstream.login.service_account",
            &login.service_account,
            true,
        );
    }
}

/// Reads the file that `groups_file` names.
fn groups(source: &Arc<Source>, raw: &RawRules, problems: &mut Problems) -> Option<Arc<Source>> {
    let (written, span) = raw.groups_file.given().zip(raw.groups_file.span())?;
    let path = source.beside(written);
    match Source::read(&path) {
        Ok(groups) => Some(Arc::new(groups)),
        Err(error) => {
            let message = format!("`groups_file` cannot be read: {}: {error}", path.display());
            let help = "name a file of lines like `devs: alice bob`";
            problems.push(Problem::at(source, span, message, read_help(&error, help)));
            None
        }
    }
}

/// The files of a folder that matter, each list sorted.
#[derive(Default)]
struct DomainFiles {
    domains: Vec<PathBuf>,
    /// Those of other programs.
    passed_over: Vec<PathBuf>,
}

/// Lists `*.toml` without hidden files, which editors create beside the file that they write.
fn list(folder: &Path) -> io::Result<DomainFiles> {
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
    let others = files.iter().filter(|path| !path.ends_with("moorgate.toml"));
    for source in others.filter_map(|path| Source::read(path).ok()) {
        if source.find(&["domain".to_owned()]).is_some() {
            let message = "this domain file is passed over: only those in conf.d are read";
            let help = format!("move it to {}", directory.join("conf.d").display());
            problems.push(Problem::in_file(source.path(), message, help).warning());
        }
    }
}

/// Checks that named files are readable: a missing htpasswd file would leave its domain without
/// users, and missing roots would leave an upstream without trust anchors. A missing certificate is
/// reported with what else may be wrong with one, since it must not stop other domains.
fn check_named_files(source: &Arc<Source>, raw: &RawDomain, problems: &mut Problems) {
    let mut check = |key: &str, setting: &Setting<PathBuf>, help: &'static str| {
        let Setting::Given(written, span) = setting else {
            return;
        };
        let path = source.beside(written);
        let Err(error) = open_regular(&path) else {
            return;
        };
        let message = format!("`{key}` cannot be read: {}: {error}", path.display());
        problems.push(Problem::at(source, span, message, read_help(&error, help)));
    };
    if let Some(auth) = raw.auth.given() {
        let help = "`moorgate htpasswd FILE USER` makes it; a relative path starts at the file that names it";
        check("auth.htpasswd", &auth.htpasswd, help);
    }
    if let Some(upstream) = raw.upstream.given() {
        let help = "name a PEM file, or leave `roots` out for the system's";
        check("upstream.roots", &upstream.roots, help);
    }
}

/// What to do about a file that is there for others, or else `help`.
fn read_help(error: &io::Error, help: &'static str) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => PERMISSION_HELP,
        _ => help,
    }
}

pub(super) const PERMISSION_HELP: &str =
    "let moorgate's user read it and enter the directories above it: `chmod`, `chown`";

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => PERMISSION_HELP,
        io::ErrorKind::InvalidData => "write it in UTF-8",
        io::ErrorKind::NotADirectory
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::IsADirectory => "put a regular file there, or move it away",
        _ => "correct what the system reports, then check again",
    };
    Problem::in_file(path, format!("cannot be read: {error}"), help)
}
