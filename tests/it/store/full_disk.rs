//! A disk that is full: clients are told so, nothing is broken, and when there is room again it
//! goes on.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::{Answer, Client};
use super::fixture::{Disk, Killable};
use super::image::{Image, bytes, sha256};
use crate::harness::{Domain, Setup};

/// A process whose state lies on a file system of 6 MiB, which is its alone.
struct Small {
    process: Killable,
    directory: tempfile::TempDir,
}

impl Small {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Setup::new()
            .domain(Domain::store("ci.test", "ci"))
            .write(directory.path());
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
    std::fs::remove_file(filling).unwrap();
    let status = client.get(&session).await.is(204);
    let here = status
        .header("range")
        .strip_prefix("0-")
        .unwrap()
        .parse::<usize>()
        .unwrap()
        + 1;
    assert!((1_000_000..3_000_000).contains(&here), "{here}");
    let range = format!("{here}-2999999");
    client
        .ask_with(
            "PATCH",
            &session,
            &[("content-range", &range)],
            blob[here..].to_vec(),
        )
        .await
        .is(202);
    client
        .ask("PUT", &format!("{session}?digest={}", sha256(&blob)))
        .await
        .is(201);
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
