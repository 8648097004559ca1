//! A registry that takes no more requests for now, at each product.

use std::time::Duration;

use super::fixture::{NAME, ProductFixture, products};
use super::observed::image;
use crate::harness::Clock;

/// Docker stops at this code, and others wait for the time that is named.
#[tokio::test]
async fn throttling_is_told_with_a_time_to_wait() {
    // A plain registry says what it says.
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        let digest = crate::harness::played::digest(manifest.to_string().as_bytes());
        let manifest = manifest.to_string();
        let kind = "content-type: application/vnd.oci.image.manifest.v1+json";
        for (method, target, lines, body) in [
            ("GET", format!("/v2/{NAME}/manifests/v1"), vec![], ""),
            ("GET", format!("/v2/{NAME}/manifests/{digest}"), vec![], ""),
            ("GET", format!("/v2/{NAME}/tags/list"), vec![], ""),
            ("POST", format!("/v2/{NAME}/blobs/uploads/"), vec![], ""),
            (
                "PUT",
                format!("/v2/{NAME}/manifests/v2"),
                vec![kind],
                &manifest,
            ),
            (
                "DELETE",
                format!("/v2/{NAME}/manifests/{digest}"),
                vec![],
                "",
            ),
        ] {
            if method == "DELETE" && product == "ghcr" {
                // By its API.
                continue;
            }
            fixture.played.set(|switches| switches.throttled = 1);
            let body = body.as_bytes();
            let refused = fixture.alice.send(method, &target, &lines, body).await;
            fixture.refused(&refused, (429, "TOOMANYREQUESTS"), "");
            if product != "distribution" {
                let wait = refused.header("retry-after").map(str::parse::<u16>);
                let wait = wait.unwrap().unwrap();
                assert!((1..=3600).contains(&wait), "{product} {wait}");
            }
            assert_eq!(fixture.played.switches().throttled, 0);
        }
        fixture.expect(&fixture.manifest("v1").await, 200);
        fixture.push("v2", b"other").await;
    }
}

#[tokio::test]
async fn head_is_throttled_as_get_is() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let layer = fixture.alice.push_blob(NAME, b"layer").await;
        fixture.alice.push_blob(NAME, b"{}").await;
        fixture
            .alice
            .push_manifest(NAME, "v1", &image(&layer))
            .await;
        fixture.played.set(|switches| switches.throttled = 1);
        let target = format!("/v2/{NAME}/manifests/v1");
        let refused = fixture.alice.send("HEAD", &target, &[], b"").await;
        fixture.expect(&refused, 429);
    }
}

/// A service that exchanges credentials is no fault of these, and works again later.
#[tokio::test]
async fn a_throttled_exchange_is_told_with_a_time_to_wait() {
    let exchanging = |product: &&str| !["acr", "distribution", "gar", "harbor"].contains(product);
    let clock = Clock::stopped();
    for product in products().filter(exchanging) {
        let fixture = ProductFixture::new(product).await;
        let manifest = image(&fixture.played.put_blob(NAME, b"layer"));
        fixture.played.put_manifest(NAME, Some("v1"), &manifest);
        fixture.played.set(|switches| {
            switches.tokens_throttled = 1;
            // Entra is asked first for what the registry then exchanges.
            switches.api_throttled = usize::from(product != "acr with Entra");
        });
        for _ in 0..2 {
            let refused = fixture.manifest("v1").await;
            fixture.refused(&refused, (429, "TOOMANYREQUESTS"), "");
            let wait = refused.header("retry-after").map(str::parse::<u16>);
            let wait = wait.unwrap().unwrap();
            assert!((1..=3600).contains(&wait), "{product} {wait}");
        }
        clock.jump(Duration::from_secs(11)).await;
        fixture.expect(&fixture.manifest("v1").await, 200);
    }
}
