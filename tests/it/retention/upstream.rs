//! `moorgate retention` behind a `url`: Debian's docker-registry 2.8, which deletes no tags.

use super::fixture::{NEWEST, clock_reaches};
use crate::harness::{Gateway, cli};
use crate::products_deletion::between::{Between, client};
use crate::store::client::Client;
use crate::store::image::{INDEX, Image, MANIFEST, index, sha256};

struct UpstreamFixture {
    _registry: Between,
    gateway: Gateway,
    client: Client,
}

impl UpstreamFixture {
    async fn new() -> Self {
        let registry = Between::new(true).await;
        let gateway = registry.gateway("", NEWEST).await;
        let client = client(&gateway);
        Self {
            _registry: registry,
            gateway,
            client,
        }
    }

    /// What a command prints that succeeds.
    async fn done(&self, arguments: &[&str]) -> String {
        let arguments = [&["retention"], arguments].concat();
        let (code, out, error) = cli(self.gateway.directory.path(), &arguments).await;
        assert_eq!(code, Some(0), "{out}{error}");
        out
    }

    async fn tags(&mut self, repository: &str) -> Vec<String> {
        let target = format!("/v2/{repository}/tags/list");
        let json = self.client.get(&target).await.is(200).json();
        let tags = json["tags"].as_array().unwrap().iter();
        let mut tags: Vec<_> = tags.map(|tag| tag.as_str().unwrap().to_owned()).collect();
        tags.sort_unstable();
        tags
    }

    /// The registry gives a manifest only to those who accept it.
    async fn manifest(&mut self, repository: &str, reference: &str) -> (u16, Vec<u8>) {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let accept = [("accept", MANIFEST), ("accept", INDEX)];
        let answer = self.client.ask_with("GET", &target, &accept, "").await;
        (answer.status, answer.body.to_vec())
    }

    async fn push_index(&mut self, tag: &str, images: &[&Image]) -> Vec<u8> {
        for image in images {
            self.client
                .push("cache/multi", &image.digest(), image)
                .await;
        }
        let listed: Vec<_> = images.iter().map(|image| image.descriptor()).collect();
        let bytes = index(&listed);
        let target = format!("/v2/cache/multi/manifests/{tag}");
        let kind = [("content-type", INDEX)];
        let pushed = self.client.ask_with("PUT", &target, &kind, bytes.clone());
        pushed.await.is(201);
        bytes.to_vec()
    }
}

#[tokio::test]
async fn siblings_stay_and_what_goes_comes_back_as_it_was() {
    let mut fixture = UpstreamFixture::new().await;
    let images = [Image::small(1), Image::small(2), Image::small(3)];
    for (tag, image) in ["v1", "v2"].iter().zip(&images) {
        fixture.client.push("cache/app", tag, image).await;
    }
    // `latest` is protected, and leads to the same manifest as `v1`.
    fixture.client.push("cache/app", "latest", &images[0]).await;
    let shared = Image::small(10);
    let old = fixture
        .push_index("old", &[&shared, &Image::small(11)])
        .await;
    clock_reaches(1).await;
    fixture.client.push("cache/app", "v3", &images[2]).await;
    let new = fixture
        .push_index("new", &[&shared, &Image::small(12)])
        .await;
    clock_reaches(2).await;

    let planned = fixture.done(&["plan", "ci.test", "--json"]).await;
    let lines: Vec<serde_json::Value> = planned
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let going = lines.iter().filter(|line| line["stays"] == false);
    let going: Vec<_> = going.map(|line| line["tag"].as_str().unwrap()).collect();
    assert_eq!(going, ["v1", "v2", "old"]);
    let id = lines[0]["id"].as_str().unwrap();
    assert_eq!(
        fixture.tags("cache/app").await,
        ["latest", "v1", "v2", "v3"]
    );

    let out = fixture.done(&["apply", id]).await;
    assert!(out.starts_with("gone: 3 tags and 3 manifests; "), "{out}");
    assert!(out.contains("checked afterwards: 3 images whole"), "{out}");
    assert_eq!(fixture.tags("cache/app").await, ["latest", "v3"]);
    assert_eq!(fixture.tags("cache/multi").await, ["new"]);
    for (tag, image) in [("latest", &images[0]), ("v3", &images[2])] {
        let manifest = fixture.manifest("cache/app", tag).await;
        assert_eq!(manifest, (200, image.manifest.to_vec()));
    }
    assert_eq!(fixture.manifest("cache/multi", "new").await, (200, new));
    let child = fixture.manifest("cache/multi", &shared.digest()).await;
    assert_eq!(child, (200, shared.manifest.to_vec()));
    for (repository, digest) in [
        ("cache/app", images[1].digest()),
        ("cache/multi", sha256(&old)),
    ] {
        assert_eq!(fixture.manifest(repository, &digest).await.0, 404);
    }

    let out = fixture.done(&["undo", id]).await;
    assert!(out.starts_with("put back 3 tags and "), "{out}");
    assert_eq!(
        fixture.tags("cache/app").await,
        ["latest", "v1", "v2", "v3"]
    );
    for (tag, image) in [("v1", &images[0]), ("v2", &images[1])] {
        let manifest = fixture.manifest("cache/app", tag).await;
        assert_eq!(manifest, (200, image.manifest.to_vec()));
    }
    assert_eq!(fixture.manifest("cache/multi", "old").await, (200, old));
}
