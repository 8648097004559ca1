//! `moorgate store verify` compares the content of stores with its digests, and `moorgate store
//! usage` says what they hold, also while moorgate runs.

use std::io::Write;

use anyhow::{Context, bail};
use serde_json::json;

use super::gc;
use crate::config::snapshot::Snapshot;
use crate::config::vhost::StoreSettings;
use crate::store::AreaUse;
use crate::store::verify::{self, DamageOutcome, VerifyOptions, VerifyReport};
use crate::store::{ByteCount, StoreUse};

/// Arguments of `moorgate store verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArguments {
    /// Only the store of this domain; all stores by default.
    domain: Option<String>,
    /// Replace damaged content where another repository has it, and remove the rest: the next push
    /// brings it.
    #[arg(long)]
    repair: bool,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// Arguments of `moorgate store usage`.
#[derive(Clone, Debug, clap::Args)]
pub struct UsageArguments {
    /// The domain of the store.
    domain: String,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

/// Prints what the areas with quotas and the other repositories of a store hold.
pub fn usage(
    snapshot: &Snapshot,
    arguments: &UsageArguments,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let settings = gc::settings(snapshot, &arguments.domain)?;
    let mut domains = snapshot.domains.iter();
    let host = domains.find(|host| host.domain.as_str() == arguments.domain);
    let quotas = host.map_or(&[][..], |host| &host.quotas);
    let directory = settings.directory.display();
    let store = gc::open_store(&settings.directory)?;
    let used = store.measure(quotas);
    let StoreUse { areas, others } =
        used.with_context(|| format!("{directory} cannot be measured"))?;
    if arguments.json {
        let areas = areas.iter().map(AreaUse::to_json);
        let others = others.iter();
        let others =
            others.map(|(name, bytes)| json!({ "repository": name.as_str(), "used": bytes }));
        let all = json!({
            "areas": areas.collect::<Vec<_>>(),
            "without_quota": others.collect::<Vec<_>>(),
        });
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
        return Ok(());
    }
    for area in &areas {
        let percent = u128::from(area.used()) * 100 / u128::from(area.size.max(1));
        let (used, size) = (ByteCount(area.used()), ByteCount(area.size));
        write!(out, "{}: {used} of {size}, {percent} %", area.area)?;
        if area.uploads > 0 {
            write!(out, ", {} of it in uploads", ByteCount(area.uploads))?;
        }
        writeln!(out)?;
    }
    for (name, bytes) in &others {
        writeln!(out, "{name}: {}, no quota", ByteCount(*bytes))?;
    }
    Ok(())
}

/// Verifies stores. Fails if something is still not right afterwards.
pub fn verify(
    snapshot: &Snapshot,
    arguments: &VerifyArguments,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut all = VerifyReport::default();
    for settings in stores(snapshot, arguments.domain.as_deref())? {
        let directory = settings.directory.display();
        let store = gc::open_store(&settings.directory)?;
        let options = VerifyOptions {
            repair: arguments.repair,
            missing: settings.missing,
        };
        let verified = verify::verify(&store, options);
        let report = verified.with_context(|| format!("{directory} cannot be verified"))?;
        all.blobs += report.blobs;
        all.bytes += report.bytes;
        all.damage.extend(report.damage);
    }
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &all)?;
        writeln!(out)?;
    } else {
        print(&all, out)?;
    }
    let left = all.damage.iter();
    let left = left.filter(|damage| damage.outcome != DamageOutcome::Replaced);
    match left.count() {
        0 => Ok(()),
        count => bail!("{count} problems are left"),
    }
}

/// The stores to be verified, each once: domains may share one.
fn stores<'a>(
    snapshot: &'a Snapshot,
    domain: Option<&str>,
) -> anyhow::Result<Vec<&'a StoreSettings>> {
    if let Some(domain) = domain {
        return Ok(vec![gc::settings(snapshot, domain)?]);
    }
    let domains = snapshot.domains.iter();
    let mut stores: Vec<_> = domains.filter_map(|host| host.registry.store()).collect();
    if stores.is_empty() {
        bail!("no domain has a store of its own");
    }
    stores.sort_by(|one, other| one.directory.cmp(&other.directory));
    stores.dedup_by(|one, other| one.directory == other.directory);
    Ok(stores)
}

fn print(report: &VerifyReport, out: &mut impl Write) -> std::io::Result<()> {
    for damage in &report.damage {
        let outcome = match damage.outcome {
            DamageOutcome::Found => "",
            DamageOutcome::Replaced => " (replaced)",
            DamageOutcome::Removed => " (removed: push it again)",
        };
        writeln!(out, "{}: {}{outcome}", damage.path, damage.problem)?;
    }
    let VerifyReport {
        blobs,
        bytes,
        damage,
    } = report;
    let mebibytes = bytes.div_ceil(1 << 20);
    let problems = damage.len();
    writeln!(
        out,
        "verified {blobs} files, {mebibytes} MiB: {problems} problems"
    )
}
