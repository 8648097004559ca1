//! When retention removed which manifests. Their blobs, and what they need, stay for the grace
//! period of the collection from then on, however old they are: until then the removal can be undone.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files;
use super::layout::{RepositoryLock, StoreLayout, if_exists};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;

/// The removed manifests of a repository.
#[derive(Debug)]
pub(super) struct RemovedManifests {
    path: PathBuf,
    by_digest: BTreeMap<String, RemovedManifest>,
}

/// A manifest that was removed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RemovedManifest {
    pub(super) media_type: String,
    /// In seconds since 1970.
    at: u64,
}

impl RemovedManifests {
    /// Reads the record of a repository. `_lock` must be exclusive.
    ///
    /// Errors: `InvalidData` for a damaged file; those of the file system.
    pub(super) fn read(
        layout: &StoreLayout,
        name: &RepositoryName,
        _lock: &RepositoryLock,
    ) -> io::Result<Self> {
        let path = layout.removed_of(name);
        let by_digest = match if_exists(files::read(&path))? {
            None => BTreeMap::new(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let message = format!(
                    "{} is damaged ({error}): remove it to free what retention has removed",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?,
        };
        Ok(Self { path, by_digest })
    }

    /// Records that manifests are removed now. Durable when it returns.
    pub(super) fn add<'a>(
        &mut self,
        removed: impl IntoIterator<Item = (&'a Digest, &'a str)>,
        now: SystemTime,
    ) -> io::Result<()> {
        let at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for (digest, media_type) in removed {
            let media_type = media_type.to_owned();
            let removed = RemovedManifest { media_type, at };
            self.by_digest.insert(digest.as_str().to_owned(), removed);
        }
        let (directory, _) = files::split(&self.path)?;
        files::private_directory(directory)?;
        self.write()
    }

    /// Forgets what was removed at least `than` ago.
    pub(super) fn forget_older(&mut self, than: Duration) -> io::Result<()> {
        let before = self.by_digest.len();
        self.by_digest.retain(|_, removed| !removed.is_older(than));
        if self.by_digest.len() == before {
            return Ok(());
        }
        if self.by_digest.is_empty() {
            return files::remove_file(&self.path);
        }
        self.write()
    }

    /// What was removed less than `than` ago.
    pub(super) fn younger(
        &self,
        than: Duration,
    ) -> impl Iterator<Item = (Digest, &RemovedManifest)> {
        let all = self.by_digest.iter();
        all.filter(move |(_, removed)| !removed.is_older(than))
            .filter_map(|(digest, removed)| Some((Digest::parse(digest).ok()?, removed)))
    }

    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.by_digest).map_err(io::Error::other)?;
        files::replace(&self.path, &text)
    }
}

impl RemovedManifest {
    /// A time in the future counts as now.
    fn is_older(&self, than: Duration) -> bool {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(self.at));
        at.is_some_and(|at| at.elapsed().unwrap_or_default() >= than)
    }
}
