//! `moorgate run`: serves in the foreground until a signal.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;

use crate::admin;
use crate::app::lifecycle::{self, Signals};
use crate::app::{App, StartError, StartOptions};
use crate::config::snapshot::LogLevel;
use crate::observe::access_log::AccessLog;

/// Serves the configuration of a directory.
pub fn run(directory: PathBuf, debug: bool) -> anyhow::Result<ExitCode> {
    raise_descriptor_limit();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let options = StartOptions {
        directory,
        workers: Some(workers),
        log_floor: debug.then_some(LogLevel::Debug),
        install_log: true,
    };
    let served = lifecycle::run(async |signals| serve(options, signals).await)
        .context("no runtime for signals")?;
    if let Ok(ExitCode::SUCCESS) = served {
        tracing::info!("stopped");
    }
    served
}

async fn serve(options: StartOptions, mut signals: Signals) -> anyhow::Result<ExitCode> {
    let started = tokio::select! {
        started = App::start(options) => started,
        // Nothing is served yet, so that nothing has to be drained.
        () = signals.stop() => return Ok(ExitCode::SUCCESS),
    };
    let app = match started {
        Ok(app) => app,
        Err(StartError::Configuration(problems)) => {
            super::report_problems(&problems)?;
            return Ok(ExitCode::from(2));
        }
        Err(StartError::System(problems)) => {
            super::report_problems(&problems)?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    admin::serve(&app);
    log_panics();
    let written = write_access_log(app.access_log().clone())
        .context("the thread of the access log cannot be started")?;
    lifecycle::serve_until_stopped(&app, &mut signals).await;
    app.access_log().close();
    if tokio::time::timeout(FLUSH_TIMEOUT, written).await.is_err() {
        tracing::warn!("access log reader is too slow, lines dropped");
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the access log on a thread of its own, since standard output may block. The receiver
/// completes when the log is closed and all lines are written.
#[expect(
    clippy::disallowed_methods,
    reason = "writes the access log; ends when the log is closed"
)]
fn write_access_log(log: Arc<AccessLog>) -> io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || {
            let _on_end = sender;
            log.run(io::stdout());
        })?;
    Ok(receiver)
}

/// For the last lines of the access log.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

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
