//! Files that are read again when they change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// Distinguishes a changed file from an unchanged one without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// The fingerprint of the file that `path` leads to; `None` if its metadata cannot be read.
    pub(crate) fn from_path(path: &Path) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        Some(Self::from_metadata(&data))
    }

    pub(crate) fn from_metadata(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }

    /// The size of the file in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the file changed so recently that a further change might leave the same times: time
    /// stamps move in steps of a clock tick, and of two seconds on some file systems.
    pub(crate) fn is_fresh(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs().cast_signed());
        now - self.changed.0 <= TIMESTAMP_STEP_SECONDS
    }
}

const TIMESTAMP_STEP_SECONDS: i64 = 2;

/// Detects when one of `N` files that belong together has to be read again, and prevents a problem
/// with them from being reported twice.
///
/// [`Self::poll`] returns whether to read. After a read, [`Self::settle`] records that no further
/// one is needed until the next change; without it the next poll requests another read.
#[derive(Debug)]
pub(crate) struct FileWatch<const N: usize = 1> {
    last: Option<[Option<Fingerprint>; N]>,
    settled: bool,
    /// Whether an equal fingerprint means an equal file at once.
    only_replaced: bool,
    problem: Option<String>,
}

/// What a poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileChange {
    /// The files are as they were when they were read.
    None,
    /// The files are as at the last poll, and have to be read all the same: the last read was not
    /// settled, or they changed so recently that an equal fingerprint need not mean an equal file.
    Possible,
    /// The files differ from the last poll.
    Certain,
}

impl<const N: usize> Default for FileWatch<N> {
    fn default() -> Self {
        Self {
            last: None,
            settled: false,
            only_replaced: false,
            problem: None,
        }
    }
}

impl<const N: usize> FileWatch<N> {
    /// A watch of files that every process replaces as a whole ([`super::atomic_write`]): they are
    /// not read again merely because they changed recently.
    pub(crate) fn of_replaced_files() -> Self {
        Self {
            only_replaced: true,
            ..Self::default()
        }
    }

    /// Compares the files with the last poll, by one `stat` each. Call it before reading them.
    pub(crate) fn poll(&mut self, paths: [&Path; N]) -> FileChange {
        let current = paths.map(Fingerprint::from_path);
        if self.last != Some(current) {
            self.last = Some(current);
            self.settled = false;
            return FileChange::Certain;
        }
        let is_fresh = || current.iter().flatten().any(Fingerprint::is_fresh);
        if !self.settled || (!self.only_replaced && is_fresh()) {
            return FileChange::Possible;
        }
        FileChange::None
    }

    /// Records that the content read since the last poll has been processed, whether it was valid
    /// or not. Returns `false`, and requests another read, when the files changed during the read:
    /// half of a file that is being written is useless.
    pub(crate) fn settle(&mut self, paths: [&Path; N]) -> bool {
        self.settled = self.last == Some(paths.map(Fingerprint::from_path));
        self.settled
    }

    /// Records that this process knows the content of the files, because it has just replaced them
    /// under a lock that excludes other processes.
    pub(crate) fn replaced(&mut self, paths: [&Path; N]) {
        self.last = Some(paths.map(Fingerprint::from_path));
        self.settled = true;
    }

    /// Requests another read at the next poll, after a failure that may pass without a change of
    /// the files, like too many open files.
    pub(crate) fn retry(&mut self) {
        self.settled = false;
    }

    /// Records a problem. Returns whether it differs from the last one and has to be reported.
    pub(crate) fn problem_began(&mut self, problem: String) -> bool {
        let is_new = self.problem.as_ref() != Some(&problem);
        self.problem = Some(problem);
        is_new
    }

    /// Records that there is no problem. Returns whether there was one before.
    pub(crate) fn problem_ended(&mut self) -> bool {
        self.problem.take().is_some()
    }

    /// Whether the content of the files as of the last poll has been processed.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// The problem, if there is one.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sets the times of a file back, as if nothing had happened to it for an hour. The time of a
    /// change of its data cannot be set, so the fingerprint goes on being fresh.
    fn age(path: &Path) {
        let file = std::fs::File::options()
            .append(true)
            .open(path)
            .expect("there");
        let past = SystemTime::now() - Duration::from_hours(1);
        file.set_modified(past).expect("the owner may");
    }

    #[test]
    fn a_fresh_file_is_read_again_and_an_unsettled_one_too() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users");
        let mut watch = FileWatch::<1>::default();
        assert_eq!(watch.poll([&path]), FileChange::Certain);
        assert!(watch.settle([&path]));
        assert_eq!(watch.poll([&path]), FileChange::None, "still missing");
        watch.retry();
        assert_eq!(watch.poll([&path]), FileChange::Possible);
        std::fs::write(&path, "a").expect("written");
        assert_eq!(watch.poll([&path]), FileChange::Certain);
        age(&path);
        assert!(!watch.settle([&path]), "it changed during the read");
        assert_eq!(watch.poll([&path]), FileChange::Certain);
        assert!(watch.settle([&path]));
        assert_eq!(watch.poll([&path]), FileChange::Possible, "fresh");
    }

    #[test]
    fn a_file_that_is_only_replaced_is_read_once_for_each_change() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("tokens");
        std::fs::write(&path, "a").expect("written");
        let mut watch = FileWatch::<1>::of_replaced_files();
        assert_eq!(watch.poll([&path]), FileChange::Certain);
        assert_eq!(watch.poll([&path]), FileChange::Possible, "not settled");
        assert!(watch.settle([&path]));
        assert_eq!(watch.poll([&path]), FileChange::None, "although fresh");
        let write = |text: &[u8]| {
            super::super::atomic_write(&path, text, super::super::Access::Private)
                .expect("written");
        };
        write(b"b");
        assert_eq!(watch.poll([&path]), FileChange::Certain);
        write(b"c");
        watch.replaced([&path]);
        assert_eq!(watch.poll([&path]), FileChange::None);
    }

    #[test]
    fn a_problem_is_reported_once() {
        let mut watch = FileWatch::<1>::default();
        assert!(!watch.problem_ended());
        assert!(watch.problem_began("no entry".to_owned()));
        assert!(!watch.problem_began("no entry".to_owned()));
        assert!(watch.problem_began("unreadable".to_owned()));
        assert_eq!(watch.problem(), Some("unreadable"));
        assert!(watch.problem_ended());
        assert_eq!(watch.problem(), None);
    }
}
