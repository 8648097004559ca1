//! The garbage collection: removes blobs that no manifest references and manifests that nothing
//! points at, while the store serves. It locks one repository at a time.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::Store;
use super::blobs::{self, BlobFile};
use super::error::StoreError;
use super::index::RepositoryIndex;
use super::layout::{RepositoryLock, StoreLayout, if_exists, remove_if_empty};
use super::locks::REPOSITORY_LOCK_TIMEOUT;
use super::manifest::ParsedManifest;
use super::repository::StoredRepository;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;

/// What a collection removed, or would remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
}

/// How a collection is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CollectionOptions {
    /// How long what nothing points at is left alone: longer than any push lasts.
    pub(crate) grace: Duration,
    /// Only find out what would be removed.
    pub(crate) dry_run: bool,
}

impl Store {
    /// Collects the garbage of all repositories. Waits for the disk.
    pub(crate) fn collect(
        &self,
        collection: CollectionOptions,
    ) -> Result<CollectionSummary, StoreError> {
        let uploads = if collection.dry_run {
            self.uploads.count_expired()?
        } else {
            self.uploads.expire()?
        };
        let mut collected = CollectionSummary {
            uploads,
            ..CollectionSummary::default()
        };
        let mut names_lost: HashMap<Digest, u64> = HashMap::new();
        let mut failed = None;
        for name in self.names()? {
            match self.collect_repository(&name, collection, &mut collected) {
                Ok(gone) => gone
                    .into_iter()
                    .for_each(|digest| *names_lost.entry(digest).or_default() += 1),
                // The others are collected all the same.
                Err(error) => failed = Some(error),
            }
        }
        for found in blobs::list(self.layout.root())? {
            let lost = if collection.dry_run {
                names_lost.get(&found.digest).copied().unwrap_or(0)
            } else {
                0
            };
            collected.bytes += self.collect_shared(&found, lost, collection)?;
        }
        failed.map_or(Ok(collected), Err)
    }

    /// Collects a repository, which is locked meanwhile. Returns the digests of the removed blobs.
    fn collect_repository(
        &self,
        name: &RepositoryName,
        collection: CollectionOptions,
        collected: &mut CollectionSummary,
    ) -> Result<Vec<Digest>, StoreError> {
        // Requests of this process queue for the repository; those of others try again.
        let _key = self.locks.blocking_write(name)?;
        let locked = self.layout.lock_existing(name, REPOSITORY_LOCK_TIMEOUT);
        let lock = match locked {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(StoreError::Locked);
            }
            Err(error) => return Err(error.into()),
        };
        let target = CollectionTarget {
            layout: &self.layout,
            path: self.layout.repository(name),
            lock,
        };
        self.repository(name)
            .collect(&target, collection, collected)
    }

    /// Removes the shared link of a blob that no repository has any more. A push of the blob at the
    /// same time links its upload instead.
    fn collect_shared(
        &self,
        found: &BlobFile,
        lost: u64,
        collection: CollectionOptions,
    ) -> Result<u64, StoreError> {
        if collection.dry_run {
            return Ok(if found.data.nlink() <= lost + 1 {
                found.data.len()
            } else {
                0
            });
        }
        let Some(now) = if_exists(std::fs::metadata(&found.path))? else {
            return Ok(0);
        };
        if !blobs::has_one_name(&now) {
            return Ok(0);
        }
        if_exists(std::fs::remove_file(&found.path))?;
        Ok(now.len())
    }
}

/// A repository that is locked exclusively.
struct CollectionTarget<'a> {
    layout: &'a StoreLayout,
    path: PathBuf,
    lock: RepositoryLock,
}

impl StoredRepository {
    /// Collects the garbage. Returns the digests of the removed blobs.
    fn collect(
        &self,
        CollectionTarget { layout, path, lock }: &CollectionTarget<'_>,
        collection: CollectionOptions,
        collected: &mut CollectionSummary,
    ) -> Result<Vec<Digest>, StoreError> {
        let index = self.index_or_empty(lock)?;
        if !collection.dry_run {
            blobs::recover(path, lock)?;
        }
        let Some(documents) = self.documents(&index)? else {
            let repository = self.name().as_str();
            tracing::warn!(
                repository,
                "repository not collected: it has a manifest that cannot be read"
            );
            return Ok(Vec::new());
        };
        // Only files of the store's own user can show that somebody uses them.
        let owner = std::fs::metadata(layout.root())?.uid();
        let is_unused = |blob: &BlobFile| {
            blob.data.uid() == owner && blobs::is_older(&blob.data, collection.grace)
        };
        let (found, kept) = loop {
            let found = blobs::list(path)?;
            let used = found.iter().filter(|blob| !is_unused(blob));
            let young: HashSet<&Digest> = used.map(|blob| &blob.digest).collect();
            let kept = kept(&index, &documents, |digest| young.contains(digest));
            if collection.dry_run || self.forget_all_but(&kept, &index, collection.grace, lock)? {
                break (found, kept);
            }
        };
        collected.manifests += index
            .manifests()
            .filter(|(digest, _)| !kept.contains(digest))
            .count();
        let needed = needed(&kept, &documents);
        let mut removed = Vec::new();
        for blob in found
            .iter()
            .filter(|blob| !needed.contains(&blob.digest) && is_unused(blob))
        {
            if collection.dry_run || blobs::remove_unused(blob, collection.grace)? {
                removed.push(blob.digest.clone());
                // One that has another name is counted with that.
                collected.bytes += if blobs::has_one_name(&blob.data) {
                    blob.data.len()
                } else {
                    0
                };
            }
        }
        collected.blobs += removed.len();
        let is_empty = found.len() == removed.len() && kept.is_empty() && !index.has_others();
        if is_empty && (collection.dry_run || remove_if_empty(path, lock)?) {
            collected.repositories += 1;
        }
        Ok(removed)
    }

    /// Takes manifests out of the index. `false`: a client was told of one of them meanwhile, and
    /// nothing has changed.
    fn forget_all_but(
        &self,
        kept: &HashSet<Digest>,
        index: &RepositoryIndex,
        grace: Duration,
        locked: &RepositoryLock,
    ) -> Result<bool, StoreError> {
        let gone: Vec<&Digest> = index
            .manifests()
            .map(|(digest, _)| digest)
            .filter(|digest| !kept.contains(digest))
            .collect();
        if gone.is_empty() {
            return Ok(true);
        }
        let mut rest = index.clone();
        for digest in &gone {
            rest.remove(digest);
        }
        self.write(rest.clone(), locked)?;
        // Whoever sets the sign of use looks at the index after that: at least one of the two sees
        // the other.
        for digest in gone {
            if self.is_younger(digest, grace)? {
                self.write(index.clone(), locked)?;
                return Ok(false);
            }
        }
        self.forget_removed(&rest);
        Ok(true)
    }

    /// What all manifests say. `None`: one is there and cannot be read, so that nobody knows what
    /// it needs.
    fn documents(
        &self,
        index: &RepositoryIndex,
    ) -> Result<Option<HashMap<Digest, ParsedManifest>>, StoreError> {
        let mut documents = HashMap::new();
        for (digest, entry) in index.manifests() {
            match self.document(digest, entry)? {
                Some(document) => drop(documents.insert(digest.clone(), document)),
                None if self.has(digest)? => return Ok(None),
                None => {}
            }
        }
        Ok(Some(documents))
    }
}

/// The blobs of these manifests, their own included.
fn needed<'a>(
    kept: &'a HashSet<Digest>,
    documents: &'a HashMap<Digest, ParsedManifest>,
) -> HashSet<&'a Digest> {
    let documents = kept.iter().filter_map(|digest| documents.get(digest));
    documents
        .flat_map(|document| document.blobs.iter().map(|blob| &blob.digest))
        .chain(kept)
        .collect()
}

/// The manifests that are not garbage: those that a name points at, the young ones, and with each
/// of these what it lists and what says something about it.
fn kept(
    index: &RepositoryIndex,
    documents: &HashMap<Digest, ParsedManifest>,
    is_young: impl Fn(&Digest) -> bool,
) -> HashSet<Digest> {
    let mut about: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
    for (digest, document) in documents {
        if let Some(subject) = &document.subject {
            about.entry(subject).or_default().push(digest);
        }
    }
    let young = index
        .manifests()
        .map(|(digest, _)| digest)
        .filter(|digest| is_young(digest));
    let mut waiting: Vec<&Digest> = index.named().chain(young).collect();
    let mut kept = HashSet::new();
    while let Some(digest) = waiting.pop() {
        if index.manifest(digest).is_none() || !kept.insert(digest.clone()) {
            continue;
        }
        let document = documents.get(digest);
        waiting.extend(
            document
                .into_iter()
                .flat_map(|d| d.manifests.iter().map(|child| &child.digest)),
        );
        waiting.extend(about.get(digest).into_iter().flatten());
    }
    kept
}

#[cfg(test)]
mod tests;
