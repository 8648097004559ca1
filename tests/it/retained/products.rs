//! Removal at each of the nine products, by the credentials that each takes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{RULES, driver};
use crate::harness::played::{PLAYED_PRODUCTS, digest};
use crate::harness::{jump, settle};
use crate::products::fixture::{NAME, ProductFixture, products};
use moorgate::internal::request::RetainedDriver;

async fn fixture(product: &'static str) -> (ProductFixture, RetainedDriver) {
    let fixture = ProductFixture::with(product, "", RULES).await;
    let driver = driver(&fixture.gateway).await;
    (fixture, driver)
}

fn digest_of(manifest: &Value) -> String {
    digest(manifest.to_string().as_bytes())
}

fn sorted(list: &Value) -> Vec<&str> {
    let mut texts: Vec<_> = list.as_array().unwrap().iter().collect();
    texts.sort_by_key(|text| text.as_str());
    texts.into_iter().filter_map(Value::as_str).collect()
}

/// Pushes something that refers to a manifest; its digest. By a tag where the registry lists none.
async fn push_referrer(fixture: &ProductFixture, subject: &Value) -> (String, Option<String>) {
    let subject = subject.to_string();
    let of = digest(subject.as_bytes());
    let layer = fixture.alice.push_blob(NAME, b"signature").await;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "artifactType": "application/vnd.test.signature",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/octet-stream", "digest": layer, "size": 9}],
        "subject": {"mediaType": kind, "digest": of, "size": subject.len()},
    });
    let found = digest_of(&referrer);
    let tag = of.replace(':', "-");
    let has_referrers = fixture.played.switches().has_referrers;
    let reference = if has_referrers { &found } else { &tag };
    fixture.tag(reference, &referrer).await;
    (found, (!has_referrers).then_some(tag))
}

#[tokio::test]
async fn what_goes_takes_nothing_else_along() {
    for product in products() {
        let (fixture, driver) = fixture(product).await;
        let shared = fixture.push("v1", b"layer").await;
        fixture.tag("v2", &shared).await;
        let (index, parts) = fixture.push_index("multi").await;
        let signed = fixture.push("signed", b"other").await;
        let (signature, signature_tag) = push_referrer(&fixture, &signed).await;
        let (shared, index, signed) = (digest_of(&shared), digest_of(&index), digest_of(&signed));

        let inventory = driver.inventory(NAME).await.unwrap();
        assert_eq!(inventory["tags"]["v1"], shared, "{product}");
        assert_eq!(inventory["tags"]["multi"], index, "{product}");
        let mut children = parts.clone();
        children.sort();
        let found = sorted(&inventory["images"][&index]["children"]);
        assert_eq!(found, children, "{product}");
        assert_eq!(
            inventory["images"][&signature]["subject"], signed,
            "{product}"
        );
        assert_eq!(
            inventory["images"].as_object().unwrap().len(),
            6,
            "{product}"
        );

        let mut tags = vec!["v1", "multi", "amd64", "arm64", "signed"];
        tags.extend(signature_tag.as_deref());
        let manifests = [&*index, &parts[0], &parts[1], &signed, &signature];
        let plan = driver.plan(NAME, &tags, &manifests).await.unwrap();
        let removed = driver.remove(&plan).await.unwrap();
        assert_eq!(removed["left"], json!([]), "{product}");
        assert_eq!(
            removed["tags"].as_array().unwrap().len(),
            tags.len(),
            "{product}"
        );
        let went = sorted(&removed["manifests"]);
        let mut expected = manifests.to_vec();
        expected.sort_unstable();
        assert_eq!(went, expected, "{product}");
        assert_eq!(fixture.tags(), ["v2"], "{product}");
        for manifest in manifests {
            assert!(
                !fixture.played.has_manifest(NAME, manifest),
                "{product} {manifest}"
            );
        }
        fixture.expect(&fixture.manifest("v2").await, 200);
        assert_eq!(driver.missing_of(NAME, "v2").await, Ok(None), "{product}");
        assert_eq!(driver.missing_of(NAME, "v1").await, Ok(None), "{product}");

        // Once more: what has gone is done.
        let again = driver.remove(&plan).await.unwrap();
        assert_eq!(again, removed, "{product}");
    }
}

/// AWS deletes an image with its last tag. One that is to stay, stays.
#[tokio::test]
async fn a_manifest_that_stays_outlives_its_last_tag() {
    for (product, _) in PLAYED_PRODUCTS {
        let (fixture, driver) = fixture(product).await;
        let image = fixture.push("v1", b"layer").await;
        fixture.push("other", b"other").await;
        let plan = driver.plan(NAME, &["v1"], &[]).await.unwrap();
        let removed = driver.remove(&plan).await.unwrap();
        assert_eq!(removed["tags"], json!(["v1"]), "{product}: {removed}");
        assert_eq!(fixture.tags(), ["other"], "{product}");
        let digest = digest_of(&image);
        assert!(fixture.played.has_manifest(NAME, &digest), "{product}");
    }
}

#[tokio::test]
async fn what_was_removed_is_put_back() {
    for (product, _) in PLAYED_PRODUCTS {
        let (fixture, driver) = fixture(product).await;
        fixture.push("other", b"other").await;
        let (index, parts) = fixture.push_index("multi").await;
        let text = index.to_string();
        let index = digest_of(&index);
        let manifests = [&*index, &parts[0], &parts[1]];
        let mut copies = Vec::new();
        for manifest in manifests {
            copies.push(driver.save(NAME, manifest).await.unwrap());
        }
        let tags = ["multi", "amd64", "arm64"];
        let plan = driver.plan(NAME, &tags, &manifests).await.unwrap();
        driver.remove(&plan).await.unwrap();
        assert_eq!(fixture.tags(), ["other"], "{product}");

        // What an index lists comes first.
        let missing = driver.restore(&copies[0], &["multi"]).await.unwrap_err();
        assert!(
            parts.iter().any(|part| missing.contains(part)),
            "{product}: {missing}"
        );
        for (copy, tags) in [(&copies[1], &["amd64", "other"][..]), (&copies[2], &[])] {
            let restored = driver.restore(copy, tags).await.unwrap();
            let expected = if tags.is_empty() {
                json!({"set": [], "taken": []})
            } else {
                json!({"set": ["amd64"], "taken": ["other"]})
            };
            assert_eq!(restored, expected, "{product}");
        }
        driver.restore(&copies[0], &["multi"]).await.unwrap();
        assert_eq!(fixture.tags(), ["amd64", "multi", "other"], "{product}");
        let pulled = fixture.manifest("multi").await;
        assert_eq!(pulled.body, text, "{product}");
        assert_eq!(
            driver.missing_of(NAME, "multi").await,
            Ok(None),
            "{product}"
        );
        let again = driver.restore(&copies[0], &["multi"]).await.unwrap();
        assert_eq!(again["set"], json!(["multi"]), "{product}");
    }
}

#[tokio::test]
async fn an_image_that_lacks_something_is_found() {
    let (fixture, driver) = fixture("distribution").await;
    let (_, parts) = fixture.push_index("multi").await;
    let layer = digest(b"arm64");
    let blob = format!("/v2/{NAME}/blobs/{layer}");
    fixture
        .alice
        .send("DELETE", &blob, &[], b"")
        .await
        .expect(202);
    assert_eq!(driver.missing_of(NAME, "multi").await, Ok(Some(layer)));
    fixture.expect(&fixture.delete(&parts[0]).await, 202);
    let missing = driver.missing_of(NAME, "multi").await.unwrap();
    assert_eq!(missing.as_deref(), Some(&*parts[0]));
}

/// What happens without a clock happens first, also where another thread takes part in it.
async fn idle() {
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        settle().await;
    }
    while begun.elapsed() < Duration::from_millis(5) {
        settle().await;
    }
}

/// Waits as long as the registry says, or ever longer where it does not, and not for ever.
#[tokio::test]
async fn a_registry_that_throttles_is_waited_for() {
    for (product, _) in PLAYED_PRODUCTS {
        let (fixture, driver) = fixture(product).await;
        fixture.push("v1", b"layer").await;
        let throttled = |count| fixture.played.set(|switches| switches.throttled = count);
        let left = || fixture.played.switches().throttled;
        driver.inventory(NAME).await.unwrap();
        for (count, passes) in [(2, true), (100, false)] {
            throttled(count);
            let mut reading = std::pin::pin!(driver.inventory(NAME));
            let mut seen = count;
            let mut due = Duration::ZERO;
            let read = loop {
                tokio::select! {
                    biased;
                    read = &mut reading => break read,
                    () = idle() => {}
                }
                if left() < seen {
                    seen = left();
                    due = Duration::from_secs(64);
                }
                // In steps: a token that ends meanwhile is renewed, which has a deadline, too.
                let step = due.min(Duration::from_secs(4));
                due -= step;
                jump(step).await;
            };
            assert_eq!(read.is_ok(), passes, "{product}: {read:?}");
            if let Err(error) = read {
                assert!(
                    error.contains("takes no more requests"),
                    "{product}: {error}"
                );
                assert!(left() > 80, "{product}: {}", left());
            }
        }
        throttled(0);
    }
}

/// The product says that the tag is for ever: the others go.
#[tokio::test]
async fn an_immutable_tag_is_left() {
    for product in ["gar", "harbor", "quay", "gitlab", "dockerhub"] {
        let (fixture, driver) = fixture(product).await;
        for tag in ["v1", "v2"] {
            fixture.push(tag, tag.as_bytes()).await;
        }
        let plan = driver.plan(NAME, &["v1", "v2"], &[]).await.unwrap();
        fixture
            .played
            .set(|switches| switches.has_immutable_tags = true);
        let removed = driver.remove(&plan).await.unwrap();
        assert_eq!(removed["tags"], json!([]), "{product}");
        assert_eq!(removed["left"].as_array().unwrap().len(), 2, "{product}");
        assert_eq!(fixture.tags(), ["v1", "v2"], "{product}");
    }
}

#[tokio::test]
async fn the_last_tag_of_a_package_is_left_at_github() {
    let (fixture, driver) = fixture("ghcr").await;
    let image = fixture.push("v1", b"layer").await;
    let digest = digest_of(&image);
    let plan = driver.plan(NAME, &["v1"], &[&digest]).await.unwrap();
    let removed = driver.remove(&plan).await.unwrap();
    assert_eq!(removed["tags"], json!([]));
    let left = removed["left"].to_string();
    assert!(left.contains("delete the package"), "{left}");
    assert_eq!(fixture.played.tags(NAME), [("v1".to_owned(), digest)]);
}
