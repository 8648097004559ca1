//! The collection of garbage: what it takes away, what it says, and that it is in no push's way.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use super::client::Client;
use super::fixture::{DAY, Disk, Killable, StoreFixture, UNTAGGED, age, binary, gc};
use super::image::{Image, bytes, index, referrer, sha256};
use crate::harness::{Domain, promptly, seconds};

#[tokio::test]
async fn what_no_tag_leads_to_goes_when_it_is_old() {
    let fixture = StoreFixture::with(|domain| domain.upstream(UNTAGGED)).await;
    let mut client = fixture.http1();
    let [tagged, untagged, child] = [1, 2, 3].map(Image::small);
    client.push("a", "v1", &tagged).await;
    client.push("a", &untagged.digest(), &untagged).await;
    client.push("a", &child.digest(), &child).await;
    client
        .push_manifest("a", "all", &index(&[child.descriptor()]))
        .await
        .is(201);
    client.push_blob("a", b"{}").await;
    for (subject, blob) in [(&tagged, b"one"), (&untagged, b"two")] {
        client.push_blob("a", blob).await;
        let signature = referrer(&subject.descriptor(), "a/b", blob);
        client
            .push_manifest("a", &sha256(&signature), &signature)
            .await
            .is(201);
    }
    let lone = client.push_blob("a", &bytes(4, 5000)).await;
    client.push_blob("b", &bytes(5, 5000)).await;
    // All of it is young.
    let nothing = json!({"manifests": 0, "blobs": 0, "uploads": 0, "repositories": 0, "bytes": 0});
    assert_eq!(fixture.gc(&[]), nothing);
    fixture.disk().age(DAY + seconds(1));
    let dry = fixture.gc(&["--dry-run"]);
    assert_eq!(fixture.gc(&["--dry-run"]), dry);
    client.check("a", &untagged.digest(), &untagged).await;
    fixture.disk().age(DAY + seconds(1));
    assert_eq!(fixture.gc(&[]), dry, "what was said that would be removed");
    assert_eq!(
        (&dry["manifests"], &dry["repositories"]),
        (&json!(2), &json!(1)),
        "{dry}"
    );
    // The untagged image's two, those two manifests, the signature's, and the two lone ones.
    assert_eq!(dry["blobs"], 7, "{dry}");
    client.check("a", "v1", &tagged).await;
    client.check("a", &child.digest(), &child).await;
    for gone in [untagged.digest(), lone] {
        client
            .get(&format!("/v2/a/blobs/{gone}"))
            .await
            .refused(404, "BLOB_UNKNOWN");
    }
    client
        .get(&format!("/v2/a/manifests/{}", untagged.digest()))
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    let about = |image: &Image| format!("/v2/a/referrers/{}", image.digest());
    assert_eq!(
        client.get(&about(&tagged)).await.json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        client.get(&about(&untagged)).await.json()["manifests"],
        json!([])
    );
    assert_eq!(fixture.disk().repositories(), ["a"]);
    fixture.disk().is_sound();
    assert_eq!(fixture.gc(&[]), nothing);
}

#[tokio::test]
async fn a_digest_whose_tag_has_moved_on_can_be_pulled() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let [old, new] = [20, 21].map(Image::small);
    client.push("a", "latest", &old).await;
    client.push("a", "latest", &new).await;
    let lone = client.push_blob("a", &bytes(22, 500)).await;
    fixture.disk().age(400 * DAY);
    let collected = fixture.gc(&[]);
    assert_eq!(
        (&collected["manifests"], &collected["blobs"]),
        (&json!(0), &json!(1))
    );
    client.check("a", &old.digest(), &old).await;
    client.get(&format!("/v2/a/blobs/{lone}")).await.is(404);
    // Deleted by its digest, it is gone.
    let target = format!("/v2/a/manifests/{}", old.digest());
    client.ask("DELETE", &target).await.is(202);
    fixture.disk().age(400 * DAY);
    assert_eq!(fixture.gc(&[])["blobs"], 3);
    client.check("a", "latest", &new).await;
}

#[tokio::test]
async fn the_command_says_what_it_did_or_why_it_could_not() {
    let fixture = StoreFixture::new().await;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command
            .arg("gc")
            .args(arguments)
            .arg("--config")
            .arg(fixture.gateway.directory.path());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(
                &fixture.gateway.directory.path().display().to_string(),
                "DIR",
            )
        };
        format!(
            "{:?} {}{}",
            output.status.code(),
            text(output.stdout),
            text(output.stderr)
        )
    };
    let mut client = fixture.http1();
    client.push_blob("a", &bytes(1, 3_000_000)).await;
    fixture.disk().age(DAY);
    insta::assert_snapshot!(run(&["ci.test", "--dry-run"]), @"Some(0) would remove 0 manifests, 1 blobs, 0 expired uploads and 1 empty repositories: 3 MiB");
    insta::assert_snapshot!(run(&["ci.test"]), @"Some(0) removed 0 manifests, 1 blobs, 0 expired uploads and 1 empty repositories: 3 MiB");
    insta::assert_snapshot!(run(&["no.test"]), @"Some(1) moorgate: there is no domain no.test; there are: ci.test");
}

#[tokio::test]
async fn a_domain_without_a_store_has_no_garbage_of_ours() {
    let gateway = crate::harness::Gateway::before("http://127.0.0.1:1").await;
    let output = Command::new(binary())
        .args(["gc", "ci.test", "--config"])
        .arg(gateway.directory.path())
        .output()
        .unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"moorgate: ci.test has no store of its own: the registry behind it collects its own garbage");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn garbage_is_collected_on_schedule() {
    let fixture =
        StoreFixture::with(|domain: Domain| domain.upstream("directory = \"ci\"\ngc = \"2h\""))
            .await;
    // The first collection is at the start, when nothing may be old.
    let collected = fixture.disk().0.join("collected");
    promptly(async {
        while !collected.exists() {
            tokio::task::yield_now().await
        }
    })
    .await;
    let mut client = fixture.http1();
    let lone = client.push_blob("a", b"lone").await;
    let image = Image::small(1);
    client.push("a", "v1", &image).await;
    fixture.disk().age(DAY);
    // Not before its time.
    crate::harness::jump(seconds(61)).await;
    client.get(&format!("/v2/a/blobs/{lone}")).await.is(200);
    age(&collected, seconds(2 * 3600));
    crate::harness::jump(seconds(61)).await;
    promptly(async { while client.get(&format!("/v2/a/blobs/{lone}")).await.status == 200 {} })
        .await;
    client.check("a", "v1", &image).await;
}

/// How many collections have ended, and what they removed.
#[derive(Default)]
struct Collections {
    ended: AtomicU64,
    removed: AtomicU64,
}

impl Collections {
    /// Waits until one that begins now has ended: of two that go on, each ends once more after
    /// that.
    async fn one_more(&self) {
        let until = self.ended.load(Ordering::Relaxed) + 4;
        promptly(async {
            while self.ended.load(Ordering::Relaxed) < until {
                tokio::task::yield_now().await
            }
        })
        .await;
    }
}

/// One client, which pushes, deletes and pushes again what it had deleted.
struct Life {
    client: Client,
    disk: Disk,
    n: u64,
    repository: String,
}

impl Life {
    /// What nobody else pushes looks as if it had not been used for a day.
    fn age(&self, blobs: &[&[u8]]) {
        for blob in blobs {
            age(
                &self.disk.blob(&self.repository, &sha256(blob)),
                DAY + seconds(1),
            );
        }
        // Nor pulled: that is written once a minute.
    }

    /// Pushes what the registry does not say that it has.
    async fn push(&mut self, image: &Image, reference: &str) {
        for blob in image.blobs() {
            let target = format!("/v2/{}/blobs/{}", self.repository, sha256(blob));
            if self.client.ask("HEAD", &target).await.status == 404 {
                self.client.push_blob(&self.repository, blob).await;
            }
        }
        self.client
            .push_manifest(&self.repository, reference, &image.manifest)
            .await
            .is(201);
    }

    async fn delete(&mut self, reference: &str) {
        self.client
            .ask(
                "DELETE",
                &format!("/v2/{}/manifests/{reference}", self.repository),
            )
            .await
            .is(202);
    }

    async fn round(&mut self, round: u64) {
        let (n, tag, all) = (self.n, format!("t{}", self.n), format!("all-{}", self.n));
        // One layer is everybody's.
        let image = Image::new(100 + n, vec![bytes(1000, 4000), bytes(2000 + n, 4000)]);
        self.push(&image, &tag).await;
        let child = Image::small(3000 + n);
        let known = format!("/v2/{}/manifests/{}", self.repository, child.digest());
        if self.client.ask("HEAD", &known).await.status == 404 {
            self.push(&child, &child.digest()).await;
        }
        let list = index(&[child.descriptor()]);
        self.client
            .push_manifest(&self.repository, &all, &list)
            .await
            .is(201);
        self.client.check(&self.repository, &tag, &image).await;
        self.client
            .check(&self.repository, &child.digest(), &child)
            .await;
        for reference in [&tag, &all] {
            self.delete(reference).await;
        }
        let parts = [&image, &child].map(|image| {
            [
                &image.config[..],
                &image.manifest,
                image.layers.last().unwrap(),
            ]
        });
        self.age(&parts.concat());
        self.age(&[&list]);
        Box::pin(self.come_and_go(round)).await;
    }

    /// A repository of its own becomes empty, and is pushed to again by two at once.
    async fn come_and_go(&mut self, round: u64) {
        let own = format!("own/app-{}", self.n);
        let [one, two] = [1, 2].map(|blob| bytes(10_000 * self.n + 10 * round + blob, 100));
        let mut other = self.client.another();
        let pushed = tokio::join!(
            self.client.push_blob(&own, &one),
            other.push_blob(&own, &two)
        );
        for digest in [pushed.0, pushed.1] {
            self.client
                .ask("HEAD", &format!("/v2/{own}/blobs/{digest}"))
                .await
                .is(200);
            self.client
                .ask("DELETE", &format!("/v2/{own}/blobs/{digest}"))
                .await
                .is(202);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_push_fails_while_garbage_is_collected_all_the_time() {
    let directory = tempfile::tempdir().unwrap();
    let domain = Domain::store("ci.test", "ci").upstream(UNTAGGED);
    // As a store of an older version, whose pulls are all known.
    std::fs::create_dir_all(directory.path().join("state/store/ci/pulled")).unwrap();
    let process = Killable::with(directory.path(), domain);
    let over = Arc::new(AtomicBool::new(false));
    let collections = Arc::new(Collections::default());
    let collecting = [0, 1].map(|_| {
        let (over, collections, directory) = (
            over.clone(),
            collections.clone(),
            directory.path().to_owned(),
        );
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let collected = gc(&directory, &[]);
                collections
                    .removed
                    .fetch_add(collected["blobs"].as_u64().unwrap(), Ordering::Relaxed);
                collections.ended.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let lives = (0..4).map(|n| {
        let (client, disk) = (process.endpoint.client(), process.disk());
        let mut life = Life {
            client,
            disk,
            n,
            repository: format!("team/app-{}", n % 2),
        };
        let collections = collections.clone();
        tokio::spawn(async move {
            let kept = Image::new(n, vec![bytes(n, 4000), bytes(1000, 4000)]);
            life.push(&kept, &format!("kept-{n}")).await;
            for round in 0..24 {
                Box::pin(life.round(round)).await;
                life.age(&[&kept.layers[0], &kept.config, &kept.manifest]);
                // Every third time all that is garbage goes; else it is a race.
                if round % 3 == n % 3 {
                    collections.one_more().await;
                }
                life.client
                    .check(&life.repository, &format!("kept-{n}"), &kept)
                    .await;
            }
        })
    });
    let mut ended = Vec::new();
    for life in lives.collect::<Vec<_>>() {
        ended.push(life.await);
    }
    over.store(true, Ordering::Relaxed);
    for collection in collecting {
        collection.join().unwrap();
    }
    for life in ended {
        life.unwrap();
    }
    // Each time seven of each client's at least: three of each image, and the index.
    let removed = collections.removed.load(Ordering::Relaxed);
    assert!(
        removed > 4 * 24 / 3 * 7,
        "only {removed} blobs were removed meanwhile"
    );
    process.disk().is_sound();
}
