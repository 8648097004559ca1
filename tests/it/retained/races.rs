//! What others do between a plan and its removal, and in the course of it.

use serde_json::json;

use super::{RULES, driver};
use crate::harness::played::{PLAYED_PRODUCTS, digest};
use crate::products::fixture::{INDEX, NAME, ProductFixture};

/// Somebody else moves the tag, at the registry itself.
#[tokio::test]
async fn a_tag_that_moved_since_the_plan_stays() {
    for (product, _) in PLAYED_PRODUCTS {
        let fixture = ProductFixture::with(product, "", RULES).await;
        let driver = driver(&fixture.gateway).await;
        let image = fixture.push("v1", b"layer").await;
        fixture.push("v2", b"other").await;
        let third = fixture.push("v3", b"third").await;
        let image = digest(image.to_string().as_bytes());
        let plan = driver.plan(NAME, &["v1", "v2"], &[&image]).await.unwrap();
        fixture.played.put_manifest(NAME, Some("v1"), &third);
        let removed = driver.remove(&plan).await.unwrap();
        assert_eq!(removed["tags"], json!(["v2"]), "{product}");
        let left = removed["left"].to_string();
        assert!(
            left.contains("v1 leads to another manifest"),
            "{product}: {left}"
        );
        // What it led to has no tag any more, and goes as planned.
        assert_eq!(removed["manifests"], json!([image]), "{product}");
        assert_eq!(fixture.tags(), ["v1", "v3"], "{product}");
    }
}

/// The deletion of a manifest would take the new tag with it, or what an index lists.
#[tokio::test]
async fn a_manifest_that_is_needed_since_the_plan_stays() {
    for (product, _) in PLAYED_PRODUCTS {
        for case in ["a new tag", "a tag that was there", "an index"] {
            let fixture = ProductFixture::with(product, "", RULES).await;
            let driver = driver(&fixture.gateway).await;
            let image = fixture.push("v1", b"layer").await;
            fixture.push("v2", b"other").await;
            let text = image.to_string();
            let found = digest(text.as_bytes());
            let plan = driver.plan(NAME, &["v1"], &[&found]).await.unwrap();
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
                "mediaType": image["mediaType"], "digest": found, "size": text.len(),
            }]});
            match case {
                "a new tag" => fixture.played.put_manifest(NAME, Some("new"), &image),
                "an index" => fixture.played.put_manifest(NAME, Some("new"), &index),
                _ => fixture.played.put_manifest(NAME, Some("v2"), &image),
            };
            let removed = driver.remove(&plan).await.unwrap();
            assert_eq!(
                removed["tags"],
                json!(["v1"]),
                "{product} {case}: {removed}"
            );
            assert_eq!(removed["manifests"], json!([]), "{product} {case}");
            let left = removed["left"].to_string();
            assert!(
                left.contains("a tag leads to it since the plan"),
                "{product}: {left}"
            );
            assert!(
                fixture.played.has_manifest(NAME, &found),
                "{product} {case}"
            );
            let tag = if case == "a tag that was there" {
                "v2"
            } else {
                "new"
            };
            assert_eq!(
                driver.missing_of(NAME, tag).await,
                Ok(None),
                "{product} {case}"
            );
        }
    }
}

/// What clients do through moorgate counts, also with what an index lists.
#[tokio::test]
async fn what_is_used_since_the_plan_stays() {
    for product in ["distribution", "ecr", "ghcr"] {
        let fixture = ProductFixture::with(product, "", RULES).await;
        let driver = driver(&fixture.gateway).await;
        let mut images = Vec::new();
        for layer in ["other", "pulled", "pushed", "child", "alone", "unused"] {
            let layer = fixture.alice.push_blob(NAME, layer.as_bytes()).await;
            fixture.alice.push_blob(NAME, b"{}").await;
            images.push(crate::products::observed::image(&layer));
        }
        // Nobody has seen these pushes.
        let put = |tag, image| fixture.played.put_manifest(NAME, tag, image);
        let child = images[3].to_string();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            "mediaType": images[3]["mediaType"], "digest": digest(child.as_bytes()),
            "size": child.len(),
        }]});
        put(Some("other"), &images[0]);
        put(Some("pulled"), &images[1]);
        put(Some("pushed"), &images[2]);
        let child = put(None, &images[3]);
        put(Some("multi"), &index);
        let alone = put(Some("alone"), &images[4]);
        let unused = put(Some("unused"), &images[5]);
        let inventory = driver.inventory(NAME).await.unwrap();
        assert_eq!(inventory["recorded"], true, "{product}");
        let tags = ["pulled", "pushed", "multi", "unused", "alone"];
        let plan = driver.plan(NAME, &tags, &[&unused, &alone]).await.unwrap();
        let only_alone = driver.plan(NAME, &[], &[&alone]).await.unwrap();

        fixture.expect(&fixture.manifest("pulled").await, 200);
        fixture.tag("pushed", &images[2]).await;
        fixture.expect(&fixture.manifest(&child).await, 200);
        let removed = driver.remove(&plan).await.unwrap();
        assert_eq!(removed["tags"], json!(["unused", "alone"]), "{product}");
        let left = removed["left"].to_string();
        for words in [
            "pulled was pulled since the plan",
            "pushed was pushed since the plan",
            "multi was pulled since the plan",
        ] {
            assert!(left.contains(words), "{product}: {left}");
        }
        assert_eq!(removed["manifests"], json!([unused, alone]), "{product}");

        // The same of a manifest without a tag.
        put(None, &images[4]);
        fixture.expect(&fixture.manifest(&alone).await, 200);
        let removed = driver.remove(&only_alone).await.unwrap();
        assert_eq!(removed["manifests"], json!([]), "{product}");
        assert!(
            removed["left"].to_string().contains("it was pulled since"),
            "{product}"
        );
        assert!(fixture.played.has_manifest(NAME, &alone), "{product}");
    }
}

/// A signature is led to by a tag that names its subject.
#[tokio::test]
async fn a_signature_stays_with_its_subject() {
    for (product, _) in PLAYED_PRODUCTS {
        for is_pulled in [true, false] {
            let fixture = ProductFixture::with(product, "", RULES).await;
            let driver = driver(&fixture.gateway).await;
            let mut images = Vec::new();
            for layer in ["image", "signature", "other"] {
                let layer = fixture.alice.push_blob(NAME, layer.as_bytes()).await;
                fixture.alice.push_blob(NAME, b"{}").await;
                images.push(crate::products::observed::image(&layer));
            }
            let put = |tag, image| fixture.played.put_manifest(NAME, Some(tag), image);
            let image = put("v1", &images[0]);
            let tag = format!("{}.sig", image.replace(':', "-"));
            let signature = put(&tag, &images[1]);
            put("v2", &images[2]);
            // In the order of a plan, which is that of names.
            let tags = [&*tag, "v1"];
            let manifests = [&*image, &*signature];
            let plan = driver.plan(NAME, &tags, &manifests).await.unwrap();
            if is_pulled {
                fixture.expect(&fixture.manifest("v1").await, 200);
            }
            let removed = driver.remove(&plan).await.unwrap();
            if is_pulled {
                assert_eq!(removed["tags"], json!([]), "{product}: {removed}");
                assert_eq!(removed["manifests"], json!([]), "{product}: {removed}");
                assert_eq!(fixture.tags(), [&*tag, "v1", "v2"], "{product}");
            } else {
                // The subject first.
                assert_eq!(removed["tags"], json!(["v1", tag]), "{product}: {removed}");
                assert_eq!(removed["manifests"], json!(manifests), "{product}");
                assert_eq!(fixture.tags(), ["v2"], "{product}");
            }
        }
    }
}
