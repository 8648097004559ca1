//! `moorgate certs import PATH`: imports the certificates and accounts of another server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::ensure;

use crate::certs::import::{self, ImportOutcome, ImportTarget, ImportedItem};
use crate::certs::state::paths::CaId;
use crate::config::snapshot::Snapshot;
use crate::config::vhost::{CertificateSource, SharedVirtualHost};

#[derive(Clone, Debug, clap::Args)]
pub struct ImportArguments {
    /// The directory of Caddy 1 or 2, certbot or acme.sh, or Traefik's acme.json.
    path: PathBuf,
    /// Only say what would be taken over.
    #[arg(long)]
    dry_run: bool,
    /// The ACME directory of the CA that certificates are from which do not say it themselves.
    #[arg(long, value_name = "URL", value_parser = CaId::new)]
    ca: Option<CaId>,
}

/// Imports what the ACME domains of the configuration can use and prints a line for each item.
/// Fails if the path has no files of a known tool, or if an item could not be written.
pub fn run(
    snapshot: &Snapshot,
    arguments: &ImportArguments,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let ImportArguments { path, dry_run, ca } = arguments;
    let asks = |host: &&SharedVirtualHost| matches!(host.certificate, CertificateSource::Acme(_));
    let targets: Vec<_> = snapshot.domains.iter().filter_map(target).collect();
    let authorities = snapshot
        .acme
        .authorities
        .iter()
        .filter_map(|ca| CaId::new(ca.directory.url()).ok());
    let authorities: Vec<_> = authorities.collect();
    let others = snapshot.domains.iter().filter(|host| !asks(host));
    let others: Vec<_> = others.map(|host| host.domain.clone()).collect();
    let lines = import::import(import::ImportOptions {
        from: path,
        state: &snapshot.state,
        targets: &targets,
        others: &others,
        authorities: &authorities,
        ca: ca.as_ref(),
        dry_run: *dry_run,
        now: SystemTime::now(),
    })?;
    for line in &lines {
        writeln!(out, "{}", line.line(*dry_run))?;
    }
    eprintln!("{}", summary(&lines, *dry_run, &snapshot.state));
    let failed = lines
        .iter()
        .any(|line| matches!(line.outcome, ImportOutcome::Failed(_)));
    ensure!(!failed, "not everything could be imported");
    Ok(())
}

fn target(host: &SharedVirtualHost) -> Option<ImportTarget> {
    match &host.certificate {
        CertificateSource::Acme(request) => Some(ImportTarget {
            domain: host.domain.clone(),
            names: request.names.clone(),
        }),
        CertificateSource::Files { .. } | CertificateSource::Internal => None,
    }
}

fn summary(lines: &[ImportedItem], dry_run: bool, state: &Path) -> String {
    let count =
        |is: fn(&ImportOutcome) -> bool| lines.iter().filter(|line| is(&line.outcome)).count();
    let imported = count(|outcome| matches!(outcome, ImportOutcome::Imported(_)));
    let [kept, skipped, failed] = [
        count(|outcome| *outcome == ImportOutcome::Unchanged),
        count(|outcome| matches!(outcome, ImportOutcome::Skipped(_))),
        count(|outcome| matches!(outcome, ImportOutcome::Failed(_))),
    ];
    let verb = if dry_run { "would import" } else { "imported" };
    format!(
        "{verb} {imported} into {}, kept {kept}, skipped {skipped}, failed {failed}",
        state.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        let line = |outcome| ImportedItem {
            from: "/etc/letsencrypt".into(),
            what: "a.example.com".into(),
            outcome,
        };
        let lines = [
            line(ImportOutcome::Imported(Vec::new())),
            line(ImportOutcome::Imported(Vec::new())),
            line(ImportOutcome::Unchanged),
            line(ImportOutcome::Skipped("expired".into())),
        ];
        let words = [true, false].map(|dry_run| summary(&lines, dry_run, Path::new("/state")));
        insta::assert_snapshot!(words.join("\n"), @r"
        would import 2 into /state, kept 1, skipped 1, failed 0
        imported 2 into /state, kept 1, skipped 1, failed 0
        ");
    }
}
