use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::Frame;
use proptest::prelude::*;

use super::hash::DigestAlgorithm;
use super::*;
use crate::config::vhost::MissingContent;
use crate::registry::reference::Tag;
use crate::state_file::{FileLock, LockMode};

const BODY_TIMEOUTS: BodyTimeouts = BodyTimeouts {
    first_byte: Duration::from_secs(60),
    stall: Duration::from_secs(60),
};

/// A body in parts; one that is `None` breaks it.
struct Parts(VecDeque<Option<Bytes>>);

impl Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
        Poll::Ready(
            self.0
                .pop_front()
                .map(|part| part.map(Frame::data).ok_or_else(broken)),
        )
    }
}

fn body(content: &[u8], parts: usize, breaks: bool) -> Parts {
    let size = content.len().div_ceil(parts).max(1);
    let parts = content
        .chunks(size)
        .map(|part| Some(Bytes::copy_from_slice(part)));
    Parts(parts.chain(breaks.then_some(None)).collect())
}

fn upload_key<'a>(repository: &'a RepositoryName, id: &'a UploadId) -> UploadKey<'a> {
    UploadKey { repository, id }
}

fn chunk<B>(range: ContentRange, body: B) -> UploadChunk<B> {
    UploadChunk {
        range,
        body,
        timeouts: BODY_TIMEOUTS,
    }
}

/// What a client may do with an upload, or what may happen to it.
#[derive(Clone, Debug)]
enum ClientAction {
    /// So many bytes more, in parts, with or without saying where they belong.
    Patch {
        bytes: usize,
        parts: usize,
        placed: bool,
    },
    /// The connection breaks after so many bytes.
    Cut { bytes: usize },
    /// Bytes for another place than where the upload stands.
    Misplaced { begin: u64 },
    /// How far is it?
    Status,
    /// Another process takes over, over the same files.
    Restart,
    /// What comes next comes to another process that has been there all the time.
    Elsewhere,
}

fn action() -> impl Strategy<Value = ClientAction> {
    // Around what is collected before it is written, too.
    let bytes = || prop_oneof![1_usize..2000, 250_000_usize..530_000];
    prop_oneof![
        4 => (bytes(), 1_usize..5, any::<bool>())
            .prop_map(|(bytes, parts, placed)| ClientAction::Patch { bytes, parts, placed }),
        1 => bytes().prop_map(|bytes| ClientAction::Cut { bytes }),
        1 => (0_u64..600_000).prop_map(|begin| ClientAction::Misplaced { begin }),
        1 => Just(ClientAction::Status),
        1 => Just(ClientAction::Restart),
        1 => Just(ClientAction::Elsewhere),
    ]
}

/// A client that knows what it sends, and where the store says that it stands.
struct Uploading {
    directory: tempfile::TempDir,
    stores: [Arc<Store>; 2],
    name: RepositoryName,
    id: UploadId,
    content: Vec<u8>,
    here: usize,
}

impl Uploading {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(directory.path().join("ci")).unwrap();
        let stores = [open(), open()];
        let name = RepositoryName::parse("base/app").unwrap();
        let id = stores[0]
            .start_upload(&name, SessionUser::of_test(None))
            .await
            .unwrap();
        // A period that no chunk has, so that bytes in the wrong place are wrong.
        let content = (0_u32..4_000_000)
            .map(|n| (n % 251).to_le_bytes()[0] ^ (n / 65_521).to_le_bytes()[0])
            .collect();
        Self {
            directory,
            stores,
            name,
            id,
            content,
            here: 0,
        }
    }

    async fn append(&self, range: ContentRange, body: Parts) -> Result<u64, StoreError> {
        self.stores[0]
            .append(upload_key(&self.name, &self.id), chunk(range, body))
            .await
    }

    async fn length(&self) -> usize {
        let length = self.stores[0]
            .upload_length(upload_key(&self.name, &self.id))
            .await
            .unwrap();
        usize::try_from(length).unwrap()
    }

    async fn take(&mut self, action: ClientAction) {
        let rest = &self.content[self.here..];
        match action {
            ClientAction::Patch {
                bytes,
                parts,
                placed,
            } => {
                let sent = &rest[..bytes.min(rest.len())];
                let place = ContentRange {
                    begin: Some(self.here as u64),
                    length: Some(sent.len() as u64),
                };
                let range = if placed {
                    place
                } else {
                    ContentRange::default()
                };
                let length = self.append(range, body(sent, parts, false)).await.unwrap();
                assert_eq!(length, (self.here + sent.len()) as u64);
                self.here += sent.len();
            }
            ClientAction::Cut { bytes } => {
                let sent = &rest[..bytes.min(rest.len())];
                let cut = self
                    .append(ContentRange::default(), body(sent, 3, true))
                    .await;
                assert!(matches!(cut, Err(StoreError::BodyCut)), "{cut:?}");
                // All that came is here; a client asks all the same.
                assert_eq!(self.length().await, self.here + sent.len());
                self.here += sent.len();
            }
            ClientAction::Misplaced { begin } if begin != self.here as u64 => {
                let range = ContentRange {
                    begin: Some(begin),
                    length: None,
                };
                let refused = self.append(range, body(b"wrong", 1, false)).await;
                let at = self.here as u64;
                assert!(
                    matches!(refused, Err(StoreError::OutOfOrder { at: said }) if said == at),
                    "{refused:?}"
                );
            }
            ClientAction::Misplaced { .. } => {}
            ClientAction::Status => assert_eq!(self.length().await, self.here),
            ClientAction::Restart => {
                self.stores[0] = Store::open(self.directory.path().join("ci")).unwrap()
            }
            ClientAction::Elsewhere => self.stores.swap(0, 1),
        }
    }

    async fn finish(&self, algorithm: DigestAlgorithm, last: usize) {
        let whole = &self.content[..(self.here + last).min(self.content.len())];
        let digest = algorithm.digest(whole);
        let rest = body(&whole[self.here..], 2, false);
        let upload = upload_key(&self.name, &self.id);
        self.stores[0]
            .commit(upload, &digest, chunk(ContentRange::default(), rest))
            .await
            .unwrap();
        let blob = self.stores[1]
            .blob(&self.name, &digest, false)
            .await
            .unwrap();
        assert_eq!(blob.size, whole.len() as u64);
        assert_eq!(algorithm.digest_file(&blob.file).unwrap(), digest);
        let gone = self.stores[1]
            .upload_length(upload_key(&self.name, &self.id))
            .await;
        assert!(matches!(gone, Err(StoreError::UploadUnknown)), "{gone:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_way_of_uploading_gives_the_right_bytes(
        actions in prop::collection::vec(action(), 0..12),
        sha512 in any::<bool>(),
        last in 0_usize..300_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut uploading = Uploading::new().await;
            for action in actions {
                uploading.take(action).await;
            }
            let algorithm = if sha512 { DigestAlgorithm::Sha512 } else { DigestAlgorithm::Sha256 };
            uploading.finish(algorithm, last).await;
        });
    }
}

#[tokio::test]
async fn what_another_process_added_belongs_to_the_upload() {
    let mut uploading = Uploading::new().await;
    for bytes in [100, 200, 50] {
        uploading
            .take(ClientAction::Patch {
                bytes,
                parts: 1,
                placed: false,
            })
            .await;
        uploading.take(ClientAction::Elsewhere).await;
    }
    uploading.finish(DigestAlgorithm::Sha256, 10).await;
}

#[tokio::test]
async fn a_long_name_has_all_that_a_short_one_has() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let name = RepositoryName::parse(&"a".repeat(RepositoryName::MAX_BYTES)).unwrap();
    let id = store
        .start_upload(&name, SessionUser::of_test(None))
        .await
        .unwrap();
    let digest = DigestAlgorithm::Sha256.digest(b"some");
    let some = body(b"some", 1, false);
    store
        .commit(
            upload_key(&name, &id),
            &digest,
            chunk(ContentRange::default(), some),
        )
        .await
        .unwrap();
    let tag = Reference::Tag(Tag::parse("v1").unwrap());
    let manifest = Bytes::from_static(b"\0");
    store
        .put_manifest(&name, new_manifest(&tag, Some("a/b"), manifest))
        .await
        .unwrap();
    let pulled = store.manifest(&name, &tag, true).await.unwrap();
    store.journal().pulled(&name, None, Some(&pulled.digest));
    store.maintain().unwrap();
    let history = store.journal().history(&name).unwrap();
    assert!(history.manifests[&pulled.digest].pulled.is_some());
}

fn new_manifest(reference: &Reference, content_type: Option<&str>, bytes: Bytes) -> NewManifest {
    NewManifest {
        reference: reference.clone(),
        tags: Vec::new(),
        preconditions: Vec::new(),
        content_type: content_type.map(str::to_owned),
        bytes,
        missing: MissingContent::Refuse,
    }
}

/// Pushes a blob as clients do: what the store says that it has is not sent.
async fn push_blob(store: &Arc<Store>, name: &RepositoryName, content: &[u8]) -> Digest {
    let digest = DigestAlgorithm::Sha256.digest(content);
    if store.blob(name, &digest, true).await.is_err() {
        let id = store
            .start_upload(name, SessionUser::of_test(None))
            .await
            .unwrap();
        let content = body(content, 2, false);
        store
            .commit(
                upload_key(name, &id),
                &digest,
                chunk(ContentRange::default(), content),
            )
            .await
            .unwrap();
    }
    digest
}

async fn push_delete_and_age(
    store: Arc<Store>,
    n: usize,
    ended: Arc<std::sync::atomic::AtomicUsize>,
) {
    let name = RepositoryName::parse(&format!("team/app-{}", n % 2)).unwrap();
    let tag = Reference::Tag(Tag::parse(&format!("t{n}")).unwrap());
    for _ in 0..60 {
        let contents = [format!("config {n}"), format!("layer {n}")];
        let mut parts = Vec::new();
        for content in &contents {
            let digest = push_blob(&store, &name, content.as_bytes()).await;
            parts.push(
                serde_json::json!({"mediaType": "a/b", "digest": digest.as_str(), "size": content.len()}),
            );
        }
        let manifest =
            serde_json::json!({"schemaVersion": 2, "config": parts[0], "layers": [parts[1]]})
                .to_string();
        let bytes = Bytes::from(manifest);
        let accepted = store
            .put_manifest(&name, new_manifest(&tag, None, bytes))
            .await
            .unwrap();
        store.manifest(&name, &tag, true).await.unwrap();
        store.delete_manifest(&name, &tag).await.unwrap();
        let mut all: Vec<_> = contents
            .iter()
            .map(|content| DigestAlgorithm::Sha256.digest(content.as_bytes()))
            .collect();
        all.push(accepted.digest);
        for digest in all {
            // A collection may have it in hand.
            let Ok(file) = std::fs::File::open(store.layout.blob(&name, &digest).unwrap()) else {
                continue;
            };
            file.set_modified(SystemTime::now() - Duration::from_secs(24 * 3600))
                .unwrap();
        }
    }
    ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_push_fails_while_this_process_collects_garbage() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    // As older versions have left it: all pulls are known.
    std::fs::create_dir(store.layout.former_pulls()).unwrap();
    let ended = Arc::<std::sync::atomic::AtomicUsize>::default();
    let pushes: Vec<_> = (0..4)
        .map(|n| tokio::spawn(push_delete_and_age(store.clone(), n, ended.clone())))
        .collect();
    let collecting = tokio::task::spawn_blocking(move || {
        let collection = collect::CollectionOptions {
            grace: Duration::from_secs(12 * 3600),
            untagged: Some(Duration::from_secs(12 * 3600)),
            uploads: collect::UploadAge::Expired,
            dry_run: false,
        };
        let mut removed = 0;
        while ended.load(std::sync::atomic::Ordering::Relaxed) < 4 {
            removed += store.collect(collection).unwrap().manifests;
        }
        removed
    });
    for push in pushes {
        push.await.unwrap();
    }
    assert!(
        collecting.await.unwrap() > 10,
        "hardly anything was collected meanwhile"
    );
}

#[tokio::test]
async fn a_manifest_is_taken_in_only_while_its_tags_are_as_expected() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path().join("ci")).unwrap();
    // As two processes would have it open.
    let (one, other) = (open(), open());
    let name = RepositoryName::parse("a").unwrap();
    let tag = |text: &str| Tag::parse(text).unwrap();
    let put =
        async |store: &Arc<Store>, content: &'static [u8], preconditions: Vec<Precondition>| {
            let (reference, bytes) = (Reference::Tag(tag("v1")), Bytes::from_static(content));
            store
                .put_manifest(
                    &name,
                    NewManifest {
                        tags: vec![tag("also")],
                        preconditions,
                        ..new_manifest(&reference, Some("a/b"), bytes)
                    },
                )
                .await
        };
    let refused = |put: Result<PutOutcome, StoreError>, text: &str| match put {
        Err(StoreError::PreconditionFailed(unexpected)) => assert_eq!(unexpected, tag(text)),
        other => panic!("{other:?}"),
    };
    refused(
        put(&one, b"\0", vec![Precondition::Present(tag("v1"))]).await,
        "v1",
    );
    put(
        &one,
        b"\0",
        vec![
            Precondition::Absent(tag("v1")),
            Precondition::Absent(tag("also")),
        ],
    )
    .await
    .unwrap();
    // The same again is no other manifest, whatever the digest's algorithm.
    put(
        &other,
        b"\0",
        vec![
            Precondition::Absent(tag("v1")),
            Precondition::Present(tag("also")),
        ],
    )
    .await
    .unwrap();
    refused(
        put(&other, b"\x01", vec![Precondition::Absent(tag("v1"))]).await,
        "v1",
    );
    refused(
        put(
            &other,
            b"\x01",
            vec![
                Precondition::Present(tag("v1")),
                Precondition::Absent(tag("also")),
            ],
        )
        .await,
        "also",
    );
    refused(
        put(
            &one,
            b"\x01",
            vec![
                Precondition::Present(tag("v1")),
                Precondition::Present(tag("v2")),
            ],
        )
        .await,
        "v2",
    );
    let manifest = one
        .manifest(&name, &Reference::Tag(tag("v1")), false)
        .await
        .unwrap();
    assert_eq!(
        manifest.bytes, b"\0",
        "nothing of what was refused is there"
    );
    put(&other, b"\x01", vec![Precondition::Present(tag("v1"))])
        .await
        .unwrap();
    // Where there is nothing at all, no tag is there either.
    let nowhere = RepositoryName::parse("nowhere").unwrap();
    let blob = serde_json::json!({"mediaType": "a/b", "digest": DigestAlgorithm::Sha256.digest(b"x").as_str(), "size": 1});
    let manifest =
        serde_json::json!({"schemaVersion": 2, "config": blob, "layers": []}).to_string();
    let put = one
        .put_manifest(
            &nowhere,
            NewManifest {
                preconditions: vec![Precondition::Present(tag("v1"))],
                ..new_manifest(&Reference::Tag(tag("v1")), None, manifest.into())
            },
        )
        .await;
    refused(put, "v1");
}

/// A store with the repository `a`, which another process locks, and with a blob in `b`.
async fn locked_store() -> (tempfile::TempDir, Arc<Store>, FileLock, Digest) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let [a, b] = ["a", "b"].map(|name| RepositoryName::parse(name).unwrap());
    push_blob(&store, &a, b"some").await;
    let digest = push_blob(&store, &b, b"some").await;
    let file = std::fs::File::open(store.layout.repository(&a)).unwrap();
    let lock = FileLock::acquire_open(file, LockMode::Exclusive, Duration::ZERO).unwrap();
    (directory, store, lock, digest)
}

#[tokio::test]
async fn pushes_to_a_repository_that_another_process_locks_stop_nobody_else() {
    let (_directory, store, lock, digest) = locked_store().await;
    let [a, b] = ["a", "b"].map(|name| RepositoryName::parse(name).unwrap());
    let mut pushes = Vec::new();
    for n in 0..50_u8 {
        let (store, a) = (store.clone(), a.clone());
        let push = async move { push_blob(&store, &a, &[n; 10]).await };
        pushes.push(tokio::spawn(push));
    }
    for n in 0..50_u8 {
        // The pushes come as far as they can meanwhile.
        tokio::task::yield_now().await;
        store.blob(&b, &digest, false).await.unwrap();
        push_blob(&store, &b, &[n; 20]).await;
    }
    assert!(pushes.iter().all(|push| !push.is_finished()));
    drop(lock);
    for push in pushes {
        push.await.unwrap();
    }
}

#[tokio::test]
async fn a_push_gives_up_a_repository_that_stays_locked() {
    let (_directory, store, lock, digest) = locked_store().await;
    let a = RepositoryName::parse("a").unwrap();
    // Timeouts pass in an instant from here on.
    tokio::time::pause();
    let refused = store.delete_blob(&a, &digest).await;
    assert!(matches!(refused, Err(StoreError::Locked)), "{refused:?}");
    drop(lock);
    store.delete_blob(&a, &digest).await.unwrap();
}

/// A body that, once all of it has been written to the upload's file, changes a byte there.
struct Tampering {
    content: Option<Bytes>,
    file: PathBuf,
    length: u64,
}

impl Body for Tampering {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(content) = self.content.take() {
            return Poll::Ready(Some(Ok(Frame::data(content))));
        }
        if std::fs::metadata(&self.file).unwrap().len() < self.length {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let file = std::fs::File::options().write(true).open(&self.file);
        std::os::unix::fs::FileExt::write_all_at(&file.unwrap(), b"!", 0).unwrap();
        Poll::Ready(None)
    }
}

#[tokio::test]
async fn an_upload_is_hashed_as_it_comes_by_the_algorithm_of_its_digest() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let name = RepositoryName::parse("a").unwrap();
    let content = Bytes::from(vec![7; 300_000]);
    for algorithm in DigestAlgorithm::ALL {
        let id = store
            .start_upload(&name, SessionUser::of_test(None))
            .await
            .unwrap();
        let body = Tampering {
            length: content.len() as u64,
            content: Some(content.clone()),
            file: store.layout.uploads_of(&name).join(id.as_str()),
        };
        let digest = algorithm.digest(&content);
        // Were the file read again, its content would be another.
        store
            .commit(
                upload_key(&name, &id),
                &digest,
                chunk(ContentRange::default(), body),
            )
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_mount_of_what_is_not_there_makes_no_repository() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let [a, b] = ["a", "b"].map(|name| RepositoryName::parse(name).unwrap());
    push_blob(&store, &a, b"some").await;
    let missing = DigestAlgorithm::Sha256.digest(b"missing");
    assert!(!store.mount(&b, &a, &missing).await.unwrap());
    assert!(!store.layout.repository(&b).exists());
}

#[tokio::test]
async fn a_catalog_keeps_no_indexes_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let tag = Reference::Tag(Tag::parse("v1").unwrap());
    let names = ["a", "b", "c"].map(|name| RepositoryName::parse(name).unwrap());
    for name in &names {
        let manifest = new_manifest(&tag, Some("a/b"), Bytes::from_static(b"\0"));
        store.put_manifest(name, manifest).await.unwrap();
    }
    let store = Store::open(directory.path().join("ci")).unwrap();
    let request = PageRequest {
        limit: 10,
        after: String::new(),
    };
    let page = store.catalog(request).await.unwrap();
    assert_eq!(page.entries, ["a", "b", "c"]);
    for name in &names {
        assert!(store.repositories.peek(name).is_none(), "{name}");
    }
}

/// A page of the catalog, and what it cost: reads of the directory, and decisions.
async fn filtered_page(
    store: &Arc<Store>,
    limit: usize,
    after: &str,
    is_visible: fn(&str) -> bool,
) -> (Page, usize, usize) {
    let request = PageRequest {
        limit,
        after: after.to_owned(),
    };
    let decisions = std::cell::Cell::new(0);
    let may_see = |name: &RepositoryName| {
        decisions.set(decisions.get() + 1);
        is_visible(name.as_str())
    };
    let page = store.filtered_catalog(request, may_see).await.unwrap();
    let reads = &store.directory_reads;
    let reads = reads.swap(0, std::sync::atomic::Ordering::Relaxed);
    (page, reads, decisions.get())
}

#[tokio::test]
async fn a_filtered_catalog_reads_the_directory_once_and_decides_on_each_name_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let count = 2100;
    for n in 0..count {
        let name = RepositoryName::parse(&format!("app-{n:04}")).unwrap();
        let path = store.layout.repository(&name);
        std::fs::create_dir(&path).unwrap();
        let index = r#"{"schemaVersion":2,"manifests":[{}]}"#;
        std::fs::write(path.join(layout::INDEX_FILE), index).unwrap();
    }
    let (last, reads, decisions) = filtered_page(&store, 10, "", |name| name == "app-2099").await;
    assert_eq!(last.entries, ["app-2099"]);
    assert_eq!((last.has_more, reads, decisions), (false, 1, count));
    let mut all: Vec<String> = Vec::new();
    loop {
        let after = all.last().cloned().unwrap_or_default();
        let (page, reads, decisions) = filtered_page(&store, 900, &after, |_| true).await;
        assert_eq!(reads, 1);
        assert!(decisions <= 1000, "{decisions} decisions after {after:?}");
        all.extend(page.entries);
        if !page.has_more {
            break;
        }
    }
    assert_eq!(all.len(), count);
    assert!(all.is_sorted());
}

#[tokio::test]
async fn a_write_takes_few_disk_jobs() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let name = RepositoryName::parse("a").unwrap();
    let jobs = || {
        let lanes = [&store.lanes.read, &store.lanes.write];
        let jobs = lanes.map(|lane| lane.jobs.swap(0, std::sync::atomic::Ordering::Relaxed));
        jobs.into_iter().sum::<usize>()
    };
    let digest = DigestAlgorithm::Sha256.digest(b"some");
    let id = store
        .start_upload(&name, SessionUser::of_test(None))
        .await
        .unwrap();
    assert_eq!(jobs(), 1);
    let content = chunk(ContentRange::default(), body(b"some", 1, false));
    let upload = upload_key(&name, &id);
    store.commit(upload, &digest, content).await.unwrap();
    assert_eq!(
        jobs(),
        4,
        "find the session, write, verify and sync, publish"
    );
    let blob = serde_json::json!({"mediaType": "a/b", "digest": digest.as_str(), "size": 4});
    let manifest = serde_json::json!({"schemaVersion": 2, "config": blob, "layers": []});
    let tag = Reference::Tag(Tag::parse("v1").unwrap());
    let manifest = new_manifest(&tag, None, manifest.to_string().into());
    store.put_manifest(&name, manifest).await.unwrap();
    assert_eq!(jobs(), 2, "check, write");
    store.manifest(&name, &tag, true).await.unwrap();
    assert_eq!(jobs(), 1);
    store.delete_manifest(&name, &tag).await.unwrap();
    assert_eq!(jobs(), 1);
}

#[test]
fn a_collection_keeps_no_index_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    for n in 0..20 {
        let name = RepositoryName::parse(&format!("app-{n}")).unwrap();
        let path = store.layout.repository(&name);
        std::fs::create_dir(&path).unwrap();
        let index = r#"{"schemaVersion":2,"manifests":[{}]}"#;
        std::fs::write(path.join(layout::INDEX_FILE), index).unwrap();
    }
    let options = collect::CollectionOptions {
        grace: Duration::ZERO,
        untagged: None,
        uploads: collect::UploadAge::Expired,
        dry_run: false,
    };
    store.collect(options).unwrap();
    assert_eq!(store.repositories.len(), 0);
}

#[test]
fn the_files_of_the_store_itself_follow_no_link() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("ci")).unwrap();
    let outside = directory.path().join("outside");
    std::fs::write(&outside, "{}").unwrap();
    let name = RepositoryName::parse("a").unwrap();
    let path = |file: &str| directory.path().join("ci").join(file);
    // As an older version has left it.
    std::fs::create_dir(path("pulled")).unwrap();
    for file in [RESERVE_FILE, LAST_COLLECTION_FILE, "pulled/a"] {
        std::os::unix::fs::symlink(&outside, path(file)).unwrap();
    }
    let maintained = store.maintain();
    assert!(
        matches!(maintained, Err(StoreError::Linked(_))),
        "{maintained:?}"
    );
    assert!(store.collected_at().is_none());
    store.record_collection().unwrap();
    assert!(store.collected_at().is_some());
    assert_eq!(std::fs::read(&outside).unwrap(), b"{}");
    // Such files of its own are made anew.
    std::fs::remove_file(path("pulled/a")).unwrap();
    store.maintain().unwrap();
    for file in [RESERVE_FILE, LAST_COLLECTION_FILE] {
        assert!(!path(file).is_symlink(), "{file}");
    }
    assert!(path(RESERVE_FILE).exists());
    let digest = DigestAlgorithm::Sha256.digest(b"some");
    for file in ["journal.redb", "journal.lock"] {
        std::fs::remove_file(path(file)).unwrap();
        std::os::unix::fs::symlink(&outside, path(file)).unwrap();
        store.journal().pulled(&name, None, Some(&digest));
        let maintained = store.maintain();
        assert!(
            matches!(maintained, Err(StoreError::Io(_))),
            "{file}: {maintained:?}"
        );
        std::fs::remove_file(path(file)).unwrap();
    }
    assert_eq!(std::fs::read(&outside).unwrap(), b"{}");
    store.maintain().unwrap();
    let history = store.journal().history(&name).unwrap();
    assert!(history.manifests[&digest].pulled.is_some());
}
