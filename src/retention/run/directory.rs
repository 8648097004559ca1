//! `state/retention/DOMAIN`: the plans, what is saved to undo them, and the lock of the runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::RunError;
use super::plan_id::PlanId;
use crate::registry::host::HostName;
use crate::state_file::{FileLock, TEMPORARY_PREFIX, private_directory};

/// The directory of a domain. Its functions block on the disk.
#[derive(Clone, Debug)]
pub(crate) struct RunDirectory {
    domain: HostName,
    path: PathBuf,
}

impl RunDirectory {
    pub(crate) fn new(state: &Path, domain: &HostName) -> Self {
        Self {
            domain: domain.clone(),
            path: state.join("retention").join(domain.as_str()),
        }
    }

    pub(crate) fn plans(&self) -> PathBuf {
        self.path.join("plans")
    }

    pub(crate) fn plan(&self, id: &PlanId) -> PathBuf {
        self.plans().join(format!("{id}.jsonl"))
    }

    /// Whether there is a plan, or what one took away.
    pub(crate) fn has(&self, id: &PlanId) -> bool {
        self.plan(id).exists() || self.undo(id).exists()
    }

    /// The directory of what a plan took away.
    pub(super) fn undo(&self, id: &PlanId) -> PathBuf {
        self.path.join("undo").join(id.as_str())
    }

    pub(super) fn records(&self) -> PathBuf {
        self.path.join("last.json")
    }

    pub(super) fn create(&self, path: &Path) -> Result<(), RunError> {
        private_directory(path).map_err(RunError::io(path))
    }

    /// The lock that each run holds to its end: one for a domain at a time, in all processes. A
    /// process that dies releases it.
    ///
    /// Errors: `Busy` at once, because a run may take hours.
    pub(crate) fn lock(&self) -> Result<FileLock, RunError> {
        self.create(&self.path)?;
        let path = self.path.join("run.lock");
        let lock = FileLock::try_acquire(&path).map_err(RunError::io(&path))?;
        lock.ok_or_else(|| RunError::Busy(self.domain.clone()))
    }

    /// Removes plans and saved manifests of more than 30 days ago, and what a killed process left
    /// incomplete. The caller holds the lock.
    pub(super) fn prune(&self, now: SystemTime) -> Result<(), RunError> {
        let plans = self.plans();
        for entry in entries(&plans).map_err(RunError::io(&plans))? {
            let is_temporary = entry
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY_PREFIX));
            if is_temporary || is_old(&entry, now) {
                remove(&entry, |path| fs::remove_file(path))?;
            }
        }
        let undo = self.path.join("undo");
        for entry in entries(&undo).map_err(RunError::io(&undo))? {
            // What was written to it last counts: a plan may be applied again.
            let newest = entries(&entry).map_err(RunError::io(&entry))?;
            if is_old(&entry, now) && newest.iter().all(|file| is_old(file, now)) {
                remove(&entry, |path| fs::remove_dir_all(path))?;
            }
        }
        Ok(())
    }
}

fn remove(path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), RunError> {
    match remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(RunError::io(path)(error)),
        _ => Ok(()),
    }
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(found) => found.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_old(path: &Path, now: SystemTime) -> bool {
    let modified = fs::metadata(path).and_then(|data| data.modified());
    modified.is_ok_and(|modified| {
        now.duration_since(modified)
            .is_ok_and(|age| age > STORAGE_TIME)
    })
}

/// How long plans and what they took away are stored.
pub(crate) const STORAGE_TIME: Duration = Duration::from_secs(30 * 86_400);
