//! Makes a plan: repository by repository, so that one of them is in memory at a time.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::context::RunContext;
use super::error::RunError;
use super::lists;
use super::plan_file::{
    ManifestLine, PLAN_VERSION, PlanHeader, PlanLine, PlanTotals, PlanWriter, ReasonLine,
    RepositoryLine, TagLine,
};
use super::plan_id::PlanId;
use crate::config::retention::RetentionSettings;
use crate::registry::name::RepositoryName;
use crate::retention::in_use::InUse;
use crate::retention::inventory::Inventory;
use crate::retention::plan::{PlannedTag, plan_repository};
use crate::retention::registry::RetainedRegistry;
use crate::state_file::run_blocking;

/// A plan that is in its file.
#[derive(Clone, Debug)]
pub(crate) struct MadePlan {
    pub(crate) id: PlanId,
    pub(crate) path: PathBuf,
    pub(crate) totals: PlanTotals,
}

/// Makes a plan of at most `max_tags` tags. The caller holds the lock of the runs.
pub(crate) async fn plan<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    max_tags: usize,
    now: Timestamp,
) -> Result<MadePlan, RunError> {
    let in_use = Arc::new(lists::read(&run.settings.runs.in_use, run.names).await?);
    let repositories = repositories(run).await?;
    run.progress.begin(repositories.len() as u64);
    let (id, mut writer) = begin(run, now).await?;
    let mut totals = PlanTotals::default();
    for repository in repositories {
        run.check_stop()?;
        let inventory = run.registry.inventory(&repository).await;
        let inventory = inventory.map_err(RunError::at(&repository))?;
        let planned = RepositoryPlanning {
            settings: run.settings.clone(),
            in_use: in_use.clone(),
            inventory,
            now,
            max_tags: max_tags.saturating_sub(usize::try_from(totals.goes).unwrap_or(usize::MAX)),
        };
        (writer, totals) = run_blocking(move || {
            planned.write(&mut writer, &mut totals)?;
            Ok((writer, totals))
        })
        .await?;
        run.progress.step();
    }
    let last = totals.clone();
    let path = run_blocking(move || writer.finish(last)).await?;
    Ok(MadePlan { id, path, totals })
}

/// The repositories that a rule matches.
async fn repositories<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
) -> Result<Vec<RepositoryName>, RunError> {
    let mut repositories = run.registry.repositories().await;
    if let Ok(repositories) = &mut repositories {
        repositories.retain(|repository| is_matched(run.settings, repository));
    }
    repositories.map_err(RunError::Repositories)
}

/// Whether a rule matches a repository.
pub(crate) fn is_matched(settings: &RetentionSettings, repository: &RepositoryName) -> bool {
    let patterns = settings.rules.iter().flat_map(|rule| &rule.repositories);
    let mut patterns = patterns;
    patterns.any(|pattern| pattern.matches(repository.as_str(), None))
}

async fn begin<R>(
    run: &RunContext<'_, R>,
    now: Timestamp,
) -> Result<(PlanId, PlanWriter), RunError> {
    let directory = run.directory.clone();
    let plans = directory.plans();
    let id = PlanId::new(now).map_err(|error| RunError::io(&plans)(error.into()))?;
    let header = PlanHeader {
        version: PLAN_VERSION,
        id: id.to_string(),
        domain: run.domain.to_string(),
        registry: run.registry_name.to_owned(),
        made: now,
        rules: run
            .settings
            .rules
            .iter()
            .map(|rule| rule.location.to_string())
            .collect(),
    };
    let path = directory.plan(&id);
    let writer = run_blocking(move || {
        directory.create(&plans)?;
        directory.prune(now.into())?;
        PlanWriter::new(path, header)
    });
    Ok((id, writer.await?))
}

/// What the plan of one repository is made from.
struct RepositoryPlanning {
    settings: Arc<RetentionSettings>,
    in_use: Arc<InUse>,
    inventory: Inventory,
    now: Timestamp,
    max_tags: usize,
}

impl RepositoryPlanning {
    /// Blocks on the disk, and computes for a second where there are 100,000 tags.
    fn write(&self, writer: &mut PlanWriter, totals: &mut PlanTotals) -> Result<(), RunError> {
        let Self {
            settings,
            in_use,
            inventory,
            now,
            max_tags,
        } = self;
        let repository = inventory.repository.to_string();
        let plan = plan_repository(inventory, settings, in_use, *now, *max_tags);
        for tag in plan.tags() {
            if let Some(reason) = tag.decision.reasons.first().filter(|_| tag.decision.stays) {
                let name = ReasonLine::new(reason).reason;
                *totals.stays.entry(name).or_default() += 1;
            }
            writer.line(&PlanLine::Tag(tag_line(&repository, &tag, settings)))?;
        }
        for manifest in &plan.manifests {
            writer.line(&PlanLine::Manifest(ManifestLine {
                repository: repository.clone(),
                digest: manifest.digest.to_string(),
                pulled: manifest.pulled,
            }))?;
        }
        let summary = RepositoryLine {
            repository,
            tags: inventory.tags.len() as u64,
            goes: plan.going as u64,
            manifests: plan.manifests.len() as u64,
            bytes: plan.bytes,
            recorded_since: inventory.recorded_since,
        };
        totals.add(&summary);
        writer.line(&PlanLine::Repository(summary))
    }
}

/// The line of a tag.
pub(crate) fn tag_line(
    repository: &str,
    planned: &PlannedTag,
    settings: &RetentionSettings,
) -> TagLine {
    let PlannedTag {
        tag,
        digest,
        decision,
        pushed,
        pulled,
    } = planned;
    let rule = decision.rule.and_then(|rule| settings.rules.get(rule));
    TagLine {
        repository: repository.to_owned(),
        tag: tag.to_string(),
        digest: digest.to_string(),
        stays: decision.stays,
        reasons: decision.reasons.iter().map(ReasonLine::new).collect(),
        rule: rule.map(|rule| rule.location.to_string()),
        pushed: *pushed,
        pulled: *pulled,
        until: decision.until,
    }
}
