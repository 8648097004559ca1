//! A disk that is full: clients are told so, nothing is broken, and when there is room again it
//! goes on.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::client::{Answer, Client};
use super::fixture::{DAY, Disk, Killable, UNTAGGED};
use super::image::{Image, bytes, sha256};
use crate::harness::{Domain, Setup};

/// A process whose state lies on a file system of 6 MiB, which is its alone.
struct Small {
    process: Killable,
    directory: tempfile::TempDir,
}

impl Small {
    fn new() -> Self {
        Self::with(Domain::store("ci.test", "ci"))
    }

    fn with(domain: Domain) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Setup::new().domain(domain).write(directory.path());
        let state = directory.path().join("state");
        std::fs::create_dir(&state).unwrap();
        // A mount of its own namespace: it ends with the process, and needs no right of this
        // user's.
        let script = r#"mount -t tmpfs -o size=6m none "$0" && exec "$@""#;
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", script]).arg(&state);
        command
            .arg(super::fixture::binary())
            .args(["run", "--config"])
            .arg(directory.path());
        let process = Killable::spawn(directory.path(), command);
        Self { process, directory }
    }

    fn client(&self) -> Client {
        self.process.endpoint.client()
    }

    /// The file system, as the process sees it.
    fn state(&self) -> PathBuf {
        let state = self.directory.path().join("state");
        let inside = format!("/proc/{}/root{}", self.process.id(), state.display());
        PathBuf::from(inside)
    }

    fn disk(&self) -> Disk {
        Disk(self.state().join("store/ci"))
    }

    /// Waits until there is space for deletions: it is reserved when the collection that follows a
    /// start has ended.
    async fn has_reserve(&self) {
        let reserved = self.disk().0.join("reserved");
        crate::harness::promptly(async {
            while !std::fs::metadata(&reserved).is_ok_and(|data| data.len() > 0) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Runs `moorgate gc` where the process is.
    fn gc(&self) -> Value {
        self.gc_with(&[])
    }

    fn gc_with(&self, options: &[&str]) -> Value {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.process.id()));
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
            .args(["--mount", "--"])
            .arg(super::fixture::binary());
        command.args(["gc", "ci.test", "--json"]).args(options);
        command.arg("--config");
        let output = command.arg(self.directory.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Fills the file system, but for so many bytes. Returns the file to be removed.
fn fill(state: &Path, but: usize) -> PathBuf {
    let path = state.join("filling");
    let content = vec![0; 8 << 20];
    // As much of it as there is room for.
    let _ = std::fs::write(&path, content);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - but as u64).unwrap();
    path
}

fn is_full(answer: &Answer) {
    let message = answer.refused(503, "UNAVAILABLE");
    assert_eq!(
        message,
        "the disk of the registry is full: its administrator has to look after it; try again later"
    );
    assert_eq!(answer.header("retry-after"), "30");
}

#[tokio::test]
async fn a_push_goes_on_when_there_is_room_again() {
    let small = Small::new();
    let mut client = small.client();
    let before = Image::small(1);
    client.push("a", "v1", &before).await;
    let blob = bytes(2, 3_000_000);
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], blob[..1_000_000].to_vec())
        .await
        .is(202);
    let filling = fill(&small.state(), 500_000);
    // A chunk, a whole blob, and what ends an upload.
    let rest = [("content-range", "1000000-2999999")];
    is_full(
        &client
            .ask_with("PATCH", &session, &rest, blob[1_000_000..].to_vec())
            .await,
    );
    let other = bytes(3, 2_000_000);
    let target = format!("/v2/a/blobs/uploads/?digest={}", sha256(&other));
    is_full(&client.ask_with("POST", &target, &[], other.clone()).await);
    // All else goes on, and nothing is broken.
    client.check("a", "v1", &before).await;
    client
        .get(&format!("/v2/a/blobs/{}", sha256(&other)))
        .await
        .refused(404, "BLOB_UNKNOWN");
    small.disk().is_sound();
    // What they had written has gone at once: others have the space.
    client
        .get(&session)
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(Disk::list(small.disk().0.join("uploads/a")), [""; 0]);
    client.push_blob("a", &bytes(6, 400_000)).await;
    std::fs::remove_file(filling).unwrap();
    client.push_blob("a", &blob).await;
    assert!(
        client
            .get(&format!("/v2/a/blobs/{}", sha256(&blob)))
            .await
            .is(200)
            .body
            == blob
    );
    // What could not be kept whole left nothing behind.
    assert_eq!(Disk::list(small.disk().0.join("uploads/a")), [""; 0]);
    small.disk().is_sound();
}

#[tokio::test]
async fn a_disk_without_a_byte_left_breaks_no_manifest() {
    let small = Small::new();
    let mut client = small.client();
    let (before, after) = (Image::small(4), Image::small(5));
    client.push("a", "v1", &before).await;
    for blob in after.blobs() {
        client.push_blob("a", blob).await;
    }
    let filling = fill(&small.state(), 0);
    is_full(&client.push_manifest("a", "v1", &after.manifest).await);
    is_full(
        &client
            .push_manifest("new/one", "v1", &super::image::index(&[]))
            .await,
    );
    is_full(
        &client
            .ask_with(
                "POST",
                &format!("/v2/b/blobs/uploads/?digest={}", sha256(b"x")),
                &[],
                "x",
            )
            .await,
    );
    client.check("a", "v1", &before).await;
    client
        .get(&format!("/v2/a/manifests/{}", after.digest()))
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    small.disk().is_sound();
    std::fs::remove_file(filling).unwrap();
    client
        .push_manifest("a", "v1", &after.manifest)
        .await
        .is(201);
    client.check("a", "v1", &after).await;
    client.check("a", &before.digest(), &before).await;
    client.push("new/one", "v1", &after).await;
    client.push("b", "v1", &after).await;
    small.disk().is_sound();
}

#[tokio::test]
async fn tags_and_blobs_are_deleted_on_a_full_disk() {
    let small = Small::new();
    let mut client = small.client();
    let (image, other) = (Image::small(1), Image::small(2));
    client.push("a", "v1", &image).await;
    client.push("a", "v2", &other).await;
    let lone = client.push_blob("a", &bytes(3, 2_000_000)).await;
    small.has_reserve().await;
    fill(&small.state(), 0);
    is_full(&client.push_manifest("a", "v3", &image.manifest).await);
    client.ask("DELETE", "/v2/a/manifests/v1").await.is(202);
    client.get("/v2/a/manifests/v1").await.is(404);
    client.check("a", "v2", &other).await;
    client
        .ask("DELETE", &format!("/v2/a/blobs/{lone}"))
        .await
        .is(202);
    small.disk().is_sound();
}

#[tokio::test]
async fn garbage_is_collected_on_a_full_disk() {
    let small = Small::with(Domain::store("ci.test", "ci").upstream(UNTAGGED));
    let mut client = small.client();
    let (old, new) = (Image::small(1), Image::small(2));
    let digest = client.push("a", "v1", &old).await;
    client.push("a", "v1", &new).await;
    client.push_blob("a", &bytes(3, 2_000_000)).await;
    small.has_reserve().await;
    small.disk().age(2 * DAY);
    // It takes over what was recorded, for which there is space.
    small.gc_with(&["--dry-run"]);
    fill(&small.state(), 0);
    is_full(&client.push_manifest("a", "v2", &new.manifest).await);
    // The index without the old image has to be written before anything is freed.
    let collected = small.gc();
    assert_eq!(collected["manifests"], 1, "{collected}");
    assert!(collected["bytes"].as_u64() > Some(2_000_000), "{collected}");
    let target = format!("/v2/a/manifests/{digest}");
    client.get(&target).await.refused(404, "MANIFEST_UNKNOWN");
    client.check("a", "v1", &new).await;
    client.push("a", "v2", &old).await;
    small.disk().is_sound();
}

#[tokio::test]
async fn uploads_that_nobody_adds_to_are_removed_on_request() {
    let fixture = super::fixture::StoreFixture::new().await;
    let mut client = fixture.http1();
    let idle = client.start("a").await;
    let part = client.ask_with("PATCH", &idle, &[], vec![1; 5000]).await;
    part.is(202);
    let used = client.start("a").await;
    let mut peer = fixture.gateway.client().await;
    let head = crate::harness::request("PATCH", &used, "Content-Length: 600000\r\n");
    peer.send(head).await;
    peer.send(vec![b'x'; 300_000]).await;
    let file = fixture.disk().upload(&used);
    crate::harness::promptly(async {
        while std::fs::metadata(&file).unwrap().len() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(fixture.gc(&[])["uploads"], 0);
    assert_eq!(fixture.gc(&["--uploads", "--dry-run"])["uploads"], 1);
    assert_eq!(fixture.gc(&["--uploads"])["uploads"], 1);
    client.get(&idle).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    peer.send(vec![b'x'; 300_000]).await;
    assert_eq!(peer.head().await.status(), 202);
}
