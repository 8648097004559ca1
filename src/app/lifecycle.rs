//! The life of the process: signals, reloads, a drain that a second signal cuts short, and an end
//! that waits for nothing else.

mod forced_end;
pub(super) mod service_manager;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::App;
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

/// Serves until SIGTERM or SIGINT, then drains. SIGHUP reloads the configuration.
pub(crate) async fn serve_until_stopped(app: &Arc<App>, signals: &mut Signals) {
    service_manager::ready(app).await;
    tokio::select! {
        // Cancelled only when the process ends.
        () = service_manager::keep_alive(app.clone()) => {}
        () = serve_and_drain(app, signals) => {}
    }
}

async fn serve_and_drain(app: &Arc<App>, signals: &mut Signals) {
    signals.forced_end.drains(app);
    tokio::select! {
        () = signals.stop.recv() => {}
        // Dropping a reload halfway does no harm: the process stops.
        () = reload_on_hangup(app, &mut signals.hangup) => {}
    }
    let timeout = app.drain_limit();
    tracing::info!(
        connections = app.connections(),
        limit_s = timeout.as_secs(),
        "draining: running transfers may finish, a second signal ends them"
    );
    service_manager::stopping(app.connections(), timeout).await;
    tokio::select! {
        drained = app.drain(timeout) => {
            if !drained {
                tracing::warn!(connections = app.connections(), "drain deadline exceeded, closing connections");
            }
        }
        () = signals.stop() => {
            tracing::warn!(connections = app.connections(), "second signal, closing connections");
        }
    }
}

async fn reload_on_hangup(app: &Arc<App>, hangup: &mut Signal) {
    while hangup.recv().await.is_some() {
        if let Err(error) = app.reload().await {
            error.log_reload();
        }
    }
    std::future::pending().await
}
