//! How what is known of areas follows what a scan has found on the disk.

use std::collections::{HashMap, HashSet};

use super::{ContentUsage, ContentUser, CountedUpload};
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::store::quota::event::ProcessId;
use crate::store::quota::scan::{
    BlobSizes, DirectoryStamps, DiskScan, KnownContent, ScannedRepository,
};

impl KnownContent for ContentUsage {
    fn stamps(&self, name: &RepositoryName) -> Option<DirectoryStamps> {
        self.repositories.get(name)?.stamps
    }

    fn sizes(&self, name: &RepositoryName) -> BlobSizes {
        let repository = self.repositories.get(name);
        repository.map_or_else(BlobSizes::new, |repository| repository.blobs.clone())
    }
}

impl ContentUsage {
    /// Begins a scan. One at a time, and none ends before an earlier one.
    pub(in crate::store::quota) fn begin_scan(&mut self) {
        self.scan += 1;
        self.published.clear();
        for repository in self.repositories.values_mut() {
            repository.recent.clear();
        }
    }

    /// Follows the scan that was begun last. `dead`: processes that had ended when it began.
    pub(in crate::store::quota) fn end_scan(&mut self, scan: DiskScan, dead: &HashSet<ProcessId>) {
        let DiskScan {
            mut repositories,
            uploads,
        } = scan;
        let lost = self
            .publications
            .extract_if(|publication, _| dead.contains(&publication.process));
        for (_, publication) in lost.collect::<Vec<_>>() {
            self.end_publication(Some(publication), false);
        }
        for name in self.repositories.keys() {
            let found = repositories.entry(name.clone());
            found.or_insert_with(|| ScannedRepository::Read {
                stamps: None,
                blobs: BlobSizes::new(),
            });
        }
        for (name, scanned) in repositories {
            if let ScannedRepository::Read { stamps, blobs } = scanned {
                self.replace_content(name, stamps, blobs);
            }
        }
        self.replace_uploads(uploads, dead);
        self.areas.retain(|_, area| !area.is_empty());
    }

    fn replace_content(
        &mut self,
        name: RepositoryName,
        stamps: Option<DirectoryStamps>,
        mut blobs: BlobSizes,
    ) {
        let areas = self.tables.areas_of(&name);
        let mut repository = self.repositories.remove(&name).unwrap_or_default();
        for key in &repository.recent {
            if let Some(size) = repository.blobs.get(key) {
                blobs.entry(*key).or_insert(*size);
            }
        }
        for area in &areas {
            let content = self.area(area);
            // First the new ones, so that what stays is never at no user.
            blobs
                .iter()
                .for_each(|(key, size)| content.add(*key, *size, ContentUser::Repository));
        }
        for area in &repository.areas {
            let content = self.area(area);
            let before = repository.blobs.keys();
            before.for_each(|key| content.remove(*key, ContentUser::Repository));
        }
        if areas.is_empty() || blobs.is_empty() {
            return;
        }
        repository.areas = areas;
        repository.blobs = blobs;
        repository.stamps = stamps;
        self.repositories.insert(name, repository);
    }

    fn replace_uploads(
        &mut self,
        mut found: HashMap<UploadId, (RepositoryName, u64)>,
        dead: &HashSet<ProcessId>,
    ) {
        let known: Vec<_> = self.uploads.keys().cloned().collect();
        for id in known {
            let Some(mut upload) = self.remove_upload(&id) else {
                continue;
            };
            let is_dead = |process: &ProcessId| dead.contains(process);
            if upload.process.as_ref().is_none_or(is_dead) {
                upload.process = None;
                upload.is_receiving = false;
            }
            let on_disk = found.remove(&id).map(|(_, bytes)| bytes);
            let is_newer = upload.process.is_some() && upload.scan == self.scan;
            upload.bytes = match on_disk {
                Some(bytes) if upload.is_receiving || is_newer => upload.bytes.max(bytes),
                Some(bytes) => bytes,
                None if is_newer => upload.bytes,
                // It was cancelled, or has expired.
                None => continue,
            };
            self.insert_upload(id, upload);
        }
        let publishing = self.publications.values();
        let publishing = publishing.filter_map(|publication| publication.upload.clone());
        let mut passed: HashSet<_> = publishing.collect();
        passed.extend(self.published.iter().cloned());
        for (id, (repository, bytes)) in found {
            if bytes == 0 || passed.contains(&id) {
                continue;
            }
            let upload = CountedUpload {
                areas: self.tables.areas_of(&repository),
                repository,
                bytes,
                process: None,
                is_receiving: false,
                scan: self.scan,
            };
            self.insert_upload(id, upload);
        }
    }
}
