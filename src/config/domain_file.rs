//! Reads a domain file, the secrets that it names, and whether other files that it names exist.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::exposed;
use super::named_file::{groups, read_help, unreadable};
use super::problem::{Problem, Problems};
use super::raw::{self, RawDomain, RawUpstream, Setting};
use super::resolve::DomainFile;
use super::secret::RawSecret;
use super::source::{Source, open_regular};

/// What a domain file said when it was read.
#[derive(Debug, Default)]
pub(super) struct DomainReading {
    /// `None` for a file that cannot be read, or with a syntax error.
    pub(super) file: Option<Arc<DomainFile>>,
    /// All that is wrong with it and with the files that it names.
    pub(super) problems: Problems,
    /// The files that it names. A change of one of them may end a problem, or cause one.
    pub(super) named: Vec<PathBuf>,
    source: Option<Arc<Source>>,
    /// The problems of its text alone.
    syntax: Problems,
}

/// Reads a domain file. A text that is as it was `before` is not parsed again.
pub(super) fn read(path: &Path, before: Option<&DomainReading>) -> DomainReading {
    let source = match Source::read(path) {
        Ok(source) => source,
        Err(error) => {
            let mut problems = Problems::default();
            problems.push(unreadable(path, &error));
            return DomainReading {
                problems,
                ..DomainReading::default()
            };
        }
    };
    let same = before.filter(|before| {
        let text = before.source.as_ref().map(|source| source.text());
        text == Some(source.text())
    });
    let (source, parsed, syntax) = match same {
        Some(DomainReading {
            source: Some(source),
            file,
            syntax,
            ..
        }) => (
            source.clone(),
            file.as_ref().map(Parsed::Known),
            syntax.clone(),
        ),
        Some(_) | None => {
            let (source, mut syntax) = (Arc::new(source), Problems::default());
            let raw = raw::domain(&source, &mut syntax);
            (source, raw.map(|raw| Parsed::New(Box::new(raw))), syntax)
        }
    };
    let mut reading = DomainReading {
        problems: syntax.clone(),
        source: Some(source.clone()),
        syntax,
        ..DomainReading::default()
    };
    if let Some(parsed) = parsed {
        reading.named = named_files(&source, parsed.raw());
        reading.file = Some(checked(&source, parsed, &mut reading.problems));
    }
    reading
}

/// The settings of a file.
enum Parsed<'a> {
    New(Box<RawDomain>),
    Known(&'a Arc<DomainFile>),
}

impl Parsed<'_> {
    fn raw(&self) -> &RawDomain {
        match self {
            Self::New(raw) => raw,
            Self::Known(file) => &file.raw,
        }
    }
}

/// Checks the files that a domain file names.
fn checked(source: &Arc<Source>, parsed: Parsed<'_>, problems: &mut Problems) -> Arc<DomainFile> {
    let raw = parsed.raw();
    check_named_files(source, raw, problems);
    if let Some(tls) = raw.tls.given()
        && let Setting::Given(key, span) = &tls.key
    {
        exposed::warn_of_key(source, &source.beside(key), span, problems);
    }
    check_secrets(source, raw, problems);
    let groups = groups(source, &raw.rules, problems);
    let text =
        |groups: &Option<Arc<Source>>| groups.as_ref().map(|groups| groups.text().to_owned());
    let raw = match parsed {
        Parsed::Known(file) if text(&file.groups) == text(&groups) => return file.clone(),
        Parsed::Known(file) => file.raw.clone(),
        Parsed::New(raw) => *raw,
    };
    Arc::new(DomainFile {
        source: source.clone(),
        raw,
        groups,
    })
}

/// The paths of all files that a domain file names.
fn named_files(source: &Source, raw: &RawDomain) -> Vec<PathBuf> {
    let mut named = vec![&raw.rules.groups_file];
    if let Some(auth) = raw.auth.given() {
        named.push(&auth.htpasswd);
    }
    if let Some(tls) = raw.tls.given() {
        named.extend([&tls.certificate, &tls.key]);
    }
    let upstream = raw.upstream.given();
    named.extend(upstream.map(|upstream| &upstream.roots));
    let secrets = upstream.map(RawUpstream::secrets).unwrap_or_default();
    let login = upstream.and_then(|upstream| upstream.login.given());
    let account = login.map(|login| &login.service_account);
    let secrets = secrets.into_iter().map(|(_, secret)| secret).chain(account);
    let secrets = secrets.filter_map(|secret| secret.given()?.file());
    let named = named.into_iter().filter_map(|path| path.given());
    let named = named.map(PathBuf::as_path).chain(secrets);
    named.map(|path| source.beside(path)).collect()
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
