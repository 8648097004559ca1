//! What lies on the disk is not what was pushed: nobody gets it, it does not spread, and the next
//! push mends it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::client::Client;
use super::fixture::{DAY, StoreFixture, binary};
use super::image::{Image, bytes, referrer, sha256};
use crate::harness::RawPeer;

/// Damages a file in place, under all its names.
fn write_into(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}

async fn mount(client: &mut Client, to: &str, from: &str, digest: &str) -> u16 {
    let target = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
    client.ask("POST", &target).await.status
}

#[tokio::test]
async fn a_blob_of_another_length_is_not_served_and_mended_by_the_next_push() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let content = bytes(1, 5000);
    let digest = client.push_blob("a", &content).await;
    assert_eq!(mount(&mut client, "b", "a", &digest).await, 201);
    for damaged in [&content[..100], &[], &bytes(2, 6000)] {
        write_into(&fixture.disk().blob("a", &digest), damaged);
        for name in ["a", "b"] {
            let target = format!("/v2/{name}/blobs/{digest}");
            let message = client.get(&target).await.refused(500, "UNKNOWN");
            let expected = format!("the stored content of {digest} is damaged: push it again");
            assert_eq!(message, expected);
            let range = [("range", "bytes=0-9")];
            let part = client.ask_with("GET", &target, &range, "").await;
            part.refused(500, "UNKNOWN");
            // Clients ask so whether they must push it.
            client.ask("HEAD", &target).await.is(404);
        }
        // It spreads to no other repository.
        assert_eq!(mount(&mut client, "c", "a", &digest).await, 202);
        client.push_blob("a", &content).await;
        for name in ["a", "b"] {
            let blob = client.get(&format!("/v2/{name}/blobs/{digest}")).await;
            assert!(blob.is(200).body == content, "{name}");
        }
        fixture.disk().is_sound();
    }
}

#[tokio::test]
async fn a_changed_blob_does_not_spread_to_the_next_repository_that_gets_it() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http2();
    let content = bytes(1, 700_000);
    let digest = client.push_blob("a", &content).await;
    client.push_blob("b", &content).await;
    let mut changed = content.clone();
    changed[600_000] ^= 1;
    write_into(&fixture.disk().blob("a", &digest), &changed);
    client.push_blob("c", &content).await;
    fixture.disk().is_sound();
    for name in ["a", "b", "c"] {
        let blob = client.get(&format!("/v2/{name}/blobs/{digest}")).await;
        assert!(blob.is(200).body == content, "{name}");
    }
}

#[tokio::test]
async fn a_mount_replaces_a_damaged_blob() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let content = bytes(1, 5000);
    let digest = client.push_blob("a", &content).await;
    client.push_blob("b", &content).await;
    // A file of its own, with the attributes of the right one.
    let blob = fixture.disk().blob("b", &digest);
    let copy = blob.with_extension("copy");
    let copied = Command::new("cp").arg("-a").args([&blob, &copy]).status();
    assert!(copied.unwrap().success());
    std::fs::rename(&copy, &blob).unwrap();
    write_into(&blob, b"short");
    let target = format!("/v2/b/blobs/{digest}");
    client.get(&target).await.refused(500, "UNKNOWN");
    assert_eq!(mount(&mut client, "b", "a", &digest).await, 201);
    assert!(client.get(&target).await.is(200).body == content);
    fixture.disk().is_sound();
}

#[tokio::test]
async fn a_changed_manifest_is_not_served_and_mended_by_the_next_push() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let (image, other) = (Image::small(1), Image::small(2));
    let digest = client.push("a", "v1", &image).await;
    client.push("a", "v2", &other).await;
    client.push_blob("a", b"{}").await;
    client.push_blob("a", b"one").await;
    let signature = referrer(&image.descriptor(), "a/b", b"one");
    let signed = sha256(&signature);
    client.push_manifest("a", &signed, &signature).await.is(201);
    let mut same_length = image.manifest.clone();
    same_length[5] ^= 1;
    for damaged in [&b"{}"[..], &[], &same_length] {
        write_into(&fixture.disk().blob("a", &digest), damaged);
        for reference in ["v1", &digest] {
            let target = format!("/v2/a/manifests/{reference}");
            client.get(&target).await.refused(500, "UNKNOWN");
            client.ask("HEAD", &target).await.is(404);
        }
        // All else goes on.
        client.check("a", "v2", &other).await;
        let tags = client.get("/v2/a/tags/list").await.is(200).json();
        assert_eq!(tags["tags"], json!(["v1", "v2"]));
        let pushed = client.push_manifest("a", "v1", &image.manifest).await;
        pushed.is(201);
        client.check("a", "v1", &image).await;
        fixture.disk().is_sound();
    }
    // A list that was read while its entry was damaged is right again afterwards, too.
    write_into(&fixture.disk().blob("a", &signed), b"{}");
    let referrers = format!("/v2/a/referrers/{digest}");
    client.get(&referrers).await.is(200);
    client.push_manifest("a", &signed, &signature).await.is(201);
    let listed = client.get(&referrers).await.is(200).json();
    assert_eq!(listed["manifests"][0]["digest"], signed, "{listed}");
}

/// Runs `moorgate` with these arguments beside the gateway.
fn command(fixture: &StoreFixture, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--config");
    command.arg(fixture.gateway.directory.path());
    command.output().unwrap()
}

#[tokio::test]
async fn a_damaged_index_stops_nothing_else() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    for name in ["a", "b", "c"] {
        client.push(name, "v1", &Image::small(1)).await;
        client.push_blob(name, name.as_bytes()).await;
    }
    let index = fixture.disk().repository("b").join("index.json");
    std::fs::write(index, "{\"half").unwrap();
    let message = client.get("/v2/b/manifests/v1").await;
    let message = message.refused(500, "UNKNOWN");
    assert_eq!(message, "the index of the repository b is damaged");
    fixture.disk().age(2 * DAY);
    let collected = command(&fixture, &["gc", "ci.test", "--json"]);
    assert_eq!(collected.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&collected.stdout).unwrap();
    assert_eq!(summary["blobs"], 2, "{summary}");
    assert_eq!(summary["failed"][0]["repository"], "b", "{summary}");
    for name in ["a", "c"] {
        client.check(name, "v1", &Image::small(1)).await;
    }
}

async fn readiness(fixture: &StoreFixture) -> u16 {
    let socket = TcpStream::connect(fixture.gateway.admin()).await.unwrap();
    let mut peer = RawPeer::new(socket);
    peer.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    peer.head().await.status()
}

#[tokio::test]
async fn a_store_that_has_gone_is_unavailable_until_it_is_back() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(1);
    let digest = client.push("a", "v1", &image).await;
    let session = client.start("a").await;
    assert_eq!(readiness(&fixture).await, 200);
    let (store, aside) = (fixture.disk().0, fixture.gateway.path("aside"));
    std::fs::rename(&store, &aside).unwrap();
    // Gone, and as a mount point without its file system.
    for is_mount_point in [false, true] {
        if is_mount_point {
            std::fs::create_dir(&store).unwrap();
        }
        for (method, target) in [
            ("GET", "/v2/_catalog".to_owned()),
            ("GET", "/v2/a/tags/list".to_owned()),
            ("GET", "/v2/a/manifests/v1".to_owned()),
            ("GET", format!("/v2/a/blobs/{}", sha256(&image.config))),
            ("GET", format!("/v2/a/referrers/{digest}")),
            ("POST", "/v2/a/blobs/uploads/".to_owned()),
            ("POST", "/v2/new/blobs/uploads/".to_owned()),
            ("GET", session.clone()),
            ("DELETE", "/v2/a/manifests/v1".to_owned()),
        ] {
            let answer = client.ask(method, &target).await;
            let message = answer.refused(503, "UNAVAILABLE");
            assert!(
                message.contains("storage of the registry is not there"),
                "{message}"
            );
        }
        let pushed = client.push_manifest("a", "v1", &image.manifest).await;
        pushed.refused(503, "UNAVAILABLE");
        let empty = super::image::index(&[]);
        let pushed = client.push_manifest("new", "v1", &empty).await;
        pushed.refused(503, "UNAVAILABLE");
        assert_eq!(readiness(&fixture).await, 503);
        let collected = command(&fixture, &["gc", "ci.test"]);
        assert_eq!(collected.status.code(), Some(1));
    }
    std::fs::remove_dir(&store).expect("nothing was created in it");
    std::fs::rename(&aside, &store).unwrap();
    assert_eq!(readiness(&fixture).await, 200);
    client.check("a", "v1", &image).await;
    client.get(&session).await.is(204);
    client.push("a", "v2", &Image::small(2)).await;
}

/// Runs `moorgate store verify`, and returns its status and its report.
fn verify(fixture: &StoreFixture, options: &[&str]) -> (i32, Value) {
    let arguments = [&["store", "verify", "ci.test", "--json"], options].concat();
    let output = command(fixture, &arguments);
    let report = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), report)
}

#[tokio::test]
async fn verify_finds_damage_and_repairs_it() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(1);
    for name in ["a", "b", "c"] {
        client.push(name, "v1", &image).await;
    }
    let blobs = image.blobs().count() + 1;
    let (status, report) = verify(&fixture, &[]);
    assert_eq!((status, &report["damage"]), (0, &json!([])), "{report}");
    // The manifest of each repository is a file of its own.
    assert_eq!(report["blobs"], blobs + 2, "{report}");
    let [config, layer] = [&image.config, &image.layers[0]].map(|blob| sha256(blob));
    let damaged = |content: &[u8]| {
        let mut damaged = content.to_vec();
        damaged[0] ^= 1;
        damaged
    };
    // Under all its names, and in one repository only.
    write_into(
        &fixture.disk().blob("a", &layer),
        &damaged(&image.layers[0]),
    );
    let lone = fixture.disk().blob("b", &config);
    std::fs::remove_file(&lone).unwrap();
    write_into(&lone, &damaged(&image.config));
    let (status, report) = verify(&fixture, &[]);
    assert_eq!(status, 1);
    let damage = report["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 5, "{report}");
    assert!(
        damage.iter().all(|damage| damage["outcome"] == "found"),
        "{report}"
    );
    let (status, report) = verify(&fixture, &["--repair"]);
    assert_eq!(status, 1, "some of it must be pushed again");
    let outcome = |name: &str, digest: &str| {
        let path = fixture.disk().blob(name, digest).display().to_string();
        let all = report["damage"].as_array().unwrap();
        let found = all.iter().find(|damage| damage["path"] == path);
        found.unwrap()["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(outcome("b", &config), "replaced");
    assert_eq!(outcome("a", &layer), "removed");
    for name in ["a", "b", "c"] {
        let target = format!("/v2/{name}/blobs/{layer}");
        client.ask("HEAD", &target).await.is(404);
        client.push_blob(name, &image.layers[0]).await;
        client.check(name, "v1", &image).await;
    }
    let (status, report) = verify(&fixture, &["--repair"]);
    assert_eq!((status, &report["damage"]), (0, &json!([])), "{report}");
    fixture.disk().is_sound();
}
