//! `moorgate run`: serves in the foreground until a signal.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::admin;
use crate::app::lifecycle::{self, ServingEnd, Signals};
use crate::app::upgrade::program::Program;
use crate::app::{App, Predecessor, StartError, StartOptions};
use crate::config::snapshot::LogLevel;
use crate::listen::inherited::InheritedSockets;
use crate::observe::log_writer::LogWriters;

/// How `moorgate run` starts.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct RunOptions {
    /// Log at least at level debug, whatever the configuration says.
    #[arg(long)]
    debug: bool,
    /// Refuse to start if any domain file has an error, instead of serving the other domains.
    #[arg(long)]
    strict: bool,
}

/// Serves the configuration of a directory.
pub fn run(directory: PathBuf, options: RunOptions) -> anyhow::Result<ExitCode> {
    // First, while the process has one thread.
    let mut sockets = InheritedSockets::from_environment()?;
    let predecessor = Predecessor::from_environment()
        .context("the process that is to be replaced has not passed on its sockets")?;
    let predecessor = predecessor.map(|(predecessor, passed)| {
        sockets = passed;
        predecessor
    });
    let program = Program::of_this_process().ok();
    raise_descriptor_limit();
    let logs = LogWriters::start().context("the threads of the logs cannot be started")?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let RunOptions { debug, strict } = options;
    let options = StartOptions {
        directory,
        workers: Some(workers),
        log_floor: debug.then_some(LogLevel::Debug),
        logs: Some(logs.queues()),
        sockets,
        predecessor: predecessor.clone(),
        strict,
    };
    let served = lifecycle::run(async |signals| serve(options, signals, program.as_ref()).await)
        .context("no runtime for signals")?;
    if let (Err(error), Some(predecessor)) = (&served, predecessor) {
        predecessor.failed(&error.text());
    }
    if served.is_ok() {
        tracing::info!("stopped");
    }
    // What was logged before comes first.
    drop(logs);
    match served {
        Ok(ServingEnd::Complete) => Ok(ExitCode::SUCCESS),
        Ok(ServingEnd::TransfersCut) => Ok(ExitCode::FAILURE),
        Err(StartError::Configuration(problems)) => {
            super::report_problems(&problems)?;
            Ok(ExitCode::from(2))
        }
        Err(StartError::System(problems)) => {
            super::report_problems(&problems)?;
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

async fn serve(
    options: StartOptions,
    mut signals: Signals,
    program: Option<&Program>,
) -> Result<ServingEnd, StartError> {
    let predecessor = options.predecessor.clone();
    let app = tokio::select! {
        started = App::start(options) => started?,
        // Nothing is served yet, so that nothing has to be drained.
        () = signals.stop() => return Ok(ServingEnd::Complete),
    };
    admin::serve(&app);
    log_panics();
    if let Some(predecessor) = predecessor {
        // One that has gone meanwhile has been told to stop, and so has whoever takes over from it.
        predecessor.serving().await?;
    }
    Ok(lifecycle::serve_until_stopped(&app, &mut signals, program).await)
}

/// Logs each panic, which costs one connection.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(
            place,
            message,
            "panic: one connection is lost, please report this"
        );
    }));
}

/// Raises the soft limit of file descriptors, usually 1024: each request takes two.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // On failure, accepting waits when descriptors run out.
    let _ = setrlimit(Resource::Nofile, raised);
}
