//! What runs beside the requests: files are re-read, and stores maintained.

use std::sync::Arc;
use std::time::Duration;

use super::{App, build, resources, stores, tokens};
use crate::request::site::Sites;

impl App {
    /// Re-reads changed certificate, htpasswd and token files, and renews leaves of the internal
    /// CA.
    pub async fn refresh_files(self: &Arc<Self>) {
        tokio::join!(
            self.clone().refresh_certificates(),
            self.clone().refresh_users(),
            self.clone().refresh_tokens(),
        );
    }

    /// Starts the tasks. Each kind of file has a task of its own, so that one that waits for a lock
    /// or a disk does not delay the others: the removal of a user must take effect.
    pub(super) fn start_background_tasks(self: &Arc<Self>) {
        self.repeat(FILE_POLL_INTERVAL, Self::refresh_certificates);
        self.repeat(FILE_POLL_INTERVAL, Self::refresh_users);
        self.repeat(FILE_POLL_INTERVAL, Self::refresh_tokens);
        self.repeat(stores::MAINTENANCE_INTERVAL, Self::maintain_stores);
        self.repeat(FILE_POLL_INTERVAL, Self::report_repeats);
        self.repeat(
            resources::RESOURCE_CHECK_INTERVAL,
            resources::warn_of_scarce,
        );
        self.tasks
            .spawn(self.issuer.clone().run(self.drain.clone()));
    }

    async fn refresh_certificates(self: Arc<Self>) {
        let certificates = self.certificates.clone();
        run_logged("refreshing certificates", move || certificates.refresh()).await;
    }

    async fn refresh_users(self: Arc<Self>) {
        self.run_on_sites("re-reading htpasswd files", build::refresh_users)
            .await;
    }

    async fn refresh_tokens(self: Arc<Self>) {
        self.run_on_sites("refreshing tokens", tokens::refresh)
            .await;
    }

    async fn maintain_stores(self: Arc<Self>) {
        self.run_on_sites("maintaining stores", stores::maintain)
            .await;
    }

    async fn report_repeats(self: Arc<Self>) {
        if let Some(log) = &self.log {
            log.repeats().report();
        }
    }

    /// Runs `work` now and after each `interval`, until the app drains.
    fn repeat<F>(self: &Arc<Self>, interval: Duration, work: fn(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let app = self.clone();
        self.spawn_until_drain(async move {
            let mut tick = tokio::time::interval(interval);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                work(app.clone()).await;
            }
        });
    }

    /// Runs `work` on the sites in force, on a thread that may block.
    pub(super) async fn run_on_sites(&self, what: &str, work: fn(&Sites)) {
        let sites = self.gateway.sites.load_full();
        run_logged(what, move || work(&sites)).await;
    }
}

/// Runs work that waits for the disk. A panic of it is logged and does not end the caller.
#[expect(clippy::disallowed_methods, reason = "awaited at once")]
pub(super) async fn run_logged(what: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "{what} failed");
    }
}

/// How often files are checked for changes. A `stat` costs microseconds and, unlike notifications
/// of the kernel, works on bind mounts and network file systems.
const FILE_POLL_INTERVAL: Duration = Duration::from_secs(1);
