//! Translates Caddyfiles of version 1 and 2 into domain files, htpasswd files and a report of what
//! became of each directive. Nothing becomes more open than it was: what no setting or access rule
//! can say is closed until somebody has decided.

mod address;
mod authority;
mod command_line;
mod context;
mod dialect;
mod differences;
mod domain;
mod expansion;
pub(crate) mod files;
mod headers;
mod lexer;
mod parser;
mod placement;
mod position;
pub(crate) mod report;
mod scope;
mod site;
mod users;
mod v1;
mod v2;
mod values;
pub(crate) mod variables;
mod write;

use std::path::{Path, PathBuf};

use self::address::SiteAddress;
use self::context::SiteContext;
use self::dialect::{UnknownVersion, VersionMarks};
use self::domain::OutputFile;
use self::expansion::{ExpandedFile, ReadContext, SiteBlock};
use self::files::Volumes;
pub use self::lexer::CaddyVersion;
use self::lexer::{CaddyToken, SyntaxError};
use self::placement::{HttpListening, PlacedSite, PlacementOptions};
use self::position::SourcePosition;
use self::report::{DirectiveOutcome, ImportReport};
use self::site::{ImportedProcess, ImportedSite};
use self::variables::Variables;
use self::write::WriteError;

/// What is imported, and where to.
#[derive(Debug)]
pub(crate) struct CaddyImport {
    pub(crate) files: Vec<PathBuf>,
    /// The directory of the new configuration.
    pub(crate) output: PathBuf,
    pub(crate) dry_run: bool,
    /// Told from the text if `None`.
    pub(crate) version: Option<CaddyVersion>,
    /// The flags that Caddy was started with.
    pub(crate) caddy_arguments: String,
    pub(crate) variables: Variables,
    pub(crate) volumes: Volumes,
    /// The name of a site without one.
    pub(crate) domain: Option<String>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaddyImportError {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error(transparent)]
    Version(#[from] UnknownVersion),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the system has no randomness for a salt")]
    NoRandomness,
}

/// Reads the files, and writes the configuration unless it is a dry run or the report has errors.
pub(crate) fn import(mut import: CaddyImport) -> Result<ImportReport, CaddyImportError> {
    let version = import.known_version()?;
    let mut report = ImportReport {
        version: if version == CaddyVersion::V1 { 1 } else { 2 },
        ..ImportReport::default()
    };
    let mut process = ImportedProcess::default();
    let (sites, local_certificates) = import.sites(version, &mut process, &mut report)?;
    let options = PlacementOptions {
        process: &process,
        domain: import.domain.as_deref(),
        local_certificates,
    };
    let placed = placement::place(&sites, &options, &mut report);
    for site in &placed {
        differences::report(site, version, &mut report);
    }
    let http = if process.no_http {
        HttpListening::Off
    } else {
        placement::plain_http(&sites, &placed, version)
    };
    let mut outputs = domain::process_files(&process, report.version, http);
    for site in &placed {
        outputs.extend(domain::files(site, report.version).ok_or(CaddyImportError::NoRandomness)?);
    }
    import.report_unset(&mut report);
    report
        .directives
        .sort_by(|one, other| one.at.cmp(&other.at));
    import.finish(&outputs, &placed, &mut report)?;
    Ok(report)
}

impl CaddyImport {
    fn known_version(&mut self) -> Result<CaddyVersion, CaddyImportError> {
        if let Some(version) = self.version {
            return Ok(version);
        }
        let mut marks = VersionMarks::default();
        let mut first_error = None;
        for file in self.files.clone() {
            // Either grammar reads the names of directives, unless the other one has what it refuses.
            let read = self.read(&file, CaddyVersion::V2);
            match read.or_else(|error| self.read(&file, CaddyVersion::V1).map_err(|_| error)) {
                Ok(read) => marks.collect(&read),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        self.variables.forget_unset();
        if let Some(error) = first_error {
            return Err(error.into());
        }
        Ok(marks.version()?)
    }

    fn read(&mut self, file: &Path, version: CaddyVersion) -> Result<ExpandedFile, SyntaxError> {
        let context = ReadContext {
            version,
            variables: &mut self.variables,
            volumes: &self.volumes,
            follows_imports: true,
        };
        expansion::read(file, context)
    }

    /// All sites, and whether their certificates are from an internal CA.
    fn sites(
        &mut self,
        version: CaddyVersion,
        process: &mut ImportedProcess,
        report: &mut ImportReport,
    ) -> Result<(Vec<ImportedSite>, bool), CaddyImportError> {
        let mut read = Vec::new();
        for file in self.files.clone() {
            read.push(self.read(&file, version)?);
        }
        let local_certificates = self.options(&read, process, report);
        let mut sites = Vec::new();
        for file in &read {
            for path in &file.files {
                report.read.push(path.display().to_string());
            }
            for import in &file.empty_imports {
                report.add(import, DirectiveOutcome::Dropped, "no file matches");
            }
            for block in &file.sites {
                sites.extend(self.site(block, version, process, report));
            }
        }
        Ok((sites, local_certificates))
    }

    fn site(
        &mut self,
        block: &SiteBlock,
        version: CaddyVersion,
        process: &mut ImportedProcess,
        report: &mut ImportReport,
    ) -> Option<ImportedSite> {
        let mut site = empty_site(block, version, report)?;
        let mut context = SiteContext {
            site: &mut site,
            process,
            report,
            variables: &mut self.variables,
            volumes: &self.volumes,
        };
        match version {
            CaddyVersion::V1 => v1::site(&block.directives, &mut context),
            CaddyVersion::V2 => v2::site(&block.directives, &mut context),
        }
        finish_access(&mut site, version, report);
        Some(site)
    }

    /// The command line and the global options.
    fn options(
        &mut self,
        read: &[ExpandedFile],
        process: &mut ImportedProcess,
        report: &mut ImportReport,
    ) -> bool {
        let start = SourcePosition {
            file: Path::new("").into(),
            line: 1,
            column: 1,
        };
        let mut scratch = ImportedSite::new(start, Vec::new());
        let mut context = SiteContext {
            site: &mut scratch,
            process,
            report,
            variables: &mut self.variables,
            volumes: &self.volumes,
        };
        command_line::translate(&self.caddy_arguments, &mut context);
        let mut local_certificates = false;
        for file in read {
            let choices = v2::options::translate(&file.options, &mut context);
            local_certificates |= choices.local_certificates;
        }
        local_certificates
    }

    fn report_unset(&self, report: &mut ImportReport) {
        for (name, at) in self.variables.unset() {
            let text =
                format!("is not set here, and so it is empty: give it by --env {name}=VALUE");
            let shown = report::one_line(&format!("${name}"));
            report.add_at(
                at,
                shown,
                DirectiveOutcome::Decision,
                report::one_line(&text),
            );
        }
    }

    /// Checks and writes the files.
    fn finish(
        &self,
        outputs: &[OutputFile],
        placed: &[PlacedSite<'_>],
        report: &mut ImportReport,
    ) -> Result<(), CaddyImportError> {
        if report.count(DirectiveOutcome::Error) > 0 || placed.is_empty() {
            return Ok(());
        }
        write::refuse_existing(outputs, &self.output)?;
        let (problems, has_errors) = write::check(outputs)?;
        report.problems = problems;
        report.has_check_errors = has_errors;
        if !self.dry_run {
            write::write(outputs, &self.output)?;
        }
        let paths = outputs.iter().map(|file| self.output.join(&file.path));
        report.files = paths.map(|path| path.display().to_string()).collect();
        report.next_steps = next_steps(&self.output, placed);
        Ok(())
    }
}

fn empty_site(
    block: &SiteBlock,
    version: CaddyVersion,
    report: &mut ImportReport,
) -> Option<ImportedSite> {
    let parse: fn(&CaddyToken) -> Option<SiteAddress> = match version {
        CaddyVersion::V1 => v1::address,
        CaddyVersion::V2 => v2::address,
    };
    let Some(first) = block.addresses.first() else {
        let text =
            "this site has no address: perhaps a variable of the environment is not set here";
        report.add_at(&block.at, "site", DirectiveOutcome::Error, text);
        return None;
    };
    let mut addresses = Vec::new();
    for token in &block.addresses {
        match parse(token) {
            Some(address) => addresses.push(address),
            None => {
                let shown = report::one_line(&token.text);
                report.add_at(
                    &token.at,
                    shown,
                    DirectiveOutcome::Error,
                    "this is no address of a site",
                );
            }
        }
    }
    (!addresses.is_empty()).then(|| ImportedSite::new(first.at.clone(), addresses))
}

/// What only the whole site tells.
fn finish_access(site: &mut ImportedSite, version: CaddyVersion, report: &mut ImportReport) {
    if site.realm.is_none() && !site.access.users.is_empty() {
        let realm = match version {
            CaddyVersion::V1 => "Restricted",
            CaddyVersion::V2 => "restricted",
        };
        site.realm = Some(realm.to_owned());
    }
    // In a rule, these names would stand for others.
    let is_pattern = |name: &String| name.contains('*') || name.starts_with('@');
    let patterns = ["*".to_owned(), "@authenticated".to_owned()];
    let rules = &site.access.rules;
    let odd = rules.iter().flat_map(|rule| &rule.users);
    let odd = odd.filter(|name| is_pattern(name) && !patterns.contains(name));
    if odd.count() > 0 {
        let text = "a user's name has a `*` or begins with `@`, which rules take for several users: until it is decided, \
                    nobody gets in";
        report.add_at(&site.at, "users", DirectiveOutcome::Decision, text);
        site.access
            .close("a user's name that rules take for several users");
    }
    let named_star = site.access.users.iter().any(|user| is_pattern(&user.name));
    if named_star && !site.access.rules.is_empty() {
        site.access
            .close("a user's name that rules take for several users");
    }
}

fn next_steps(output: &Path, placed: &[PlacedSite<'_>]) -> Vec<String> {
    let config = output.display();
    let has_acme = placed
        .iter()
        .any(|site| matches!(site.certificate, site::SiteCertificate::Acme { .. }));
    let mut steps = vec![format!(
        "read the decisions above, then: moorgate check --config {config}"
    )];
    if has_acme {
        steps.push(format!(
            "take over certificates and account: moorgate certs import CADDY-DATA --config {config}"
        ));
    }
    if rustix::process::geteuid().is_root() {
        steps.push(format!(
            "let the service's user read the passwords: chown -R moorgate: {config}/credentials"
        ));
    }
    steps.push(format!("stop Caddy, then: moorgate run --config {config}"));
    steps
}

/// Translates a text without imports, and returns whether it is a Caddyfile: for tests and fuzzing.
pub fn is_understood(text: &str, version: CaddyVersion) -> bool {
    let mut import = CaddyImport {
        files: Vec::new(),
        output: PathBuf::new(),
        dry_run: true,
        version: Some(version),
        caddy_arguments: String::new(),
        variables: Variables::default(),
        volumes: Volumes::default(),
        domain: None,
    };
    let context = ReadContext {
        version,
        variables: &mut import.variables,
        volumes: &import.volumes,
        follows_imports: false,
    };
    let Ok(file) = expansion::of_text(text, context) else {
        return false;
    };
    let (mut process, mut report) = (ImportedProcess::default(), ImportReport::default());
    let read = [file];
    let local_certificates = import.options(&read, &mut process, &mut report);
    let blocks = read.iter().flat_map(|file| &file.sites);
    let sites: Vec<_> = blocks
        .filter_map(|block| import.site(block, version, &mut process, &mut report))
        .collect();
    let options = PlacementOptions {
        process: &process,
        domain: None,
        local_certificates,
    };
    placement::place(&sites, &options, &mut report);
    report.count(DirectiveOutcome::Error) == 0
}

#[cfg(test)]
mod tests;
