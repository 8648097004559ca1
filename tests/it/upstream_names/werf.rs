//! How werf uses a registry with two levels of names, by the requests of go-containerregistry: its
//! three combinations of repository modes and implementations, each below a nested name.

use serde_json::json;

use super::fixture::{KINDS, mapped_registry};
use crate::store::client::Client;
use crate::store::image::{Image, sha256};

/// Everything outside is below one namespace of two levels inside.
const TWO_LEVELS: &str = "[[upstream.map]]\nprefix = ''\nto = 'acme/'\nflatten = '--'\n";

/// A push as go-containerregistry makes it: what is there is not sent, and blobs of other
/// repositories of the project are mounted.
async fn publish(client: &mut Client, repository: &str, from: &str, tag: &str, image: &Image) {
    client.get("/v2/").await.is(200);
    for blob in image.blobs() {
        let digest = sha256(blob);
        let head = client
            .ask("HEAD", &format!("/v2/{repository}/blobs/{digest}"))
            .await;
        if head.status == 200 {
            continue;
        }
        head.is(404);
        let mount =
            format!("/v2/{repository}/blobs/uploads/?from={from}&mount={digest}&origin=ci.test");
        let started = client.ask("POST", &mount).await;
        if started.status == 201 {
            continue;
        }
        let started = started.is(202);
        let session = started.header("location").to_owned();
        let kind = [("content-type", "application/octet-stream")];
        let sent = client
            .ask_with("PATCH", &session, &kind, blob.to_vec())
            .await
            .is(202);
        let session = sent.header("location").to_owned();
        let separator = if session.contains('?') { '&' } else { '?' };
        let commit = format!("{session}{separator}digest={}", digest.replace(':', "%3A"));
        client.ask_with("PUT", &commit, &[], "").await.is(201);
    }
    let manifest = format!("/v2/{repository}/manifests/{tag}");
    client.ask("HEAD", &manifest).await;
    client
        .push_manifest(repository, tag, &image.manifest)
        .await
        .is(201);
    let head = client.ask("HEAD", &manifest).await.is(200);
    assert_eq!(head.header("docker-content-digest"), image.digest());
}

async fn tags(client: &mut Client, repository: &str) -> Vec<String> {
    let list = client
        .get(&format!("/v2/{repository}/tags/list?n=1000"))
        .await;
    if list.status == 404 {
        return Vec::new();
    }
    let list = list.is(200).json();
    assert_eq!(list["name"], json!(repository));
    let mut tags: Vec<String> = serde_json::from_value(list["tags"].clone()).unwrap_or_default();
    tags.sort();
    tags
}

/// Where werf puts an image's stage: with many repositories, each image has one of its own.
fn place(repo: &str, image: &str, is_multirepo: bool) -> (String, String) {
    if is_multirepo {
        (format!("{repo}/{image}"), "stage-1".to_owned())
    } else {
        (repo.to_owned(), format!("{image}-stage-1"))
    }
}

#[tokio::test]
async fn werf_publishes_lists_and_cleans_up() {
    // Registry and multirepo; repository and monorepo; repository and multirepo.
    for (repo, is_multirepo) in [
        ("project", true),
        ("group/project", false),
        ("group/sub/project", true),
    ] {
        for kind in KINDS {
            let fixture = mapped_registry(kind, "", TWO_LEVELS).await;
            let mut werf = fixture.client("root");
            let shared = vec![7; 3000];
            let images = ["backend", "frontend"].map(|name| {
                let own = name.repeat(500).into_bytes();
                (
                    name,
                    Image::new(own.len() as u64, vec![shared.clone(), own]),
                )
            });
            let (first, _) = place(repo, "backend", is_multirepo);
            for (name, image) in &images {
                let (repository, tag) = place(repo, name, is_multirepo);
                publish(&mut werf, &repository, &first, &tag, image).await;
                werf.check(&repository, &tag, image).await;
            }
            for (name, image) in &images {
                let (repository, tag) = place(repo, name, is_multirepo);
                assert!(tags(&mut werf, &repository).await.contains(&tag));
                let by_tag = format!("/v2/{repository}/manifests/{tag}");
                let by_digest = format!("/v2/{repository}/manifests/{}", image.digest());
                let digest = werf.ask("HEAD", &by_tag).await.is(200);
                assert_eq!(digest.header("docker-content-digest"), image.digest());
                werf.ask("DELETE", &by_digest).await.is(202);
                assert_eq!(werf.ask("HEAD", &by_tag).await.status, 404);
            }
            for (name, _) in &images {
                let (repository, _) = place(repo, name, is_multirepo);
                assert_eq!(tags(&mut werf, &repository).await, [""; 0]);
            }
        }
    }
}
