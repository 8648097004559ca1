//! Quotas of a store, without HTTP.

mod model;
mod scans;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;

use super::excess::QuotaExcess;
use crate::config::access::RuleLocation;
use crate::config::retention::QuotaSettings;
use crate::config::vhost::MissingContent;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::pattern::RepositoryPattern;
use crate::registry::reference::{Reference, Tag};
use crate::store::hash::DigestAlgorithm;
use crate::store::{
    BodyTimeouts, ContentRange, NewManifest, SessionUser, Store, StoreError, UploadChunk, UploadKey,
};

pub(super) fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

pub(super) fn digest(of: u8) -> Digest {
    DigestAlgorithm::Sha256.digest(&[of])
}

pub(super) fn table(patterns: &[&str], size: u64) -> QuotaSettings {
    let patterns = patterns
        .iter()
        .map(|pattern| RepositoryPattern::parse(pattern));
    QuotaSettings {
        repositories: patterns.collect::<Result<_, _>>().unwrap(),
        size,
        location: RuleLocation {
            file: "conf.d/ci.toml".into(),
            line: 1,
        },
    }
}

const TIMEOUTS: BodyTimeouts = BodyTimeouts {
    first_byte: Duration::from_secs(60),
    stall: Duration::from_secs(60),
};

/// A body that does not say how long it is, and may break.
struct Chunked {
    parts: VecDeque<Bytes>,
    breaks: bool,
}

impl Body for Chunked {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        match self.parts.pop_front() {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
            None if self.breaks => {
                let error = std::io::ErrorKind::ConnectionReset;
                Poll::Ready(Some(Err(error.into())))
            }
            None => Poll::Ready(None),
        }
    }
}

fn chunked(content: &[u8], breaks: bool) -> UploadChunk<Chunked> {
    let parts = content.chunks(100).map(Bytes::copy_from_slice).collect();
    UploadChunk {
        range: ContentRange::default(),
        body: Chunked { parts, breaks },
        timeouts: TIMEOUTS,
    }
}

fn whole(content: &[u8]) -> UploadChunk<Full<Bytes>> {
    UploadChunk {
        range: ContentRange::default(),
        body: Full::new(Bytes::copy_from_slice(content)),
        timeouts: TIMEOUTS,
    }
}

fn content(of: u8, bytes: usize) -> Vec<u8> {
    vec![of; bytes]
}

fn sha256(content: &[u8]) -> Digest {
    DigestAlgorithm::Sha256.digest(content)
}

/// A store with quotas, perhaps open several times.
struct CountedStore {
    directory: tempfile::TempDir,
    tables: Vec<QuotaSettings>,
}

impl CountedStore {
    fn new(tables: Vec<QuotaSettings>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, tables }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ci")
    }

    fn open(&self) -> Arc<Store> {
        let store = Store::open(self.path()).unwrap();
        store.set_quotas(&self.tables);
        store
    }

    /// The bytes on the disk of the repositories that begin so: each content once, and uploads.
    fn on_disk(&self, prefix: &str) -> u64 {
        let list = |path: PathBuf| {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path())
        };
        let is_of = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(prefix)
        };
        let size = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
        let repositories = list(self.path().join("repositories")).filter(is_of);
        let blobs = repositories.flat_map(|path| list(path.join("blobs/sha256")));
        let blobs: BTreeMap<_, _> = blobs
            .map(|path| (path.file_name().unwrap().to_owned(), size(&path)))
            .collect();
        let uploads = list(self.path().join("uploads")).filter(is_of);
        let uploads: u64 = uploads.flat_map(list).map(|path| size(&path)).sum();
        blobs.values().sum::<u64>() + uploads
    }
}

async fn push(store: &Arc<Store>, name: &RepositoryName, content: &[u8]) -> Result<(), StoreError> {
    let id = store.start_upload(name, SessionUser::of_test(None)).await?;
    let upload = UploadKey {
        repository: name,
        id: &id,
    };
    store.commit(upload, &sha256(content), whole(content)).await
}

fn manifest(of: u8, bytes: usize) -> (Bytes, NewManifest) {
    let start = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\
         \"manifests\":[],\"annotations\":{{\"of\":\"{of}\",\"filled\":\""
    );
    let text = format!("{start}{}\"}}}}", "x".repeat(bytes - start.len() - 3));
    let bytes = Bytes::from(text);
    let manifest = NewManifest {
        reference: Reference::Tag(Tag::parse(&format!("v{of}")).unwrap()),
        tags: Vec::new(),
        preconditions: Vec::new(),
        content_type: None,
        bytes: bytes.clone(),
        missing: MissingContent::Refuse,
    };
    (bytes, manifest)
}

fn excess(result: Result<impl std::fmt::Debug, StoreError>) -> QuotaExcess {
    match result {
        Err(StoreError::OverQuota(excess)) => *excess,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_the_numbers() {
    let counted = CountedStore::new(vec![table(&["${user}/**"], 1000)]);
    let store = counted.open();
    let (app, other, bob) = (name("alice/app"), name("alice/other"), name("bob/app"));
    push(&store, &app, &content(1, 600)).await.unwrap();
    let refused = excess(push(&store, &app, &content(2, 401)).await);
    let expected = QuotaExcess {
        area: "alice/**".to_owned(),
        needed: 401,
        used: 600,
        size: 1000,
        uploads: 0,
    };
    assert_eq!(refused, expected);
    // Shared within the area, and an area of its own for each user.
    push(&store, &other, &content(1, 600)).await.unwrap_err();
    assert!(
        store
            .mount(&other, &app, &sha256(&content(1, 600)))
            .await
            .unwrap()
    );
    push(&store, &bob, &content(2, 401)).await.unwrap();
    let digest = sha256(&content(2, 401));
    assert_eq!(excess(store.mount(&app, &bob, &digest).await).needed, 401);
    push(&store, &app, &content(3, 400)).await.unwrap();
    let (_, new) = manifest(1, 200);
    assert_eq!(excess(store.put_manifest(&app, new).await).used, 1000);
    let (_, new) = manifest(1, 200);
    store.put_manifest(&bob, new).await.unwrap();
    assert_eq!(
        (counted.on_disk("alice"), counted.on_disk("bob")),
        (1000, 601)
    );
    // No quota holds for others.
    push(&store, &name("app"), &content(1, 5000)).await.unwrap();
}

#[tokio::test]
async fn an_upload_of_unknown_length_is_refused_as_soon_as_it_passes() {
    let counted = CountedStore::new(vec![table(&["**"], 1_000_000)]);
    let store = counted.open();
    let app = name("app");
    push(&store, &app, &content(1, 300_000)).await.unwrap();
    let id = store
        .start_upload(&app, SessionUser::of_test(None))
        .await
        .unwrap();
    let upload = UploadKey {
        repository: &app,
        id: &id,
    };
    let appended = store
        .append(upload, chunked(&content(2, 700_000), false))
        .await;
    assert_eq!(appended.unwrap(), 700_000);
    assert_eq!(counted.on_disk(""), 1_000_000);
    let refused = excess(store.append(upload, chunked(&content(2, 1), false)).await);
    assert_eq!((refused.used, refused.uploads), (1_000_000, 700_000));
    // It is gone, and its space is free.
    assert_eq!(counted.on_disk(""), 300_000);
    push(&store, &app, &content(3, 700_000)).await.unwrap();
}

#[tokio::test]
async fn an_upload_that_is_resumed_counts_once_and_what_it_announced_only_while_it_runs() {
    let counted = CountedStore::new(vec![table(&["**"], 1000)]);
    let stores = [counted.open(), counted.open()];
    let app = name("app");
    let id = stores[0]
        .start_upload(&app, SessionUser::of_test(None))
        .await
        .unwrap();
    let upload = UploadKey {
        repository: &app,
        id: &id,
    };
    let all = content(1, 1000);
    for (at, store) in [0, 1, 0].into_iter().enumerate() {
        let part = &all[at * 300..][..300];
        let cut = stores[store].append(upload, chunked(part, true)).await;
        assert!(matches!(cut, Err(StoreError::BodyCut)), "{cut:?}");
    }
    let refused = excess(push(&stores[1], &app, &content(2, 101)).await);
    assert_eq!((refused.used, refused.uploads), (900, 900));
    let done = stores[1]
        .commit(upload, &sha256(&all), whole(&all[900..]))
        .await;
    done.unwrap();
    assert_eq!(counted.on_disk(""), 1000);
}

#[tokio::test]
async fn what_is_cancelled_deleted_or_wrong_is_free_at_once() {
    let counted = CountedStore::new(vec![table(&["**"], 1000)]);
    let store = counted.open();
    let app = name("app");
    let id = store
        .start_upload(&app, SessionUser::of_test(None))
        .await
        .unwrap();
    let upload = UploadKey {
        repository: &app,
        id: &id,
    };
    store
        .append(upload, whole(&content(1, 1000)))
        .await
        .unwrap();
    excess(push(&store, &app, &content(2, 1)).await);
    store.cancel_upload(upload).await.unwrap();
    push(&store, &app, &content(2, 1000)).await.unwrap();
    store
        .delete_blob(&app, &sha256(&content(2, 1000)))
        .await
        .unwrap();
    let id = store
        .start_upload(&app, SessionUser::of_test(None))
        .await
        .unwrap();
    let upload = UploadKey {
        repository: &app,
        id: &id,
    };
    let wrong = store
        .commit(upload, &sha256(b"other"), whole(&content(3, 1000)))
        .await;
    assert!(
        matches!(wrong, Err(StoreError::DigestMismatch)),
        "{wrong:?}"
    );
    push(&store, &app, &content(3, 1000)).await.unwrap();
}

#[tokio::test]
async fn a_lowered_quota_refuses_only_what_needs_space() {
    let mut counted = CountedStore::new(vec![table(&["**"], 1000)]);
    let store = counted.open();
    let app = name("app");
    push(&store, &app, &content(1, 800)).await.unwrap();
    let id = store
        .start_upload(&app, SessionUser::of_test(None))
        .await
        .unwrap();
    let upload = UploadKey {
        repository: &app,
        id: &id,
    };
    store.append(upload, whole(&content(2, 200))).await.unwrap();
    counted.tables = vec![table(&["**"], 500)];
    store.set_quotas(&counted.tables);
    let refused = excess(push(&store, &app, &content(3, 1)).await);
    assert_eq!((refused.used, refused.size), (1000, 500));
    let mounted = store
        .mount(&name("other"), &app, &sha256(&content(1, 800)))
        .await;
    assert!(mounted.unwrap());
    // What has its space may end.
    let done = store
        .commit(upload, &sha256(&content(2, 200)), whole(b""))
        .await;
    done.unwrap();
    store.set_quotas(&[]);
    push(&store, &app, &content(3, 1)).await.unwrap();
}

#[tokio::test]
async fn what_a_process_that_died_had_reserved_does_not_count() {
    let counted = CountedStore::new(vec![table(&["**"], 1000)]);
    drop(counted.open());
    let dead = "0123456789abcdef";
    let line = |digest: u8| {
        format!(
            "publishing {dead} {digest} app {} 300 - .\n",
            super::tests::digest(digest)
        )
    };
    let lines = format!(
        "{dead}\nupload {dead} app 00112233445566778899aabbccddeeff 900 receiving .\n{}{}upload",
        line(1),
        line(2)
    );
    std::fs::create_dir_all(counted.path().join("quota")).unwrap();
    std::fs::write(counted.path().join("quota/changes"), lines).unwrap();
    std::fs::write(counted.path().join(format!("quota/process-{dead}")), "").unwrap();
    let store = counted.open();
    push(&store, &name("app"), &content(1, 1000)).await.unwrap();
    store.maintain().unwrap();
    assert!(
        !counted
            .path()
            .join(format!("quota/process-{dead}"))
            .exists()
    );
    assert_eq!(store.area_use()[0].used(), 1000);
    drop(store);
}

#[tokio::test]
async fn a_store_that_nobody_has_open_has_no_process_left() {
    let counted = CountedStore::new(vec![table(&["**"], 1000)]);
    let store = counted.open();
    push(&store, &name("app"), &content(1, 10)).await.unwrap();
    drop(store);
    let processes = || {
        let entries = std::fs::read_dir(counted.path().join("quota")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_str().unwrap().starts_with("process-"))
            .count()
    };
    // The last of its jobs may just end.
    while processes() > 0 {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn what_other_tools_changed_is_seen_before_a_push_is_refused() {
    let counted = CountedStore::new(vec![table(&["**"], 1000)]);
    let store = counted.open();
    let app = name("app");
    push(&store, &app, &content(1, 900)).await.unwrap();
    std::fs::remove_dir_all(counted.path().join("repositories/app")).unwrap();
    push(&store, &app, &content(2, 900)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_of_several_processes_at_once_never_exceed_the_quota() {
    const SIZE: usize = 20_000;
    let counted = CountedStore::new(vec![table(&["**"], 10 * SIZE as u64 + 1)]);
    let stores = [counted.open(), counted.open()];
    let pushes = (0..60_u8).map(|n| {
        let store = stores[usize::from(n % 2)].clone();
        // Each content twice.
        let content = content(n / 2, SIZE);
        let app = name(&format!("app-{}", n % 7));
        async move {
            let pushed = push(&store, &app, &content).await;
            match pushed {
                Ok(()) => Some(n / 2),
                Err(StoreError::OverQuota(_)) => None,
                Err(error) => panic!("{error}"),
            }
        }
    });
    #[expect(clippy::disallowed_methods, reason = "awaited at once")]
    let pushes: Vec<_> = pushes.map(tokio::spawn).collect();
    let mut stored = BTreeSet::new();
    for push in pushes {
        stored.extend(push.await.unwrap());
    }
    // An upload of content that is there already needs its space until it has ended.
    assert!((1..=10).contains(&stored.len()), "{stored:?}");
    assert_eq!(counted.on_disk(""), (stored.len() * SIZE) as u64);
    while stored.len() < 10 {
        let n = (100..).find(|n| !stored.contains(n)).unwrap();
        push(&stores[0], &name("app-1"), &content(n, SIZE))
            .await
            .unwrap();
        stored.insert(n);
    }
    excess(push(&stores[1], &name("app-1"), &content(200, SIZE)).await);
}
