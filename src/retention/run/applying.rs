//! Applies a plan: repository by repository, saves what goes, takes it away, and checks what stays.
//! Safe to be killed at any point: the same plan continues, and ends in the same state.

use jiff::{SignedDuration, Timestamp};

use super::checking::{self, CheckSummary};
use super::context::RunContext;
use super::error::RunError;
use super::lists;
use super::parts::parts;
use super::plan_file::{ManifestLine, PlanReader, PlanTotals, PlannedLines, TagLine};
use super::plan_id::PlanId;
use super::undo_file::UndoWriter;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::in_use::InUse;
use crate::retention::registry::{
    DoomedManifest, DoomedTag, Removal, Removed, RetainedRegistry, SavedManifest,
};
use crate::state_file::run_blocking;

/// Whether a plan may take away more than `max_share`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShareLimit {
    Enforced,
    Lifted,
}

/// What a run took away, also one that ended early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ApplySummary {
    /// With those that had gone already, by a run that ended early for instance.
    pub(crate) tags: u64,
    /// With those that had gone already.
    pub(crate) manifests: u64,
    /// What comes free at the repositories that are done, as planned.
    pub(crate) bytes: u64,
    /// What was left because it was used or changed since the plan: the first of them.
    pub(crate) changed: Vec<String>,
    pub(crate) changed_count: u64,
    pub(crate) checked: CheckSummary,
}

impl ApplySummary {
    fn add(&mut self, repository: &RepositoryName, removed: Removed) {
        self.tags += removed.tags.len() as u64;
        self.manifests += removed.manifests.len() as u64;
        for changed in removed.changed {
            self.left(format!("{repository}: {changed}"));
        }
    }

    fn left(&mut self, what: String) {
        self.changed_count += 1;
        if self.changed.len() < MAX_NAMED {
            self.changed.push(what);
        }
    }
}

/// Applies a plan. The caller holds the lock of the runs.
///
/// Errors: it stops at the first answer that was not expected; `summary` is what was done by then.
pub(crate) async fn apply<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    id: &PlanId,
    share: ShareLimit,
    now: Timestamp,
    summary: &mut ApplySummary,
) -> Result<(), RunError> {
    let (mut plan, totals) = open(run, id, now).await?;
    let max_share = run.settings.runs.max_share;
    if share == ShareLimit::Enforced && totals.is_beyond(max_share) {
        return Err(RunError::BeyondShare {
            id: id.clone(),
            goes: totals.goes,
            tags: totals.tags,
            max_share,
        });
    }
    let in_use = lists::read(&run.settings.runs.in_use, run.names).await?;
    let (directory, id_of_undo) = (run.directory.clone(), id.clone());
    let (registry, domain) = (run.registry_name.to_owned(), run.domain.to_string());
    let opened =
        run_blocking(move || UndoWriter::open(&directory, &id_of_undo, &registry, &domain));
    let mut undo = opened.await?;
    run.progress.begin(totals.repositories);
    loop {
        let (returned, planned) = run_blocking(move || {
            let planned = plan.next_repository();
            (plan, planned)
        })
        .await;
        plan = returned;
        let Some(lines) = planned? else {
            return Ok(());
        };
        if lines.tags.iter().any(|tag| !tag.stays) {
            let bytes = lines.summary.bytes;
            let doomed = parse(&lines).ok_or_else(|| plan.damaged())?;
            let mut work = RepositoryRun {
                run,
                id,
                undo: Some(undo),
                summary,
            };
            work.apply(doomed, &in_use).await?;
            undo = work.undo.take().expect("given back by each step");
            summary.bytes += bytes;
        }
        run.progress.step();
    }
}

/// Opens a plan that may be applied to this registry now.
async fn open<R>(
    run: &RunContext<'_, R>,
    id: &PlanId,
    now: Timestamp,
) -> Result<(PlanReader, PlanTotals), RunError> {
    let path = run.directory.plan(id);
    let opened = run_blocking(move || {
        let Some(totals) = PlanReader::totals(&path)? else {
            return Ok(None);
        };
        Ok(PlanReader::open(&path)?.map(|plan| (plan, totals)))
    });
    let Some((plan, totals)) = opened.await? else {
        return Err(RunError::UnknownPlan {
            id: id.clone(),
            domain: run.domain.clone(),
            directory: run.directory.plans(),
        });
    };
    let header = &plan.header;
    if header.domain != run.domain.as_str() {
        return Err(RunError::OtherDomain {
            id: id.clone(),
            of: header.domain.clone(),
            domain: run.domain.clone(),
        });
    }
    if header.registry != run.registry_name {
        return Err(RunError::OtherRegistry {
            id: id.clone(),
            of: header.registry.clone(),
            domain: run.domain.clone(),
            now: run.registry_name.to_owned(),
        });
    }
    if now.duration_since(header.made) > MAX_PLAN_AGE {
        return Err(RunError::TooOld(id.clone()));
    }
    Ok((plan, totals))
}

/// What a plan says of a repository, parsed.
#[derive(Debug)]
struct DoomedRepository {
    repository: RepositoryName,
    removal: Removal,
    stays: Vec<(Tag, Digest)>,
}

fn parse(lines: &PlannedLines) -> Option<DoomedRepository> {
    let mut doomed = DoomedRepository {
        repository: RepositoryName::parse(&lines.summary.repository).ok()?,
        removal: Removal::default(),
        stays: Vec::new(),
    };
    for line in &lines.tags {
        let TagLine {
            tag, digest, stays, ..
        } = line;
        let (tag, digest) = (Tag::parse(tag).ok()?, Digest::parse(digest).ok()?);
        if *stays {
            doomed.stays.push((tag, digest));
        } else {
            doomed.removal.tags.push(DoomedTag {
                tag,
                digest,
                pushed: line.pushed,
                pulled: line.pulled,
            });
        }
    }
    for ManifestLine { digest, pulled, .. } in &lines.manifests {
        doomed.removal.manifests.push(DoomedManifest {
            digest: Digest::parse(digest).ok()?,
            pulled: *pulled,
        });
    }
    Some(doomed)
}

/// The work at one repository.
struct RepositoryRun<'a, R> {
    run: &'a RunContext<'a, R>,
    id: &'a PlanId,
    /// Taken while it is written on a thread that may block.
    undo: Option<UndoWriter>,
    summary: &'a mut ApplySummary,
}

impl<R: RetainedRegistry> RepositoryRun<'_, R> {
    async fn apply(
        &mut self,
        mut doomed: DoomedRepository,
        in_use: &InUse,
    ) -> Result<(), RunError> {
        self.run.check_stop()?;
        self.spare_what_is_in_use(&mut doomed, in_use);
        let DoomedRepository {
            repository,
            removal,
            mut stays,
        } = doomed;
        self.save(&repository, &removal).await?;
        let mut taken = Vec::new();
        for part in parts(removal) {
            self.run.check_stop()?;
            let removed = self.run.registry.remove(&repository, &part).await;
            let removed = removed.map_err(RunError::at(&repository))?;
            taken.extend(removed.manifests.iter().cloned());
            // What was left stays, and is checked too.
            let gone = |doomed: &DoomedTag| removed.tags.contains(&doomed.tag);
            let left = part.tags.into_iter().filter(|doomed| !gone(doomed));
            stays.extend(left.map(|doomed| (doomed.tag, doomed.digest)));
            self.summary.add(&repository, removed);
        }
        let check = checking::TagCheck {
            repository: &repository,
            taken: &taken,
            plan: self.id,
        };
        checking::check(self.run, check, &stays, &mut self.summary.checked).await
    }

    /// A list may name today what it did not when the plan was made.
    fn spare_what_is_in_use(&mut self, doomed: &mut DoomedRepository, in_use: &InUse) {
        let DoomedRepository {
            repository,
            removal,
            stays,
        } = doomed;
        let tags = std::mem::take(&mut removal.tags);
        for tag in tags {
            let by_tag = in_use.tag(repository, &tag.tag);
            match by_tag.or_else(|| in_use.digest(repository, &tag.digest)) {
                None => removal.tags.push(tag),
                Some(source) => {
                    let name = &tag.tag;
                    let text = format!("{repository}:{name} is in use now, by {source}");
                    self.summary.left(text);
                    stays.push((tag.tag, tag.digest));
                }
            }
        }
    }

    /// Saves the manifests that go, and those that the tags lead to. On the disk afterwards.
    async fn save(
        &mut self,
        repository: &RepositoryName,
        removal: &Removal,
    ) -> Result<(), RunError> {
        let of_tags = removal.tags.iter().map(|doomed| &doomed.digest);
        let alone = removal.manifests.iter().map(|doomed| &doomed.digest);
        let mut batch = UnsavedContent::default();
        let mut digests: Vec<_> = of_tags.chain(alone).collect();
        digests.sort_unstable();
        digests.dedup();
        for digest in digests {
            let undo = self.undo.as_ref();
            if undo.is_some_and(|undo| undo.has_manifest(repository, digest)) {
                continue;
            }
            self.run.check_stop()?;
            let manifest = self.run.registry.manifest(repository, digest).await;
            // One that has gone already was saved before, or was never there to be taken away.
            let Some(manifest) = manifest.map_err(RunError::at(repository))? else {
                continue;
            };
            batch.bytes += manifest.bytes.len();
            batch.manifests.push(manifest);
            if batch.bytes > MAX_BATCH_BYTES {
                self.write(repository, std::mem::take(&mut batch)).await?;
            }
        }
        batch.tags = removal.tags.clone();
        self.write(repository, batch).await?;
        let mut undo = self.undo.take().expect("given back by each step");
        let (undo, synced) = run_blocking(move || {
            let synced = undo.sync();
            (undo, synced)
        })
        .await;
        self.undo = Some(undo);
        synced
    }

    async fn write(
        &mut self,
        repository: &RepositoryName,
        batch: UnsavedContent,
    ) -> Result<(), RunError> {
        let mut undo = self.undo.take().expect("given back by each step");
        let repository = repository.clone();
        let (undo, written) = run_blocking(move || {
            let written = batch.write(&repository, &mut undo);
            (undo, written)
        })
        .await;
        self.undo = Some(undo);
        written
    }
}

/// What is written to the undo file at once.
#[derive(Debug, Default)]
struct UnsavedContent {
    manifests: Vec<SavedManifest>,
    bytes: usize,
    tags: Vec<DoomedTag>,
}

impl UnsavedContent {
    fn write(&self, repository: &RepositoryName, undo: &mut UndoWriter) -> Result<(), RunError> {
        for manifest in &self.manifests {
            undo.manifest(repository, manifest)?;
        }
        for DoomedTag { tag, digest, .. } in &self.tags {
            undo.tag(repository, tag, digest)?;
        }
        Ok(())
    }
}

/// How old a plan may be that is applied.
const MAX_PLAN_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What replies and `/status` name.
const MAX_NAMED: usize = 100;
/// Manifests in memory before they are written.
const MAX_BATCH_BYTES: usize = 8 << 20;
