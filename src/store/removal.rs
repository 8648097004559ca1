//! Takes the tags and manifests of a repository away that retention has chosen, and puts them back.
//! All that goes does so in one write of the index, under its lock, after each was checked again.

mod decision;
mod links;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use self::decision::RemovalDecision;
use self::links::KnownLinks;
use super::error::StoreError;
use super::index::RepositoryIndex;
use super::layout::RepositoryLock;
use super::removed::RemovedManifests;
use super::repository::{BlobDirectories, NewManifest, StoredRepository};
use super::{Store, blobs};
use crate::journal::RepositoryHistory;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

pub(crate) use super::repository::RestoredTags;

/// What is to be taken away, as it was when that was planned.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemovalRequest {
    pub(crate) tags: Vec<TagRemoval>,
    pub(crate) manifests: Vec<ManifestRemoval>,
}

/// A tag to take away if it points at this manifest and was not used since.
#[derive(Clone, Debug)]
pub(crate) struct TagRemoval {
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    pub(crate) pushed: Option<Timestamp>,
    /// The last pull of the tag, of its manifest, or of one below that.
    pub(crate) pulled: Option<Timestamp>,
}

/// A manifest to take away if it was not used since and nothing that stays needs it.
#[derive(Clone, Debug)]
pub(crate) struct ManifestRemoval {
    pub(crate) digest: Digest,
    pub(crate) pulled: Option<Timestamp>,
}

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemovalOutcome {
    /// With those that had gone already.
    pub(crate) tags: Vec<Tag>,
    /// With those that had gone already.
    pub(crate) manifests: Vec<Digest>,
    /// What stays, and why.
    pub(crate) changed: Vec<String>,
}

/// How much later than the last use that the plan knew a manifest must have been marked as used:
/// the clocks of machines that share a directory differ.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(120);

/// Takes tags and manifests away, each only if it is as it was planned. A kill leaves the repository
/// as it was before, or as it is afterwards. `history` is read under the lock of the repository.
///
/// Errors: those of `history`; `Damaged` for a manifest that cannot be read and may list others;
/// `Locked`.
pub(crate) async fn remove<E: Send + 'static>(
    store: &Arc<Store>,
    name: &RepositoryName,
    request: RemovalRequest,
    history: impl FnOnce() -> Result<RepositoryHistory, E> + Send + 'static,
) -> Result<Result<RemovalOutcome, E>, StoreError> {
    // Before the lock: reading many manifests takes seconds.
    let mut links = links::read_all(store, name, &request).await?;
    let (owner, repository) = (store.clone(), name.clone());
    let remove = move |lock: Option<&RepositoryLock>| {
        let Some(lock) = lock else {
            return Ok(Ok(RemovalOutcome::all_gone(&request)));
        };
        let history = match history() {
            Ok(history) => history,
            Err(error) => return Ok(Err(error)),
        };
        owner.reserve.run(|| {
            let mut removal = LockedRemoval {
                store: &owner,
                repository: &owner.repository(&repository),
                request: &request,
                history: &history,
                links: &mut links,
                lock,
            };
            removal.run().map(Ok)
        })
    };
    store.locks.write(name, remove).await
}

/// Puts a manifest back, and those of its tags that lead nowhere.
///
/// Errors: `Missing` if something that it references has gone.
pub(crate) async fn restore(
    store: &Arc<Store>,
    name: &RepositoryName,
    manifest: NewManifest,
) -> Result<RestoredTags, StoreError> {
    let checked = store.run_write(move |_| manifest.check()).await?;
    let (owner, repository) = (store.clone(), name.clone());
    let Some(required) = checked.first_required().cloned() else {
        let restore = move |lock: &_| owner.repository(&repository).restore(checked, lock);
        return store.locks.write_or_create(name, restore).await;
    };
    let restore = move |lock: Option<&_>| match lock {
        Some(lock) => owner.repository(&repository).restore(checked, lock),
        // A repository that does not exist has nothing.
        None => Err(StoreError::Missing(required)),
    };
    store.locks.write(name, restore).await
}

impl RemovalOutcome {
    fn all_gone(request: &RemovalRequest) -> Self {
        let RemovalRequest { tags, manifests } = request;
        Self {
            tags: tags.iter().map(|removal| removal.tag.clone()).collect(),
            manifests: manifests
                .iter()
                .map(|removal| removal.digest.clone())
                .collect(),
            changed: Vec::new(),
        }
    }
}

/// A removal from a repository that is locked exclusively.
struct LockedRemoval<'a> {
    store: &'a Store,
    repository: &'a StoredRepository,
    request: &'a RemovalRequest,
    history: &'a RepositoryHistory,
    links: &'a mut KnownLinks,
    lock: &'a RepositoryLock,
}

impl LockedRemoval<'_> {
    fn run(&mut self) -> Result<RemovalOutcome, StoreError> {
        let index = self.repository.index_or_empty(self.lock)?;
        self.links
            .read_new(self.store, self.repository.name(), self.request, &index)?;
        let mut marks = self.marks(&index)?;
        let mut used = self.used_since_plan(&marks);
        let mut has_written = false;
        loop {
            let decision = RemovalDecision::new(&index, self.request, self.links, &used);
            if !has_written && decision.changes_nothing() {
                return Ok(decision.outcome());
            }
            self.write(&index, &decision)?;
            has_written = true;
            // A reader that marks a manifest as used reads the index after that: at least one of
            // the two sees the other.
            let now = self.marks(&index)?;
            let newly = now
                .iter()
                .filter(|(digest, at)| marks.get(*digest) != Some(at));
            let newly: Vec<Digest> = newly.map(|(digest, _)| digest.clone()).collect();
            if newly.is_empty() {
                return Ok(decision.outcome());
            }
            used.extend(newly);
            marks = now;
        }
    }

    /// When the manifests that may go, or lose tags, were last marked as used.
    fn marks(&self, index: &RepositoryIndex) -> Result<HashMap<Digest, SystemTime>, StoreError> {
        let RemovalRequest { tags, manifests } = self.request;
        let mut directories = BlobDirectories::new(self.repository);
        let mut marks = HashMap::new();
        let tagged = tags.iter().map(|removal| &removal.digest);
        let digests = manifests.iter().map(|removal| &removal.digest);
        for digest in digests.chain(tagged) {
            if index.manifest(digest).is_some()
                && !marks.contains_key(digest)
                && let Some(status) = directories.status(digest)?
            {
                marks.insert(digest.clone(), status.modified);
            }
        }
        Ok(marks)
    }

    /// The manifests that were used since the removal was planned, as the record says, or a mark
    /// that is later than what the plan knew: a client is about to push an index of it, or pulled
    /// it through another process that has not yet written its record.
    fn used_since_plan(&self, marks: &HashMap<Digest, SystemTime>) -> HashSet<Digest> {
        let known = self.links.last_known_uses(self.request);
        let is_marked = |digest: &Digest, at: SystemTime| {
            let is_recent = at.elapsed().unwrap_or_default() < blobs::TOUCH_INTERVAL;
            let known = known.get(digest).copied().flatten();
            let known = known.map(|known| SystemTime::from(known) + CLOCK_TOLERANCE);
            is_recent && known.is_none_or(|known| known < at)
        };
        let marked = marks.iter().filter(|(digest, at)| is_marked(digest, **at));
        let mut used: HashSet<Digest> = marked.map(|(digest, _)| digest.clone()).collect();
        for ManifestRemoval { digest, pulled } in &self.request.manifests {
            let now = self.history.manifests.get(digest).copied();
            let now = now.unwrap_or_default();
            let pushed = now.pushed.map(SystemTime::from);
            if now.pulled > *pulled || pushed.is_some_and(|pushed| is_marked(digest, pushed)) {
                used.insert(digest.clone());
            }
        }
        for removal in &self.request.tags {
            let now = self.history.tags.get(&removal.tag).copied();
            let now = now.unwrap_or_default();
            let below = self.links.all_below(&removal.digest);
            let below = below.filter_map(|digest| self.history.manifests.get(digest)?.pulled);
            let pulled = below.max().max(now.pulled);
            if now.pushed > removal.pushed || pulled > removal.pulled {
                used.insert(removal.digest.clone());
            }
        }
        used
    }

    fn write(&self, index: &RepositoryIndex, decision: &RemovalDecision) -> Result<(), StoreError> {
        let name = self.repository.name();
        let mut removed = RemovedManifests::read(&self.store.layout, name, self.lock)?;
        let gone = decision.manifests();
        let gone = gone.filter_map(|digest| Some((digest, &*index.manifest(digest)?.media_type)));
        // First: their blobs must stay whenever the index no longer lists them.
        removed.add(gone, SystemTime::now())?;
        let rest = decision.rest();
        self.repository.forget_removed(&rest);
        self.repository.write(rest, self.lock)
    }
}

#[cfg(test)]
mod tests;
