//! `last.json`: what the last run did, and when the next one is due. Processes that share the state
//! share it, and it survives restarts.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::directory::RunDirectory;
use super::error::RunError;
use super::plan_id::PlanId;
use crate::state_file::{Access, atomic_write};

/// The runs of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecords {
    /// When the domain was first seen with retention: its first run is `every` later.
    #[serde(default)]
    pub(crate) first_seen: Option<Timestamp>,
    /// The end of the last scheduled run.
    #[serde(default)]
    pub(crate) scheduled: Option<Timestamp>,
    /// Whether that failed: the next one is earlier.
    #[serde(default)]
    pub(crate) scheduled_failed: bool,
    /// The plan that a scheduled run began to apply and did not finish.
    #[serde(default)]
    pub(crate) unfinished: Option<String>,
    /// The last run, also by command.
    #[serde(default)]
    pub(crate) last: Option<LastRun>,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastRun {
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) trigger: RunTrigger,
    pub(crate) outcome: RunOutcome,
    pub(crate) plan: Option<String>,
    /// What was taken away, or put back, or what would go where runs only report.
    pub(crate) tags: u64,
    pub(crate) manifests: u64,
    /// What comes free, as planned.
    pub(crate) bytes: u64,
    /// Since when pulls have been recorded without a gap.
    pub(crate) recorded_since: Option<Timestamp>,
    pub(crate) problem: Option<String>,
}

/// Why there was a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunTrigger {
    Schedule,
    Command,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunOutcome {
    Applied,
    /// Scheduled runs only report, by `dry_run` or because the product has a policy of its own.
    Reported,
    /// More than `max_share` would have gone.
    BeyondShare,
    Undone,
    Failed,
}

impl RunTrigger {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Command => "command",
        }
    }
}

impl RunOutcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Reported => "reported",
            Self::BeyondShare => "beyond-share",
            Self::Undone => "undone",
            Self::Failed => "failed",
        }
    }
}

impl RunRecords {
    /// Those of a domain. Without a file, or with a damaged one, all are absent: the first run is
    /// `every` from now, so that nothing is taken away because a file was lost. Blocks on the disk.
    pub(crate) fn read(directory: &RunDirectory) -> Result<Self, RunError> {
        let path = directory.records();
        match read(&path) {
            Ok(Some(records)) => Ok(records),
            Ok(None) => Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let path = path.display();
                tracing::warn!(%path, %error, "retention: record of the runs is damaged, beginning a new one");
                Ok(Self::default())
            }
            Err(error) => Err(RunError::io(&path)(error)),
        }
    }

    /// The caller holds the lock of the runs. Blocks on the disk.
    pub(crate) fn write(&self, directory: &RunDirectory) -> Result<(), RunError> {
        let path = directory.records();
        let write = || {
            let mut text = serde_json::to_vec_pretty(self)?;
            text.push(b'\n');
            atomic_write(&path, &text, Access::Private)
        };
        write().map_err(RunError::io(&path))
    }

    /// The plan that a scheduled run has to finish first.
    pub(crate) fn unfinished(&self) -> Option<PlanId> {
        PlanId::parse(self.unfinished.as_deref()?).ok()
    }
}

fn read(path: &Path) -> io::Result<Option<RunRecords>> {
    match std::fs::read(path) {
        Ok(text) => {
            let read = serde_json::from_slice(&text);
            let read = read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
            read.map(Some)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::host::HostName;

    #[test]
    fn records_are_read_back_and_damaged_ones_are_none() {
        let state = tempfile::tempdir().expect("directory");
        let domain = HostName::parse("ci.test").expect("a name");
        let directory = RunDirectory::new(state.path(), &domain);
        let lock = directory.lock().expect("free");
        let now = Timestamp::now();
        let records = RunRecords {
            first_seen: Some(now),
            scheduled: Some(now),
            scheduled_failed: true,
            unfinished: Some("20260131t040500z-0a1b2c3d".to_owned()),
            last: Some(LastRun {
                began: now,
                ended: now,
                trigger: RunTrigger::Schedule,
                outcome: RunOutcome::Failed,
                plan: None,
                tags: 1,
                manifests: 2,
                bytes: 3,
                recorded_since: None,
                problem: Some("at a: it did not answer".to_owned()),
            }),
        };
        records.write(&directory).expect("written");
        assert_eq!(RunRecords::read(&directory).expect("read"), records);
        assert!(records.unfinished().is_some());
        std::fs::write(directory.records(), b"{\"sched").expect("written");
        let read = RunRecords::read(&directory).expect("read");
        assert_eq!(read, RunRecords::default());
        drop(lock);
    }
}
