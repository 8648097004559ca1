//! `moorgate import caddy`: translates Caddyfiles, and prints what became of each directive.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::import::caddy::files::{Volume, Volumes};
use crate::import::caddy::report::{DirectiveOutcome, ImportReport};
use crate::import::caddy::variables::Variables;
use crate::import::caddy::{self, CaddyImport, CaddyImportError, CaddyVersion};

#[derive(Debug, clap::Subcommand)]
pub enum ImportCommand {
    /// Translate Caddyfiles of version 1 or 2 into domain files, htpasswd files and a report.
    #[command(after_help = EXAMPLES)]
    Caddy(CaddyArguments),
}

#[derive(Clone, Debug, clap::Args)]
pub struct CaddyArguments {
    /// The Caddyfiles; what they import is read as well.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The directory to write to; that of --config by default.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only say what would be written.
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// The version of Caddy, 1 or 2; told from the text by default.
    #[arg(long = "version", value_name = "1|2", value_parser = clap::value_parser!(u8).range(1..=2))]
    caddy_version: Option<u8>,
    /// The flags that Caddy was started with, such as "-email ops@example.com -agree".
    #[arg(
        long,
        value_name = "FLAGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    caddy_arguments: String,
    /// A variable of the environment in which Caddy ran; those of this process are known.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// A directory that the container of Caddy saw under another path.
    #[arg(long, value_name = "HOST:CONTAINER", value_parser = Volume::parse)]
    volume: Vec<Volume>,
    /// The name of a site that has none.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

const EXAMPLES: &str = "\
Examples:
  moorgate import caddy Caddyfile --dry-run
  moorgate import caddy Caddyfile -o /etc/moorgate --caddy-arguments \"-email ops@example.com -agree\"
  moorgate import caddy Caddyfile --volume ./credentials:/etc/caddy/credentials --env HOST=ci.example.com
  moorgate import caddy Caddyfile --json | jq '.directives[] | select(.outcome == \"decision\")'

Exit status: 0 everything is translated, 1 something needs a decision or `moorgate check` finds an error,
2 nothing was written: wrong usage, a file that Caddy refuses too, or one that exists.";

/// Translates, prints the report to standard output, and says how it went.
pub fn run(config: &Path, command: ImportCommand) -> anyhow::Result<ExitCode> {
    let ImportCommand::Caddy(arguments) = command;
    let (json, dry_run) = (arguments.json, arguments.dry_run);
    let report = match caddy::import(request(config, arguments)) {
        Ok(report) => report,
        Err(error @ CaddyImportError::Write(_)) => {
            eprintln!("moorgate: {:#}", anyhow::Error::from(error));
            return Ok(ExitCode::from(2));
        }
        Err(CaddyImportError::NoRandomness) => bail!(CaddyImportError::NoRandomness),
        Err(error) => {
            eprintln!("moorgate: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let text = if json {
        format!("{:#}\n", report.json(dry_run))
    } else {
        report.text(dry_run)
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot print the report")?;
    Ok(status(&report))
}

fn request(config: &Path, arguments: CaddyArguments) -> CaddyImport {
    let CaddyArguments {
        files,
        output,
        dry_run,
        json: _,
        caddy_version,
        caddy_arguments,
        env,
        volume,
        domain,
    } = arguments;
    // Names and values that are not UTF-8 are none of a Caddyfile.
    let own = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    CaddyImport {
        files,
        output: output.unwrap_or_else(|| config.to_owned()),
        dry_run,
        version: caddy_version.map(|version| match version {
            1 => CaddyVersion::V1,
            _ => CaddyVersion::V2,
        }),
        caddy_arguments,
        variables: Variables::new(own.chain(env)),
        volumes: Volumes(volume),
        domain,
    }
}

/// A last line for people on standard error, and the exit status.
fn status(report: &ImportReport) -> ExitCode {
    let (errors, decisions) = (
        report.count(DirectiveOutcome::Error),
        report.count(DirectiveOutcome::Decision),
    );
    if errors > 0 || report.files.is_empty() {
        eprintln!("moorgate: nothing was written, errors: {errors}");
        return ExitCode::from(2);
    }
    if decisions > 0 || report.has_check_errors {
        eprintln!("moorgate: needs a decision: {decisions}");
        return ExitCode::from(1);
    }
    ExitCode::SUCCESS
}
