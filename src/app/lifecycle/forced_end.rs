//! The end of the process that waits for nothing: neither for the thread that drains nor for a
//! disk, a lock or whoever reads what the process says.

use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::StopSignals;
use crate::app::App;

/// Ends the process when what a signal or a successor has begun takes too long.
#[derive(Clone, Debug, Default)]
pub(super) struct ForcedEnd {
    app: Arc<OnceLock<Weak<App>>>,
    replaced: Arc<Notify>,
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

    /// The app drains without a signal.
    pub(super) fn begin(&self) {
        self.replaced.notify_one();
    }

    async fn wait(self, mut signals: StopSignals) {
        let received = tokio::select! {
            () = signals.recv() => 1,
            () = self.replaced.notified() => 0,
        };
        let drain = self.app().map_or(Duration::ZERO, |app| app.drain_limit());
        let second_signal = async {
            for _ in received..2 {
                signals.recv().await;
            }
            tokio::time::sleep(SECOND_SIGNAL_TIMEOUT).await;
        };
        tokio::select! {
            () = second_signal => {}
            () = tokio::time::sleep(drain.saturating_add(FINAL_WRITES)) => {}
        }
        let is_cut = self.app().is_some_and(|app| app.running_requests() > 0);
        std::process::exit(is_cut.into());
    }

    fn app(&self) -> Option<Arc<App>> {
        self.app.get().and_then(Weak::upgrade)
    }
}

/// From a second signal to the end: within a second, as documented.
const SECOND_SIGNAL_TIMEOUT: Duration = Duration::from_millis(900);
/// More than all that has a limit of its own after the drain: stores and tokens, blocking work, and
/// the last lines of the logs.
const FINAL_WRITES: Duration = Duration::from_secs(10);
