//! What clients do with a registry, the same for each product: one login, and answers of the
//! distribution specification.

use serde_json::{Value, json};

use super::fixture::{NAME, ProductFixture, products};
use crate::harness::played::{Recipient, digest};
use crate::harness::registry_client::with_digest;
use crate::harness::{RegistryClient, basic};

#[tokio::test]
async fn alice_logs_in_and_others_do_not() {
    for product in products() {
        let mut fixture = ProductFixture::new(product).await;
        fixture.expect(&fixture.alice.get("/v2/").await, 200);
        fixture.played.take();
        for wrong in [None, Some(basic("alice", "wrong"))] {
            fixture.alice.authorization = wrong;
            for target in ["/v2/", "/v2/acme/app/tags/list"] {
                let refused = fixture.alice.get(target).await;
                fixture.expect(&refused, 401);
                let challenge = refused.header("www-authenticate");
                assert_eq!(challenge, Some("Basic realm=\"ci.test\""));
            }
        }
        assert!(fixture.played.take().is_empty(), "{product}");
    }
}

#[tokio::test]
async fn images_are_pushed_and_pulled() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let manifest = fixture.push("v1", b"layer").await;
        let found = digest(manifest.to_string().as_bytes());
        assert_eq!(
            fixture.played.tags(NAME),
            [("v1".to_owned(), found.clone())]
        );
        for reference in ["v1", &found] {
            let pulled = fixture.manifest(reference).await;
            fixture.expect(&pulled, 200);
            assert_eq!(pulled.body, manifest.to_string(), "{product}");
        }
        let target = format!("/v2/{NAME}/blobs/{}", digest(b"layer"));
        let mut blob = fixture.alice.get(&target).await;
        if fixture.played.switches().redirects_blobs {
            fixture.expect(&blob, 307);
            let storage = RegistryClient::plain(fixture.played.addresses().storage, None);
            blob = storage.get(&blob.location()).await;
        }
        fixture.expect(&blob, 200);
        assert_eq!(&blob.body[..], b"layer", "{product}");
        let head = fixture.alice.send("HEAD", &target, &[], b"").await;
        fixture.expect(&head, 200);
    }
}

/// Whatever the registry hears is moorgate's own: its credentials, or a token for them.
#[tokio::test]
async fn the_registry_hears_of_no_client() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        fixture.push("v1", b"layer").await;
        fixture.manifest("v1").await;
        let alice = basic("alice", "secret");
        let own = &fixture.played.switches().credentials;
        let own = basic(&own.user, &own.password);
        let signed = "AWS4-HMAC-SHA256 Credential=AKIAPLAYED/";
        let requests = fixture.played.take();
        assert!(requests.len() > 5, "{product}");
        for request in &requests {
            let authorization = request.header("authorization");
            assert_ne!(authorization, Some(alice.as_str()), "{product} {request:?}");
            let bearer = authorization.is_some_and(|value| value.starts_with("Bearer played-"));
            let is_signed = authorization.is_some_and(|value| value.starts_with(signed));
            let is_of_ecr = product == "ecr" && authorization.is_some();
            let is_own = authorization == Some(&own) || bearer || is_signed || is_of_ecr;
            assert!(is_own || authorization.is_none(), "{product} {request:?}");
        }
        assert!(
            requests
                .iter()
                .all(|request| request.to != Recipient::Storage)
        );
    }
}

#[tokio::test]
async fn tags_are_listed() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        for tag in ["v1", "v2", "v3"] {
            fixture.push(tag, tag.as_bytes()).await;
        }
        let mut found = Vec::new();
        let mut next = Some(format!("/v2/{NAME}/tags/list?n=2"));
        while let Some(target) = next {
            let page = fixture.alice.get(&target).await;
            fixture.expect(&page, 200);
            let list = page.json();
            assert_eq!(list["name"], NAME, "{product}");
            found.extend(list["tags"].as_array().unwrap().clone());
            let link = page.header("link");
            next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
        }
        assert_eq!(found, ["v1", "v2", "v3"], "{product}");
    }
}

#[tokio::test]
async fn an_index_is_pushed_with_its_images() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let mut parts = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let image = fixture.push(architecture, architecture.as_bytes()).await;
            let image = image.to_string();
            parts.push(json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(image.as_bytes()),
                "size": image.len(),
                "platform": {"os": "linux", "architecture": architecture},
            }));
        }
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": parts});
        let pushed = fixture.alice.push_manifest(NAME, "multi", &index).await;
        fixture.expect(&pushed, 201);
        let pulled = fixture.manifest("multi").await;
        fixture.expect(&pulled, 200);
        assert_eq!(pulled.header("content-type"), Some(kind), "{product}");
        assert_eq!(pulled.json(), index, "{product}");
    }
}

#[tokio::test]
async fn referrers_are_listed_where_there_are_any() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let subject = fixture.push("v1", b"layer").await.to_string();
        let subject_digest = digest(subject.as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let signature = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "artifactType": "application/signature",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json",
                       "digest": digest(b"{}"), "size": 2},
            "layers": [],
            "subject": {"mediaType": kind, "digest": subject_digest, "size": subject.len()},
        });
        let own = digest(signature.to_string().as_bytes());
        let pushed = fixture.alice.push_manifest(NAME, &own, &signature).await;
        fixture.expect(&pushed, 201);
        let target = format!("/v2/{NAME}/referrers/{subject_digest}");
        let referrers = fixture.alice.get(&target).await;
        if !fixture.played.switches().has_referrers {
            // Clients then use tags for them.
            fixture.expect(&referrers, 404);
            continue;
        }
        fixture.expect(&referrers, 200);
        assert_eq!(pushed.header("oci-subject"), Some(subject_digest.as_str()));
        assert_eq!(referrers.json()["manifests"][0]["digest"], own, "{product}");
    }
}

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

#[tokio::test]
async fn throttling_is_passed_on() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        fixture.push("v1", b"layer").await;
        fixture.played.set(|switches| switches.throttled = 1);
        fixture.expect(&fixture.manifest("v1").await, 429);
        fixture.expect(&fixture.manifest("v1").await, 200);
    }
}

#[tokio::test]
async fn chunks_are_taken_by_each() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        // More than GHCR takes in one chunk.
        let size = if product == "ghcr" { (4 << 20) + 1 } else { 5 };
        let blob = vec![b'a'; 3 * size];
        let target = format!("/v2/{NAME}/blobs/uploads/");
        let mut upload = fixture.alice.send("POST", &target, &[], b"").await;
        fixture.expect(&upload, 202);
        for (index, chunk) in blob.chunks(size).enumerate() {
            let begin = index * size;
            let range = format!("content-range: {begin}-{}", begin + size - 1);
            let location = upload.location();
            upload = fixture
                .alice
                .send("PATCH", &location, &[&range], chunk)
                .await;
            fixture.expect(&upload, 202);
            let end = format!("0-{}", begin + size - 1);
            assert_eq!(upload.header("range"), Some(end.as_str()), "{product}");
        }
        let digest = digest(&blob);
        let end = with_digest(&upload.location(), &digest);
        let done = fixture.alice.send("PUT", &end, &[], b"").await;
        fixture.expect(&done, 201);
        let target = format!("/v2/{NAME}/blobs/{digest}");
        let head = fixture.alice.send("HEAD", &target, &[], b"").await;
        fixture.expect(&head, 200);
        let length = blob.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
    }
}

#[tokio::test]
async fn errors_are_those_of_the_specification() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let digest = digest(b"none");
        for (target, code) in [
            (format!("/v2/{NAME}/manifests/none"), "MANIFEST_UNKNOWN"),
            (format!("/v2/{NAME}/manifests/{digest}"), "MANIFEST_UNKNOWN"),
            (format!("/v2/{NAME}/blobs/{digest}"), "BLOB_UNKNOWN"),
        ] {
            let answer = fixture.alice.get(&target).await;
            fixture.expect(&answer, 404);
            assert_eq!(answer.code().as_deref(), Some(code), "{product}");
            assert_ne!(answer.json()["errors"][0]["message"], Value::Null);
        }
    }
}
