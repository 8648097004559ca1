//! Reads the configuration directory: the files, the secrets they name, and whether what else
//! they name is there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{Problem, Problems, Severity};
use super::raw::{self, RawDomain, Setting};
use super::resolve::{DomainFile, MainFile};
use super::source::{Source, open_regular};

/// `moorgate.toml`; as if it were empty where there is none.
pub(super) fn main_file(directory: &Path, problems: &mut Problems) -> MainFile {
    let path = directory.join("moorgate.toml");
    let source = match Source::read(&path) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Source::new(path, String::new()),
        Err(error) => {
            problems.push(unreadable(&path, &error));
            // Not an empty file: nothing may be derived from defaults that it may have changed.
            return MainFile {
                raw: raw::RawMain::unknown(),
                source: Arc::new(Source::new(path, String::new())),
            };
        }
    };
    let source = Arc::new(source);
    MainFile { raw: raw::main(&source, problems), source }
}

/// The domain files that can be read, in the order of their names.
pub(super) fn domain_files(directory: &Path, problems: &mut Problems) -> Vec<DomainFile> {
    let folder = directory.join("conf.d");
    let paths = match list(&folder) {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems.push(unreadable(&folder, &error));
            return Vec::new();
        }
    };
    if paths.is_empty() {
        problems.push(Problem::in_file(&folder, "there is no domain", FIRST_DOMAIN));
    }
    paths.iter().filter_map(|path| domain_file(path, problems)).collect()
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
    let password = raw.upstream.given().and_then(|upstream| match &upstream.password {
        Setting::Absent | Setting::Invalid => None,
        Setting::Given(secret, span) => match secret.reveal(|path| source.beside(path)) {
            Ok(secret) => Some(secret),
            Err(error) => {
                let message = format!("`upstream.password` {error}");
                problems.push(Problem::at(&source, span, message, error.help()));
                None
            }
        },
    });
    Some(DomainFile { source, raw, password })
}

/// `*.toml`, but no hidden files: editors leave such beside the file they write.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A certificate that is missing never stops another domain; a missing htpasswd would leave its
/// domain without users, and missing roots an upstream without trust.
fn check_named_files(source: &Arc<Source>, raw: &RawDomain, problems: &mut Problems) {
    let mut check = |key: &str, setting: &Setting<PathBuf>, severity: Severity, help: &str| {
        let Setting::Given(written, span) = setting else { return };
        let path = source.beside(written);
        let Err(error) = open_regular(&path) else { return };
        let message = format!("`{key}` cannot be read: {}: {error}", path.display());
        let problem = Problem::at(source, span, message, help);
        problems.push(match severity {
            Severity::Error => problem,
            Severity::Warning => problem.warning(),
        });
    };
    if let Some(auth) = raw.auth.given() {
        let help = "`moorgate htpasswd FILE USER` makes it; a relative path starts at the file that names it";
        check("auth.htpasswd", &auth.htpasswd, Severity::Error, help);
    }
    if let Some(tls) = raw.tls.given() {
        let help = "the domain has no certificate until the file is there and moorgate's user may read it";
        check("tls.certificate", &tls.certificate, Severity::Warning, help);
        check("tls.key", &tls.key, Severity::Warning, help);
    }
    if let Some(upstream) = raw.upstream.given() {
        let help = "name a PEM file that moorgate's user may read, or leave `roots` out for the system's";
        check("upstream.roots", &upstream.roots, Severity::Error, help);
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let help = "make it readable for moorgate's user, as UTF-8 text";
    Problem::in_file(path, format!("cannot be read: {error}"), help)
}

const FIRST_DOMAIN: &str = "write the first one, conf.d/registry.toml:
domain = \"registry.example.com\"
[tls]
internal = true
[auth]
htpasswd = \"../credentials/registry.htpasswd\"
[upstream]
url = \"http://registry:5000\"";
