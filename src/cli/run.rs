//! `moorgate run`: serves in the foreground until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::admin;
use crate::app::lifecycle::{self, Signals};
use crate::app::{App, StartError, StartOptions};
use crate::config::snapshot::LogLevel;

/// Serves the configuration of a directory.
pub fn run(directory: PathBuf, debug: bool) -> anyhow::Result<ExitCode> {
    raise_descriptor_limit();
    // Signals, files and new connections; requests are served by the workers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(serve(directory, debug))
}

async fn serve(directory: PathBuf, debug: bool) -> anyhow::Result<ExitCode> {
    let signals = Signals::new().context("the signals cannot be taken over")?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let options = StartOptions {
        directory,
        workers: Some(workers),
        log_floor: debug.then_some(LogLevel::Debug),
        install_log: true,
    };
    let app = match App::start(options).await {
        Ok(app) => app,
        Err(StartError::Configuration(problems)) => {
            super::report_problems(&problems)?;
            return Ok(ExitCode::from(2));
        }
        Err(error) => return Err(error.into()),
    };
    admin::serve(&app);
    log_panics();
    let log = app.access_log().clone();
    let writer = std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || log.run(std::io::stdout()))
        .context("the thread of the access log cannot be started")?;
    let access_log = app.access_log().clone();
    lifecycle::run(app, signals).await;
    access_log.close();
    // It ends when the last line is written; if it panicked there is nothing left to write.
    let _ = writer.join();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// A panic costs one connection; it must not go unnoticed.
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

/// Two descriptors for each request: the usual soft limit of 1024 is soon reached.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Served with what there is otherwise: accepting waits when descriptors run out.
    let _ = setrlimit(Resource::Nofile, raised);
}
