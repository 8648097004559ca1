//! Watches the files of the configuration and those that they name: by events of the kernel, and by
//! polling, since network and some other file systems have no events. A change takes effect when
//! the file has not changed for a short time, so that a file that is being written is not read.

mod changes;
mod directories;
mod events;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::changes::{ChangedFiles, FileStates};
use self::directories::{PathKind, WatchedPaths};
use self::events::DirectoryEvents;
use super::App;
use super::reload::{self, ReloadCause};
use crate::config::loader::{domain_files, domain_folder};
use crate::state_file::{Fingerprint, run_blocking};

/// Makes changes of files take effect. Never returns.
pub(super) async fn run(app: Arc<App>) {
    let mut watch = FileWatcher::new();
    let mut next_reading = None;
    loop {
        let files = {
            let loader = app.loader.lock().unwrap_or_else(PoisonError::into_inner);
            loader.files()
        };
        let states = watch.poll(app.directory.clone(), files).await;
        let now = Instant::now();
        let has_events = watch.events.is_some();
        let found = watch.changes.poll(states, has_events, now);
        if found.is_due {
            // Users and certificates are read by tasks of their own.
            app.file_changes.send_replace(());
        }
        if found.is_due || next_reading.is_some_and(|next| next <= now) {
            let unsettled = found.unsettled;
            // It reports what is wrong.
            let _ = reload::reload(&app, ReloadCause::Change { unsettled }).await;
            next_reading = reading_time(&app);
        }
        let poll = now + FILE_POLL_INTERVAL;
        let settled = found.settled_at.unwrap_or(poll);
        let wake = poll.min(settled).min(next_reading.unwrap_or(poll));
        watch.wait_until(wake).await;
    }
}

/// When the files have to be read again without a change of them: to confirm a problem, or because
/// its cause may be elsewhere.
fn reading_time(app: &App) -> Option<Instant> {
    let reports = app.reports();
    let wait = match (reports.is_unconfirmed(), reports.status.problems.is_empty()) {
        (true, _) => CONFIRMATION_DELAY,
        (false, false) => PROBLEM_RETRY_INTERVAL,
        (false, true) => return None,
    };
    Some(Instant::now() + wait)
}

struct FileWatcher {
    /// `None` where the kernel gives none.
    events: Option<DirectoryEvents>,
    watched: WatchedPaths,
    changes: ChangedFiles,
    /// The files for which directories are watched; `None`: that has to be found out again.
    files: Option<BTreeSet<PathBuf>>,
}

impl FileWatcher {
    fn new() -> Self {
        let events = DirectoryEvents::new();
        let events = events.inspect_err(|error| {
            tracing::warn!(%error, "the kernel reports no changes of files, they are polled");
        });
        Self {
            events: events.ok(),
            watched: WatchedPaths::default(),
            changes: ChangedFiles::default(),
            files: None,
        }
    }

    /// Watches the directories of these files and returns what the files are like.
    async fn poll(&mut self, directory: PathBuf, files: BTreeSet<PathBuf>) -> FileStates {
        if self.files.as_ref() != Some(&files) {
            let (all, folder) = (files.clone(), domain_folder(&directory));
            let watched = run_blocking(move || directories::watched(&all, &folder, path_kind));
            self.watched = watched.await;
            self.files = Some(files.clone());
            if let Some(events) = &mut self.events {
                events.watch(&self.watched.directories);
            }
        }
        // After the directories are watched: what happens from now on is an event.
        run_blocking(move || states(&directory, files)).await
    }

    /// Waits for an event that concerns a file, or for a time. Cancel-safe.
    async fn wait_until(&mut self, time: Instant) {
        let Some(events) = &mut self.events else {
            return tokio::time::sleep_until(time).await;
        };
        loop {
            let Ok(changed) = tokio::time::timeout_at(time, events.next()).await else {
                return;
            };
            let changed: BTreeSet<_> = changed
                .into_iter()
                .filter(|path| self.watched.concerns(path))
                .collect();
            if !changed.is_empty() {
                // A directory or a symbolic link may be another one now.
                self.files = None;
                self.changes.notified(changed);
                // Changes come in bursts.
                return tokio::time::sleep(EVENT_PACE).await;
            }
        }
    }
}

/// What the files and the domain files in the directory are like. Blocks on the disk.
fn states(directory: &Path, files: BTreeSet<PathBuf>) -> FileStates {
    let mut all = files;
    all.extend(domain_files(directory));
    let states = all.into_iter().map(|path| {
        let state = Fingerprint::from_path(&path);
        (path, state)
    });
    states.collect()
}

fn path_kind(path: &Path) -> PathKind {
    match std::fs::symlink_metadata(path) {
        Err(_) => PathKind::Missing,
        Ok(metadata) if metadata.is_symlink() => match std::fs::read_link(path) {
            Ok(target) => PathKind::Link(target),
            Err(_) => PathKind::Missing,
        },
        Ok(_) => PathKind::Other,
    }
}

/// How often files are checked without an event. A `stat` costs microseconds.
const FILE_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// After an event, before the files are checked.
const EVENT_PACE: Duration = Duration::from_millis(20);
/// A file with a new problem is read again before it is reported.
const CONFIRMATION_DELAY: Duration = Duration::from_millis(300);
/// How often a configuration with problems is read again although no file has changed.
const PROBLEM_RETRY_INTERVAL: Duration = Duration::from_secs(5);
