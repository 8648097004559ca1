//! What runs say: to the administrator who began one, and to the log.

use std::fmt::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::applying::ApplySummary;
use super::checking::CheckSummary;
use super::error::RunError;
use super::plan_file::{PlanTotals, TagLine};
use super::plan_id::PlanId;
use super::records::{LastRun, RunOutcome};
use super::undoing::UndoSummary;
use crate::certs::library_error::with_sources;
use crate::config::retention::RetentionSettings;
use crate::registry::host::HostName;
use crate::retention::explanation::Utc;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunReport {
    pub(crate) failed: bool,
    /// For people.
    pub(crate) text: String,
    /// The plan that was made.
    pub(crate) plan: Option<PathBuf>,
    /// What was recorded of the run; `None`: it changed nothing.
    pub(crate) last: Option<LastRun>,
}

impl RunReport {
    pub(crate) fn done(text: impl Into<String>) -> Self {
        Self {
            failed: false,
            text: text.into(),
            plan: None,
            last: None,
        }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self {
            failed: true,
            ..Self::done(text)
        }
    }
}

/// A number with its noun: `1 tag`, `2 tags`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}

/// Bytes in the unit that reads best.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    let name = UNITS[unit as usize];
    let whole = bytes >> (10 * unit);
    let tenth = if unit == 0 {
        0
    } else {
        ((bytes >> (10 * (unit - 1))) & 1023) * 10 / 1024
    };
    if unit == 0 || whole >= 100 {
        return format!("{whole} {name}");
    }
    format!("{whole}.{tenth} {name}")
}

/// The summary of a plan, and what may be done with it.
pub(super) fn planned(id: &PlanId, totals: &PlanTotals, settings: &RetentionSettings) -> String {
    let PlanTotals {
        repositories,
        tags,
        goes,
        manifests,
        bytes,
        stays,
        recorded_since,
    } = totals;
    let of = match repositories {
        1 => "1 repository".to_owned(),
        count => format!("{count} repositories"),
    };
    let mut text = format!("{goes} of {} in {of} would go", counted(*tags, "tag"));
    if *goes > 0 {
        let manifests = counted(*manifests, "manifest");
        let _ = write!(text, ", with {manifests}: {} come free", size(*bytes));
    }
    for (reason, count) in stays {
        let _ = write!(text, "\n  stays  {reason}: {count}");
    }
    match recorded_since {
        Some(since) => {
            let _ = write!(text, "\npulls have been recorded since {}", Utc(*since));
        }
        None => text.push_str("\npulls have not been recorded yet"),
    }
    if *goes == 0 {
        text.push_str("\nnothing goes: there is nothing to apply");
        return text;
    }
    let max_share = settings.runs.max_share;
    let beyond = if totals.is_beyond(max_share) {
        let _ = write!(text, "\nthat is more than max_share ({max_share} %)");
        " --beyond-limits"
    } else {
        ""
    };
    let _ = write!(
        text,
        "\nplan {id}; within 7 days:\n  moorgate retention apply {id}{beyond}"
    );
    text
}

/// What was taken away, and how to put it back.
pub(super) fn applied(id: &PlanId, summary: &ApplySummary) -> String {
    let ApplySummary {
        tags,
        manifests,
        bytes,
        changed,
        changed_count,
        checked:
            CheckSummary {
                images,
                unchecked,
                incomplete,
            },
    } = summary;
    let mut text = format!(
        "gone: {} and {}; {} come free when the registry collects its garbage",
        counted(*tags, "tag"),
        counted(*manifests, "manifest"),
        size(*bytes)
    );
    list(
        &mut text,
        "left, used or changed since the plan",
        changed,
        *changed_count,
    );
    let whole = images.saturating_sub(incomplete.len() as u64);
    if *images > 0 {
        let _ = write!(
            text,
            "\nchecked afterwards: {} whole",
            counted(whole, "image")
        );
    }
    if *unchecked > 0 {
        let unchecked = counted(*unchecked, "image");
        let _ = write!(text, "\nno time to check {unchecked}");
    }
    let count = incomplete.len() as u64;
    list(&mut text, "not whole, by no run's doing", incomplete, count);
    let _ = write!(
        text,
        "\nto put it back, within 30 days:\n  moorgate retention undo {id}"
    );
    text
}

pub(super) fn undone(summary: &UndoSummary) -> String {
    let UndoSummary {
        tags,
        manifests,
        taken,
        lost,
    } = summary;
    let mut text = format!(
        "put back {} and {}",
        counted(*tags, "tag"),
        counted(*manifests, "manifest")
    );
    let count = taken.len() as u64;
    list(
        &mut text,
        "left, leading to another image now",
        taken,
        count,
    );
    let count = lost.len() as u64;
    list(&mut text, "lost, the content has gone", lost, count);
    text.push_str("\nthe next run takes away what the rules do not keep: change them first");
    text
}

fn list(text: &mut String, title: &str, lines: &[String], count: u64) {
    if count == 0 {
        return;
    }
    let _ = write!(text, "\n{title}: {count}");
    for line in lines.iter().take(MAX_LINES) {
        let _ = write!(text, "\n  {line}");
    }
    let left = count.saturating_sub(lines.len().min(MAX_LINES) as u64);
    if left > 0 {
        let _ = write!(text, "\n  and {left} more");
    }
}

/// Why a run ended early, and what it had done.
pub(super) fn stopped(error: &RunError, last: &LastRun) -> String {
    let mut text = with_sources(error);
    let LastRun {
        tags, manifests, ..
    } = last;
    if *tags > 0 || *manifests > 0 {
        let done = format!(
            "{}, {}",
            counted(*tags, "tag"),
            counted(*manifests, "manifest")
        );
        let _ = write!(
            text,
            "\nby then it had done its work on {done}; the same command continues"
        );
    }
    text
}

/// A tag: whether it stays, why, and until when.
pub(super) fn explained(line: &TagLine, prospects: &[String]) -> String {
    let TagLine {
        repository,
        tag,
        digest,
        stays,
        reasons,
        rule,
        pushed,
        pulled,
        until: _,
    } = line;
    let fate = if *stays { "stays" } else { "goes" };
    let mut text = format!("{repository}:{tag} {fate} ({digest})");
    let rule = rule.as_deref().unwrap_or("none matches");
    let _ = write!(text, "\n  rule    {rule}");
    for reason in reasons {
        let _ = write!(text, "\n  reason  {}", reason.text);
    }
    let time = |time: &Option<jiff::Timestamp>, unknown: &str| match time {
        Some(time) => Utc(*time).to_string(),
        None => unknown.to_owned(),
    };
    let _ = write!(
        text,
        "\n  pushed  {}",
        time(pushed, "before recording began")
    );
    let _ = write!(
        text,
        "\n  pulled  {}",
        time(pulled, "never, as far as is recorded")
    );
    for sentence in prospects {
        let _ = write!(text, "\n  {sentence}");
    }
    text
}

/// One line for a run.
pub(super) fn log(domain: &HostName, last: &LastRun) {
    let LastRun {
        began,
        ended,
        trigger,
        outcome,
        plan,
        tags,
        manifests,
        bytes,
        recorded_since: _,
        problem,
    } = last;
    let plan = plan.as_deref().unwrap_or_default();
    let duration_ms = ended.duration_since(*began).as_millis();
    let trigger = trigger.as_str();
    match (outcome, problem) {
        (RunOutcome::Failed | RunOutcome::BeyondShare, problem) => {
            let error = problem.as_deref().unwrap_or_default();
            tracing::error!(
                %domain, trigger, plan, tags, manifests, bytes, duration_ms, error,
                "retention run stopped"
            );
        }
        (RunOutcome::Applied | RunOutcome::Reported | RunOutcome::Undone, _) => {
            tracing::info!(
                %domain, trigger, outcome = outcome.as_str(), plan, tags, manifests, bytes, duration_ms,
                "retention run"
            );
        }
    }
}

/// Of a list in a reply.
const MAX_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let sizes = [
            0,
            999,
            1024,
            1536,
            100 << 20,
            (1 << 30) + (1 << 29),
            u64::MAX,
        ];
        let sizes = sizes.map(size).join(", ");
        insta::assert_snapshot!(sizes, @"0 B, 999 B, 1.0 KiB, 1.5 KiB, 100 MiB, 1.5 GiB, 16777215 TiB");
    }
}
