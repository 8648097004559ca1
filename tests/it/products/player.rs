//! The player itself: what it checks, and what is different at each product.

use std::time::Duration;

use serde_json::json;

use crate::harness::played::{PLAYED_PRODUCTS, PlayedRegistry, RegistryDeletion, digest};
use crate::harness::registry_client::with_digest;
use crate::harness::{RegistryClient, basic};

/// A repository that every product takes: in a project, or in a namespace of its own.
const NAME: &str = "acme/app";

const SCOPE: &str = "repository:acme/app:pull,push";

async fn started(product: &str) -> PlayedRegistry {
    let (_, switches) = PLAYED_PRODUCTS
        .iter()
        .find(|(name, _)| *name == product)
        .unwrap();
    let played = PlayedRegistry::start(switches()).await;
    played.make_repository(NAME);
    played
}

/// A manifest whose parts the repository has.
async fn pushed(client: &RegistryClient, tag: &str) -> String {
    let config = client.push_blob(NAME, b"{}").await;
    let layer = client.push_blob(NAME, tag.as_bytes()).await;
    let kind = "application/vnd.oci.image.";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": format!("{kind}manifest.v1+json"),
        "config": {"mediaType": format!("{kind}config.v1+json"), "digest": config, "size": 2},
        "layers": [{"mediaType": format!("{kind}layer.v1.tar"), "digest": layer,
                    "size": tag.len()}],
    });
    client.push_manifest(NAME, tag, &manifest).await.expect(201);
    digest(manifest.to_string().as_bytes())
}

#[tokio::test]
async fn each_product_takes_its_own_credentials_and_no_others() {
    for (product, _) in PLAYED_PRODUCTS {
        let played = started(product).await;
        let client = played.client(SCOPE).await;
        let digest = pushed(&client, "v1").await;
        assert_eq!(played.tags(NAME), [("v1".to_owned(), digest)], "{product}");
        let list = client.get(&format!("/v2/{NAME}/tags/list")).await;
        assert_eq!(list.json()["tags"], json!(["v1"]), "{product}");

        let wrong = basic("robot", "wrong");
        for authorization in [None, Some("Bearer wrong"), Some(&wrong)] {
            let stranger = RegistryClient::plain(played.addresses().registry, authorization);
            let answer = stranger.get(&format!("/v2/{NAME}/tags/list")).await;
            let expected = if product == "distribution" { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{product} {authorization:?}");
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            let is_bearer = challenge.starts_with("Bearer realm=\"http://127.0.0.1:");
            let is_basic = challenge.starts_with("Basic realm=");
            assert_eq!(is_bearer || is_basic, expected == 401, "{challenge}");
        }
    }
}

#[tokio::test]
async fn each_product_is_told_by_its_challenge() {
    for (played, told) in [
        (PlayedRegistry::acr().await, "/oauth2/token\""),
        (PlayedRegistry::distribution().await, ""),
        (
            PlayedRegistry::dockerhub().await,
            "service=\"registry.docker.io\"",
        ),
        (PlayedRegistry::ecr().await, "service=\"ecr.amazonaws.com\""),
        (PlayedRegistry::gar().await, "/v2/token\""),
        (PlayedRegistry::ghcr().await, "service=\"ghcr.io\""),
        (
            PlayedRegistry::gitlab().await,
            "service=\"container_registry\"",
        ),
        (
            PlayedRegistry::harbor().await,
            "service=\"harbor-registry\"",
        ),
        (PlayedRegistry::quay().await, "/v2/auth\""),
    ] {
        let ping = RegistryClient::plain(played.addresses().registry, None);
        let ping = ping.get("/v2/").await;
        let challenge = ping.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains(told), "{challenge}");
        assert_eq!(played.take_lines(), ["registry GET /v2/"]);
    }
}

#[tokio::test]
async fn tokens_end_by_the_clock_and_when_they_are_revoked() {
    for product in [
        "acr",
        "dockerhub",
        "gar",
        "ghcr",
        "gitlab",
        "harbor",
        "quay",
    ] {
        let played = started(product).await;
        let target = format!("/v2/{NAME}/manifests/none");
        let client = played.client(SCOPE).await;
        let life = played.switches().token_life;
        client.get(&target).await.expect(404);
        played.advance(life - Duration::from_secs(1));
        client.get(&target).await.expect(404);
        played.advance(Duration::from_secs(1));
        client.get(&target).await.expect(401);

        let client = played.client(SCOPE).await;
        client.get(&target).await.expect(404);
        played.revoke_tokens();
        client.get(&target).await.expect(401);
        // A token is for its scope.
        let other = played.client("repository:acme/other:pull").await;
        other.get(&target).await.expect(401);
    }
}

#[tokio::test]
async fn quay_gives_no_token_for_a_scope_with_delete() {
    let played = started("quay").await;
    let own = played.switches().credentials;
    let pair = basic(&own.user, &own.password);
    let realm = RegistryClient::plain(played.addresses().registry, Some(&pair));
    let target = "/v2/auth?service=quay.io&scope=repository:acme/app:";
    realm
        .get(&format!("{target}pull,push,delete"))
        .await
        .expect(400);
    realm.get(&format!("{target}pull,push")).await.expect(200);
}

#[tokio::test]
async fn a_missing_repository_is_told_in_each_products_words() {
    for (product, status, code) in [
        ("acr", 202, None),
        ("distribution", 202, None),
        ("dockerhub", 202, None),
        ("ecr", 404, Some("NAME_UNKNOWN")),
        ("gar", 404, Some("NAME_UNKNOWN")),
        ("ghcr", 202, None),
        ("gitlab", 401, Some("UNAUTHORIZED")),
        ("harbor", 401, Some("UNAUTHORIZED")),
        ("quay", 202, None),
    ] {
        let played = started(product).await;
        let client = played.client("repository:none/app:pull,push").await;
        let answer = client.send("POST", "/v2/none/app/blobs/uploads/", &[], b"");
        let answer = answer.await;
        assert_eq!(answer.status, status, "{product}");
        assert_eq!(answer.code().as_deref(), code, "{product}");
        if product == "harbor" {
            assert_eq!(answer.header("www-authenticate"), Some(""));
        }
    }
}

#[tokio::test]
async fn deletion_is_refused_in_each_products_words() {
    for (product, tag, tagged_digest) in [
        ("acr", (405, Some("UNSUPPORTED")), (202, None)),
        ("distribution", (400, Some("DIGEST_INVALID")), (202, None)),
        (
            "dockerhub",
            (405, Some("UNSUPPORTED")),
            (403, Some("DENIED")),
        ),
        ("ecr", (400, Some("UNSUPPORTED")), (202, None)),
        (
            "gar",
            (202, None),
            (400, Some("GOOGLE_MANIFEST_DANGLING_TAG")),
        ),
        (
            "ghcr",
            (405, Some("UNSUPPORTED")),
            (405, Some("UNSUPPORTED")),
        ),
        ("gitlab", (202, None), (202, None)),
        ("harbor", (400, Some("UNSUPPORTED")), (202, None)),
        ("quay", (202, None), (202, None)),
    ] {
        let played = started(product).await;
        let client = played.client(SCOPE).await;
        let digest = pushed(&client, "v1").await;
        pushed(&client, "v2").await;
        let action = played.switches().delete_action;
        let client = played.client(&format!("repository:{NAME}:{action}")).await;
        for (reference, (status, code)) in [("v2", tag), (digest.as_str(), tagged_digest)] {
            let target = format!("/v2/{NAME}/manifests/{reference}");
            let answer = client.send("DELETE", &target, &[], b"").await;
            assert_eq!(answer.status, status, "{product} {reference}");
            assert_eq!(answer.code().as_deref(), code, "{product} {reference}");
        }
    }
    let played = started("harbor").await;
    played.set(|switches| switches.tag_deletion = RegistryDeletion::NoRoute);
    let client = played.client(SCOPE).await;
    let target = format!("/v2/{NAME}/manifests/v1");
    let answer = client.send("DELETE", &target, &[], b"").await;
    assert_eq!((answer.status, answer.code()), (404, None));
}

#[tokio::test]
async fn immutable_tags_refuse_even_the_same_manifest() {
    for (product, status, code) in [
        ("ecr", 400, "TAG_INVALID"),
        ("harbor", 412, "PRECONDITION"),
        ("quay", 409, "TAG_IMMUTABLE"),
        ("dockerhub", 403, "DENIED"),
    ] {
        let played = started(product).await;
        let client = played.client(SCOPE).await;
        pushed(&client, "v1").await;
        played.set(|switches| switches.has_immutable_tags = true);
        let target = format!("/v2/{NAME}/manifests/v1");
        let accept = ["accept: application/vnd.oci.image.manifest.v1+json"];
        let manifest = client.send("GET", &target, &accept, b"").await.json();
        let answer = client.push_manifest(NAME, "v1", &manifest).await;
        assert_eq!(
            (answer.status, answer.code().unwrap().as_str()),
            (status, code)
        );
        client
            .push_manifest(NAME, "v2", &manifest)
            .await
            .expect(201);
    }
}

/// Uploads ten bytes in two chunks; the statuses of both, and of the end.
async fn chunked(client: &RegistryClient, chunk: usize) -> [u16; 3] {
    let blob = vec![b'a'; 2 * chunk];
    let target = format!("/v2/{NAME}/blobs/uploads/");
    let begun = client.send("POST", &target, &[], b"").await;
    let range = format!("content-range: 0-{}", chunk - 1);
    let location = begun.location();
    let first = client
        .send("PATCH", &location, &[&range], &blob[..chunk])
        .await;
    let location = match first.header("location") {
        Some(_) => first.location(),
        None => location,
    };
    let range = format!("content-range: {chunk}-{}", 2 * chunk - 1);
    let second = client
        .send("PATCH", &location, &[&range], &blob[chunk..])
        .await;
    let location = match second.header("location") {
        Some(_) => second.location(),
        None => location,
    };
    let end = with_digest(&location, &digest(&blob));
    let end = client.send("PUT", &end, &[], b"").await;
    [first.status, second.status, end.status]
}

#[tokio::test]
async fn chunks_are_taken_dropped_or_refused() {
    for (product, small, large) in [
        ("distribution", [202, 202, 201], [202, 202, 201]),
        ("quay", [202, 202, 201], [202, 202, 201]),
        ("ecr", [201, 201, 400], [201, 201, 400]),
        ("gar", [400, 400, 400], [400, 400, 400]),
        ("ghcr", [202, 202, 201], [416, 416, 400]),
    ] {
        let played = started(product).await;
        let client = played.client(SCOPE).await;
        assert_eq!(chunked(&client, 5).await, small, "{product}");
        assert_eq!(chunked(&client, (4 << 20) + 1).await, large, "{product}");
    }
}

#[tokio::test]
async fn storage_refuses_a_second_authorization() {
    let played = started("quay").await;
    let digest = played.put_blob(NAME, b"layer");
    let client = played.client(SCOPE).await;
    let answer = client.get(&format!("/v2/{NAME}/blobs/{digest}")).await;
    answer.expect(307);
    let storage = played.addresses().storage;
    let mut reader = RegistryClient::plain(storage, None);
    assert_eq!(&reader.get(&answer.location()).await.body[..], b"layer");
    reader.authorization = client.authorization;
    reader.get(&answer.location()).await.expect(400);
    let lines = played.take_lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(
        lines[3].starts_with("storage GET /blobs/sha256:"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn ecr_checks_signatures_and_records_actions() {
    let played = PlayedRegistry::ecr().await;
    let client = RegistryClient::plain(played.addresses().api, None);
    let mut answers = Vec::new();
    for (action, body) in [
        ("CreateRepository", r#"{"repositoryName":"acme/app"}"#),
        ("CreateRepository", r#"{"repositoryName":"acme/app"}"#),
        ("GetAuthorizationToken", "{}"),
        ("ListImages", r#"{"repositoryName":"none"}"#),
    ] {
        let lines = played.signed_action(action, body);
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        answers.push(client.send("POST", "/", &lines, body.as_bytes()).await);
        // Another body is not the one that was signed.
        let changed = client.send("POST", "/", &lines, b"{ }").await;
        changed.expect(400);
        assert_eq!(changed.json()["__type"], "InvalidSignatureException");
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 400, 200, 400]);
    let kinds = [1, 3].map(|index: usize| answers[index].json()["__type"].clone());
    assert_eq!(
        kinds,
        [
            "RepositoryAlreadyExistsException",
            "RepositoryNotFoundException"
        ]
    );
    let data = answers[2].json()["authorizationData"][0].clone();
    let token = data["authorizationToken"].as_str().unwrap();
    let registry = format!("Basic {token}");
    let registry = RegistryClient::plain(played.addresses().registry, Some(&registry));
    registry.get("/v2/").await.expect(200);
    played.advance(Duration::from_hours(12));
    registry.get("/v2/").await.expect(401);
    let lines = played.take_lines();
    assert_eq!(lines[0], "api CreateRepository");
    assert_eq!(lines.last().unwrap(), "registry GET /v2/");
}
