//! The tags of a plan as a table.

use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;

use crate::retention::explanation::Utc;
use crate::retention::run::plan_file::{PlanLine, PlanReader, TagLine};

/// Prints the tags that go, or all, with the reasons and rules. One line is in memory at a time.
pub(super) fn print(path: &Path, all: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(mut plan) = PlanReader::open(path)? else {
        anyhow::bail!("the plan {} has gone meanwhile", path.display());
    };
    while let Some(line) = plan.next_line()? {
        match line {
            PlanLine::Tag(tag) if all || !tag.stays => print_tag(&tag, out)?,
            PlanLine::Plan(_)
            | PlanLine::Tag(_)
            | PlanLine::Manifest(_)
            | PlanLine::Repository(_)
            | PlanLine::Totals(_) => {}
        }
    }
    Ok(())
}

fn print_tag(line: &TagLine, out: &mut impl Write) -> io::Result<()> {
    let TagLine {
        repository,
        tag,
        digest: _,
        stays,
        reasons,
        rule,
        pushed,
        pulled,
        until,
    } = line;
    let fate = if *stays { "stays" } else { "goes " };
    let reasons: Vec<_> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    let rule = rule.as_deref().unwrap_or("no rule");
    write!(
        out,
        "{fate}  {repository}:{tag}  {rule}  {}  (pushed {}, pulled {}",
        reasons.join("; "),
        time(*pushed),
        time(*pulled)
    )?;
    match until {
        Some(until) if *stays => writeln!(out, ", until {})", Utc(*until)),
        _ => writeln!(out, ")"),
    }
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "unknown".to_owned(), |time| Utc(time).to_string())
}
