//! `moorgate retention`: makes plans in the running moorgate, applies and undoes them, and explains
//! what becomes of a tag.

mod listing;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::admin::control::client::ControlledProcess;
use crate::admin::control::retention::{RetentionAction, RetentionJobState};
use crate::admin::control::{ControlCommand, ControlReply, ReplyStatus};
use crate::retention::run::report::RunReport;

/// The subcommands of `moorgate retention`.
#[derive(Debug, clap::Subcommand)]
pub enum RetentionCommand {
    /// Plan what the rules of a domain take away now, and print it with the reasons. Takes nothing
    /// away.
    Plan {
        /// The domain, as in its file.
        domain: String,
        #[command(flatten)]
        options: PlanOptions,
    },
    /// Take away what a plan names, unless it was used since. A run that was interrupted is
    /// continued.
    Apply {
        /// The plan, by its name or its file.
        plan: PathBuf,
        /// Also if more than `max_share` of the tags go.
        #[arg(long)]
        beyond_limits: bool,
    },
    /// Put back what a plan took away, as far as the content is still there.
    Undo {
        /// The plan, by its name or its file.
        plan: PathBuf,
    },
    /// Explain whether a tag stays, why, until when, and what would keep it.
    Explain {
        /// The domain, as in its file.
        domain: String,
        /// The repository with the tag.
        #[arg(value_name = "REPO:TAG")]
        image: String,
    },
}

/// Options of `moorgate retention plan`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct PlanOptions {
    /// Print the lines of the plan file instead: JSON lines with a header, tags, manifests, a
    /// summary of each repository, and totals.
    #[arg(long)]
    json: bool,
    /// Print the tags that stay, too.
    #[arg(long)]
    all: bool,
    /// Plan more tags than `max_tags`.
    #[arg(long)]
    beyond_limits: bool,
}

/// Sends the command to the running process, waits for the end of its run and prints what came of
/// it.
pub(super) fn run(config: &Path, command: &RetentionCommand) -> anyhow::Result<ExitCode> {
    let state = match crate::config::state(config) {
        Ok(state) => state,
        Err(problems) => {
            super::report_problems(&problems)?;
            return Ok(ExitCode::from(2));
        }
    };
    let action = match command {
        RetentionCommand::Plan { domain, options } => RetentionAction::Plan {
            domain: domain.clone(),
            beyond_limits: options.beyond_limits,
        },
        RetentionCommand::Apply {
            plan,
            beyond_limits,
        } => RetentionAction::Apply {
            plan: plan_name(&state, plan)?,
            beyond_limits: *beyond_limits,
        },
        RetentionCommand::Undo { plan } => RetentionAction::Undo {
            plan: plan_name(&state, plan)?,
        },
        RetentionCommand::Explain { domain, image } => RetentionAction::Explain {
            domain: domain.clone(),
            image: image.clone(),
        },
    };
    let process = ControlledProcess::find(config, &state)?;
    let report = match wait(&process, action)? {
        Ok(report) => report,
        Err(code) => return Ok(code),
    };
    if report.failed {
        eprintln!("moorgate: {}", report.text);
        return Ok(ExitCode::FAILURE);
    }
    let out = &mut std::io::stdout().lock();
    match command {
        RetentionCommand::Plan { options, .. } => print_plan(&report, *options, out)?,
        RetentionCommand::Apply { .. }
        | RetentionCommand::Undo { .. }
        | RetentionCommand::Explain { .. } => writeln!(out, "{}", report.text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of a plan, which may be given as its file. A copy of the file elsewhere is no plan: it
/// may have been changed.
fn plan_name(state: &Path, plan: &Path) -> anyhow::Result<String> {
    let shown = plan.display();
    let mut parts = plan.components();
    if parts.next().is_some() && parts.next().is_none() && plan.extension().is_none() {
        return Ok(shown.to_string());
    }
    let file = plan.canonicalize();
    let file = file.with_context(|| format!("the plan {shown} cannot be read"))?;
    let root = state.join("retention").canonicalize();
    let root = root.with_context(|| format!("{} has no plans", state.display()))?;
    let below: Vec<_> = file.strip_prefix(&root).into_iter().flatten().collect();
    let is_plan = below.len() == 3 && below[1] == "plans";
    match plan.file_stem().filter(|_| is_plan) {
        Some(name) => Ok(name.to_string_lossy().into_owned()),
        None => bail!(
            "{shown} is not among the plans below {}: only those that moorgate stored there are \
             applied and undone",
            root.display()
        ),
    }
}

/// Begins a run and waits for its end. The inner error is the exit status of a command that was not
/// begun, and has been explained.
fn wait(
    process: &ControlledProcess,
    action: RetentionAction,
) -> anyhow::Result<Result<RunReport, ExitCode>> {
    let shows_progress = std::io::stderr().is_terminal();
    let mut reply = process.send(&ControlCommand::Retention { action })?;
    loop {
        let ControlReply { outcome, text } = reply;
        match outcome {
            ReplyStatus::Done => {}
            ReplyStatus::Failed => {
                eprintln!("moorgate: {text}");
                return Ok(Err(ExitCode::FAILURE));
            }
            ReplyStatus::Refused => {
                eprintln!("moorgate: {text}");
                return Ok(Err(ExitCode::from(2)));
            }
        }
        let state: RetentionJobState = serde_json::from_str(&text).context(
            "the reply cannot be understood: is the running moorgate of another version?",
        )?;
        if shows_progress && state.of > 0 {
            eprint!("\r{} of {} repositories\u{1b}[K", state.done, state.of);
        }
        if let Some(report) = state.report {
            if shows_progress {
                eprint!("\r\u{1b}[K");
            }
            return Ok(Ok(report));
        }
        let job = state.job;
        reply = process
            .send(&ControlCommand::RetentionJob { job })
            .context("moorgate ended meanwhile: begin the same command again after its start")?;
    }
}

fn print_plan(
    report: &RunReport,
    options: PlanOptions,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let path = report.plan.as_deref().context("the reply names no plan")?;
    if options.json {
        let mut file = std::fs::File::open(path);
        let file = file.as_mut();
        let file = file.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        std::io::copy(file, out)?;
        return Ok(());
    }
    listing::print(path, options.all, out)?;
    writeln!(out, "{}", report.text)?;
    Ok(())
}
