//! The files that hold secrets, and whether they have changed since they were seen last.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::state_file::Fingerprint;
use crate::state_file::run_blocking;

/// Files that hold secrets.
#[derive(Debug)]
pub(super) struct SecretFiles {
    paths: Arc<[PathBuf]>,
    seen: Mutex<Vec<Option<Fingerprint>>>,
}

impl SecretFiles {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let paths: Arc<[PathBuf]> = paths.into();
        Self {
            seen: Mutex::new(fingerprints(&paths)),
            paths,
        }
    }

    /// Whether they are as they were when they were looked at last. Blocks.
    pub(super) fn are_unchanged(&self) -> bool {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == fingerprints(&self.paths)
    }

    /// Whether they have changed since the last call.
    pub(super) async fn changed(&self) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let paths = self.paths.clone();
        let now = run_blocking(move || fingerprints(&paths)).await;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seen, now.clone()) != now
    }
}

fn fingerprints(paths: &[PathBuf]) -> Vec<Option<Fingerprint>> {
    let fingerprints = paths.iter().map(|path| Fingerprint::from_path(path));
    fingerprints.collect()
}
