//! `moorgate run`: serves in the foreground until a signal.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::admin;
use crate::app::lifecycle::{self, Signals};
use crate::app::{App, StartError, StartOptions};
use crate::config::snapshot::LogLevel;
use crate::listen::inherited::InheritedSockets;
use crate::observe::log_writer::LogWriters;

/// Serves the configuration of a directory.
pub fn run(directory: PathBuf, debug: bool) -> anyhow::Result<ExitCode> {
    // First, while the process has one thread.
    let sockets = InheritedSockets::from_environment()?;
    raise_descriptor_limit();
    let logs = LogWriters::start().context("the threads of the logs cannot be started")?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let options = StartOptions {
        directory,
        workers: Some(workers),
        log_floor: debug.then_some(LogLevel::Debug),
        logs: Some(logs.queues()),
        sockets,
    };
    let served = lifecycle::run(async |signals| serve(options, signals).await)
        .context("no runtime for signals")?;
    if served.is_ok() {
        tracing::info!("stopped");
    }
    // What was logged before comes first.
    drop(logs);
    match served {
        Ok(()) => Ok(ExitCode::SUCCESS),
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

async fn serve(options: StartOptions, mut signals: Signals) -> Result<(), StartError> {
    let app = tokio::select! {
        started = App::start(options) => started?,
        // Nothing is served yet, so that nothing has to be drained.
        () = signals.stop() => return Ok(()),
    };
    admin::serve(&app);
    log_panics();
    lifecycle::serve_until_stopped(&app, &mut signals).await;
    Ok(())
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
