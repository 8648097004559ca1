//! From start to end of the process: signals, reloads, and a drain that a second signal cuts short.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::App;

/// The signals that steer a process.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over from the system. Needs a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            // Both only receive: what one of them misses, it has next time.
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until SIGTERM or SIGINT, then lets running transfers finish. SIGHUP reloads.
/// Returns whether all ended by themselves.
pub(crate) async fn run(app: Arc<App>, mut signals: Signals) -> bool {
    loop {
        tokio::select! {
            () = async { tokio::select! { _ = signals.terminate.recv() => {}, _ = signals.interrupt.recv() => {} } } => break,
            _ = signals.hangup.recv() => reload(&app).await,
        }
    }
    let limit = app.drain_limit();
    tracing::info!(
        connections = app.connections(),
        limit_s = limit.as_secs(),
        "stopping: running transfers may finish, a second signal ends them"
    );
    tokio::select! {
        drained = app.drain(limit) => {
            if !drained {
                tracing::warn!(connections = app.connections(), "the time to finish is over");
            }
            drained
        }
        () = signals.stop() => {
            tracing::warn!(connections = app.connections(), "second signal: ending at once");
            false
        }
    }
}

async fn reload(app: &Arc<App>) {
    if let Err(error) = app.reload().await {
        error.log_reload();
    }
}
