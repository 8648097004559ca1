//! What areas hold, kept up to date by events and, now and then, by what the disk has. Pure: reads
//! and writes nothing.

mod scanned;

use std::collections::{HashMap, HashSet};

use super::areas::{AreaKey, QuotaTables};
use super::event::{AreaEvent, ProcessId, PublicationId};
use super::excess::QuotaExcess;
use super::scan::{BlobSizes, ContentKey, DirectoryStamps};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;

/// What the areas of a store hold.
#[derive(Debug, Default)]
pub(super) struct ContentUsage {
    tables: QuotaTables,
    areas: HashMap<AreaKey, AreaContent>,
    repositories: HashMap<RepositoryName, CountedRepository>,
    uploads: HashMap<UploadId, CountedUpload>,
    publications: HashMap<PublicationId, CountedPublication>,
    /// Uploads that were published since the last scan began: what it finds of them does not count.
    published: HashSet<UploadId>,
    /// The number of the last scan that began.
    scan: u64,
}

#[derive(Debug, Default)]
struct AreaContent {
    content: HashMap<ContentKey, CountedContent>,
    /// The bytes of `content`.
    stored: u64,
    /// The bytes of uploads, and of the further files that `content` has while it is published.
    uploads: u64,
}

#[derive(Debug, Default)]
struct CountedContent {
    /// The repositories and publications that have it.
    users: usize,
    /// The publications among them whose upload is a file of its own until they end.
    files: usize,
    size: u64,
}

/// What has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentUser {
    Repository,
    Publication { has_file: bool },
}

#[derive(Debug, Default)]
struct CountedRepository {
    areas: Vec<AreaKey>,
    blobs: BlobSizes,
    stamps: Option<DirectoryStamps>,
    /// What was published since the last scan began, which may not have seen it.
    recent: Vec<ContentKey>,
}

#[derive(Debug)]
struct CountedUpload {
    repository: RepositoryName,
    areas: Vec<AreaKey>,
    bytes: u64,
    /// `None`: only the disk says that it exists.
    process: Option<ProcessId>,
    is_receiving: bool,
    /// The last scan that had begun when this changed.
    scan: u64,
}

#[derive(Debug)]
struct CountedPublication {
    repository: RepositoryName,
    areas: Vec<AreaKey>,
    digest: Digest,
    key: ContentKey,
    size: u64,
    upload: Option<UploadId>,
}

/// An upload that wants to grow.
#[derive(Clone, Debug)]
pub(super) struct UploadGrowth {
    pub(super) repository: RepositoryName,
    pub(super) id: UploadId,
    /// The bytes that it must be able to have.
    pub(super) least: u64,
    /// The bytes that it would take if there is plenty of space.
    pub(super) wanted: u64,
}

/// Content that is to be added to a repository.
#[derive(Clone, Debug)]
pub(super) struct NewContent {
    pub(super) repository: RepositoryName,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// The upload that it comes from.
    pub(super) upload: Option<UploadId>,
}

/// What an area holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AreaUse {
    /// Its patterns.
    pub(crate) area: String,
    /// Where its quota is written, `FILE:LINE`.
    pub(crate) rule: String,
    pub(crate) size: u64,
    /// The bytes of its blobs and manifests, each once.
    pub(crate) stored: u64,
    /// The bytes that uploads have received or announced.
    pub(crate) uploads: u64,
}

impl AreaUse {
    pub(crate) fn used(&self) -> u64 {
        self.stored.saturating_add(self.uploads)
    }

    /// As commands and `/status` give it.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "area": self.area,
            "rule": self.rule,
            "size": self.size,
            "used": self.used(),
            "uploads": self.uploads,
        })
    }
}

impl AreaContent {
    fn used(&self) -> u64 {
        self.stored.saturating_add(self.uploads)
    }

    fn is_empty(&self) -> bool {
        self.content.is_empty() && self.uploads == 0
    }

    fn add(&mut self, key: ContentKey, size: u64, user: ContentUser) {
        let content = self.content.entry(key).or_default();
        let further = content.further_bytes();
        content.users += 1;
        content.files += user.files();
        // Damaged content may be shorter elsewhere.
        self.stored += size.saturating_sub(content.size);
        content.size = content.size.max(size);
        self.uploads = self.uploads - further + content.further_bytes();
    }

    fn remove(&mut self, key: ContentKey, user: ContentUser) {
        let Some(content) = self.content.get_mut(&key) else {
            return;
        };
        let further = content.further_bytes();
        content.users -= 1;
        content.files -= user.files();
        self.uploads = self.uploads - further + content.further_bytes();
        if content.users == 0 {
            self.stored -= content.size;
            self.content.remove(&key);
        }
    }
}

impl CountedContent {
    /// The bytes of the files beyond the first: of several publications, any may end first.
    fn further_bytes(&self) -> u64 {
        let files = self.files + usize::from(self.users > self.files);
        self.size * files.saturating_sub(1) as u64
    }
}

impl ContentUser {
    fn files(self) -> usize {
        usize::from(self == Self::Publication { has_file: true })
    }
}

impl CountedPublication {
    fn user(&self) -> ContentUser {
        let has_file = self.upload.is_some();
        ContentUser::Publication { has_file }
    }

    fn count(&self, areas: &mut HashMap<AreaKey, AreaContent>) {
        for area in &self.areas {
            let content = areas.entry(area.clone()).or_default();
            content.add(self.key, self.size, self.user());
        }
    }

    /// The upload of a publication that failed.
    fn returned(&self, publication: &PublicationId) -> Option<(UploadId, CountedUpload)> {
        let upload = CountedUpload {
            repository: self.repository.clone(),
            areas: self.areas.clone(),
            bytes: self.size,
            process: Some(publication.process.clone()),
            is_receiving: false,
            scan: 0,
        };
        Some((self.upload.clone()?, upload))
    }
}

impl ContentUsage {
    /// Replaces the quotas. Repositories that have one only now are unknown until the next scan.
    pub(super) fn set_tables(&mut self, tables: QuotaTables) {
        self.tables = tables;
        self.areas.clear();
        let Self { tables, areas, .. } = self;
        self.repositories.retain(|name, repository| {
            repository.areas = tables.areas_of(name);
            for area in &repository.areas {
                let content = areas.entry(area.clone()).or_default();
                let blobs = repository.blobs.iter();
                blobs.for_each(|(key, size)| content.add(*key, *size, ContentUser::Repository));
            }
            !repository.areas.is_empty()
        });
        for upload in self.uploads.values_mut() {
            upload.areas = tables.areas_of(&upload.repository);
            for area in &upload.areas {
                areas.entry(area.clone()).or_default().uploads += upload.bytes;
            }
        }
        for publication in self.publications.values_mut() {
            publication.areas = tables.areas_of(&publication.repository);
            publication.count(areas);
        }
    }

    /// The bytes that an upload may have from now on: at least `least`, if that fits into all areas,
    /// and at most `wanted`, if it takes only a small part of what is left.
    pub(super) fn grant(&self, growth: &UploadGrowth) -> Result<u64, QuotaExcess> {
        let UploadGrowth {
            repository,
            id,
            least,
            wanted,
        } = growth;
        let counted = self.counted_bytes(repository, Some(id));
        let needed = least.saturating_sub(counted);
        let mut ahead = wanted.saturating_sub(*least);
        for area in self.tables.areas_of(repository) {
            let left = self.check(&area, needed)?;
            ahead = ahead.min(left / SHARE_AHEAD);
        }
        Ok(least.saturating_add(ahead))
    }

    /// Whether new content fits into all areas. What an area has already costs nothing there.
    pub(super) fn check_content(&self, new: &NewContent) -> Result<(), QuotaExcess> {
        let key = ContentKey::new(&new.digest);
        let counted = self.counted_bytes(&new.repository, new.upload.as_ref());
        for area in self.tables.areas_of(&new.repository) {
            let is_there = key.is_some_and(|key| {
                let content = self.areas.get(&area);
                content.is_some_and(|area| area.content.contains_key(&key))
            });
            let needed = if is_there { 0 } else { new.size };
            self.check(&area, needed.saturating_sub(counted))?;
        }
        Ok(())
    }

    fn counted_bytes(&self, repository: &RepositoryName, upload: Option<&UploadId>) -> u64 {
        let upload = upload.and_then(|id| self.uploads.get(id));
        let upload = upload.filter(|upload| upload.repository == *repository);
        upload.map_or(0, |upload| upload.bytes)
    }

    /// What is left of an area after `needed` more bytes. What needs nothing fits into every area,
    /// also into one that holds more than it may since its quota was lowered.
    fn check(&self, area: &AreaKey, needed: u64) -> Result<u64, QuotaExcess> {
        let content = self.areas.get(area);
        let used = content.map_or(0, AreaContent::used);
        let size = self.tables.size(area);
        let after = used.saturating_add(needed);
        if needed > 0 && after > size {
            return Err(QuotaExcess {
                area: self.tables.title(area),
                needed,
                used,
                size,
                uploads: content.map_or(0, |content| content.uploads),
            });
        }
        Ok(size.saturating_sub(after))
    }

    /// Applies an event of this or another process.
    pub(super) fn apply(&mut self, event: &AreaEvent) {
        match event {
            AreaEvent::Upload {
                process,
                repository,
                id,
                bytes,
                is_receiving,
            } => {
                self.remove_upload(id);
                if *bytes > 0 || *is_receiving {
                    let upload = CountedUpload {
                        repository: repository.clone(),
                        areas: self.tables.areas_of(repository),
                        bytes: *bytes,
                        process: Some(process.clone()),
                        is_receiving: *is_receiving,
                        scan: self.scan,
                    };
                    self.insert_upload(id.clone(), upload);
                }
            }
            AreaEvent::Publishing {
                publication,
                repository,
                digest,
                size,
                upload,
            } => {
                let new = NewContent {
                    repository: repository.clone(),
                    digest: digest.clone(),
                    size: *size,
                    upload: upload.clone(),
                };
                self.begin_publication(publication, new);
            }
            AreaEvent::Ended {
                publication,
                is_stored,
            } => {
                let ended = self.publications.remove(publication);
                let returned = ended.as_ref().filter(|_| !is_stored);
                if let Some((id, upload)) = returned.and_then(|p| p.returned(publication)) {
                    self.remove_upload(&id);
                    let scan = self.scan;
                    self.insert_upload(id, CountedUpload { scan, ..upload });
                }
                self.end_publication(ended, *is_stored);
            }
        }
    }

    fn begin_publication(&mut self, publication: &PublicationId, new: NewContent) {
        if let Some(id) = &new.upload {
            self.remove_upload(id);
        }
        let Some(key) = ContentKey::new(&new.digest) else {
            return;
        };
        let new = CountedPublication {
            areas: self.tables.areas_of(&new.repository),
            repository: new.repository,
            digest: new.digest,
            key,
            size: new.size,
            upload: new.upload,
        };
        new.count(&mut self.areas);
        let before = self.publications.insert(publication.clone(), new);
        self.end_publication(before, false);
    }

    fn end_publication(&mut self, ended: Option<CountedPublication>, is_stored: bool) {
        let Some(ended) = ended else {
            return;
        };
        if is_stored && !ended.areas.is_empty() {
            self.published.extend(ended.upload.clone());
            let repository = self.repositories.entry(ended.repository.clone());
            let repository = repository.or_default();
            repository.areas.clone_from(&ended.areas);
            repository.recent.push(ended.key);
            let is_new = repository.blobs.insert(ended.key, ended.size).is_none();
            for area in ended.areas.iter().filter(|_| is_new) {
                let content = self.area(area);
                content.add(ended.key, ended.size, ContentUser::Repository);
            }
        }
        for area in &ended.areas {
            self.area(area).remove(ended.key, ended.user());
        }
    }

    fn area(&mut self, area: &AreaKey) -> &mut AreaContent {
        self.areas.entry(area.clone()).or_default()
    }

    fn insert_upload(&mut self, id: UploadId, upload: CountedUpload) {
        for area in &upload.areas {
            self.area(area).uploads += upload.bytes;
        }
        self.uploads.insert(id, upload);
    }

    fn remove_upload(&mut self, id: &UploadId) -> Option<CountedUpload> {
        let upload = self.uploads.remove(id)?;
        for area in &upload.areas {
            self.area(area).uploads -= upload.bytes;
        }
        Some(upload)
    }

    /// Drops the uploads and publications of all other processes.
    pub(super) fn forget_others(&mut self, process: &ProcessId) {
        let is_other =
            |upload: &CountedUpload| upload.process.as_ref().is_some_and(|p| p != process);
        let others = self.uploads.iter().filter(|(_, upload)| is_other(upload));
        let others: Vec<_> = others.map(|(id, _)| id.clone()).collect();
        for id in others {
            self.remove_upload(&id);
        }
        let others = self
            .publications
            .extract_if(|publication, _| publication.process != *process);
        for (_, publication) in others.collect::<Vec<_>>() {
            self.end_publication(Some(publication), false);
        }
    }

    /// The events that make another process know of the uploads and publications of all processes.
    pub(super) fn events(&self) -> Vec<AreaEvent> {
        let uploads = self.uploads.iter().filter_map(|(id, upload)| {
            Some(AreaEvent::Upload {
                process: upload.process.clone()?,
                repository: upload.repository.clone(),
                id: id.clone(),
                bytes: upload.bytes,
                is_receiving: upload.is_receiving,
            })
        });
        let publications = self.publications.iter();
        let publications = publications.map(|(publication, content)| AreaEvent::Publishing {
            publication: publication.clone(),
            repository: content.repository.clone(),
            digest: content.digest.clone(),
            size: content.size,
            upload: content.upload.clone(),
        });
        uploads.chain(publications).collect()
    }

    /// The processes that have uploads or publications.
    pub(super) fn processes(&self) -> HashSet<ProcessId> {
        let uploads = self.uploads.values();
        let uploads = uploads.filter_map(|upload| upload.process.clone());
        let publications = self.publications.keys();
        uploads
            .chain(publications.map(|publication| publication.process.clone()))
            .collect()
    }

    /// Whether a quota applies to a repository.
    pub(super) fn covers(&self, name: &RepositoryName) -> bool {
        self.tables.cover(name)
    }

    /// What the areas hold, the fullest first.
    pub(super) fn report(&self) -> Vec<AreaUse> {
        let used = self.areas.iter().filter(|(_, area)| !area.is_empty());
        let used = used.map(|(key, area)| (key.clone(), area.stored, area.uploads));
        let empty = self.tables.fixed();
        let empty = empty.filter(|key| self.areas.get(key).is_none_or(AreaContent::is_empty));
        let all = used.chain(empty.map(|key| (key, 0, 0)));
        let mut all: Vec<_> = all
            .map(|(key, stored, uploads)| AreaUse {
                area: self.tables.title(&key),
                rule: self.tables.rule(&key),
                size: self.tables.size(&key),
                stored,
                uploads,
            })
            .collect();
        let share =
            |area: &AreaUse| u128::from(area.used()) * 1_000_000 / u128::from(area.size.max(1));
        all.sort_by_cached_key(|area| (std::cmp::Reverse(share(area)), area.area.clone()));
        all
    }
}

/// An upload of unknown length gets at most this part of what is left in advance.
const SHARE_AHEAD: u64 = 64;
