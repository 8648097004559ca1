//! The garbage collection: removes blobs that no manifest references and, where the domain asks for
//! it, manifests that nothing points at, while the store serves. It locks one repository at a time.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::Store;
use super::blobs::{self, BlobFile};
use super::error::StoreError;
use super::files::{self, FileStatus};
use super::former_pulls;
use super::index::RepositoryIndex;
use super::layout::{RepositoryLock, if_exists, remove_if_empty};
use super::manifest::ParsedManifest;
use super::removed::RemovedManifests;
use super::repository::StoredRepository;
use super::uploads::SESSION_LIFETIME;
use crate::journal::JournalError;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CollectionSummary {
    /// Manifests that nothing pointed at.
    pub(crate) manifests: usize,
    /// Blobs of repositories that no manifest needed, the manifests' own included.
    pub(crate) blobs: usize,
    /// Upload sessions that nobody continued.
    pub(crate) uploads: usize,
    /// Repositories with nothing left in them.
    pub(crate) repositories: usize,
    /// What that frees on the disk.
    pub(crate) bytes: u64,
    /// Repositories that were left as they are: damaged, locked, or on a disk that fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) failed: Vec<FailedRepository>,
}

/// A repository that was not collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FailedRepository {
    pub(crate) repository: String,
    pub(crate) error: String,
}

/// Which uploads a collection removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadAge {
    /// Those that cannot be resumed any more.
    Expired,
    Any,
}

/// How a collection is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CollectionOptions {
    /// The age up to which unreferenced content is kept: longer than any push lasts.
    pub(crate) grace: Duration,
    /// How long a manifest that no tag leads to stays after its push or last pull, if that is longer
    /// than `grace`. `None`: for ever.
    pub(crate) untagged: Option<Duration>,
    /// The age from which uploads are removed that no request is adding to.
    pub(crate) uploads: UploadAge,
    /// Removes nothing, and only reports what it would remove.
    pub(crate) dry_run: bool,
}

impl CollectionOptions {
    /// How long a manifest that no tag leads to stays.
    fn retention(&self) -> Duration {
        self.grace.max(self.untagged.unwrap_or_default())
    }

    /// Whether a manifest that was used then stays without a tag.
    fn is_recent(&self, at: Timestamp) -> bool {
        let age = Timestamp::now().duration_since(at);
        // A time in the future counts as now.
        Duration::try_from(age).unwrap_or_default() < self.retention()
    }
}

impl CollectionSummary {
    /// Records a part of the store that is left as it is.
    fn add_failed(&mut self, part: String, error: &StoreError) {
        let cause = std::error::Error::source(error);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        self.failed.push(FailedRepository {
            repository: part,
            error: format!("{error}{cause}"),
        });
    }

    /// Goes on with the other parts of the store where one of them is a symbolic link.
    fn pass_over_link<T>(
        &mut self,
        part: &str,
        done: Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match done {
            Err(error @ StoreError::Linked(_)) => {
                self.add_failed(part.to_owned(), &error);
                Ok(None)
            }
            done => done.map(Some),
        }
    }
}

impl Store {
    /// Collects the garbage of all repositories. Waits for the disk.
    pub(crate) fn collect(
        &self,
        collection: CollectionOptions,
    ) -> Result<CollectionSummary, StoreError> {
        if !self.exists() {
            return Err(StoreError::StorageMissing);
        }
        let lifetime = match collection.uploads {
            UploadAge::Expired => SESSION_LIFETIME,
            UploadAge::Any => Duration::ZERO,
        };
        let uploads = if collection.dry_run {
            self.uploads.count_expired(lifetime)
        } else {
            self.uploads.expire_after(lifetime)
        };
        let mut collected = CollectionSummary::default();
        let uploads = collected.pass_over_link("uploads", uploads.map_err(StoreError::from))?;
        collected.uploads = uploads.unwrap_or_default();
        // Of a dry run only, which leaves the names where they are.
        let mut names_lost: HashMap<Digest, u64> = HashMap::new();
        let knows_pulls = self.knows_pulls(collection);
        for name in self.names()? {
            let pulled = knows_pulls
                .then(|| self.recent_pulls(&name, collection))
                .flatten();
            match self.collect_repository(&name, collection, pulled, &mut collected) {
                Ok(gone) if collection.dry_run => gone
                    .into_iter()
                    .for_each(|digest| *names_lost.entry(digest).or_default() += 1),
                Ok(_) => {}
                // The others are collected all the same.
                Err(error) => collected.add_failed(name.to_string(), &error),
            }
        }
        let shared = blobs::each(self.layout.root(), |found| {
            let lost = names_lost.get(&found.digest).copied().unwrap_or(0);
            let freed = self.collect_shared(&found, lost, collection);
            let freed = collected.pass_over_link(found.digest.as_str(), freed)?;
            collected.bytes += freed.unwrap_or_default();
            Ok(())
        });
        collected.pass_over_link("blobs", shared)?;
        if !collection.dry_run
            && let Err(error) = self.prune_journal()
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "journal not pruned");
        }
        Ok(collected)
    }

    /// Collects a repository, which is locked meanwhile. Returns the digests of the removed blobs.
    fn collect_repository(
        &self,
        name: &RepositoryName,
        collection: CollectionOptions,
        pulled: Option<HashSet<Digest>>,
        collected: &mut CollectionSummary,
    ) -> Result<Vec<Digest>, StoreError> {
        let Some(lock) = self.locks.blocking_write(name)? else {
            return Ok(Vec::new());
        };
        let collector = RepositoryCollector {
            repository: &self.repository_uncached(name),
            pulled,
            path: self.layout.repository(name),
            // Only files of the store's own user can show that somebody uses them.
            owner: FileStatus::from(&files::metadata(self.layout.root())?).owner,
            lock: &lock.directory,
            removed: self.removed(name, &lock.directory, collection)?,
            options: collection,
        };
        self.reserve.run(|| collector.collect(collected))
    }

    /// What retention has removed from a repository within the grace period.
    fn removed(
        &self,
        name: &RepositoryName,
        lock: &RepositoryLock,
        collection: CollectionOptions,
    ) -> Result<RemovedManifests, StoreError> {
        let mut removed = RemovedManifests::read(&self.layout, name, lock)?;
        if !collection.dry_run {
            removed.forget_older(collection.grace)?;
        }
        Ok(removed)
    }

    /// Whether all pulls were recorded for as long as a manifest stays without a tag. Otherwise none
    /// is removed for not being pulled.
    fn knows_pulls(&self, collection: CollectionOptions) -> bool {
        if collection.untagged.is_none() {
            return false;
        }
        let since = former_pulls::import(&self.layout, &self.journal)
            .and_then(|()| Ok(self.journal.manifest_pulls_since()?));
        match since {
            Ok(since) => since.is_some_and(|since| !collection.is_recent(since)),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "untagged manifests kept: the journal cannot be read");
                false
            }
        }
    }

    /// The manifests of a repository that were pulled recently enough to stay without a tag.
    /// `None`: all stay, because it is unknown.
    fn recent_pulls(
        &self,
        name: &RepositoryName,
        collection: CollectionOptions,
    ) -> Option<HashSet<Digest>> {
        match self.journal.history(name) {
            Ok(history) => {
                let is_recent =
                    |pulled: Option<Timestamp>| pulled.is_some_and(|at| collection.is_recent(at));
                let manifests = history.manifests.into_iter();
                let recent = manifests.filter(|(_, used)| is_recent(used.pulled));
                Some(recent.map(|(digest, _)| digest).collect())
            }
            Err(error) => {
                let (repository, error) = (name.as_str(), &error as &dyn std::error::Error);
                tracing::warn!(
                    repository,
                    error,
                    "untagged manifests kept: the journal cannot be read"
                );
                None
            }
        }
    }

    /// Forgets in the journal what the store no longer has.
    fn prune_journal(&self) -> Result<(), JournalError> {
        for name in self.journal.repositories()? {
            let index = match self.repository_uncached(&name).index() {
                Ok(index) => index,
                Err(StoreError::RepositoryUnknown) => Arc::default(),
                // What it has is unknown.
                Err(_) => continue,
            };
            self.journal.prune(
                &name,
                |tag| index.tag(tag).is_some(),
                |digest| index.manifest(digest).is_some(),
            )?;
        }
        Ok(())
    }

    /// Removes the shared link of a blob that no repository has any more. A push of the blob at the
    /// same time links its upload instead.
    fn collect_shared(
        &self,
        found: &BlobFile,
        lost: u64,
        collection: CollectionOptions,
    ) -> Result<u64, StoreError> {
        found.check_kind()?;
        if collection.dry_run {
            return Ok(if found.data.links <= lost + 1 {
                found.data.size
            } else {
                0
            });
        }
        let (directory, name) = files::parent_of(&found.path)?;
        let Some(now) = if_exists(directory.status(name))? else {
            return Ok(0);
        };
        if !now.is_file() || !blobs::has_one_name(&now) {
            return Ok(0);
        }
        if_exists(directory.remove_file(name))?;
        Ok(now.size)
    }
}

/// The collection of one repository, which is locked exclusively.
struct RepositoryCollector<'a> {
    repository: &'a StoredRepository,
    /// The manifests that were pulled recently. `None`: all of them stay.
    pulled: Option<HashSet<Digest>>,
    path: PathBuf,
    /// The user whose blobs may be removed.
    owner: u32,
    lock: &'a RepositoryLock,
    /// What retention has removed within the grace period.
    removed: RemovedManifests,
    options: CollectionOptions,
}

type ParsedManifests = HashMap<Digest, ParsedManifest>;

impl RepositoryCollector<'_> {
    /// Collects the garbage. Returns the digests of the removed blobs.
    fn collect(&self, collected: &mut CollectionSummary) -> Result<Vec<Digest>, StoreError> {
        let index = self.repository.index_or_empty(self.lock)?;
        if !self.options.dry_run {
            blobs::recover(&self.path, self.lock)?;
        }
        let Some(manifests) = self.parse_manifests(&index)? else {
            collected.failed.push(FailedRepository {
                repository: self.repository.name().to_string(),
                error: "a manifest cannot be read".to_owned(),
            });
            return Ok(Vec::new());
        };
        let (found, kept) = self.remove_manifests(&index, &manifests)?;
        let all = index.manifests().map(|(digest, _)| digest);
        collected.manifests += all.filter(|digest| !kept.contains(digest)).count();
        let restorable = self.restorable()?;
        let mut needed = needed(&kept, &manifests);
        needed.extend(&restorable);
        let removed = self.remove_blobs(&found, &needed, collected)?;
        collected.blobs += removed.len();
        let is_empty = found.len() == removed.len() && kept.is_empty() && !index.has_others();
        if is_empty && (self.options.dry_run || remove_if_empty(&self.path, self.lock)?) {
            collected.repositories += 1;
        }
        Ok(removed)
    }

    /// The manifests that retention has removed within the grace period, with what they reference:
    /// they may be put back.
    fn restorable(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut restorable = HashSet::new();
        for (digest, removed) in self.removed.younger(self.options.grace) {
            let document = self.repository.document_of(&digest, &removed.media_type)?;
            let references = document.iter().flat_map(ParsedManifest::references);
            restorable.extend(references.map(|reference| reference.digest.clone()));
            restorable.insert(digest);
        }
        Ok(restorable)
    }

    /// The parsed manifests. `None`: one of them exists but cannot be read, so that its blobs are
    /// unknown.
    fn parse_manifests(
        &self,
        index: &RepositoryIndex,
    ) -> Result<Option<ParsedManifests>, StoreError> {
        let mut manifests = HashMap::new();
        for (digest, entry) in index.manifests() {
            if let Some(manifest) = self.repository.document(digest, entry)? {
                manifests.insert(digest.clone(), manifest);
            } else if self.repository.has(digest)? {
                return Ok(None);
            }
        }
        Ok(Some(manifests))
    }

    /// Removes the manifests that are garbage from the index. Returns the blobs of the repository,
    /// and the manifests that stay.
    fn remove_manifests(
        &self,
        index: &RepositoryIndex,
        manifests: &ParsedManifests,
    ) -> Result<(Vec<BlobFile>, HashSet<Digest>), StoreError> {
        let pulled = self.pulled.as_ref();
        let pulled = pulled.map(|pulled| with_indexes(pulled, manifests));
        loop {
            let found = blobs::list(&self.path)?;
            found.iter().try_for_each(BlobFile::check_kind)?;
            let young = found.iter().filter(|blob| self.is_young_manifest(blob));
            let young: HashSet<&Digest> = young.map(|blob| &blob.digest).collect();
            let kept = kept(index, manifests, |digest| match &pulled {
                Some(pulled) => pulled.contains(digest) || young.contains(digest),
                None => true,
            });
            if self.options.dry_run || self.write_index(index, &kept)? {
                return Ok((found, kept));
            }
        }
    }

    /// Writes the index with only the manifests of `kept`. `false`: a client was told of one of the
    /// others meanwhile, and the index is as it was.
    fn write_index(
        &self,
        index: &RepositoryIndex,
        kept: &HashSet<Digest>,
    ) -> Result<bool, StoreError> {
        let all = index.manifests().map(|(digest, _)| digest);
        let removed: Vec<&Digest> = all.filter(|digest| !kept.contains(digest)).collect();
        if removed.is_empty() {
            return Ok(true);
        }
        let mut rest = index.clone();
        rest.remove(|digest| !kept.contains(digest));
        self.repository.write(rest.clone(), self.lock)?;
        // A reader that marks a manifest as used reads the index after that: at least one of the
        // two sees the other.
        for digest in removed {
            if self
                .repository
                .is_younger(digest, self.options.retention())?
            {
                self.repository.write(index.clone(), self.lock)?;
                return Ok(false);
            }
        }
        self.repository.forget_removed(&rest);
        Ok(true)
    }

    /// Removes the unused blobs that are not needed, and adds their size to the summary. Returns
    /// their digests.
    fn remove_blobs(
        &self,
        found: &[BlobFile],
        needed: &HashSet<&Digest>,
        collected: &mut CollectionSummary,
    ) -> Result<Vec<Digest>, StoreError> {
        let mut removed = Vec::new();
        let garbage = |blob: &&BlobFile| !needed.contains(&blob.digest) && self.is_unused(blob);
        for blob in found.iter().filter(garbage) {
            if !self.options.dry_run && !blobs::remove_unused(blob, self.options.grace)? {
                continue;
            }
            removed.push(blob.digest.clone());
            // A blob with another hard link is counted with the last of its links.
            if blobs::has_one_name(&blob.data) {
                collected.bytes += blob.data.size;
            }
        }
        Ok(removed)
    }

    /// Whether a blob, if it is a manifest, stays without a tag although it is not pulled.
    fn is_young_manifest(&self, blob: &BlobFile) -> bool {
        let retention = self.options.retention();
        blob.data.owner != self.owner || !blobs::is_older(&blob.data, retention)
    }

    fn is_unused(&self, blob: &BlobFile) -> bool {
        blob.data.owner == self.owner && blobs::is_older(&blob.data, self.options.grace)
    }
}

/// The blobs that the kept manifests reference, also as entries of an index, and those of the
/// manifests themselves.
fn needed<'a>(kept: &'a HashSet<Digest>, manifests: &'a ParsedManifests) -> HashSet<&'a Digest> {
    let manifests = kept.iter().filter_map(|digest| manifests.get(digest));
    manifests
        .flat_map(|manifest| manifest.references().map(|reference| &reference.digest))
        .chain(kept)
        .collect()
}

/// Manifests and the indexes that list them, those that list these, and so on: a client that comes
/// by the index pulls an image of it as well.
fn with_indexes<'a>(
    pulled: &'a HashSet<Digest>,
    manifests: &'a ParsedManifests,
) -> HashSet<&'a Digest> {
    let mut indexes: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
    for (digest, manifest) in manifests {
        for child in &manifest.manifests {
            indexes.entry(&child.digest).or_default().push(digest);
        }
    }
    let mut pending: Vec<&Digest> = pulled.iter().collect();
    let mut found = HashSet::new();
    while let Some(digest) = pending.pop() {
        if found.insert(digest) {
            pending.extend(indexes.get(digest).into_iter().flatten());
        }
    }
    found
}

/// The manifests that are not garbage: those with a tag or another name, the used ones, and, for
/// each of these, the manifests that it lists and its referrers.
fn kept(
    index: &RepositoryIndex,
    manifests: &ParsedManifests,
    is_used: impl Fn(&Digest) -> bool,
) -> HashSet<Digest> {
    let mut referrers: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
    for (digest, manifest) in manifests {
        if let Some(subject) = &manifest.subject {
            referrers.entry(subject).or_default().push(digest);
        }
    }
    let all = index.manifests().map(|(digest, _)| digest);
    let used = all.filter(|digest| is_used(digest));
    let mut pending: Vec<&Digest> = index.named().chain(used).collect();
    let mut kept = HashSet::new();
    while let Some(digest) = pending.pop() {
        if index.manifest(digest).is_none() || !kept.insert(digest.clone()) {
            continue;
        }
        let children = manifests.get(digest).map(|manifest| &manifest.manifests);
        pending.extend(children.into_iter().flatten().map(|child| &child.digest));
        pending.extend(referrers.get(digest).into_iter().flatten());
    }
    kept
}

#[cfg(test)]
mod tests;
