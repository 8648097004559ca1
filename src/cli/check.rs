//! `moorgate check`: reports the problems of the configuration, or prints one line per domain.

mod upstreams;

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::admin::control;
use crate::app;
use crate::app::live::LiveOptions;
use crate::app::live::report::UpstreamReport;
use crate::certs::served;
use crate::config::Loaded;
use crate::config::problem::{Colour, Problem, ProblemSeverity, Problems};
use crate::config::snapshot::Snapshot;
use crate::config::upstream::UpstreamAuthorization;
use crate::config::vhost::{CertificateSource, ListenAddress, VirtualHost};
use crate::registry::name::RepositoryName;

/// How much is checked, and how it is told.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckOptions {
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
    /// End with status 1 if there are warnings.
    #[arg(long)]
    strict: bool,
    /// Ask the registries, DNS, and the ports of the running moorgate as well.
    #[arg(long)]
    live: bool,
    /// Ask registries about this repository, with --live: a name as clients know it.
    #[arg(long, value_name = "NAME", requires = "live", value_parser = repository_name)]
    repository: Option<RepositoryName>,
}

fn repository_name(text: &str) -> Result<RepositoryName, String> {
    RepositoryName::parse(text).map_err(|error| error.to_string())
}

/// What was found beside the configuration.
#[derive(Default)]
struct CheckFindings {
    problems: Problems,
    /// With `--live`.
    upstreams: Option<Vec<UpstreamReport>>,
}

/// Reports all that a start would stumble over: problems of the configuration, of the files that
/// it names, and of this machine. Changes nothing. The exit status is 2 if a start would fail, 1 if
/// there are warnings and they count, 0 otherwise.
pub fn run(directory: &Path, options: CheckOptions) -> anyhow::Result<ExitCode> {
    let (findings, snapshot) = match crate::config::load(directory) {
        Ok(Loaded { snapshot, warnings }) => {
            let outside = findings_outside(directory, &snapshot, &options)?;
            let mut problems = warnings;
            problems.extend(outside.problems);
            let upstreams = outside.upstreams;
            (
                CheckFindings {
                    problems,
                    upstreams,
                },
                Some(snapshot),
            )
        }
        Err(problems) => {
            let upstreams = options.live.then(Vec::new);
            (
                CheckFindings {
                    problems,
                    upstreams,
                },
                None,
            )
        }
    };
    Ok(report(&findings, snapshot.as_ref(), &options)?)
}

fn report(
    findings: &CheckFindings,
    snapshot: Option<&Snapshot>,
    options: &CheckOptions,
) -> io::Result<ExitCode> {
    let problems = &findings.problems;
    if options.json {
        let report = json(findings, snapshot);
        writeln!(io::stdout().lock(), "{report:#}")?;
    } else {
        super::report_problems(problems)?;
        if let Some(snapshot) = snapshot.filter(|_| !problems.has_errors()) {
            let mut stdout = io::stdout().lock();
            write_domains(snapshot, &mut stdout)?;
            let upstreams = findings.upstreams.iter().flatten();
            upstreams::write(upstreams, &mut stdout)?;
        }
    }
    let status = match (problems.has_errors(), problems.is_empty()) {
        (true, _) => 2,
        (false, false) if options.strict => 1,
        (false, _) => 0,
    };
    Ok(ExitCode::from(status))
}

/// The problems of what a valid configuration names: files, addresses, and what answers there.
fn findings_outside(
    directory: &Path,
    snapshot: &Snapshot,
    options: &CheckOptions,
) -> anyhow::Result<CheckFindings> {
    let running = control::client::running(directory, &snapshot.state);
    let mut problems = Problems::default();
    let state = app::preconditions::missing_state(snapshot);
    let certificates = served::check::problems(snapshot, SystemTime::now());
    // What cannot be read there has one cause.
    let certificates = certificates
        .into_iter()
        .filter(|found| state.is_none() || !found.is_in_state());
    problems.extend(certificates.map(|found| {
        // A broken certificate affects only its own domain and must not prevent a start.
        Problem::at_key(&found.source, found.key, found.message, found.help).warning()
    }));
    problems.extend(app::file_problems(snapshot));
    problems.extend(app::preconditions::missing_addresses(snapshot, &running));
    let mut upstreams = None;
    if options.live {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let options = LiveOptions {
            is_running: !running.is_empty(),
            repository: options.repository.clone(),
        };
        let live = runtime.block_on(app::live::inspect(snapshot, &options));
        problems.extend(live.problems);
        upstreams = Some(live.upstreams);
        // A name that is still being looked up must not keep the report back.
        runtime.shutdown_background();
    }
    Ok(CheckFindings {
        problems,
        upstreams,
    })
}

/// Writes all problems and their number. `run` and `reload` use it as well.
pub fn write_problems(problems: &Problems, colour: Colour, to: &mut dyn Write) -> io::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let (errors, warnings) = (
        problems.count(ProblemSeverity::Error),
        problems.count(ProblemSeverity::Warning),
    );
    let counts = match (errors, warnings) {
        (0, _) => counted(warnings, "warning"),
        (_, 0) => counted(errors, "error"),
        _ => format!(
            "{}, {}",
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    };
    writeln!(to, "{}\n\n{counts}", problems.render(colour))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn write_domains(snapshot: &Snapshot, to: &mut dyn Write) -> io::Result<()> {
    for host in &snapshot.domains {
        let listen: Vec<_> = host.listen.iter().map(ListenAddress::to_string).collect();
        let shown = |path: &Path| {
            let path = shortened(path);
            path.strip_prefix(shortened(&snapshot.directory))
                .unwrap_or(&path)
                .display()
                .to_string()
        };
        let certificate = match &host.certificate {
            CertificateSource::Internal => "internal".to_owned(),
            CertificateSource::Files {
                certificate,
                key: _,
            } => shown(certificate),
            CertificateSource::Acme(_) => {
                let all: Vec<_> = snapshot
                    .acme
                    .authorities
                    .iter()
                    .map(|ca| ca.directory.to_string())
                    .collect();
                format!("acme {}", all.join(", "))
            }
        };
        writeln!(
            to,
            "{}  https {}  certificate {certificate}  users {}  -> {}",
            host.domain,
            listen.join(", "),
            shown(&host.auth.htpasswd),
            host.registry
        )?;
    }
    Ok(())
}

/// `conf.d/../ci.htpasswd` as `ci.htpasswd`, for display only: symbolic links are ignored.
fn shortened(path: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir
                if matches!(short.components().next_back(), Some(Component::Normal(_))) =>
            {
                short.pop();
            }
            Component::CurDir => {}
            other => short.push(other),
        }
    }
    short
}

fn json(findings: &CheckFindings, snapshot: Option<&Snapshot>) -> Value {
    let problems = &findings.problems;
    let domains: Vec<_> = snapshot
        .into_iter()
        .flat_map(|snapshot| &snapshot.domains)
        .collect();
    let mut report = json!({
        "ok": !problems.has_errors(),
        "listen": snapshot.map(listeners).unwrap_or_default(),
        "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        "domains": domains.into_iter().map(|host| domain(host)).collect::<Vec<_>>(),
    });
    if let Some(upstreams) = &findings.upstreams {
        report["upstreams"] = upstreams.iter().map(upstreams::json).collect();
    }
    report
}

/// Each address that `run` binds, with its role.
fn listeners(snapshot: &Snapshot) -> Vec<Value> {
    let https = snapshot.https.iter().map(|&address| (address, "https"));
    let http = snapshot.http.iter().map(|&address| (address, "http"));
    let admin = snapshot.admin.iter();
    let admin = admin.map(|&address| (ListenAddress(address), "admin"));
    https
        .chain(http)
        .chain(admin)
        .map(|(address, role)| json!({ "address": address.to_string(), "role": role }))
        .collect()
}

fn problem(problem: &Problem) -> Value {
    let severity = match problem.severity() {
        ProblemSeverity::Error => "error",
        ProblemSeverity::Warning => "warning",
    };
    let position = problem.position();
    json!({
        "severity": severity,
        "file": problem.file().display().to_string(),
        "line": position.map(|(line, _)| line),
        "column": position.map(|(_, column)| column),
        "message": problem.message(),
        "help": problem.help(),
    })
}

fn domain(host: &VirtualHost) -> Value {
    let certificate = match &host.certificate {
        CertificateSource::Internal => json!({ "internal": true }),
        CertificateSource::Files { certificate, key } => json!({
            "certificate": certificate.display().to_string(),
            "key": key.display().to_string(),
        }),
        CertificateSource::Acme(request) => json!({
            "acme": request.contact,
            "names": request.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    };
    let authorization = host
        .registry
        .upstream()
        .map(|upstream| match &upstream.authorization {
            UpstreamAuthorization::Strip => "strip",
            UpstreamAuthorization::Pass => "pass",
            UpstreamAuthorization::Login(_) => "own",
        });
    json!({
        "domain": host.domain.as_str(),
        "aliases": host.aliases.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "listen": host.listen.iter().map(ListenAddress::to_string).collect::<Vec<_>>(),
        "certificate": certificate,
        "htpasswd": host.auth.htpasswd.display().to_string(),
        "realm": host.auth.realm,
        "mode": if host.auth.mode.tokens().is_some() { "token" } else { "basic" },
        "upstream": host.registry.upstream().map(|upstream| upstream.url.to_string()),
        "directory": host.registry.store().map(|store| store.directory.display().to_string()),
        "authorization": authorization,
        "browser": host.browser.as_ref().map(|browser| browser.url.to_string()),
        "source": host.source.display().to_string(),
    })
}

#[cfg(test)]
mod tests;
