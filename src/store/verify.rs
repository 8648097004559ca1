//! Compares all content of a store with its digests, and repairs what can be repaired. Reads every
//! blob once, also while the store serves.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::Store;
use super::blobs::{self, BlobFile};
use super::error::StoreError;
use super::files::{self, FileIdentity, OpenDirectory};
use super::hash::DigestAlgorithm;
use super::index::RepositoryIndex;
use super::layout::if_exists;
use super::repository::StoredRepository;
use super::{promised_size, publish};
use crate::config::vhost::MissingContent;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;

/// How a store is verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VerifyOptions {
    /// Replaces damaged blobs by the right content of another repository, and removes the others.
    pub(crate) repair: bool,
    /// Whether manifests may reference content that is missing.
    pub(crate) missing: MissingContent,
}

/// What was verified, and what is not right.
#[derive(Debug, Default, Serialize)]
pub(crate) struct VerifyReport {
    /// Different files with blobs and manifests.
    pub(crate) blobs: usize,
    pub(crate) bytes: u64,
    pub(crate) damage: Vec<Damage>,
}

/// Something that is not right.
#[derive(Debug, Serialize)]
pub(crate) struct Damage {
    pub(crate) path: String,
    pub(crate) problem: String,
    pub(crate) outcome: DamageOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DamageOutcome {
    /// It is as it was.
    Found,
    /// The right content is there now.
    Replaced,
    /// It is gone, so that the next push brings the right content.
    Removed,
}

/// Verifies all blobs, manifests and indexes. Blocks on the disk, perhaps for hours.
pub(crate) fn verify(store: &Store, options: VerifyOptions) -> Result<VerifyReport, StoreError> {
    if !store.exists() {
        return Err(StoreError::StorageMissing);
    }
    let mut verification = Verification {
        store,
        options,
        damaged: HashSet::new(),
        report: VerifyReport::default(),
    };
    verification.links(&OpenDirectory::open(store.layout.root())?, MAX_DEPTH)?;
    // First the shared names: what they lead to is not read again in each repository.
    unless_linked(blobs::each(store.layout.root(), |blob| {
        verification.shared(&blob)
    }))?;
    let names = unless_linked(store.names().map_err(StoreError::from))?;
    for name in names.into_iter().flatten() {
        unless_linked(verification.repository(&name))?;
    }
    Ok(verification.report)
}

/// `None`: a symbolic link was in the way, which is reported as such.
fn unless_linked<T>(done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match done {
        Err(StoreError::Linked(_)) => Ok(None),
        done => done.map(Some),
    }
}

/// Directories below the root: `repositories/NAME/blobs/sha256`.
const MAX_DEPTH: usize = 4;

const MISMATCH: &str = "the content does not match the digest";

struct Verification<'a> {
    store: &'a Store,
    options: VerifyOptions,
    /// Of the damaged files.
    damaged: HashSet<FileIdentity>,
    report: VerifyReport,
}

impl Verification<'_> {
    /// Reports all symbolic links in a directory.
    fn links(&mut self, directory: &OpenDirectory, depth: usize) -> Result<(), StoreError> {
        for name in directory.names()? {
            let name = name?;
            let Some(status) = if_exists(directory.status(&name))? else {
                continue;
            };
            let path = directory.path().join(&name);
            if status.is_symbolic_link() {
                let problem = "a symbolic link, which is not followed".to_owned();
                self.add(&path, problem, DamageOutcome::Found);
            } else if status.is_directory()
                && depth > 0
                && let Some(below) =
                    unless_linked(Ok(if_exists(OpenDirectory::open(&path))?))?.flatten()
            {
                self.links(&below, depth - 1)?;
            }
        }
        Ok(())
    }

    fn shared(&mut self, blob: &BlobFile) -> Result<(), StoreError> {
        let Some(problem) = self.problem(blob)? else {
            return Ok(());
        };
        self.damaged.insert(blob.data.identity);
        let mut outcome = DamageOutcome::Found;
        if self.options.repair {
            if_exists(files::remove_file(&blob.path))?;
            outcome = DamageOutcome::Removed;
        }
        self.add(&blob.path, problem, outcome);
        Ok(())
    }

    fn repository(&mut self, name: &RepositoryName) -> Result<(), StoreError> {
        let directory = self.store.layout.repository(name);
        // Visited as a list: repairs change the directory.
        for blob in blobs::list(&directory)? {
            if let Some(problem) = self.problem_in_repository(&blob)? {
                let outcome = self.repair(name, &blob)?;
                self.add(&blob.path, problem, outcome);
            }
        }
        let repository = self.store.repository_uncached(name);
        match repository.index() {
            Err(StoreError::RepositoryUnknown | StoreError::Linked(_)) => Ok(()),
            Err(error) => {
                let path = directory.join(super::layout::INDEX_FILE);
                self.add(&path, error.to_string(), DamageOutcome::Found);
                Ok(())
            }
            Ok(_) if self.options.missing == MissingContent::Allow => Ok(()),
            Ok(index) => self.references(&repository, &index),
        }
    }

    fn references(
        &mut self,
        repository: &StoredRepository,
        index: &RepositoryIndex,
    ) -> Result<(), StoreError> {
        for (digest, entry) in index.manifests() {
            if let Some(manifest) = repository.document(digest, entry)? {
                let blobs = manifest.blobs.iter().filter(|blob| !blob.has_urls);
                for needed in blobs.chain(&manifest.manifests) {
                    self.needed(repository, digest, &needed.digest)?;
                }
            } else {
                self.needed(repository, digest, digest)?;
            }
        }
        Ok(())
    }

    /// Reports content that a manifest needs and that is missing.
    fn needed(
        &mut self,
        repository: &StoredRepository,
        manifest: &Digest,
        needed: &Digest,
    ) -> Result<(), StoreError> {
        let Ok(path) = self.store.layout.blob(repository.name(), needed) else {
            return Ok(());
        };
        if !repository.has(needed)? {
            let problem = format!("missing, and needed by the manifest {manifest}");
            self.add(&path, problem, DamageOutcome::Found);
        }
        Ok(())
    }

    /// As [`Self::problem`], but reads nothing that was read under its shared name.
    fn problem_in_repository(&mut self, blob: &BlobFile) -> Result<Option<String>, StoreError> {
        let shared = self.store.layout.shared_blob(&blob.digest)?;
        let identity = blob.data.identity;
        if self.damaged.contains(&identity) {
            return Ok(Some(MISMATCH.to_owned()));
        }
        if files::identity(&shared)? == Some(identity) {
            return Ok(None);
        }
        self.problem(blob)
    }

    /// Why the content of a file is not right. `None`: it is, or it has been removed meanwhile.
    fn problem(&mut self, blob: &BlobFile) -> Result<Option<String>, StoreError> {
        if blob.data.is_symbolic_link() {
            return Ok(None);
        }
        let Some(file) = if_exists(files::open(&blob.path))? else {
            return Ok(None);
        };
        self.report.blobs += 1;
        self.report.bytes += blob.data.size;
        let found = match DigestAlgorithm::from_digest(&blob.digest)?.digest_file(&file) {
            Ok(found) => found,
            Err(error) => return Ok(Some(format!("it cannot be read: {error}"))),
        };
        if found != blob.digest {
            return Ok(Some(MISMATCH.to_owned()));
        }
        let size = file.metadata()?.len();
        if self.options.repair && promised_size::read(&file) != Some(size) {
            promised_size::record(&file)?;
        }
        Ok(None)
    }

    fn repair(&self, name: &RepositoryName, blob: &BlobFile) -> Result<DamageOutcome, StoreError> {
        if !self.options.repair {
            return Ok(DamageOutcome::Found);
        }
        let Some(_lock) = self.store.locks.blocking_write(name)? else {
            return Ok(DamageOutcome::Found);
        };
        let shared = self.store.layout.shared_blob(&blob.digest)?;
        if files::exists(&shared) {
            match publish::replace_name(&shared, &blob.path) {
                // A repository on another file system.
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
                replaced => {
                    replaced?;
                    return Ok(DamageOutcome::Replaced);
                }
            }
        }
        if_exists(files::remove_file(&blob.path))?;
        Ok(DamageOutcome::Removed)
    }

    fn add(&mut self, path: &Path, problem: String, outcome: DamageOutcome) {
        self.report.damage.push(Damage {
            path: path.display().to_string(),
            problem,
            outcome,
        });
    }
}
