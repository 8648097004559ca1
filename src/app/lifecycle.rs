//! The life of the process: signals, reloads, a drain that a second signal cuts short, and an end
//! that waits for nothing else.

mod forced_end;
pub(super) mod service_manager;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::App;
use super::upgrade::{self, program::Program};
use forced_end::ForcedEnd;

/// Runs `serve` on a runtime for signals, files and new connections; the workers serve requests.
///
/// Returns soon after `serve`: work on a thread that may block, such as a garbage collection that
/// waits for a lock or a name that is being resolved, is given [`BLOCKING_TIMEOUT`] to end. What it
/// writes survives a kill at any point.
pub(crate) fn run<T>(serve: impl AsyncFnOnce(Signals) -> T) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async { Ok(serve(Signals::new()?).await) });
    runtime.shutdown_timeout(BLOCKING_TIMEOUT);
    result
}

/// How long the end of the process waits for blocking work, unless a second signal cuts it short.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(1);

/// The signals that control the process.
pub(crate) struct Signals {
    stop: StopSignals,
    hangup: Signal,
    upgrade: Signal,
    forced_end: ForcedEnd,
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers. Needs a runtime.
    fn new() -> io::Result<Self> {
        Ok(Self {
            stop: StopSignals::new()?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            forced_end: ForcedEnd::start()?,
        })
    }

    /// Waits for SIGTERM or SIGINT. Cancel-safe.
    pub(crate) async fn stop(&mut self) {
        self.stop.recv().await;
    }
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            // Cancel-safe: a signal that one of them misses is received by the next call.
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How a process that served ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServingEnd {
    /// All transfers have ended by themselves.
    Complete,
    /// The drain deadline or a second signal has cut transfers.
    TransfersCut,
}

/// Serves until SIGTERM or SIGINT, or until a new process takes over at SIGUSR2 or a command; then
/// drains. SIGHUP reloads the configuration.
pub(crate) async fn serve_until_stopped(
    app: &Arc<App>,
    signals: &mut Signals,
    program: Option<&Program>,
) -> ServingEnd {
    service_manager::ready(app).await;
    tokio::select! {
        // Cancelled only when the process ends.
        () = service_manager::keep_alive(app.clone()) => ServingEnd::Complete,
        end = serve_and_drain(app, signals, program) => end,
    }
}

async fn serve_and_drain(
    app: &Arc<App>,
    signals: &mut Signals,
    program: Option<&Program>,
) -> ServingEnd {
    signals.forced_end.drains(app);
    tokio::select! {
        () = signals.stop.recv() => {}
        // Dropping a reload halfway does no harm: the process stops.
        () = reload_on_hangup(app, &mut signals.hangup) => {}
        // Dropping it ends a new process that does not serve yet.
        pid = upgrade::until_replaced(app, program, &mut signals.upgrade) => {
            return leave_to_successor(app, pid, signals).await;
        }
    }
    let timeout = app.drain_limit();
    log_draining(app, timeout);
    service_manager::stopping(app, timeout).await;
    app.end_idle();
    finish(app, timeout, signals.stop()).await
}

fn log_draining(app: &App, limit: Duration) {
    tracing::info!(
        connections = app.connections(),
        limit_s = limit.as_secs(),
        "draining: running transfers may finish, a second signal ends them"
    );
}

/// Drains while a new process serves. SIGTERM and SIGINT mean what they do to any other process: the
/// first one stops what rests, the second one what runs.
async fn leave_to_successor(app: &Arc<App>, pid: u32, signals: &mut Signals) -> ServingEnd {
    service_manager::replaced(pid).await;
    let timeout = app.drain_limit();
    tracing::info!(
        successor = pid,
        connections = app.connections(),
        limit_s = timeout.as_secs(),
        "upgraded: the new process serves, running transfers of this one may finish"
    );
    app.leave_to_successor();
    signals.forced_end.begin();
    let stop = &mut signals.stop;
    let cut = async {
        // On an idle connection, a request may be under way: it is answered.
        let mut received = 0;
        tokio::select! {
            () = tokio::time::sleep(LAST_REQUEST_TIMEOUT.min(timeout / 2)) => {}
            () = stop.recv() => {
                received += 1;
                log_draining(app, timeout);
            }
        }
        app.end_idle();
        while received < 2 {
            stop.recv().await;
            received += 1;
        }
    };
    finish(app, timeout, cut).await
}

/// Waits for the running transfers, until `timeout` or the end of `second_signal`.
async fn finish(
    app: &Arc<App>,
    timeout: Duration,
    second_signal: impl Future<Output = ()>,
) -> ServingEnd {
    let is_cut = tokio::select! {
        drained = app.finish(timeout) => {
            let connections = app.connections();
            if !drained {
                tracing::warn!(connections, "drain deadline exceeded, closing connections");
            }
            // Whatever else was late, such as a run of retention, continues another time.
            !drained && connections > 0
        }
        () = second_signal => {
            let (connections, requests) = (app.connections(), app.running_requests());
            tracing::warn!(connections, requests, "second signal, closing connections");
            requests > 0
        }
    };
    if is_cut {
        ServingEnd::TransfersCut
    } else {
        ServingEnd::Complete
    }
}

async fn reload_on_hangup(app: &Arc<App>, hangup: &mut Signal) {
    while hangup.recv().await.is_some() {
        // It logs what is wrong.
        let _ = app.reload().await;
    }
    std::future::pending().await
}

/// How long a connection of a replaced process waits for a request: longer than most clients use a
/// connection again, and no more, since the process has the configuration of before.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
