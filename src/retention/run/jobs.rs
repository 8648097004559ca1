//! What a command or the schedule asks for, from the lock to the record of the run.

use std::path::Path;

use jiff::Timestamp;

use super::applying::{ApplySummary, ShareLimit, apply};
use super::context::RunContext;
use super::error::RunError;
use super::lists;
use super::plan_id::PlanId;
use super::planning::{self, MadePlan, plan, tag_line};
use super::records::{LastRun, RunOutcome, RunRecords, RunTrigger};
use super::report::{self, RunReport};
use super::schedule;
use super::undoing::{UndoSummary, undo};
use crate::certs::library_error::with_sources;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::explanation::prospects;
use crate::retention::plan::plan_repository;
use crate::retention::registry::RetainedRegistry;
use crate::state_file::run_blocking;

/// What is to be done at a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunRequest {
    Plan {
        /// Whether the plan may be of more than `max_tags` tags.
        beyond_limits: bool,
    },
    Apply {
        plan: PlanId,
        /// Whether it may take away more than `max_share`.
        beyond_limits: bool,
    },
    Undo {
        plan: PlanId,
    },
    Explain {
        repository: RepositoryName,
        tag: Tag,
    },
    /// A run of the schedule, if one is due.
    Scheduled {
        /// Whether it only reports.
        dry_run: bool,
    },
}

/// Does it, and says what came of it. Dropped at any point, it is continued by the next one.
pub(crate) async fn perform<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    request: &RunRequest,
) -> RunReport {
    let done = match request {
        RunRequest::Plan { beyond_limits } => make_plan(run, *beyond_limits).await,
        RunRequest::Apply {
            plan,
            beyond_limits,
        } => apply_plan(run, plan, *beyond_limits).await,
        RunRequest::Undo { plan } => undo_plan(run, plan).await,
        RunRequest::Explain { repository, tag } => explain(run, repository, tag).await,
        RunRequest::Scheduled { dry_run } => scheduled(run, *dry_run).await,
    };
    done.unwrap_or_else(|error| RunReport::failed(with_sources(&error)))
}

async fn make_plan<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    beyond_limits: bool,
) -> Result<RunReport, RunError> {
    let _lock = lock(run).await?;
    let max_tags = if beyond_limits {
        usize::MAX
    } else {
        run.settings.runs.max_tags
    };
    let MadePlan { id, path, totals } = plan(run, max_tags, Timestamp::now()).await?;
    Ok(RunReport {
        plan: Some(path),
        ..RunReport::done(report::planned(&id, &totals, run.settings))
    })
}

async fn apply_plan<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    id: &PlanId,
    beyond_limits: bool,
) -> Result<RunReport, RunError> {
    let _lock = lock(run).await?;
    let mut records = read_records(run).await?;
    let share = if beyond_limits {
        ShareLimit::Lifted
    } else {
        ShareLimit::Enforced
    };
    let ended = applied(run, id, share, RunTrigger::Command).await;
    if ended.result.is_ok() && records.unfinished() == Some(id.clone()) {
        records.unfinished = None;
    }
    finish(run, records, ended).await
}

async fn undo_plan<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    id: &PlanId,
) -> Result<RunReport, RunError> {
    let _lock = lock(run).await?;
    let mut records = read_records(run).await?;
    // What was undone is not taken away by the rest of the same plan.
    if records.unfinished() == Some(id.clone()) {
        records.unfinished = None;
    }
    let began = Timestamp::now();
    let mut summary = UndoSummary::default();
    let result = undo(run, id, &mut summary).await;
    let ended = EndedRun {
        last: LastRun {
            tags: summary.tags,
            manifests: summary.manifests,
            ..last_run(began, RunTrigger::Command, RunOutcome::Undone, Some(id))
        },
        result: result.map(|()| report::undone(&summary)),
    };
    finish(run, records, ended).await
}

async fn explain<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<RunReport, RunError> {
    if !planning::is_matched(run.settings, repository) {
        let text = format!("{repository}:{tag} stays: no rule names the repository {repository}");
        return Ok(RunReport::done(text));
    }
    let in_use = lists::read(&run.settings.runs.in_use, run.names).await?;
    let inventory = run.registry.inventory(repository).await;
    let inventory = inventory.map_err(RunError::at(repository))?;
    let (settings, own_tag, name) = (run.settings.clone(), tag.clone(), repository.clone());
    let explained = run_blocking(move || {
        let now = Timestamp::now();
        let plan = plan_repository(&inventory, &settings, &in_use, now, usize::MAX);
        let planned = plan.tag(&own_tag)?;
        let line = tag_line(name.as_str(), &planned, &settings);
        Some(report::explained(
            &line,
            &prospects(&planned.decision, &settings),
        ))
    });
    Ok(match explained.await {
        Some(text) => RunReport::done(text),
        None => RunReport::failed(format!(
            "there is no tag {repository}:{tag} at {}",
            run.registry_name
        )),
    })
}

/// One run of the schedule. Another process, or the last run, may have come first.
async fn scheduled<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    dry_run: bool,
) -> Result<RunReport, RunError> {
    let _lock = match lock(run).await {
        Err(RunError::Busy(_)) => return Ok(RunReport::done("another run is under way")),
        lock => lock?,
    };
    let mut records = read_records(run).await?;
    let now = Timestamp::now();
    let next = schedule::next_run(&run.settings.runs, &records, now);
    if next.is_none_or(|next| next > now) {
        return Ok(RunReport::done("another run came first"));
    }
    let began = last_run(now, RunTrigger::Schedule, RunOutcome::Failed, None);
    if let Some(id) = records.unfinished().filter(|_| !dry_run) {
        let ended = applied(run, &id, ShareLimit::Enforced, RunTrigger::Schedule).await;
        if ended.result.as_ref().err().is_none_or(is_final) {
            records.unfinished = None;
        }
        if !ended.result.as_ref().err().is_some_and(is_obsolete) {
            return finish(run, records, ended).await;
        }
    }
    records.unfinished = None;
    let made = match plan(run, run.settings.runs.max_tags, now).await {
        Ok(made) => made,
        Err(error) => {
            let ended = EndedRun {
                last: began,
                result: Err(error),
            };
            return finish(run, records, ended).await;
        }
    };
    let ended = take_away(run, &made, dry_run, &mut records).await?;
    let last = LastRun {
        recorded_since: made.totals.recorded_since,
        began: now,
        ..ended.last
    };
    finish(run, records, EndedRun { last, ..ended }).await
}

/// What becomes of the plan of a scheduled run.
async fn take_away<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    made: &MadePlan,
    dry_run: bool,
    records: &mut RunRecords,
) -> Result<EndedRun, RunError> {
    let MadePlan { id, path, totals } = made;
    let now = Timestamp::now();
    let runs = &run.settings.runs;
    let ended = |outcome, text: String| EndedRun {
        last: last_run(now, RunTrigger::Schedule, outcome, Some(id)),
        result: Ok(text),
    };
    if totals.goes == 0 {
        return nothing_goes(path, ended(RunOutcome::Applied, "nothing goes".to_owned())).await;
    }
    if dry_run {
        let reported = ended(
            RunOutcome::Reported,
            report::planned(id, totals, run.settings),
        );
        let last = LastRun {
            tags: totals.goes,
            manifests: totals.manifests,
            bytes: totals.bytes,
            ..reported.last
        };
        return Ok(EndedRun { last, ..reported });
    }
    if totals.is_beyond(runs.max_share) {
        let beyond = RunError::BeyondShare {
            id: id.clone(),
            goes: totals.goes,
            tags: totals.tags,
            max_share: runs.max_share,
        };
        let ended = ended(RunOutcome::BeyondShare, String::new());
        return Ok(EndedRun {
            result: Err(beyond),
            ..ended
        });
    }
    // A run that is killed now is continued at the next start.
    records.unfinished = Some(id.to_string());
    records.scheduled_failed = false;
    write_records(run, records.clone()).await?;
    let ended = applied(run, id, ShareLimit::Enforced, RunTrigger::Schedule).await;
    if ended.result.as_ref().err().is_none_or(is_final) {
        records.unfinished = None;
    }
    Ok(ended)
}

/// Nobody needs a plan by which nothing goes.
async fn nothing_goes(path: &Path, ended: EndedRun) -> Result<EndedRun, RunError> {
    let path = path.to_owned();
    run_blocking(move || std::fs::remove_file(&path).map_err(RunError::io(&path))).await?;
    let last = LastRun {
        plan: None,
        ..ended.last
    };
    Ok(EndedRun { last, ..ended })
}

/// Whether the same plan is not to be continued after this error.
fn is_final(error: &RunError) -> bool {
    is_obsolete(error) || matches!(error, RunError::TookTooMuch { .. })
}

/// Whether a new plan takes the place of one that ended so.
fn is_obsolete(error: &RunError) -> bool {
    match error {
        RunError::UnknownPlan { .. }
        | RunError::OtherDomain { .. }
        | RunError::OtherRegistry { .. }
        | RunError::TooOld(_)
        | RunError::BeyondShare { .. }
        | RunError::DamagedPlan { .. } => true,
        RunError::Busy(_)
        | RunError::Repositories(_)
        | RunError::Registry { .. }
        | RunError::TookTooMuch { .. }
        | RunError::InUse { .. }
        | RunError::Stopped
        | RunError::NothingSaved(_)
        | RunError::Io { .. } => false,
    }
}

/// A run, and what it says.
struct EndedRun {
    last: LastRun,
    result: Result<String, RunError>,
}

async fn applied<R: RetainedRegistry>(
    run: &RunContext<'_, R>,
    id: &PlanId,
    share: ShareLimit,
    trigger: RunTrigger,
) -> EndedRun {
    let began = Timestamp::now();
    let mut summary = ApplySummary::default();
    let result = apply(run, id, share, began, &mut summary).await;
    for incomplete in &summary.checked.incomplete {
        tracing::warn!(domain = %run.domain, "retention: {incomplete}, which no run took away");
    }
    EndedRun {
        last: LastRun {
            tags: summary.tags,
            manifests: summary.manifests,
            bytes: summary.bytes,
            ..last_run(began, trigger, RunOutcome::Applied, Some(id))
        },
        result: match result {
            Ok(()) => Ok(report::applied(id, &summary)),
            Err(error) => Err(error),
        },
    }
}

fn last_run(
    began: Timestamp,
    trigger: RunTrigger,
    outcome: RunOutcome,
    plan: Option<&PlanId>,
) -> LastRun {
    LastRun {
        began,
        ended: began,
        trigger,
        outcome,
        plan: plan.map(PlanId::to_string),
        tags: 0,
        manifests: 0,
        bytes: 0,
        recorded_since: None,
        problem: None,
    }
}

/// Records and logs the end of a run.
async fn finish<R>(
    run: &RunContext<'_, R>,
    mut records: RunRecords,
    ended: EndedRun,
) -> Result<RunReport, RunError> {
    let EndedRun { mut last, result } = ended;
    last.ended = Timestamp::now();
    let since = records.last.as_ref().and_then(|last| last.recorded_since);
    last.recorded_since = last.recorded_since.or(since);
    let report = match result {
        Ok(text) => RunReport::done(text),
        Err(error) => {
            last.problem = Some(with_sources(&error));
            if last.outcome != RunOutcome::BeyondShare {
                last.outcome = RunOutcome::Failed;
            }
            RunReport::failed(report::stopped(&error, &last))
        }
    };
    if last.trigger == RunTrigger::Schedule {
        records.scheduled = Some(last.ended);
        records.scheduled_failed = last.outcome == RunOutcome::Failed;
    }
    report::log(run.domain, &last);
    records.last = Some(last.clone());
    write_records(run, records).await?;
    Ok(RunReport {
        last: Some(last),
        ..report
    })
}

async fn lock<R>(run: &RunContext<'_, R>) -> Result<crate::state_file::FileLock, RunError> {
    let directory = run.directory.clone();
    run_blocking(move || directory.lock()).await
}

/// With times that the schedule can count from.
async fn read_records<R>(run: &RunContext<'_, R>) -> Result<RunRecords, RunError> {
    let directory = run.directory.clone();
    let read = run_blocking(move || RunRecords::read(&directory));
    let mut records = read.await?;
    schedule::settle(&mut records, Timestamp::now());
    Ok(records)
}

async fn write_records<R>(run: &RunContext<'_, R>, records: RunRecords) -> Result<(), RunError> {
    let directory = run.directory.clone();
    run_blocking(move || records.write(&directory)).await
}
