//! `moorgate gc`: removes unreferenced content from a domain's store, also while moorgate runs.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::config::snapshot::Snapshot;
use crate::config::vhost::StoreSettings;
use crate::state_file::FileOwner;
use crate::store::Store;
use crate::store::collect::{CollectionOptions, CollectionSummary, UploadAge};

/// Options of `moorgate gc`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct GcOptions {
    /// Only report what would be removed.
    #[arg(long)]
    dry_run: bool,
    /// Also remove uploads that nobody is adding to, whatever their age; clients start them again.
    #[arg(long)]
    uploads: bool,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// Opens a store that is there, and tells one that this user may not see from a missing one.
pub(super) fn open_store(directory: &Path) -> anyhow::Result<Arc<Store>> {
    let shown = directory.display();
    if let Err(error) = std::fs::metadata(directory)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let sudo = FileOwner::of(directory).map_or_else(|| "sudo".to_owned(), |owner| owner.sudo());
        bail!("cannot read {shown}: {error}: begin the command with `{sudo}`");
    }
    if !Store::is_at(directory) {
        bail!("{shown} is not there: nothing was ever pushed, or it is not mounted");
    }
    Store::open(directory.to_owned()).with_context(|| format!("{shown} cannot be used"))
}

/// Collects the garbage of a domain's store.
pub fn run(
    snapshot: &Snapshot,
    domain: &str,
    options: GcOptions,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let settings = settings(snapshot, domain)?;
    let directory = settings.directory.display();
    let store = open_store(&settings.directory)?;
    let collection = CollectionOptions {
        grace: settings.grace,
        untagged: settings.untagged,
        uploads: if options.uploads {
            UploadAge::Any
        } else {
            UploadAge::Expired
        },
        dry_run: options.dry_run,
    };
    let collected = store
        .collect(collection)
        .with_context(|| format!("{directory} cannot be cleaned up"))?;
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &collected)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", summary(&collected, options.dry_run))?;
    }
    for failed in &collected.failed {
        eprintln!(
            "moorgate: {} was not collected: {}",
            failed.repository, failed.error
        );
    }
    if !collected.failed.is_empty() {
        bail!("{} repositories were not collected", collected.failed.len());
    }
    Ok(())
}

pub(super) fn settings<'a>(
    snapshot: &'a Snapshot,
    domain: &str,
) -> anyhow::Result<&'a StoreSettings> {
    let Some(host) = snapshot
        .domains
        .iter()
        .find(|host| host.domain.as_str() == domain)
    else {
        let known: Vec<_> = snapshot
            .domains
            .iter()
            .map(|host| host.domain.as_str())
            .collect();
        bail!(
            "there is no domain {domain}; there are: {}",
            known.join(", ")
        );
    };
    host.registry.store().with_context(|| {
        format!("{domain} has no store of its own: the registry behind it collects its own garbage")
    })
}

fn summary(collected: &CollectionSummary, dry_run: bool) -> String {
    let CollectionSummary {
        manifests,
        blobs,
        uploads,
        repositories,
        bytes,
        failed: _,
    } = collected;
    let verb = if dry_run { "would remove" } else { "removed" };
    let mebibytes = bytes.div_ceil(1 << 20);
    format!(
        "{verb} {manifests} manifests, {blobs} blobs, {uploads} expired uploads and {repositories} empty \
         repositories: {mebibytes} MiB"
    )
}
