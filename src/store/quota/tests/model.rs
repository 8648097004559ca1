//! Random operations at two processes, against a model that counts everything anew each time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{CountedStore, chunked, content, manifest, name, sha256, table, whole};
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::upload_id::UploadId;
use crate::store::collect::{CollectionOptions, UploadAge};
use crate::store::{SessionUser, Store, StoreError, UploadKey};

const REPOSITORIES: [&str; 5] = ["alice/a", "alice/b", "bob/a", "bob/b/c", "shared"];

#[derive(Clone, Debug)]
enum StoreAction {
    /// A blob in one request or two, whose length is known or not.
    Push {
        to: usize,
        blob: u8,
        is_known: bool,
    },
    Begin {
        to: usize,
    },
    /// So many bytes more for one of the uploads.
    Append {
        upload: usize,
        bytes: usize,
        is_known: bool,
        breaks: bool,
    },
    Commit {
        upload: usize,
    },
    Cancel {
        upload: usize,
    },
    Mount {
        from: usize,
        to: usize,
        blob: u8,
    },
    PutManifest {
        to: usize,
        of: u8,
        bytes: usize,
    },
    DeleteBlob {
        from: usize,
        blob: u8,
    },
    Collect,
    /// The quota of each user.
    Resize {
        size: u64,
    },
    /// The other process answers what comes next.
    Elsewhere,
    Restart,
}

fn action() -> impl Strategy<Value = StoreAction> {
    use StoreAction::{
        Append, Begin, Cancel, Collect, Commit, DeleteBlob, Elsewhere, Mount, Push, PutManifest,
        Resize, Restart,
    };
    let to = || 0..REPOSITORIES.len();
    let upload = || 0..4_usize;
    prop_oneof![
        6 => (to(), 0..12_u8, any::<bool>()).prop_map(|(to, blob, is_known)| Push { to, blob, is_known }),
        2 => to().prop_map(|to| Begin { to }),
        4 => (upload(), 0..300_usize, any::<bool>(), any::<bool>())
            .prop_map(|(upload, bytes, is_known, breaks)| Append { upload, bytes, is_known, breaks }),
        2 => upload().prop_map(|upload| Commit { upload }),
        1 => upload().prop_map(|upload| Cancel { upload }),
        3 => (to(), to(), 0..12_u8).prop_map(|(from, to, blob)| Mount { from, to, blob }),
        2 => (to(), 0..6_u8, 150..250_usize).prop_map(|(to, of, bytes)| PutManifest { to, of, bytes }),
        2 => (to(), 0..12_u8).prop_map(|(from, blob)| DeleteBlob { from, blob }),
        1 => Just(Collect),
        1 => (0..1500_u64).prop_map(|size| Resize { size }),
        2 => Just(Elsewhere),
        1 => Just(Restart),
    ]
}

fn blob(of: u8) -> Vec<u8> {
    content(of, usize::from(of) * 40)
}

struct OpenUpload {
    repository: RepositoryName,
    id: UploadId,
    bytes: usize,
}

/// Both processes, and what they should hold.
struct Modelled {
    counted: CountedStore,
    stores: [Arc<Store>; 2],
    repositories: BTreeMap<RepositoryName, BTreeMap<Digest, u64>>,
    manifests: BTreeSet<(RepositoryName, Digest)>,
    uploads: Vec<OpenUpload>,
}

const ALL_SIZE: u64 = 2500;

impl Modelled {
    fn new() -> Self {
        let counted = CountedStore::new(tables(1000));
        let stores = [counted.open(), counted.open()];
        Self {
            counted,
            stores,
            repositories: BTreeMap::new(),
            manifests: BTreeSet::new(),
            uploads: Vec::new(),
        }
    }

    /// The areas of a repository: the beginning of their names, and their sizes.
    fn areas(&self, of: &RepositoryName) -> Vec<(String, u64)> {
        let [per_user, all] = &self.counted.tables[..] else {
            panic!("two tables")
        };
        let user = of.as_str().split_once('/');
        let user = user.map(|(user, _)| (format!("{user}/"), per_user.size));
        user.into_iter()
            .chain([(String::new(), all.size)])
            .collect()
    }

    fn contents(&self, area: &str) -> BTreeMap<&Digest, u64> {
        let repositories = self.repositories.iter();
        let own = repositories.filter(|(name, _)| name.as_str().starts_with(area));
        own.flat_map(|(_, blobs)| blobs.iter().map(|(digest, size)| (digest, *size)))
            .collect()
    }

    fn used(&self, area: &str) -> u64 {
        let uploads = self.uploads.iter();
        let uploads = uploads.filter(|upload| upload.repository.as_str().starts_with(area));
        let uploads: usize = uploads.map(|upload| upload.bytes).sum();
        self.contents(area).values().sum::<u64>() + uploads as u64
    }

    fn fits(&self, to: &RepositoryName, bytes: usize) -> bool {
        let fits = |(area, size): (String, u64)| self.used(&area) + bytes as u64 <= size;
        bytes == 0 || self.areas(to).into_iter().all(fits)
    }

    fn content_fits(&self, to: &RepositoryName, digest: &Digest, bytes: usize) -> bool {
        let fits = |(area, size): (String, u64)| {
            let is_there = self.contents(&area).contains_key(digest);
            is_there || bytes == 0 || self.used(&area) + bytes as u64 <= size
        };
        self.areas(to).into_iter().all(fits)
    }

    fn insert(&mut self, to: &RepositoryName, digest: Digest, bytes: usize) {
        let repository = self.repositories.entry(to.clone()).or_default();
        repository.insert(digest, bytes as u64);
    }

    async fn perform(&mut self, action: StoreAction) {
        let at = |index: usize| name(REPOSITORIES[index]);
        match action {
            StoreAction::Push {
                to,
                blob: of,
                is_known,
            } => {
                self.push(&at(to), &blob(of), is_known).await;
            }
            StoreAction::Begin { to } => {
                let id = self.stores[0]
                    .start_upload(&at(to), SessionUser::of_test(None))
                    .await
                    .unwrap();
                let repository = at(to);
                self.uploads.push(OpenUpload {
                    repository,
                    id,
                    bytes: 0,
                });
            }
            StoreAction::Append {
                upload,
                bytes,
                is_known,
                breaks,
            } => {
                if upload < self.uploads.len() {
                    self.append(upload, bytes, is_known, breaks).await;
                }
            }
            StoreAction::Commit { upload } if upload < self.uploads.len() => {
                let OpenUpload {
                    repository,
                    id,
                    bytes,
                } = self.uploads.swap_remove(upload);
                let whole_content = content(7, bytes);
                let digest = sha256(&whole_content);
                let key = UploadKey {
                    repository: &repository,
                    id: &id,
                };
                self.stores[0]
                    .commit(key, &digest, whole(b""))
                    .await
                    .unwrap();
                self.insert(&repository, digest, bytes);
            }
            StoreAction::Cancel { upload } if upload < self.uploads.len() => {
                let OpenUpload { repository, id, .. } = self.uploads.swap_remove(upload);
                let key = UploadKey {
                    repository: &repository,
                    id: &id,
                };
                self.stores[0].cancel_upload(key).await.unwrap();
            }
            StoreAction::Commit { .. } | StoreAction::Cancel { .. } => {}
            StoreAction::Mount { from, to, blob: of } => {
                self.mount(&at(from), &at(to), &blob(of)).await;
            }
            StoreAction::PutManifest { to, of, bytes } => {
                self.put_manifest(&at(to), of, bytes).await;
            }
            StoreAction::DeleteBlob { from, blob: of } => {
                let (from, digest) = (at(from), sha256(&blob(of)));
                let deleted = self.stores[0].delete_blob(&from, &digest).await;
                let before = self.repositories.get_mut(&from);
                let before = before.and_then(|blobs| blobs.remove(&digest));
                assert_eq!(deleted.is_ok(), before.is_some(), "{deleted:?}");
            }
            StoreAction::Collect => self.collect(),
            StoreAction::Resize { size } => {
                self.counted.tables = tables(size);
                for store in &self.stores {
                    store.set_quotas(&self.counted.tables);
                }
            }
            StoreAction::Elsewhere => self.stores.swap(0, 1),
            StoreAction::Restart => self.stores[0] = self.counted.open(),
        }
    }

    async fn push(&mut self, to: &RepositoryName, blob: &[u8], is_known: bool) {
        let store = &self.stores[0];
        let (id, digest) = (
            store
                .start_upload(to, SessionUser::of_test(None))
                .await
                .unwrap(),
            sha256(blob),
        );
        let key = UploadKey {
            repository: to,
            id: &id,
        };
        let pushed = if is_known {
            store.commit(key, &digest, whole(blob)).await
        } else {
            store.commit(key, &digest, chunked(blob, false)).await
        };
        if self.fits(to, blob.len()) {
            pushed.unwrap();
            self.insert(to, digest, blob.len());
        } else {
            self.is_refused(pushed, to);
        }
    }

    async fn append(&mut self, upload: usize, bytes: usize, is_known: bool, breaks: bool) {
        let OpenUpload { repository, id, .. } = &self.uploads[upload];
        let key = UploadKey { repository, id };
        let part = content(7, bytes);
        let appended = if is_known {
            self.stores[0].append(key, whole(&part)).await
        } else {
            self.stores[0].append(key, chunked(&part, breaks)).await
        };
        if self.fits(&repository.clone(), bytes) {
            let is_cut = matches!(appended, Err(StoreError::BodyCut));
            assert_eq!(is_cut, breaks && !is_known, "{appended:?}");
            self.uploads[upload].bytes += bytes;
        } else {
            let repository = repository.clone();
            self.is_refused(appended, &repository);
            self.uploads.swap_remove(upload);
        }
    }

    async fn mount(&mut self, from: &RepositoryName, to: &RepositoryName, blob: &[u8]) {
        let digest = sha256(blob);
        let mounted = self.stores[0].mount(to, from, &digest).await;
        let source = self.repositories.get(from);
        if !source.is_some_and(|blobs| blobs.contains_key(&digest)) {
            assert!(!mounted.unwrap());
        } else if self.content_fits(to, &digest, blob.len()) {
            assert!(mounted.unwrap());
            self.insert(to, digest, blob.len());
        } else {
            self.is_refused(mounted, to);
        }
    }

    async fn put_manifest(&mut self, to: &RepositoryName, of: u8, bytes: usize) {
        let (manifest, new) = manifest(of, bytes);
        let digest = sha256(&manifest);
        let put = self.stores[0].put_manifest(to, new).await;
        if self.content_fits(to, &digest, bytes) {
            put.unwrap();
            self.insert(to, digest.clone(), bytes);
            self.manifests.insert((to.clone(), digest));
        } else {
            self.is_refused(put, to);
        }
    }

    fn is_refused(&self, result: Result<impl std::fmt::Debug, StoreError>, to: &RepositoryName) {
        let excess = super::excess(result);
        let areas = self.areas(to);
        let (area, _) = areas.iter().find(|(_, size)| *size == excess.size).unwrap();
        let uploads = excess.uploads;
        // What the refused upload had received is gone by now.
        assert!(
            excess.used <= self.used(area) && uploads <= excess.used,
            "{excess:?}"
        );
        assert!(excess.used + excess.needed > excess.size);
    }

    fn collect(&mut self) {
        let options = CollectionOptions {
            grace: Duration::ZERO,
            untagged: None,
            uploads: UploadAge::Expired,
            dry_run: false,
        };
        self.stores[0].collect(options).unwrap();
        for (name, blobs) in &mut self.repositories {
            blobs.retain(|digest, _| self.manifests.contains(&(name.clone(), digest.clone())));
        }
    }

    fn check(&self) {
        for area in ["alice/", "bob/", ""] {
            let on_disk = self.counted.on_disk(&area.replace('/', "+"));
            assert_eq!(on_disk, self.used(area), "{area} on the disk");
        }
    }

    fn check_reports(&self) {
        for store in &self.stores {
            store.maintain().unwrap();
            for area in store.area_use().iter() {
                let beginning = area.area.strip_suffix("**").unwrap();
                assert_eq!(area.used(), self.used(beginning), "{area:?}");
            }
        }
    }
}

fn tables(per_user: u64) -> Vec<crate::config::retention::QuotaSettings> {
    vec![table(&["${user}/**"], per_user), table(&["**"], ALL_SIZE)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn two_processes_count_as_if_they_counted_everything_each_time(
        actions in prop::collection::vec(action(), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut modelled = Modelled::new();
            for action in actions {
                modelled.perform(action).await;
                modelled.check();
            }
            modelled.check_reports();
        });
    }
}
