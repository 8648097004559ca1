use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use super::*;
use crate::store::blobs::*;
use crate::store::hash::DigestAlgorithm;

struct BlobDirectory {
    directory: tempfile::TempDir,
    layout: StoreLayout,
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

impl BlobDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = StoreLayout::create(&directory.path().join("ci")).unwrap();
        Self { directory, layout }
    }

    fn publish(&self, repository: &str, content: &str) -> Digest {
        let file = self.directory.path().join("upload");
        std::fs::write(&file, content).unwrap();
        let digest = DigestAlgorithm::Sha256.digest(content.as_bytes());
        let name = name(repository);
        let lock = self.layout.lock_shared(&name, HOUR).unwrap();
        publish(&self.layout, &name, &digest, &file, &lock).unwrap();
        assert!(!file.exists(), "the upload keeps no name");
        digest
    }

    fn mount(&self, from: &str, to: &str, digest: &Digest) -> bool {
        let lock = self.layout.lock_shared(&name(to), HOUR).unwrap();
        mount(&self.layout, &name(from), &name(to), digest, &lock).unwrap()
    }

    fn path(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.layout.blob(&name(repository), digest).unwrap()
    }

    fn age(&self, path: &Path, time: Duration) {
        File::open(path)
            .unwrap()
            .set_modified(SystemTime::now() - time)
            .unwrap();
    }
}

fn status(path: &Path) -> FileStatus {
    FileStatus::from(&std::fs::metadata(path).unwrap())
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_blob_is_on_the_disk_once_however_often_it_comes() {
    let store = BlobDirectory::new();
    let digest = store.publish("a", "some");
    let first = std::fs::metadata(store.path("a", &digest)).unwrap();
    assert_eq!(first.nlink(), 2);
    for repository in ["a", "b", "b/c"] {
        store.publish(repository, "some");
        assert_eq!(
            std::fs::metadata(store.path(repository, &digest))
                .unwrap()
                .ino(),
            first.ino()
        );
    }
    assert!(store.mount("a", "d", &digest));
    assert_eq!(
        std::fs::metadata(store.layout.shared_blob(&digest).unwrap())
            .unwrap()
            .nlink(),
        5
    );
    let missing = DigestAlgorithm::Sha256.digest(b"missing");
    assert!(!store.mount("a", "e", &missing));
}

#[test]
fn a_shared_name_that_is_gone_or_wrong_is_made_anew() {
    let store = BlobDirectory::new();
    let digest = store.publish("a", "some");
    let shared = store.layout.shared_blob(&digest).unwrap();
    std::fs::remove_file(&shared).unwrap();
    store.publish("b", "some");
    assert_eq!(std::fs::metadata(&shared).unwrap().nlink(), 2);
    std::fs::remove_file(&shared).unwrap();
    std::fs::write(&shared, "so").unwrap();
    store.publish("c", "some");
    assert_eq!(std::fs::read(store.path("c", &digest)).unwrap(), b"some");
    assert_eq!(std::fs::read(&shared).unwrap(), b"some");
}

#[test]
fn a_blob_that_comes_again_is_young_again() {
    let store = BlobDirectory::new();
    let digest = store.publish("a", "some");
    for again in [true, false] {
        let path = store.path("a", &digest);
        store.age(&path, HOUR * 100);
        assert!(is_older(&status(&path), HOUR * 99));
        if again {
            store.publish("a", "some");
        } else {
            store.mount("a", "b", &digest);
        }
        assert!(!is_older(&status(&path), HOUR));
    }
}

#[test]
fn the_sign_of_use_is_seldom_written_and_seen_in_time() {
    let store = BlobDirectory::new();
    let digest = store.publish("a", "some");
    let path = store.path("a", &digest);
    let modified = || std::fs::metadata(&path).unwrap().modified().unwrap();
    store.age(&path, HOUR / 2);
    let before = modified();
    open_for_push(&store.layout, &name("a"), &digest).unwrap();
    assert_eq!(modified(), before);
    store.age(&path, HOUR * 100);
    let found = list(&store.layout.repository(&name("a")))
        .unwrap()
        .remove(0);
    // A collection has found it to be old; then a client asks for it.
    open_for_push(&store.layout, &name("a"), &digest).unwrap();
    assert!(!remove_unused(&found, HOUR * 24).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"some");
    store.age(&path, HOUR * 24);
    assert!(remove_unused(&found, HOUR * 24).unwrap());
    assert!(!path.exists() && !path.with_extension(REMOVED_EXTENSION).exists());
}

#[test]
fn only_blobs_are_listed() {
    let store = BlobDirectory::new();
    let digest = store.publish("a", "some");
    let directory = store.layout.repository(&name("a"));
    for other in [".moorgate-x", "README", "A", "removed"] {
        std::fs::write(directory.join("blobs/sha256").join(other), "x").unwrap();
    }
    let listed: Vec<_> = list(&directory)
        .unwrap()
        .into_iter()
        .map(|found| found.digest)
        .collect();
    assert_eq!(listed, [digest]);
}
