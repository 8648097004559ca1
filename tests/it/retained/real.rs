//! The same at Debian's docker-registry 2.8, which deletes manifests only.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{RULES, driver};
use crate::harness::{Gateway, promptly, settle};
use crate::products_deletion::between::{Between, Disturbance, client};
use crate::store::client::Client;
use crate::store::image::{INDEX, Image, MANIFEST, descriptor, sha256};

const DELETE_DIGEST: &str = "DELETE /v2/app/manifests/sha256:";

struct Fixture {
    between: Between,
    gateway: Gateway,
    client: Client,
}

impl Fixture {
    async fn new(deletes: bool) -> Self {
        let between = Between::new(deletes).await;
        let gateway = between.gateway("", RULES).await;
        let client = client(&gateway);
        Self {
            between,
            gateway,
            client,
        }
    }

    async fn tags(&mut self) -> Value {
        let list = self.client.get("/v2/app/tags/list").await.is(200);
        let mut tags: Vec<_> = list.json()["tags"].as_array().cloned().unwrap_or_default();
        tags.sort_by_key(ToString::to_string);
        json!(tags)
    }

    /// Asserts that the whole image is there. The registry gives it only to those who accept it.
    async fn has(&mut self, reference: &str, image: &Image) {
        let target = format!("/v2/app/manifests/{reference}");
        let accept = [("accept", MANIFEST)];
        let manifest = self.client.ask_with("GET", &target, &accept, "").await;
        assert_eq!(manifest.is(200).body, image.manifest);
        for blob in image.blobs() {
            let target = format!("/v2/app/blobs/{}", sha256(blob));
            self.client.ask("HEAD", &target).await.is(200);
        }
    }

    async fn tag(&mut self, tag: &str, image: &Image) {
        let pushed = self.client.push_manifest("app", tag, &image.manifest);
        pushed.await.is(201);
    }
}

#[tokio::test]
async fn a_tag_goes_by_a_swap_and_its_siblings_stay() {
    let mut fixture = Fixture::new(true).await;
    let driver = driver(&fixture.gateway).await;
    let (image, other) = (Image::small(1), Image::small(2));
    fixture.client.push("app", "v1", &image).await;
    fixture.tag("v2", &image).await;
    fixture.client.push("app", "v3", &other).await;
    let copy = driver.save("app", &other.digest()).await.unwrap();
    let goes = other.digest();
    let plan = driver.plan("app", &["v1", "v3"], &[&goes]).await.unwrap();
    let removed = driver.remove(&plan).await.unwrap();
    let expected = json!({"tags": ["v1", "v3"], "manifests": [other.digest()], "left": []});
    assert_eq!(removed, expected);
    assert_eq!(fixture.tags().await, json!(["v2"]));
    fixture.has("v2", &image).await;
    fixture.client.get("/v2/app/manifests/v3").await.is(404);
    assert_eq!(driver.missing_of("app", "v2").await, Ok(None));

    let restored = driver.restore(&copy, &["v3", "v2"]).await.unwrap();
    assert_eq!(restored, json!({"set": ["v3"], "taken": ["v2"]}));
    fixture.has("v3", &other).await;
    fixture.has("v2", &image).await;
}

#[tokio::test]
async fn an_index_goes_with_what_it_lists_and_comes_back() {
    let mut fixture = Fixture::new(true).await;
    let driver = driver(&fixture.gateway).await;
    let parts = [Image::small(1), Image::small(2)];
    for part in &parts {
        fixture.client.push("app", &part.digest(), part).await;
    }
    fixture.client.push("app", "stays", &parts[1]).await;
    let entries: Vec<_> = parts
        .iter()
        .map(|part| descriptor(MANIFEST, &part.manifest))
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    let index = bytes::Bytes::from(index.to_string());
    let target = "/v2/app/manifests/multi";
    let kind = [("content-type", INDEX)];
    let pushed = fixture.client.ask_with("PUT", target, &kind, index.clone());
    pushed.await.is(201);
    let found = sha256(&index);
    let mut copies = Vec::new();
    for manifest in [&parts[0].digest(), &found] {
        copies.push(driver.save("app", manifest).await.unwrap());
    }
    // Both parts, although a tag leads to one of them.
    let manifests = [&*found, &parts[0].digest(), &parts[1].digest()];
    let plan = driver.plan("app", &["multi"], &manifests).await.unwrap();
    let removed = driver.remove(&plan).await.unwrap();
    assert_eq!(removed["manifests"], json!([found, parts[0].digest()]));
    assert_eq!(removed["left"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.tags().await, json!(["stays"]));
    fixture.has("stays", &parts[1]).await;

    driver.restore(&copies[0], &[]).await.unwrap();
    driver.restore(&copies[1], &["multi"]).await.unwrap();
    let accept = [("accept", INDEX)];
    let pulled = fixture.client.ask_with("GET", target, &accept, "");
    assert_eq!(pulled.await.is(200).body, index);
    assert_eq!(driver.missing_of("app", "multi").await, Ok(None));
}

/// What was taken away by then stays so, nothing else goes, and another run ends it.
#[tokio::test]
async fn a_strange_answer_stops_it() {
    for status in [418, 500, 400] {
        let mut fixture = Fixture::new(true).await;
        let driver = driver(&fixture.gateway).await;
        let images = [Image::small(1), Image::small(2), Image::small(3)];
        let mut digests = Vec::new();
        for (tag, image) in ["v1", "v2", "v3"].iter().zip(&images) {
            fixture.client.push("app", tag, image).await;
            digests.push(image.digest());
        }
        let manifests: Vec<_> = digests.iter().map(String::as_str).collect();
        let plan = driver.plan("app", &["v1", "v2"], &manifests[..2]);
        let plan = plan.await.unwrap();
        let second = format!("DELETE /v2/app/manifests/{}", digests[1]);
        fixture
            .between
            .disturb(&second, Disturbance::Answer(status));
        let error = driver.remove(&plan).await.unwrap_err();
        assert!(error.contains(&status.to_string()), "{error}");
        assert_eq!(fixture.tags().await, json!(["v3"]));
        fixture.has("v3", &images[2]).await;
        let removed = driver.remove(&plan).await.unwrap();
        assert_eq!(removed["manifests"], json!(digests[..2]));
        fixture.has("v3", &images[2]).await;
    }
}

/// The answer to the deletion is lost: what it did counts.
#[tokio::test]
async fn what_is_done_without_an_answer_is_done() {
    let mut fixture = Fixture::new(true).await;
    let driver = driver(&fixture.gateway).await;
    let image = Image::small(1);
    fixture.client.push("app", "v1", &image).await;
    let plan = driver.plan("app", &["v1"], &[&image.digest()]).await;
    let plan = plan.unwrap();
    let deletion = format!("DELETE /v2/app/manifests/{}", image.digest());
    fixture.between.disturb(&deletion, Disturbance::Lost);
    let removed = driver.remove(&plan).await.unwrap();
    assert_eq!(removed["manifests"], json!([image.digest()]));
}

#[tokio::test]
async fn a_registry_that_deletes_nothing_says_so_and_loses_nothing() {
    let mut fixture = Fixture::new(false).await;
    let driver = driver(&fixture.gateway).await;
    let image = Image::small(1);
    fixture.client.push("app", "v1", &image).await;
    let plan = driver.plan("app", &["v1"], &[]).await.unwrap();
    let error = driver.remove(&plan).await.unwrap_err();
    assert!(error.contains("storage.delete.enabled"), "{error}");
    assert!(error.contains("cannot do this"), "{error}");
    fixture.has("v1", &image).await;
}

/// While a manifest is deleted, nobody gives it a tag through moorgate: the tag would go with it.
#[tokio::test]
async fn a_push_waits_for_a_deletion_in_its_repository() {
    let mut fixture = Fixture::new(true).await;
    let driver = driver(&fixture.gateway).await;
    let (image, other) = (Image::small(1), Image::small(2));
    fixture.client.push("app", "v1", &image).await;
    fixture.client.push("other", "v1", &other).await;
    let plan = driver.plan("app", &["v1"], &[&image.digest()]).await;
    let plan = plan.unwrap();
    let deletion = format!("DELETE /v2/app/manifests/{}", image.digest());
    let permits = Arc::new(Semaphore::new(0));
    fixture
        .between
        .disturb(&deletion, Disturbance::Held(permits.clone()));
    fixture.between.take();
    let mut pusher = fixture.client.another();
    let put = "PUT /v2/app/manifests/new";
    let pushing = async {
        fixture.between.has_seen(&deletion, 1).await;
        let pushed = pusher.push_manifest("app", "new", &image.manifest);
        let mut pushed = std::pin::pin!(pushed);
        for _ in 0..100 {
            tokio::select! {
                biased;
                _ = &mut pushed => panic!("it was pushed"),
                () = settle() => {}
            }
        }
        assert_eq!(fixture.between.count(put), 0);
        // Another repository is free.
        let mut elsewhere = fixture.client.another();
        let free = elsewhere.push_manifest("other", "v2", &other.manifest);
        Box::pin(promptly(free)).await.is(201);
        permits.add_permits(1);
        pushed.await.is(201);
    };
    let (removed, ()) = tokio::join!(driver.remove(&plan), pushing);
    assert_eq!(removed.unwrap()["manifests"], json!([image.digest()]));
    fixture.has("new", &image).await;
    assert!(fixture.between.count(DELETE_DIGEST) >= 1);
}
