//! Which files have changed, and which of them have settled. Pure: what the files are like is given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::state_file::Fingerprint;

/// What files are like; `None`: a file is missing.
pub(super) type FileStates = BTreeMap<PathBuf, Option<Fingerprint>>;

/// The files that have changed since they were read.
#[derive(Debug, Default)]
pub(super) struct ChangedFiles {
    states: FileStates,
    changed: BTreeMap<PathBuf, ChangeTimes>,
    /// For which there was an event.
    notified: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct ChangeTimes {
    first: Instant,
    last: Instant,
}

impl ChangeTimes {
    /// When the file may be read.
    fn settled_at(&self) -> Instant {
        (self.last + SETTLING_TIME).min(self.first + MAX_SETTLING_TIME)
    }
}

/// What is to be read.
#[derive(Debug)]
pub(super) struct FoundChanges {
    /// Whether a file that has changed may be read.
    pub(super) is_due: bool,
    /// The files that may not be read yet.
    pub(super) unsettled: BTreeSet<PathBuf>,
    /// When the first of them may be.
    pub(super) settled_at: Option<Instant>,
}

impl ChangedFiles {
    /// Records that something happened to these files.
    pub(super) fn notified(&mut self, files: BTreeSet<PathBuf>) {
        self.notified.extend(files);
    }

    /// Compares the files with what they were like. Files that are due count as read from now on.
    ///
    /// Without events, a file that changed a short time ago may have changed once more without a
    /// difference in its times.
    pub(super) fn poll(
        &mut self,
        states: FileStates,
        has_events: bool,
        now: Instant,
    ) -> FoundChanges {
        let notified = std::mem::take(&mut self.notified);
        let missing = self
            .states
            .keys()
            .filter(|path| !states.contains_key(*path));
        let mut found: Vec<PathBuf> = missing.cloned().collect();
        for (path, state) in &states {
            let is_fresh = !has_events && state.as_ref().is_some_and(Fingerprint::is_fresh);
            let is_same = self.states.get(path) == Some(state);
            if !is_same || is_fresh || notified.contains(path) {
                found.push(path.clone());
            }
        }
        for path in found {
            let times = ChangeTimes {
                first: now,
                last: now,
            };
            self.changed.entry(path).or_insert(times).last = now;
        }
        self.states = states;
        let before = self.changed.len();
        self.changed.retain(|_, times| times.settled_at() > now);
        FoundChanges {
            is_due: self.changed.len() < before,
            unsettled: self.changed.keys().cloned().collect(),
            settled_at: self.changed.values().map(ChangeTimes::settled_at).min(),
        }
    }
}

/// A file that has not changed for so long is whole.
const SETTLING_TIME: Duration = Duration::from_millis(150);
/// One that changes all the time is read nevertheless.
const MAX_SETTLING_TIME: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    struct PolledFiles {
        directory: tempfile::TempDir,
        changes: ChangedFiles,
        start: Instant,
    }

    impl PolledFiles {
        fn new() -> Self {
            let mut poll = Self {
                directory: tempfile::tempdir().expect("directory"),
                changes: ChangedFiles::default(),
                start: Instant::now(),
            };
            poll.write("a", "1");
            poll.write("b", "1");
            // The first time, all files are new.
            let found = poll.at(0);
            assert_eq!(found.unsettled.len(), 2);
            assert!(poll.at(150).is_due);
            poll
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).expect("written");
        }

        fn at(&mut self, ms: u64) -> FoundChanges {
            let entries = std::fs::read_dir(self.directory.path()).expect("read");
            let paths = entries.map(|entry| entry.expect("an entry").path());
            let states = paths.map(|path| {
                let state = Fingerprint::from_path(&path);
                (path, state)
            });
            let now = self.start + Duration::from_millis(ms);
            self.changes.poll(states.collect(), true, now)
        }
    }

    #[test]
    fn a_file_is_due_when_it_has_settled() {
        let mut poll = PolledFiles::new();
        assert!(!poll.at(1000).is_due);
        poll.write("a", "22");
        let found = poll.at(2000);
        assert!(!found.is_due && found.unsettled.contains(&poll.path("a")));
        assert_eq!(
            found.settled_at,
            Some(poll.start + Duration::from_millis(2150))
        );
        assert!(!poll.at(2149).is_due);
        let found = poll.at(2150);
        assert!(found.is_due && found.unsettled.is_empty());
        assert!(!poll.at(3000).is_due, "once");
        std::fs::remove_file(poll.path("a")).expect("removed");
        assert!(poll.at(4000).unsettled.contains(&poll.path("a")));
        assert!(poll.at(4150).is_due);
    }

    #[test]
    fn a_file_that_changes_all_the_time_delays_no_other_one_and_is_read() {
        let mut poll = PolledFiles::new();
        let mut due = Vec::new();
        for (step, ms) in (0..12).zip((2000..).step_by(100)) {
            poll.write("a", &"x".repeat(step + 2));
            if step == 1 {
                poll.write("b", "22");
            }
            let found = poll.at(ms);
            if found.is_due {
                due.push((ms, found.unsettled.contains(&poll.path("a"))));
            }
        }
        // `b` without `a`, then `a` as it is.
        assert_eq!(due, [(2300, true), (2500, false), (3100, false)]);
    }

    #[test]
    fn an_event_counts_although_nothing_differs() {
        let mut poll = PolledFiles::new();
        let path = poll.path("a");
        poll.changes.notified([path].into());
        assert_eq!(poll.at(2000).unsettled.len(), 1);
        assert!(poll.at(2150).is_due);
        let other = poll.path("other");
        poll.changes.notified([other].into());
        assert!(poll.at(3000).unsettled.is_empty());
    }

    #[test]
    fn without_events_a_fresh_file_is_read_again() {
        let mut poll = PolledFiles::new();
        let states = poll.changes.states.clone();
        let now = poll.start + Duration::from_secs(1);
        assert_eq!(poll.changes.poll(states, false, now).unsettled.len(), 2);
    }
}
