//! What a plan took away, to be put back: manifests byte for byte and the tags that led to them. A
//! file to which is only added, each record with a checksum, on the disk before the removal.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::directory::RunDirectory;
use super::error::RunError;
use super::plan_id::PlanId;
use crate::crypto::sha256_hex;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;
use crate::retention::registry::SavedManifest;

/// A line after its checksum.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
enum UndoRecord {
    Header {
        version: u32,
        domain: String,
        registry: String,
    },
    Manifest {
        repository: String,
        digest: String,
        media_type: String,
        /// In base64.
        bytes: String,
    },
    Tag {
        repository: String,
        tag: String,
        digest: String,
    },
}

/// Adds to the file of a plan. Blocks on the disk.
#[derive(Debug)]
pub(super) struct UndoWriter {
    file: BufWriter<File>,
    path: PathBuf,
    /// What it has already: the plan may be applied again.
    manifests: HashSet<(RepositoryName, Digest)>,
    tags: HashSet<(RepositoryName, Tag)>,
}

impl UndoWriter {
    /// Opens the file of a plan, or makes it.
    pub(super) fn open(
        directory: &RunDirectory,
        id: &PlanId,
        registry: &str,
        domain: &str,
    ) -> Result<Self, RunError> {
        let parent = directory.undo(id);
        directory.create(&parent)?;
        let path = parent.join(FILE_NAME);
        let saved = SavedTags::read(directory, id)?;
        let open = || {
            let mut options = OpenOptions::new();
            let mut file = options
                .read(true)
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&path)?;
            end_last_line(&mut file)?;
            File::open(&parent)?.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(RunError::io(&path))?;
        let is_new = saved.is_none();
        let (mut manifests, mut tags) = (HashSet::new(), HashSet::new());
        for (repository, saved) in saved.unwrap_or_default().repositories {
            let digests = saved.manifests.into_keys();
            manifests.extend(digests.map(|digest| (repository.clone(), digest)));
            let names = saved.tags.into_keys();
            tags.extend(names.map(|tag| (repository.clone(), tag)));
        }
        let mut writer = Self {
            file: BufWriter::new(file),
            path,
            manifests,
            tags,
        };
        if is_new {
            writer.record(&UndoRecord::Header {
                version: 1,
                domain: domain.to_owned(),
                registry: registry.to_owned(),
            })?;
        }
        Ok(writer)
    }

    pub(super) fn has_manifest(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.manifests
            .contains(&(repository.clone(), digest.clone()))
    }

    pub(super) fn manifest(
        &mut self,
        repository: &RepositoryName,
        saved: &SavedManifest,
    ) -> Result<(), RunError> {
        let SavedManifest {
            digest,
            media_type,
            bytes,
        } = saved;
        self.record(&UndoRecord::Manifest {
            repository: repository.to_string(),
            digest: digest.to_string(),
            media_type: media_type.clone(),
            bytes: STANDARD.encode(bytes),
        })?;
        self.manifests.insert((repository.clone(), digest.clone()));
        Ok(())
    }

    pub(super) fn tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), RunError> {
        if !self.tags.insert((repository.clone(), tag.clone())) {
            return Ok(());
        }
        self.record(&UndoRecord::Tag {
            repository: repository.to_string(),
            tag: tag.to_string(),
            digest: digest.to_string(),
        })
    }

    /// Everything is on the disk afterwards.
    pub(super) fn sync(&mut self) -> Result<(), RunError> {
        let mut sync = || {
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        sync().map_err(RunError::io(&self.path))
    }

    fn record(&mut self, record: &UndoRecord) -> Result<(), RunError> {
        let mut write = || {
            let text = serde_json::to_string(record)?;
            writeln!(self.file, "{} {text}", sha256_hex(text.as_bytes()))
        };
        write().map_err(RunError::io(&self.path))
    }
}

/// Ends a line that a killed process began, so that the next one stays whole.
fn end_last_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}

/// What is saved of a plan: where the manifests are in the file, and the tags.
#[derive(Debug, Default)]
pub(super) struct SavedTags {
    pub(super) domain: String,
    pub(super) registry: String,
    pub(super) repositories: HashMap<RepositoryName, SavedRepository>,
    path: PathBuf,
}

/// What is saved of a repository.
#[derive(Debug, Default)]
pub(super) struct SavedRepository {
    /// Where the record of each begins.
    pub(super) manifests: HashMap<Digest, u64>,
    pub(super) tags: HashMap<Tag, Digest>,
}

impl SavedTags {
    /// Reads the file of a plan. A record that a killed process did not complete is left out:
    /// nothing had been removed for it. `None`: there is no file, or nothing in it. Blocks.
    pub(super) fn read(directory: &RunDirectory, id: &PlanId) -> Result<Option<Self>, RunError> {
        let path = directory.undo(id).join(FILE_NAME);
        match read(&path) {
            Ok(saved) => Ok(Some(saved).filter(|saved| !saved.registry.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RunError::io(&path)(error)),
        }
    }

    /// A manifest, whose record begins there. Blocks on the disk.
    pub(super) fn manifest(&self, at: u64) -> Result<SavedManifest, RunError> {
        self.read_manifest(at).map_err(RunError::io(&self.path))
    }

    fn read_manifest(&self, at: u64) -> io::Result<SavedManifest> {
        let mut file = BufReader::new(File::open(&self.path)?);
        file.seek(SeekFrom::Start(at))?;
        let mut line = Vec::new();
        file.read_until(b'\n', &mut line)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a record is damaged");
        let Some(UndoRecord::Manifest {
            repository: _,
            digest,
            media_type,
            bytes,
        }) = parse(&line)
        else {
            return Err(damaged());
        };
        Ok(SavedManifest {
            digest: Digest::parse(&digest).map_err(|_| damaged())?,
            media_type,
            bytes: Bytes::from(STANDARD.decode(bytes).map_err(|_| damaged())?),
        })
    }

    fn add(&mut self, record: UndoRecord, at: u64) -> Option<()> {
        match record {
            UndoRecord::Header {
                version: _,
                domain,
                registry,
            } => {
                self.domain = domain;
                self.registry = registry;
            }
            UndoRecord::Manifest {
                repository, digest, ..
            } => {
                let repository = RepositoryName::parse(&repository).ok()?;
                let saved = self.repositories.entry(repository).or_default();
                saved.manifests.insert(Digest::parse(&digest).ok()?, at);
            }
            UndoRecord::Tag {
                repository,
                tag,
                digest,
            } => {
                let repository = RepositoryName::parse(&repository).ok()?;
                let saved = self.repositories.entry(repository).or_default();
                let (tag, digest) = (Tag::parse(&tag).ok()?, Digest::parse(&digest).ok()?);
                saved.tags.insert(tag, digest);
            }
        }
        Some(())
    }
}

fn read(path: &Path) -> io::Result<SavedTags> {
    let mut file = BufReader::with_capacity(64 << 10, File::open(path)?);
    let mut saved = SavedTags {
        path: path.to_owned(),
        ..SavedTags::default()
    };
    let (mut line, mut at) = (Vec::new(), 0);
    loop {
        line.clear();
        let length = file.read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(saved);
        }
        let added = parse(&line).and_then(|record| saved.add(record, at));
        if added.is_none() {
            tracing::debug!(path = %path.display(), at, "retention: incomplete record left out");
        }
        at += length as u64;
    }
}

/// A record, if it is whole.
fn parse(line: &[u8]) -> Option<UndoRecord> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (checksum, text) = line.split_once(' ')?;
    if checksum != sha256_hex(text.as_bytes()) {
        return None;
    }
    serde_json::from_str(text).ok()
}

const FILE_NAME: &str = "saved.jsonl";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::host::HostName;

    fn saved(text: &str) -> SavedManifest {
        let digest = format!("sha256:{}", sha256_hex(text.as_bytes()));
        SavedManifest {
            digest: Digest::parse(&digest).expect("a digest"),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            bytes: Bytes::copy_from_slice(text.as_bytes()),
        }
    }

    #[test]
    fn whatever_a_kill_leaves_of_a_record_the_others_are_read() {
        let state = tempfile::tempdir().expect("directory");
        let domain = HostName::parse("ci.test").expect("a name");
        let directory = RunDirectory::new(state.path(), &domain);
        let id = PlanId::parse("20260131t040500z-0a1b2c3d").expect("a name");
        let repository = RepositoryName::parse("app").expect("a name");
        let (first, second) = (saved("{\"a\":1}\n"), saved("{\"b\":2}"));
        let tag = Tag::parse("v1").expect("a tag");
        let open = || UndoWriter::open(&directory, &id, "store/ci", "ci.test").expect("opened");
        let mut writer = open();
        writer.manifest(&repository, &first).expect("written");
        writer
            .tag(&repository, &tag, &first.digest)
            .expect("written");
        writer.sync().expect("synced");
        let path = directory.undo(&id).join(FILE_NAME);
        let whole = std::fs::read(&path).expect("read");
        writer.manifest(&repository, &second).expect("written");
        writer.sync().expect("synced");
        let all = std::fs::read(&path).expect("read");
        for length in whole.len()..all.len() {
            std::fs::write(&path, &all[..length]).expect("cut");
            let mut writer = open();
            assert!(writer.has_manifest(&repository, &first.digest));
            assert!(
                !writer.has_manifest(&repository, &second.digest),
                "{length}"
            );
            writer.manifest(&repository, &second).expect("written");
            writer.sync().expect("synced");
            let read = SavedTags::read(&directory, &id)
                .expect("read")
                .expect("there");
            let of = &read.repositories[&repository];
            assert_eq!(of.tags[&tag], first.digest);
            for one in [&first, &second] {
                let at = of.manifests[&one.digest];
                assert_eq!(read.manifest(at).expect("read"), *one, "{length}");
            }
        }
    }
}
