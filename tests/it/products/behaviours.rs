//! What clients do with a registry, the same for each product: one login, and answers of the
//! distribution specification.

use serde_json::{Value, json};

use super::fixture::{INDEX, NAME, ProductFixture, products};
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
            let bearer = authorization
                .is_some_and(|value| value.starts_with("Bearer ") && value.contains("played-"));
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
async fn an_index_is_pushed_with_its_images() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let (index, _) = fixture.push_index("multi").await;
        let pulled = fixture.manifest("multi").await;
        fixture.expect(&pulled, 200);
        assert_eq!(pulled.header("content-type"), Some(INDEX), "{product}");
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

/// A mount is made, or is the beginning of an upload: clients know no third answer.
#[tokio::test]
async fn blobs_are_mounted_or_uploaded() {
    for product in products() {
        let fixture = ProductFixture::new(product).await;
        let digest = fixture.played.put_blob("acme/base", b"layer");
        for from in [
            "&from=acme/base",
            "",
            "&from=acme/none",
            "&from=acme/base&origin=ci.test",
        ] {
            let target = format!("/v2/{NAME}/blobs/uploads/?mount={digest}{from}");
            let begun = fixture.alice.send("POST", &target, &[], b"").await;
            let status = begun.status;
            assert!([201, 202].contains(&status), "{product} {from} {begun:?}");
            if status == 201 {
                let blob = format!("/v2/{NAME}/blobs/{digest}");
                assert_eq!(begun.location(), blob, "{product}");
                continue;
            }
            let end = with_digest(&begun.location(), &digest);
            let done = fixture.alice.send("PUT", &end, &[], b"layer").await;
            fixture.expect(&done, 201);
        }
        let blob = format!("/v2/{NAME}/blobs/{digest}");
        let head = fixture.alice.send("HEAD", &blob, &[], b"").await;
        fixture.expect(&head, 200);
    }
}
