//! How werf uses a registry, at each product: the requests of go-containerregistry, in the three
//! combinations of repository modes and implementations that werf has.

use serde_json::json;

use super::fixture::{ProductFixture, products};
use super::observed::image;
use crate::harness::played::digest;
use crate::harness::registry_client::{ClientAnswer, with_digest};

/// The keys of `[upstream]` and the tables with which names of any form are at home in a product.
fn settings(product: &str) -> (&'static str, &'static str) {
    match product.split(' ').next().unwrap() {
        // Two levels, or as many in the documentation of werf.
        "dockerhub" | "ghcr" | "quay" => (
            "",
            "[[upstream.map]]\nprefix = ''\nto = 'acme/'\nflatten = '--'\n",
        ),
        // Below a project that is there.
        "gar" | "gitlab" => ("", "[[upstream.map]]\nprefix = ''\nto = 'acme/app/'\n"),
        _ => ("create = true", ""),
    }
}

/// Where werf puts the stage of an image: with many repositories, each image has one of its own.
fn place(repo: &str, image: &str, is_multirepo: bool) -> (String, String) {
    if is_multirepo {
        (format!("{repo}/{image}"), "stage-1".to_owned())
    } else {
        (repo.to_owned(), format!("{image}-stage-1"))
    }
}

/// A client that makes the requests of go-containerregistry.
struct Werf<'a>(&'a ProductFixture);

impl Werf<'_> {
    async fn send(&self, method: &str, target: &str, lines: &[&str], body: &[u8]) -> ClientAnswer {
        let agent = "user-agent: go-containerregistry/v0.20.2";
        let lines: Vec<_> = lines.iter().copied().chain([agent]).collect();
        self.0.alice.send(method, target, &lines, body).await
    }

    /// Sends a blob unless it is there, or can be mounted.
    async fn write_blob(&self, repository: &str, from: &str, blob: &[u8]) {
        let digest = digest(blob);
        let target = format!("/v2/{repository}/blobs/{digest}");
        let head = self.send("HEAD", &target, &[], b"").await;
        if head.status == 200 {
            return;
        }
        self.0.expect(&head, 404);
        let mount =
            format!("/v2/{repository}/blobs/uploads/?from={from}&mount={digest}&origin=ci.test");
        let kind = "content-type: application/json";
        let begun = self.send("POST", &mount, &[kind], b"").await;
        if begun.status == 201 {
            return;
        }
        self.0.expect(&begun, 202);
        let kind = "content-type: application/octet-stream";
        let sent = self.send("PATCH", &begun.location(), &[kind], blob).await;
        assert!([201, 202].contains(&sent.status), "{sent:?}");
        let end = with_digest(&sent.location(), &digest.replace(':', "%3A"));
        let ended = self.send("PUT", &end, &[], b"").await;
        self.0.expect(&ended, 201);
    }

    async fn publish(&self, repository: &str, from: &str, (tag, layers): (&str, [&[u8]; 2])) {
        self.0
            .expect(&self.send("GET", "/v2/", &[], b"").await, 200);
        for blob in layers {
            self.write_blob(repository, from, blob).await;
        }
        self.write_blob(repository, from, b"{}").await;
        let manifest = manifest(layers).to_string();
        let target = format!("/v2/{repository}/manifests/{tag}");
        let accept = format!("accept: {KIND}");
        let head = self.send("HEAD", &target, &[&accept], b"").await;
        self.0.expect(&head, 404);
        let kind = format!("content-type: {KIND}");
        let manifest = manifest.as_bytes();
        let pushed = self.send("PUT", &target, &[&kind], manifest).await;
        self.0.expect(&pushed, 201);
        assert_eq!(self.digest(repository, tag).await, digest(manifest));
    }

    /// The digest of a tag, which needs both headers.
    async fn digest(&self, repository: &str, tag: &str) -> String {
        let target = format!("/v2/{repository}/manifests/{tag}");
        let accept = format!("accept: {KIND}");
        let head = self.send("HEAD", &target, &[&accept], b"").await;
        self.0.expect(&head, 200);
        assert_eq!(head.header("content-type"), Some(KIND));
        head.header("docker-content-digest").unwrap().to_owned()
    }

    async fn tags(&self, repository: &str) -> Vec<String> {
        let target = format!("/v2/{repository}/tags/list?n=1000");
        let list = self.send("GET", &target, &[], b"").await;
        if list.status == 404 {
            return Vec::new();
        }
        self.0.expect(&list, 200);
        let list = list.json();
        assert_eq!(list["name"], json!(repository));
        serde_json::from_value(list["tags"].clone()).unwrap_or_default()
    }

    /// Deletes by tag, then by digest, as its usual implementation does.
    async fn remove(&self, repository: &str, tag: &str) {
        let found = self.digest(repository, tag).await;
        for reference in [tag, &found] {
            let target = format!("/v2/{repository}/manifests/{reference}");
            let deleted = self.send("DELETE", &target, &[], b"").await;
            // GitHub's manifest is gone with its last tag.
            let may_be_gone = reference == found && deleted.status == 404;
            if !may_be_gone {
                self.0.expect(&deleted, 202);
            }
        }
        let target = format!("/v2/{repository}/manifests/{found}");
        let gone = self.send("HEAD", &target, &[], b"").await;
        self.0.expect(&gone, 404);
    }
}

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest(layers: [&[u8]; 2]) -> serde_json::Value {
    let mut manifest = image(&digest(layers[0]));
    let mut further = manifest["layers"][0].clone();
    further["digest"] = digest(layers[1]).into();
    further["size"] = layers[1].len().into();
    manifest["layers"][0]["size"] = layers[0].len().into();
    manifest["layers"].as_array_mut().unwrap().push(further);
    manifest
}

#[tokio::test]
async fn werf_publishes_lists_and_cleans_up() {
    // Registry and multirepo; repository and monorepo; repository and multirepo.
    for (repo, is_multirepo) in [
        ("project", true),
        ("group/project", false),
        ("group/sub/project", true),
    ] {
        for product in products() {
            let (keys, tables) = settings(product);
            let fixture = ProductFixture::with(product, keys, tables).await;
            let werf = Werf(&fixture);
            let (first, _) = place(repo, "backend", is_multirepo);
            let images = ["backend", "frontend"].map(|name| (name, name.repeat(500)));
            for (name, own) in &images {
                let (repository, tag) = place(repo, name, is_multirepo);
                let layers = [b"shared".as_slice(), own.as_bytes()];
                werf.publish(&repository, &first, (&tag, layers)).await;
                // One that is in use stays.
                let used = format!("{own} in use");
                let layers = [b"shared".as_slice(), used.as_bytes()];
                werf.publish(&repository, &first, (&format!("{name}-used"), layers))
                    .await;
            }
            for (name, _) in &images {
                let (repository, tag) = place(repo, name, is_multirepo);
                assert!(werf.tags(&repository).await.contains(&tag), "{product}");
                werf.remove(&repository, &tag).await;
                let left = werf.tags(&repository).await;
                assert!(!left.contains(&tag), "{product} {left:?}");
                assert!(left.contains(&format!("{name}-used")), "{product} {left:?}");
                werf.digest(&repository, &format!("{name}-used")).await;
            }
        }
    }
}
