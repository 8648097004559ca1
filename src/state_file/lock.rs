//! Locks between processes, and between callers in one: advisory locks of a file or directory. The
//! kernel releases them when their holder is dropped or dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::atomic::give_owner_of;

/// Whether others may hold locks at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockMode {
    /// Others may hold shared locks.
    Shared,
    /// Nobody else may hold a lock.
    Exclusive,
}

/// A locked file or directory. Dropping it releases the lock.
#[derive(Debug)]
#[must_use]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks the file at `path` exclusively; creates it (0600) if it does not exist. Blocks for up
    /// to `timeout`.
    ///
    /// Errors: `TimedOut` when another holder does not release it in time; those of the file
    /// system.
    pub(crate) fn acquire(path: &Path, timeout: Duration) -> io::Result<Self> {
        Self::acquire_open(open(path)?, LockMode::Exclusive, timeout).map_err(|e| name(e, path))
    }

    /// Like [`Self::acquire`], for a file at `path` that is replaced as a whole: locks the file
    /// with the extension `lock` beside it, which is never replaced.
    pub(crate) fn acquire_beside(path: &Path, timeout: Duration) -> io::Result<Self> {
        Self::acquire(&path.with_extension("lock"), timeout)
    }

    /// Like [`Self::acquire`], without waiting. `None`: somebody else holds the lock.
    pub(crate) fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        match Self::acquire_open(open(path)?, LockMode::Exclusive, Duration::ZERO) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Locks an open file or directory. Blocks for up to `timeout`.
    ///
    /// Errors: `TimedOut` when another holder does not release it in time.
    pub(crate) fn acquire_open(file: File, mode: LockMode, timeout: Duration) -> io::Result<Self> {
        // The kernel's own wait for these locks has no timeout, so this polls.
        let deadline = Instant::now() + timeout;
        let mut interval = MIN_POLL_INTERVAL;
        loop {
            let answer = match mode {
                LockMode::Shared => file.try_lock_shared(),
                LockMode::Exclusive => file.try_lock(),
            };
            match answer {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, HELD));
                    }
                    std::thread::sleep(interval.min(left));
                    interval = (interval * 2).min(MAX_POLL_INTERVAL);
                }
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| name(error, path))?;
    if let (true, Some(directory)) = (is_new, path.parent()) {
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        give_owner_of(directory, &file)?;
    }
    Ok(file)
}

fn name(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// For locks that are held while a small file is rewritten: far longer than that takes on a slow
/// disk.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const HELD: &str = "timed out waiting for the lock, another process holds it";
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(1);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_never_released_costs_its_timeout() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("refresh-tokens.json");
        let held = FileLock::acquire_beside(&path, Duration::ZERO).expect("free");
        let waited = FileLock::acquire_beside(&path, Duration::from_millis(20));
        let error = waited.expect_err("held");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("refresh-tokens.lock"), "{error}");
        drop(held);
        drop(FileLock::acquire_beside(&path, Duration::ZERO).expect("free again"));
    }

    #[test]
    fn shared_locks_exclude_only_exclusive_ones() {
        let directory = tempfile::tempdir().expect("directory");
        let lock = |mode| {
            let file = File::open(directory.path()).expect("a directory");
            FileLock::acquire_open(file, mode, Duration::ZERO)
        };
        let first = lock(LockMode::Shared).expect("free");
        let second = lock(LockMode::Shared).expect("shared");
        assert!(lock(LockMode::Exclusive).is_err());
        drop((first, second));
        let third = lock(LockMode::Exclusive).expect("free");
        assert!(lock(LockMode::Shared).is_err());
        drop(third);
    }
}
