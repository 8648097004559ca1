//! Credentials at each product: what ends is replaced, and what is refused is no fault of a client.

use serde_json::json;

use super::fixture::{NAME, ProductFixture, products};

#[tokio::test]
async fn a_token_that_ended_or_was_revoked_is_replaced() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let target = format!("/v2/{NAME}/tags/list");
        let manifest = json!({"schemaVersion": 2, "mediaType": "a/b", "layers": []});
        fixture.played.put_manifest(NAME, Some("v1"), &manifest);
        fixture.expect(&fixture.alice.get(&target).await, 200);
        fixture.played.take();
        fixture.played.revoke_tokens();
        fixture.expect(&fixture.alice.get(&target).await, 200);
        fixture.played.advance(fixture.played.switches().token_life);
        fixture.expect(&fixture.alice.get(&target).await, 200);
        let expected = match product {
            // Passwords are sent as they are.
            "acr" | "distribution" | "gar" | "harbor" => 0,
            // The refresh token was revoked too, which shows when it is used.
            "acr with Entra" => 3,
            _ => 2,
        };
        assert_eq!(fixture.exchanges(), expected, "{product}");
    }
}

#[tokio::test]
async fn credentials_that_are_refused_are_no_fault_of_the_client() {
    let with_login = products().filter(|product| *product != "distribution");
    for product in with_login {
        let fixture = ProductFixture::new(product).await;
        fixture.push("v1", b"layer").await;
        fixture.played.revoke_tokens();
        let old = fixture.played.switches().credentials.password;
        fixture.played.set(|switches| {
            switches.credentials.password = "another".to_owned();
            switches.credentials.secret_key = "another".to_owned();
        });
        fixture.played.disable_service_account();
        fixture.played.take();
        for _ in 0..3 {
            let refused = fixture.manifest("v1").await;
            fixture.expect(&refused, 502);
            assert_eq!(refused.header("www-authenticate"), None, "{product}");
            let body = String::from_utf8_lossy(&refused.body).into_owned();
            assert!(!body.contains(&old), "{product} {body}");
        }
        // A refused exchange is not repeated for each request.
        assert!(fixture.exchanges() <= 1, "{product}");
    }
}
