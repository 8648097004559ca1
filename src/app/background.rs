//! What runs beside the requests: files are re-read, and stores maintained.

use std::sync::Arc;
use std::time::Duration;

use super::listeners::LISTENER_RETRY_INTERVAL;
use super::{App, build, resources, retention, stores, tokens};
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
        self.spawn_until_drain(repeat_on_change(self.clone(), Self::refresh_certificates));
        self.spawn_until_drained(repeat_on_change(self.clone(), Self::refresh_users));
        self.repeat_until_drained(FILE_POLL_INTERVAL, Self::refresh_tokens);
        self.repeat(stores::MAINTENANCE_INTERVAL, Self::maintain_stores);
        self.repeat_until_drained(stores::MAINTENANCE_INTERVAL, Self::flush_journals);
        self.repeat_until_drained(FILE_POLL_INTERVAL, Self::write_full_journals);
        self.repeat(
            retention::RETENTION_CHECK_INTERVAL,
            Self::begin_scheduled_retention,
        );
        self.repeat_until_drained(FILE_POLL_INTERVAL, Self::report_repeats);
        self.repeat(LISTENER_RETRY_INTERVAL, Self::retry_listeners);
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

    /// Writes the journals, removes expired uploads, and collects garbage where that is due.
    pub async fn maintain_stores(self: Arc<Self>) {
        self.run_on_sites("maintaining stores", stores::maintain)
            .await;
    }

    /// What transfers add during a drain, of up to an hour, must survive a kill. Before it,
    /// [`Self::maintain_stores`] writes the journals.
    async fn flush_journals(self: Arc<Self>) {
        if self.drain.is_cancelled() {
            self.run_on_sites("writing journals", stores::flush_journals)
                .await;
        }
    }

    async fn write_full_journals(self: Arc<Self>) {
        let sites = self.gateway.sites.load();
        if stores::has_full_journal(&sites) {
            self.run_on_sites("writing journals", stores::write_full_journals)
                .await;
        }
    }

    async fn report_repeats(self: Arc<Self>) {
        if let Some(log) = &self.log {
            log.repeats().report();
        }
    }

    async fn begin_scheduled_retention(self: Arc<Self>) {
        // They end by themselves.
        let _ = retention::begin_due(&self).await;
    }

    /// Begins the runs of retention that are due, and waits for their end.
    pub async fn run_due_retention(self: &Arc<Self>) {
        for job in retention::begin_due(self).await {
            job.ended().await;
        }
    }

    /// Runs `work` now and after each `interval`, until the app drains.
    fn repeat<F>(self: &Arc<Self>, interval: Duration, work: fn(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_until_drain(repeat(self.clone(), interval, work));
    }

    /// The same until the last transfer has ended: what running requests depend on, and add to.
    fn repeat_until_drained<F>(self: &Arc<Self>, interval: Duration, work: fn(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_until_drained(repeat(self.clone(), interval, work));
    }

    /// Runs `work` on the sites in force, on a thread that may block.
    pub(super) async fn run_on_sites(&self, what: &str, work: fn(&Sites)) {
        let sites = self.gateway.sites.load_full();
        run_logged(what, move || work(&sites)).await;
    }
}

/// Runs `work` now and after each `interval`.
async fn repeat<F: Future<Output = ()>>(
    app: Arc<App>,
    interval: Duration,
    work: fn(Arc<App>) -> F,
) {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        work(app.clone()).await;
    }
}

/// Runs `work` now, each second, and when files have changed.
async fn repeat_on_change<F: Future<Output = ()>>(app: Arc<App>, work: fn(Arc<App>) -> F) {
    let mut changes = app.file_changes.subscribe();
    loop {
        work(app.clone()).await;
        // Both are cancel-safe. The sender is a part of the app.
        tokio::select! {
            () = tokio::time::sleep(FILE_POLL_INTERVAL) => {}
            _ = changes.changed() => {}
        }
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
