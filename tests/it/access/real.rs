//! What rules demand of a tag, before Debian's docker-registry 2.8.

use super::fixture::allow;
use crate::harness::Gateway;
use crate::products_deletion::between::{Between, client};
use crate::store::client::{Answer, Client};
use crate::store::image::{Image, MANIFEST};

struct RealRegistry {
    _registry: Between,
    gateway: Gateway,
    client: Client,
}

impl RealRegistry {
    async fn new(rules: &str) -> Self {
        let registry = Between::new(true).await;
        let gateway = registry.gateway("", rules).await;
        let client = client(&gateway);
        Self {
            _registry: registry,
            gateway,
            client,
        }
    }

    async fn rules(&self, from: &str, to: &str) {
        let path = self.gateway.path("conf.d/ci.test.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replace(from, to)).unwrap();
        self.gateway.app.reload().await.unwrap();
    }

    async fn put(&mut self, repository: &str, tag: &str, image: &Image) -> Answer {
        let target = format!("/v2/{repository}/manifests/{tag}");
        let kind = [("content-type", MANIFEST)];
        let manifest = image.manifest.clone();
        self.client.ask_with("PUT", &target, &kind, manifest).await
    }

    /// The registry gives a manifest only to those who accept it.
    async fn manifest(&mut self, repository: &str, tag: &str) -> Answer {
        let target = format!("/v2/{repository}/manifests/{tag}");
        let accept = [("accept", MANIFEST)];
        self.client.ask_with("GET", &target, &accept, "").await
    }

    async fn push_blobs(&mut self, repository: &str, image: &Image) {
        for blob in image.blobs() {
            self.client.push_blob(repository, blob).await;
        }
    }
}

#[tokio::test]
async fn a_release_is_what_was_built() {
    let everything = "'pull', 'push', 'overwrite'";
    let rules = format!(
        "{}{}from = 'ci/**'\n",
        allow("ci/**", everything),
        allow("release/**", everything)
    );
    let mut registry = RealRegistry::new(&rules.replace("'alice'", "'*'")).await;
    let (built, newer, foreign) = (Image::small(1), Image::small(2), Image::small(3));
    registry.client.push("ci/app", "main", &built).await;
    registry.client.push("ci/app", "next", &newer).await;
    for image in [&built, &newer, &foreign] {
        registry.push_blobs("release/app", image).await;
    }
    let refused = registry.put("release/app", "v1", &foreign).await;
    let message = refused.refused(403, "DENIED");
    assert!(message.contains("of ci/**"), "{message}");
    registry.manifest("release/app", "v1").await.is(404);
    registry.put("release/app", "v1", &built).await.is(201);
    let refused = registry.put("release/app", "v1", &foreign).await;
    refused.refused(403, "DENIED");
    registry.put("release/app", "v1", &newer).await.is(201);
    let there = registry.manifest("release/app", "v1").await.is(200);
    assert_eq!(there.body, newer.manifest);
}

#[tokio::test]
async fn a_tag_is_moved_only_while_it_is_young() {
    let rules = format!(
        "{}immutable_after = '1h'\n",
        allow("**", "'pull', 'push', 'overwrite', 'delete-tag'")
    );
    let mut registry = RealRegistry::new(&rules.replace("'alice'", "'*'")).await;
    let (one, other) = (Image::small(1), Image::small(2));
    for image in [&one, &other] {
        registry.push_blobs("base/app", image).await;
    }
    for image in [&one, &other, &one] {
        registry.put("base/app", "v1", image).await.is(201);
    }
    // No push is younger than a millisecond when it is checked.
    registry.rules("'1h'", "'1ms'").await;
    let refused = registry.put("base/app", "v1", &other).await;
    let message = refused.refused(403, "DENIED");
    assert!(
        message.contains("immutable 1ms after its push"),
        "{message}"
    );
    let target = "/v2/base/app/manifests/v1";
    let refused = registry.client.ask("DELETE", target).await;
    refused.refused(403, "DENIED");
    registry.put("base/app", "v1", &one).await.is(201);
    registry.put("base/app", "v2", &other).await.is(201);
    let there = registry.manifest("base/app", "v1").await.is(200);
    assert_eq!(there.body, one.manifest);
}
