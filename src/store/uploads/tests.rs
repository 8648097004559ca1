use std::pin::Pin;
use std::sync::atomic::AtomicBool;

use super::body_writer::BATCH_BYTES;
use super::upload_syncs::bytes_per_sync;
use super::*;

fn uploads() -> (tempfile::TempDir, Uploads) {
    let directory = tempfile::tempdir().unwrap();
    let layout = StoreLayout::create(&directory.path().join("ci")).unwrap();
    (directory, Uploads::new(layout))
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

#[test]
fn no_two_sessions_have_one_name_and_none_is_a_path() {
    let ids: std::collections::HashSet<_> = (0..1000).map(|_| new_id().unwrap()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| is_id(id.as_str())));
    for text in [
        "",
        "..",
        "abc",
        &"A".repeat(32),
        &"a".repeat(31),
        &"a".repeat(33),
        &"/".repeat(32),
    ] {
        assert!(!is_id(text), "{text}");
    }
}

#[test]
fn a_session_belongs_to_its_repository() {
    let (_directory, uploads) = uploads();
    let id = uploads.start_of(&name("a/b"), None).unwrap();
    assert_eq!(uploads.length(&name("a/b"), &id).unwrap(), 0);
    for other in ["a", "b", "a/b/c"] {
        assert!(matches!(
            uploads.length(&name(other), &id),
            Err(StoreError::UploadUnknown)
        ));
        assert!(matches!(
            uploads.cancel(&name(other), &id),
            Err(StoreError::UploadUnknown)
        ));
    }
    uploads.cancel(&name("a/b"), &id).unwrap();
    assert!(matches!(
        uploads.length(&name("a/b"), &id),
        Err(StoreError::UploadUnknown)
    ));
}

#[test]
fn sessions_begin_while_others_expire() {
    let (_directory, uploads) = uploads();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    uploads.expire().unwrap();
                }
            });
        }
        let begun: Result<Vec<_>, _> = (0..3000)
            .map(|_| {
                uploads
                    .start_of(&name("a"), None)
                    .and_then(|id| uploads.cancel(&name("a"), &id))
            })
            .collect();
        ended.store(true, Ordering::Relaxed);
        begun.unwrap();
    });
}

#[test]
fn a_user_opens_only_so_many_sessions_until_some_end() {
    let (_directory, uploads) = uploads();
    let start = |user: &str| uploads.start_of(&name("a"), Some(user));
    let first = start("alice").unwrap();
    for _ in 1..SessionUser::of_test(None).max {
        start("alice").unwrap();
    }
    assert!(matches!(start("alice"), Err(StoreError::TooManyUploads)));
    start("bob").unwrap();
    uploads.cancel(&name("a"), &first).unwrap();
    let again = start("alice").unwrap();
    assert!(matches!(start("alice"), Err(StoreError::TooManyUploads)));
    // Another process committed it.
    std::fs::remove_file(uploads.layout.uploads_of(&name("a")).join(again.as_str())).unwrap();
    uploads.expire().unwrap();
    start("alice").unwrap();
}

#[tokio::test]
async fn a_session_whose_file_stays_locked_is_given_up() {
    let (_directory, uploads) = uploads();
    let uploads = Arc::new(uploads);
    let lanes = Lanes::start().unwrap();
    let repository = name("a");
    let id = uploads.start_of(&repository, None).unwrap();
    let (session, _) = uploads.find(&repository, &id).unwrap();
    let lock = session.content.clone().lock_owned().await;
    let append = || {
        let upload = UploadKey {
            repository: &repository,
            id: &id,
        };
        let timeout = Duration::from_secs(1);
        let chunk = UploadChunk {
            range: ContentRange::default(),
            body: http_body_util::Full::new(Bytes::from_static(b"some")),
            timeouts: BodyTimeouts {
                first_byte: timeout,
                stall: timeout,
            },
        };
        uploads.receive(&lanes, upload, None, chunk)
    };
    // Timeouts pass in an instant from here on.
    tokio::time::pause();
    assert!(matches!(append().await, Err(StoreError::Locked)));
    tokio::time::resume();
    drop(lock);
    assert_eq!(append().await.unwrap().length(), 4);
}

/// A body of so many frames, each as large as a batch.
struct Frames(usize);

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let Some(left) = self.0.checked_sub(1) else {
            return std::task::Poll::Ready(None);
        };
        self.0 = left;
        let data = Bytes::from_static(&[b'x'; BATCH_BYTES]);
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(data))))
    }
}

/// An upload of so many frames that has been received.
async fn receive_frames(
    uploads: &Arc<Uploads>,
    lanes: &Lanes,
    frames: usize,
) -> (UploadId, ReceivedUpload) {
    let id = uploads.start_of(&name("a"), None).unwrap();
    let timeout = Duration::from_mins(1);
    let chunk = UploadChunk {
        range: ContentRange::default(),
        body: Frames(frames),
        timeouts: BodyTimeouts {
            first_byte: timeout,
            stall: timeout,
        },
    };
    let upload = UploadKey {
        repository: &name("a"),
        id: &id,
    };
    let received = uploads.receive(lanes, upload, None, chunk).await.unwrap();
    (id, received)
}

#[tokio::test]
async fn little_is_left_to_sync_when_a_body_has_come() {
    let (_directory, uploads) = uploads();
    let uploads = Arc::new(uploads);
    let lanes = Lanes::start().unwrap();
    let frames = usize::try_from(6 * bytes_per_sync(1)).unwrap() / BATCH_BYTES;
    let (_, received) = receive_frames(&uploads, &lanes, frames).await;
    let left = received.file.syncs.unsynced_bytes();
    assert!(left <= bytes_per_sync(1), "{left} bytes are not synced");
    assert_eq!(lanes.sync.jobs.load(Ordering::Relaxed), 5);
    assert_eq!(uploads.receiving.load(Ordering::Relaxed), 0);
    let small = receive_frames(&uploads, &lanes, 1).await;
    drop(small);
    let jobs = lanes.sync.jobs.load(Ordering::Relaxed);
    assert_eq!(jobs, 5, "a small upload is synced once, by its commit");
}

#[tokio::test]
async fn an_upload_of_which_the_disk_lost_bytes_is_gone() {
    let (_directory, uploads) = uploads();
    let uploads = Arc::new(uploads);
    let lanes = Lanes::start().unwrap();
    let (id, mut received) = receive_frames(&uploads, &lanes, 1).await;
    let failed = || Err(io::Error::other("disk failed").into());
    received.file.syncs.syncing = Some(lanes.sync.start_job(failed).unwrap());
    let digest = DigestAlgorithm::Sha256.digest(&[b'x'; BATCH_BYTES]);
    let verified = uploads.verify(&lanes, &id, &digest, received).await;
    assert!(matches!(verified, Err(StoreError::Io(_))));
    assert!(matches!(
        uploads.length(&name("a"), &id),
        Err(StoreError::UploadUnknown)
    ));
}
