//! The end of the process that waits for nothing: neither for the thread that drains nor for a
//! disk, a lock or whoever reads what the process says.

use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::StopSignals;
use crate::app::App;

/// Ends the process when what a signal has begun takes too long.
#[derive(Clone, Debug, Default)]
pub(super) struct ForcedEnd {
    app: Arc<OnceLock<Weak<App>>>,
}

impl ForcedEnd {
    /// Watches signals on a thread of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "watches signals; ends with the process"
    )]
    pub(super) fn start() -> io::Result<Self> {
        let end = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = {
            let _entered = runtime.enter();
            StopSignals::new()?
        };
        let own = end.clone();
        std::thread::Builder::new()
            .name("forced-end".to_owned())
            .spawn(move || runtime.block_on(own.wait(signals)))?;
        Ok(end)
    }

    /// The first signal lets this app drain.
    pub(super) fn drains(&self, app: &Arc<App>) {
        let _ = self.app.set(Arc::downgrade(app));
    }

    async fn wait(self, mut signals: StopSignals) {
        signals.recv().await;
        let app = self.app.get().and_then(Weak::upgrade);
        let drain = app.map_or(Duration::ZERO, |app| app.drain_limit());
        tokio::select! {
            () = signals.recv() => tokio::time::sleep(SECOND_SIGNAL_TIMEOUT).await,
            () = tokio::time::sleep(drain.saturating_add(FINAL_WRITES)) => {}
        }
        std::process::exit(0);
    }
}

/// From a second signal to the end: within a second, as documented.
const SECOND_SIGNAL_TIMEOUT: Duration = Duration::from_millis(900);
/// More than all that has a limit of its own after the drain: stores and tokens, blocking work, and
/// the last lines of the logs.
const FINAL_WRITES: Duration = Duration::from_secs(10);
