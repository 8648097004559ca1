//! Reads from the disk what areas hold. A repository whose directories of blobs have not changed is
//! not read again, and of one that has changed only the new names are.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::store::blobs::REMOVED_EXTENSION;
use crate::store::files::{self, FileIdentity, OpenDirectory};
use crate::store::hash::DigestAlgorithm;
use crate::store::layout::{StoreLayout, if_exists, repository_of};

/// The first 32 bytes of a digest, which tell content apart as well as all of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ContentKey([u8; 32]);

/// The sizes of the blobs and manifests of a repository.
pub(super) type BlobSizes = HashMap<ContentKey, u64>;

/// The directories of blobs of a repository as they were when it was read: identities and
/// modification times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectoryStamps([Option<(FileIdentity, SystemTime)>; 2]);

/// What the disk has.
#[derive(Debug, Default)]
pub(super) struct DiskScan {
    pub(super) repositories: HashMap<RepositoryName, ScannedRepository>,
    /// The bytes that uploads have received.
    pub(super) uploads: HashMap<UploadId, (RepositoryName, u64)>,
}

/// What the disk has of one repository.
#[derive(Debug)]
pub(super) enum ScannedRepository {
    /// The same as at the last scan.
    Unchanged,
    Read {
        /// `None`: it changed so recently that a further change might leave the same times.
        stamps: Option<DirectoryStamps>,
        blobs: BlobSizes,
    },
}

/// What is known from the last scan.
pub(super) trait KnownContent {
    fn stamps(&self, name: &RepositoryName) -> Option<DirectoryStamps>;
    fn sizes(&self, name: &RepositoryName) -> BlobSizes;
}

impl ContentKey {
    /// `None`: the store does not have content of this algorithm.
    pub(super) fn new(digest: &Digest) -> Option<Self> {
        DigestAlgorithm::from_digest(digest).ok()?;
        let mut key = [0; 32];
        let digits = digest.encoded().as_bytes().chunks_exact(2);
        for (byte, pair) in key.iter_mut().zip(digits) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }
}

/// Reads the repositories and uploads of those names that `is_counted`.
pub(super) fn scan(
    layout: &StoreLayout,
    known: &dyn KnownContent,
    is_counted: &dyn Fn(&RepositoryName) -> bool,
) -> io::Result<DiskScan> {
    let mut scan = DiskScan::default();
    each_repository(&layout.repositories(), is_counted, |name| {
        let scanned = scan_repository(layout, &name, known)?;
        scan.repositories.insert(name, scanned);
        Ok(())
    })?;
    each_repository(&layout.uploads(), is_counted, |name| {
        let Some(directory) = if_exists(OpenDirectory::open(&layout.uploads_of(&name)))? else {
            return Ok(());
        };
        for file in directory.names()? {
            let file = file?;
            let status = if_exists(directory.status(&file))?;
            let id = UploadId::parse(&file.to_string_lossy());
            if let (Some(status), Ok(id)) = (status.filter(|status| status.is_file()), id) {
                scan.uploads.insert(id, (name.clone(), status.size));
            }
        }
        Ok(())
    })?;
    Ok(scan)
}

/// Visits the repositories that have something in a directory. One that is a symbolic link is passed
/// over: nothing can be pushed to it.
fn each_repository(
    directory: &Path,
    is_counted: &dyn Fn(&RepositoryName) -> bool,
    mut visit: impl FnMut(RepositoryName) -> io::Result<()>,
) -> io::Result<()> {
    for name in OpenDirectory::open(directory)?.names()? {
        let name = repository_of(&name?.to_string_lossy());
        let Some(name) = name.filter(|name| is_counted(name)) else {
            continue;
        };
        match visit(name) {
            Err(error) if files::link_in(&error).is_some() => {}
            visited => visited?,
        }
    }
    Ok(())
}

fn scan_repository(
    layout: &StoreLayout,
    name: &RepositoryName,
    known: &dyn KnownContent,
) -> io::Result<ScannedRepository> {
    let directory = layout.repository(name);
    let directories = DigestAlgorithm::ALL.map(|algorithm| {
        let path = directory.join("blobs").join(algorithm.name());
        (algorithm, path)
    });
    let now = SystemTime::now();
    let mut stamps = [None; 2];
    for (stamp, (_, path)) in stamps.iter_mut().zip(&directories) {
        *stamp = files::status(path)?.map(|status| (status.identity, status.modified));
    }
    let is_settled = stamps.iter().flatten().all(|(_, modified)| {
        now.duration_since(*modified)
            .is_ok_and(|age| age >= TIMESTAMP_STEP)
    });
    let stamps = DirectoryStamps(stamps);
    if known.stamps(name) == Some(stamps) {
        return Ok(ScannedRepository::Unchanged);
    }
    let sizes = known.sizes(name);
    let mut blobs = BlobSizes::new();
    for (algorithm, path) in &directories {
        if let Some(directory) = if_exists(OpenDirectory::open(path))? {
            read_blobs(&directory, *algorithm, &sizes, &mut blobs)?;
        }
    }
    Ok(ScannedRepository::Read {
        stamps: is_settled.then_some(stamps),
        blobs,
    })
}

/// Reads the blobs of one directory. The size of a known one is as known: content never changes.
fn read_blobs(
    directory: &OpenDirectory,
    algorithm: DigestAlgorithm,
    known: &BlobSizes,
    blobs: &mut BlobSizes,
) -> io::Result<()> {
    for name in directory.names()? {
        let name = name?;
        let text = name.to_string_lossy();
        // A collection may be about to give it its name back.
        let removed = text.strip_suffix(REMOVED_EXTENSION);
        let encoded = removed.and_then(|text| text.strip_suffix('.'));
        let encoded = encoded.unwrap_or(&text);
        let digest = Digest::parse(&format!("{}:{encoded}", algorithm.name()));
        let Some(key) = digest.ok().and_then(|digest| ContentKey::new(&digest)) else {
            continue;
        };
        if let Some(size) = known.get(&key) {
            blobs.insert(key, *size);
        } else if let Some(status) = if_exists(directory.status(&name))? {
            blobs.insert(key, status.size);
        }
    }
    Ok(())
}

/// Modification times move in steps of a clock tick, and of two seconds on some file systems.
const TIMESTAMP_STEP: Duration = Duration::from_secs(2);
