//! A Docker engine with the classic store pushes and pulls: one engine for all products.

use serde_json::json;

use super::super::engine::Engine;
use super::{PASSWORD, ProductsFixture, USER};

#[test]
fn docker_pushes_pulls_and_shows_what_the_product_says() {
    let fixture = ProductsFixture::new();
    let engine = Engine::start(&fixture.machine, &fixture.path().join("engine"));
    // One after the other: it keeps all logins in one file, and imports from another.
    for domain in &fixture.domains {
        let refused = engine.login(&domain.authority, USER, "wrong").failed();
        assert!(refused.contains("401 Unauthorized"), "{refused}");
        engine.login(&domain.authority, USER, PASSWORD).succeeded();
        for tag in [":v1", ":other"] {
            engine.import(&domain.image(tag));
        }
    }
    fixture.each(|domain| {
        engine.push_and_pull(&domain.image(":v1"));
        assert_eq!(domain.tags(), ["v1"], "{}", domain.product);
    });
    fixture.each(|domain| {
        let product = domain.product;
        // Its layer is mounted, or sent again where nothing is.
        domain.played.make_repository("acme/other");
        let other = format!("{}/acme/other:v1", domain.authority);
        engine
            .docker(&["tag", &domain.image(":v1"), &other])
            .succeeded();
        engine.docker(&["push", &other]).succeeded();
        assert_eq!(domain.played.tags("acme/other").len(), 1, "{product}");
        // Of an index, it takes the image of its platform.
        let (_, digest) = domain.played.tags(super::NAME).swap_remove(0);
        let part = |architecture: &str, digest: &str| {
            json!({
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "digest": digest,
                "size": 1,
                "platform": { "architecture": architecture, "os": "linux" },
            })
        };
        let none = format!("sha256:{}", "0".repeat(64));
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
            "manifests": [part("arm64", &none), part("amd64", &digest)],
        });
        let played = &domain.played;
        played.put_manifest(super::NAME, Some("multi"), &index);
        engine
            .docker(&["pull", &domain.image(":multi")])
            .succeeded();
        let [one, multi] = [":v1", ":multi"].map(|tag| engine.image_id(&domain.image(tag)));
        assert_eq!(one, multi, "{product}");
    });
    // The same again is fine at a tag that nobody may move, and another image is not: Docker does
    // not try that again, and shows why.
    fixture.each(|domain| {
        let product = domain.product;
        if ["distribution", "ghcr"].contains(&product) {
            return;
        }
        domain
            .played
            .set(|switches| switches.has_immutable_tags = true);
        let name = domain.image(":v1");
        engine.docker(&["push", &name]).succeeded();
        let other = domain.image(":other");
        engine
            .docker(&["image", "rm", "--force", &name])
            .succeeded();
        engine.docker(&["tag", &other, &name]).succeeded();
        let refused = engine.docker(&["push", &name]).failed();
        assert!(refused.contains("denied: "), "{product}: {refused}");
        let words = domain.played.switches().immutable_tag.message;
        let words = words.replace("{name}", super::NAME).replace("{tag}", "v1");
        assert!(refused.contains(&words), "{product}: {refused}");
    });
}
