//! Undoes a plan: puts back what it took away, as far as the content is still there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::context::RunContext;
use super::error::RunError;
use super::plan_id::PlanId;
use super::undo_file::{SavedRepository, SavedTags};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::registry::{RegistryError, RetainedRegistry, SavedManifest};
use crate::state_file::run_blocking;

/// What was put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UndoSummary {
    pub(crate) tags: u64,
    pub(crate) manifests: u64,
    /// Tags that lead to another image now, and stay so.
    pub(crate) taken: Vec<String>,
    /// Manifests whose content has gone, with their tags.
    pub(crate) lost: Vec<String>,
}

/// Puts back what a plan took away: children before the indexes that list them, subjects before
/// their referrers. The caller holds the lock of the runs. Done twice, it does the same.
///
/// Errors: it stops at the first answer that was not expected; `summary` is what was done by then.
pub(crate) async fn undo<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    id: &PlanId,
    summary: &mut UndoSummary,
) -> Result<(), RunError> {
    let (directory, id_of_file) = (run.directory.clone(), id.clone());
    let saved = run_blocking(move || SavedTags::read(&directory, &id_of_file)).await?;
    let saved = Arc::new(saved.ok_or_else(|| RunError::NothingSaved(id.clone()))?);
    if saved.domain != run.domain.as_str() {
        return Err(RunError::OtherDomain {
            id: id.clone(),
            of: saved.domain.clone(),
            domain: run.domain.clone(),
        });
    }
    if saved.registry != run.registry_name {
        return Err(RunError::OtherRegistry {
            id: id.clone(),
            of: saved.registry.clone(),
            domain: run.domain.clone(),
            now: run.registry_name.to_owned(),
        });
    }
    let mut repositories: Vec<_> = saved.repositories.keys().cloned().collect();
    repositories.sort_unstable();
    run.progress.begin(repositories.len() as u64);
    for repository in repositories {
        run.check_stop()?;
        undo_repository(run, &saved, &repository, summary).await?;
        run.progress.step();
    }
    Ok(())
}

async fn undo_repository<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    saved: &Arc<SavedTags>,
    repository: &RepositoryName,
    summary: &mut UndoSummary,
) -> Result<(), RunError> {
    let (own, name) = (saved.clone(), repository.clone());
    let ordered = run_blocking(move || in_order(&own, &own.repositories[&name])).await?;
    let mut tags_of: HashMap<&Digest, Vec<Tag>> = HashMap::new();
    for (tag, digest) in &saved.repositories[repository].tags {
        tags_of.entry(digest).or_default().push(tag.clone());
    }
    for at in ordered {
        run.check_stop()?;
        let own = saved.clone();
        let manifest = run_blocking(move || own.manifest(at)).await?;
        let mut tags = tags_of.remove(&manifest.digest).unwrap_or_default();
        tags.sort_unstable();
        match run.registry.restore(repository, &manifest, &tags).await {
            Ok(restored) => {
                summary.manifests += 1;
                summary.tags += restored.tags.len() as u64;
                let taken = restored
                    .taken
                    .iter()
                    .map(|tag| format!("{repository}:{tag}"));
                summary.taken.extend(taken);
            }
            Err(RegistryError::Missing(missing)) => {
                let digest = &manifest.digest;
                let mut text = format!("{repository}@{digest}: {missing} has gone");
                if !tags.is_empty() {
                    let names: Vec<_> = tags.iter().map(Tag::as_str).collect();
                    text.push_str(&format!(" (tags {})", names.join(", ")));
                }
                summary.lost.push(text);
            }
            Err(error) => return Err(RunError::at(repository)(error)),
        }
    }
    Ok(())
}

/// What a manifest has to come after.
#[derive(Debug, Default, Deserialize)]
struct ListedManifests {
    #[serde(default)]
    manifests: Vec<ReferencedManifest>,
    #[serde(default)]
    subject: Option<ReferencedManifest>,
}

#[derive(Debug, Deserialize)]
struct ReferencedManifest {
    digest: String,
}

/// The places of the manifests of a repository in the file, each after those that it references.
/// Blocks on the disk.
fn in_order(saved: &SavedTags, of: &SavedRepository) -> Result<Vec<u64>, RunError> {
    let mut references = HashMap::new();
    for (digest, at) in &of.manifests {
        references.insert(digest, referenced(&saved.manifest(*at)?));
    }
    let mut names: Vec<_> = of.manifests.keys().collect();
    names.sort_unstable();
    let (mut ordered, mut visited) = (Vec::new(), HashSet::new());
    // Depth first with a stack of its own: what was pushed decides how deep it goes.
    let mut stack: Vec<(&Digest, bool)> = names.into_iter().map(|name| (name, false)).collect();
    while let Some((digest, is_left)) = stack.pop() {
        if is_left {
            ordered.extend(of.manifests.get(digest));
            continue;
        }
        if !visited.insert(digest) {
            continue;
        }
        stack.push((digest, true));
        let below = references.get(digest).into_iter().flatten();
        let saved_below = below.filter_map(|below| of.manifests.get_key_value(below));
        stack.extend(saved_below.map(|(below, _)| (below, false)));
    }
    Ok(ordered)
}

fn referenced(manifest: &SavedManifest) -> Vec<Digest> {
    let references: ListedManifests = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    let all = references.manifests.into_iter().chain(references.subject);
    all.filter_map(|one| Digest::parse(&one.digest).ok())
        .collect()
}
