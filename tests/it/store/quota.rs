//! Quotas of areas: what counts, what is refused, and that parallel pushes of several processes never
//! exceed them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::client::{Client, Endpoint};
use super::fixture::{DAY, Disk, Killable, StoreFixture, age, binary};
use super::image::{Image, bytes, sha256};
use crate::harness::{Domain, promptly, request};

const MIB: usize = 1 << 20;

fn limited(quotas: &str) -> Domain {
    Domain::store("ci.test", "ci").tables(quotas)
}

fn quota(repositories: &str, size: usize) -> String {
    format!("[[quota]]\nrepositories = [\"{repositories}\"]\nsize = {size}\n")
}

impl Disk {
    /// The bytes of all repositories whose names begin so: each content once, and uploads. While others
    /// push, no more than there are at some time.
    fn counted(&self, prefix: &str) -> u64 {
        let is_of = |name: &&String| name.replace('+', "/").starts_with(prefix);
        let mut blobs = BTreeMap::new();
        for name in self.repositories().iter().filter(is_of) {
            let directory = self.repository(name).join("blobs/sha256");
            for blob in Disk::list(&directory) {
                // It may be taken away at the same time.
                if let Ok(data) = std::fs::metadata(directory.join(&blob)) {
                    blobs.insert(blob, (data.ino(), data.len()));
                }
            }
        }
        // A blob that is just published has the name of its upload, too.
        let inodes: BTreeSet<u64> = blobs.values().map(|(inode, _)| *inode).collect();
        let uploads = self.0.join("uploads");
        let names = Disk::list(&uploads);
        let directories = names.iter().filter(is_of).map(|name| uploads.join(name));
        let files = directories.flat_map(|directory| {
            let names = Disk::list(&directory).into_iter();
            names.map(move |name| directory.join(name))
        });
        let found = files.filter_map(|file| Some((std::fs::metadata(&file).ok()?, file)));
        let found: Vec<_> = found.collect();
        let still_there = found.iter().filter(|(_, file)| file.exists());
        let uploads = still_there.filter(|(data, _)| !inodes.contains(&data.ino()));
        let uploads: u64 = uploads.map(|(data, _)| data.len()).sum();
        blobs.values().map(|(_, size)| size).sum::<u64>() + uploads
    }
}

/// One request with the whole blob.
async fn push_at_once(client: &mut Client, repository: &str, blob: &[u8]) -> u16 {
    let digest = sha256(blob);
    let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let answer = client.ask_with("POST", &target, &[], blob.to_vec()).await;
    answer.status
}

#[tokio::test]
async fn each_kind_of_upload_is_refused_with_the_numbers_where_it_does_not_fit() {
    let fixture = StoreFixture::with(|domain| domain.tables(&quota("${user}/**", MIB))).await;
    let mut client = fixture.http1();
    let digest = client.push_blob("alice/a", &bytes(1, 700_000)).await;
    let refused = |answer: super::client::Answer| {
        let message = answer.refused(403, "DENIED");
        assert_eq!(
            message,
            "the quota is used up: this push needs 390.62 KiB (400000 bytes), and \"alice/**\" holds \
             683.59 KiB (700000 bytes) of 1 MiB"
        );
    };
    let blob = bytes(2, 400_000);
    let wanted = sha256(&blob);
    let at_once = format!("/v2/alice/a/blobs/uploads/?digest={wanted}");
    refused(client.ask_with("POST", &at_once, &[], blob.clone()).await);
    let session = client.start("alice/b").await;
    refused(client.ask_with("PATCH", &session, &[], blob.clone()).await);
    client.get(&session).await.is(404);
    let session = client.start("alice/b").await;
    let commit = format!("{session}?digest={wanted}");
    refused(client.ask_with("PUT", &commit, &[], blob.clone()).await);
    // From outside it counts, within the area it is free, and bob has an area of his own.
    client.push_blob("bob/a", &blob).await;
    let mount = format!("/v2/alice/a/blobs/uploads/?mount={wanted}&from=bob/a");
    refused(client.ask("POST", &mount).await);
    let mount = format!("/v2/alice/b/blobs/uploads/?mount={digest}&from=alice/a");
    client.ask("POST", &mount).await.is(201);
    assert_eq!(fixture.disk().counted("alice/"), 700_000);
    assert_eq!(
        Disk::list(fixture.disk().0.join("uploads/alice+a")).len(),
        0
    );
}

#[tokio::test]
async fn a_manifest_counts_and_one_that_does_not_fit_is_refused() {
    let image = Image::small(1);
    let size: usize = image.blobs().map(<[u8]>::len).sum();
    let quotas = quota("**", size + image.manifest.len());
    let fixture = StoreFixture::with(|domain| domain.tables(&quotas)).await;
    let mut client = fixture.http2();
    client.push("a", "v1", &image).await;
    // The same again, and under another tag, costs nothing.
    client
        .push_manifest("a", "v2", &image.manifest)
        .await
        .is(201);
    let other = super::image::index(&[image.descriptor()]);
    let answer = client.push_manifest("a", "v3", &other).await;
    let message = answer.refused(403, "DENIED");
    assert!(message.contains("\"**\" holds"), "{message}");
    client.get("/v2/a/manifests/v3").await.is(404);
}

#[tokio::test]
async fn a_known_length_is_refused_before_the_body_and_an_unknown_one_as_soon_as_it_passes() {
    let quotas = quota("**", 4 * MIB);
    let fixture = StoreFixture::with(|domain| domain.tables(&quotas)).await;
    let session = fixture.http1().start("a").await;
    let mut client = fixture.gateway.client().await;
    let lines = "Content-Length: 10000000000\r\nExpect: 100-continue\r\n";
    client.send(request("PATCH", &session, lines)).await;
    let (head, body) = promptly(client.answer()).await;
    assert_eq!(
        (head.status(), head.get("connection")),
        (403, Some("close"))
    );
    let text = String::from_utf8(body).unwrap();
    assert!(
        text.contains("this push needs 9.31 GiB (10000000000 bytes)"),
        "{text}"
    );
    // It goes on sending, and gets its answer all the same.
    let session = fixture.http1().start("a").await;
    let mut client = fixture.gateway.client().await;
    let lines = "Transfer-Encoding: chunked\r\n";
    client.send(request("PATCH", &session, lines)).await;
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..160 {
        client.send(&chunk).await;
    }
    let (head, _) = promptly(client.answer()).await;
    assert_eq!(
        (head.status(), head.get("connection")),
        (403, Some("close"))
    );
    let rest = promptly(client.rest_and_end()).await;
    assert_eq!(rest.expect("a clean end, no reset"), b"");
    assert_eq!(fixture.disk().counted(""), 0);
}

#[tokio::test]
async fn a_client_that_left_has_only_what_it_sent_and_goes_on_with_that() {
    let quotas = quota("**", MIB);
    let fixture = StoreFixture::with(|domain| domain.tables(&quotas)).await;
    let blob = bytes(1, MIB);
    let mut other = fixture.http1();
    let session = other.start("a").await;
    let mut client = fixture.gateway.client().await;
    let lines = format!("Content-Length: {MIB}\r\n");
    client.send(request("PATCH", &session, &lines)).await;
    client.send(&blob[..600_000]).await;
    // The reader of its body has begun, so that all of it is reserved.
    promptly(async { while other.get(&session).await.header("range") == "0-0" {} }).await;
    assert_eq!(push_at_once(&mut other, "b", &bytes(2, 1)).await, 403);
    drop(client);
    let left = bytes(2, MIB - 600_000);
    promptly(async { while push_at_once(&mut other, "b", &left).await == 403 {} }).await;
    assert_eq!(push_at_once(&mut other, "b", &bytes(3, 1)).await, 403);
    other
        .ask("DELETE", &format!("/v2/b/blobs/{}", sha256(&left)))
        .await
        .is(202);
    let range = [("content-range", "600000-1048575")];
    let rest = blob[600_000..].to_vec();
    other
        .ask_with("PATCH", &session, &range, rest)
        .await
        .is(202);
    let commit = format!("{session}?digest={}", sha256(&blob));
    other.ask("PUT", &commit).await.is(201);
    assert_eq!(fixture.disk().counted(""), MIB as u64);
}

#[tokio::test]
async fn what_a_failed_a_cancelled_and_an_expired_upload_had_is_free() {
    let quotas = quota("**", MIB);
    let fixture = StoreFixture::with(|domain| domain.tables(&quotas)).await;
    let mut client = fixture.http1();
    let blob = bytes(1, MIB);
    let session = client.start("a").await;
    let commit = format!("{session}?digest={}", sha256(b"other"));
    client
        .ask_with("PUT", &commit, &[], blob.clone())
        .await
        .is(400);
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], blob.clone())
        .await
        .is(202);
    assert_eq!(push_at_once(&mut client, "b", b"x").await, 403);
    client.ask("DELETE", &session).await.is(204);
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], blob.clone())
        .await
        .is(202);
    let answer = client
        .ask(
            "POST",
            &format!("/v2/b/blobs/uploads/?digest={}", sha256(b"")),
        )
        .await;
    answer.is(201);
    assert_eq!(push_at_once(&mut client, "b", b"x").await, 403);
    age(&fixture.disk().upload(&session), 2 * DAY);
    fixture.gc(&[]);
    assert_eq!(push_at_once(&mut client, "b", &blob).await, 201);
}

#[tokio::test]
async fn a_deleted_image_frees_its_space_with_the_next_collection() {
    let quotas = quota("a/**", 300_000);
    let fixture = StoreFixture::with(|domain| domain.tables(&quotas)).await;
    let mut client = fixture.http1();
    let image = |n| Image::new(n, vec![bytes(n, 200_000)]);
    let digest = client.push("a/a", "v1", &image(1)).await;
    assert_eq!(
        push_at_once(&mut client, "a/b", &bytes(2, 200_000)).await,
        403
    );
    let target = format!("/v2/a/a/manifests/{digest}");
    client.ask("DELETE", &target).await.is(202);
    assert_eq!(
        push_at_once(&mut client, "a/b", &bytes(2, 200_000)).await,
        403
    );
    fixture.disk().age(2 * DAY);
    fixture.gc(&[]);
    client.push("a/b", "v1", &image(2)).await;
}

#[tokio::test]
async fn a_reload_that_lowers_a_quota_refuses_what_needs_space() {
    let fixture = StoreFixture::with(|domain| domain.tables(&quota("**", MIB))).await;
    let mut client = fixture.http1();
    let blob = bytes(1, 500_000);
    client.push_blob("a", &blob).await;
    let session = client.start("a").await;
    client
        .ask_with("PATCH", &session, &[], bytes(2, 500_000))
        .await
        .is(202);
    let file = fixture.gateway.path("conf.d/ci.test.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let lowered = before.replace(&format!("size = {MIB}"), "size = 400000");
    assert_ne!(before, lowered);
    std::fs::write(&file, &lowered).unwrap();
    fixture.gateway.app.reload().await.unwrap();
    assert_eq!(push_at_once(&mut client, "b", b"x").await, 403);
    assert_eq!(
        push_at_once(&mut client, "b", &blob).await,
        403,
        "it is received first"
    );
    let mount = format!("/v2/b/blobs/uploads/?mount={}&from=a", sha256(&blob));
    client.ask("POST", &mount).await.is(201);
    // What has its space may end.
    let commit = format!("{session}?digest={}", sha256(&bytes(2, 500_000)));
    client.ask("PUT", &commit).await.is(201);
    std::fs::write(&file, lowered.replace("400000", "2000000")).unwrap();
    fixture.gateway.app.reload().await.unwrap();
    assert_eq!(push_at_once(&mut client, "b", b"x").await, 201);
}

#[tokio::test]
async fn status_metrics_and_a_command_say_what_areas_hold() {
    let quotas = quota("${user}/**", MIB);
    let fixture = StoreFixture::with(|domain| domain.tables(&quotas)).await;
    let mut client = fixture.http1();
    client.push_blob("alice/a", &bytes(1, 500_000)).await;
    client.push_blob("alice/b", &bytes(1, 500_000)).await;
    client.push_blob("bob/a", &bytes(2, 1024)).await;
    client.push_blob("other", &bytes(2, 2048)).await;
    // A reload with another size makes it count anew.
    let file = fixture.gateway.path("conf.d/ci.test.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace(&format!("size = {MIB}"), "size = 1200000"),
    )
    .unwrap();
    fixture.gateway.app.reload().await.unwrap();
    let status = fixture.gateway.status().await;
    let quotas = &status["domains"][0]["quotas"];
    assert_eq!(quotas["areas"], 2, "{quotas}");
    let fullest = &quotas["fullest"][0];
    assert_eq!(
        (&fullest["area"], &fullest["used"]),
        (&"alice/**".into(), &500_000.into())
    );
    let usage = |options: &[&str]| {
        let mut command = std::process::Command::new(binary());
        command.args(["store", "usage", "ci.test", "--config"]);
        command.arg(fixture.gateway.directory.path()).args(options);
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    insta::assert_snapshot!(usage(&[]), @r#"
    alice/**: 488.28 KiB (500000 bytes) of 1.14 MiB (1200000 bytes), 41 %
    bob/**: 1 KiB of 1.14 MiB (1200000 bytes), 0 %
    other: 2 KiB, no quota
    "#);
    let json: serde_json::Value = serde_json::from_str(&usage(&["--json"])).unwrap();
    assert_eq!(json["areas"][0]["used"], 500_000);
    assert_eq!(json["without_quota"][0]["repository"], "other");
}

/// Another moorgate with the same store.
fn beside(directory: &Path, domain: Domain, store: &Path) -> Killable {
    let stores = directory.join("state/store");
    std::fs::create_dir_all(&stores).unwrap();
    std::os::unix::fs::symlink(store, stores.join("ci")).unwrap();
    Killable::with(directory, domain)
}

/// Pushes a blob of this seed in one of the usual ways. Returns whether it was stored.
async fn push_somehow(mut client: Client, n: u64) -> Option<u64> {
    let seed = n / 2;
    let blob = bytes(seed, 20_000);
    let repository = format!("team/app-{}", n % 9);
    let status = match n % 3 {
        0 => push_at_once(&mut client, &repository, &blob).await,
        1 => {
            let session = client.start(&repository).await;
            let mut status = 0;
            for part in blob.chunks(7000) {
                status = client
                    .ask_with("PATCH", &session, &[], part.to_vec())
                    .await
                    .status;
                if status != 202 {
                    break;
                }
            }
            if status == 202 {
                let commit = format!("{session}?digest={}", sha256(&blob));
                status = client.ask("PUT", &commit).await.status;
            }
            status
        }
        _ => {
            let session = client.start(&repository).await;
            let commit = format!("{session}?digest={}", sha256(&blob));
            client
                .ask_with("PUT", &commit, &[], blob.clone())
                .await
                .status
        }
    };
    match status {
        201 => Some(seed),
        403 => None,
        status => panic!("{status}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_of_two_processes_never_exceed_a_quota() {
    const SIZE: usize = 500_000;
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let domain = || limited(&quota("team/**", SIZE));
    let first = Killable::with(directories[0].path(), domain());
    let store = first.disk().0;
    let second = beside(directories[1].path(), domain(), &store);
    let endpoints: Vec<Endpoint> = [&first, &second].map(|one| one.endpoint.clone()).into();
    let pushes: Vec<_> = (0..200_u64)
        .map(|n| {
            let client = endpoints[usize::try_from(n / 2 % 2).unwrap()].client();
            tokio::spawn(push_somehow(client, n))
        })
        .collect();
    let disk = Disk(store.clone());
    let mut highest = 0;
    while pushes.iter().any(|push| !push.is_finished()) {
        highest = highest.max(disk.counted("team/"));
        tokio::task::yield_now().await;
    }
    let mut stored = BTreeSet::new();
    for push in pushes {
        stored.extend(push.await.unwrap());
    }
    assert!(highest <= SIZE as u64, "{highest} bytes at once");
    assert_eq!(disk.counted("team/"), stored.len() as u64 * 20_000);
    // Nobody is refused without need: after them, whatever fits is stored.
    let mut client = endpoints[0].client();
    for seed in 1000..1000 + (SIZE / 20_000 - stored.len()) as u64 {
        assert_eq!(
            push_at_once(&mut client, "team/a", &bytes(seed, 20_000)).await,
            201
        );
    }
    assert_eq!(disk.counted("team/"), SIZE as u64);
    let mut client = endpoints[1].client();
    assert_eq!(push_at_once(&mut client, "team/a", b"x").await, 403);
}

#[tokio::test]
async fn what_a_killed_process_had_reserved_is_free_for_the_other() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let domain = || limited(&quota("**", 10 * MIB));
    let mut first = Killable::with(directories[0].path(), domain());
    let second = beside(directories[1].path(), domain(), &first.disk().0);
    let mut client = second.endpoint.client();
    let session = first.endpoint.client().start("a").await;
    let mut upload = crate::harness::RawPeer::new(first.endpoint.tls().await.unwrap());
    let lines = format!("Content-Length: {}\r\n", 9 * MIB);
    upload.send(request("PATCH", &session, &lines)).await;
    upload.send(bytes(1, MIB)).await;
    let mut other = first.endpoint.client();
    promptly(async { while other.get(&session).await.header("range") == "0-0" {} }).await;
    assert_eq!(
        push_at_once(&mut client, "b", &bytes(2, 2 * MIB)).await,
        403
    );
    first.restart();
    assert_eq!(
        push_at_once(&mut client, "b", &bytes(2, 2 * MIB)).await,
        201
    );
    let mut client = first.endpoint.client();
    assert_eq!(
        push_at_once(&mut client, "c", &bytes(3, 8 * MIB)).await,
        403
    );
    client.ask("DELETE", &session).await.is(204);
    assert_eq!(
        push_at_once(&mut client, "c", &bytes(3, 8 * MIB)).await,
        201
    );
}
