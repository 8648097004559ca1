//! Tags that nobody may move, at each product that has such.

use super::fixture::{NAME, ProductFixture, products};
use super::observed::image;
use crate::harness::played::digest;

/// The products, and whether a tag cannot be deleted either.
fn immutable() -> impl Iterator<Item = (&'static str, bool)> {
    let all = products().filter(|product| !["distribution", "ghcr"].contains(product));
    all.map(|product| (product, product != "ecr"))
}

#[tokio::test]
async fn the_same_manifest_is_there_and_another_is_denied() {
    for (product, keeps_tags) in immutable() {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        let found = digest(manifest.to_string().as_bytes());
        let other = image(&fixture.alice.push_blob(NAME, b"other").await);
        fixture
            .played
            .set(|switches| switches.has_immutable_tags = true);
        let same = fixture.alice.push_manifest(NAME, "v1", &manifest).await;
        fixture.expect(&same, 201);
        assert_eq!(same.header("docker-content-digest"), Some(found.as_str()));
        let location = format!("/v2/{NAME}/manifests/{found}");
        assert_eq!(same.location(), location, "{product}");

        let words = fixture.played.switches().immutable_tag.message;
        let words = words.replace("{name}", NAME).replace("{tag}", "v1");
        let refused = fixture.alice.push_manifest(NAME, "v1", &other).await;
        fixture.refused(&refused, (403, "DENIED"), &words);
        assert_eq!(fixture.played.tags(NAME), [("v1".to_owned(), found)]);
        if keeps_tags {
            let refused = fixture.delete("v1").await;
            fixture.expect(&refused, 403);
            assert_eq!(refused.code().as_deref(), Some("DENIED"), "{product}");
            assert_eq!(fixture.tags(), ["v1"], "{product}");
        }
        // Others may still come.
        fixture.tag("v2", &other).await;
    }
}
