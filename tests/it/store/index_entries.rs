//! Image indexes whose entries are blobs, as in the build caches of BuildKit: what of them can be
//! pushed and pulled, and what stays.

use serde_json::{Value, json};

use super::client::Client;
use super::fixture::{DAY, StoreFixture};
use super::image::{INDEX, Image, MANIFEST, bytes, descriptor, index, sha256};
use crate::harness::{Domain, Events, seconds};

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// A build cache: layers and a configuration, which are all blobs.
struct BuildCache {
    layers: [Vec<u8>; 2],
    config: Vec<u8>,
}

impl BuildCache {
    fn new(seed: u64) -> Self {
        Self {
            layers: [bytes(seed, 3000), bytes(seed + 1, 3000)],
            config: json!({"layers": [{"blob": "x"}], "seed": seed})
                .to_string()
                .into_bytes(),
        }
    }

    fn blobs(&self) -> [&[u8]; 3] {
        [&self.layers[0], &self.layers[1], &self.config]
    }

    fn index(&self, kind: &str) -> Vec<u8> {
        let [one, two] = &self.layers;
        let entries = [
            descriptor(LAYER, one),
            descriptor(LAYER, two),
            descriptor(CACHE_CONFIG, &self.config),
        ];
        json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries})
            .to_string()
            .into_bytes()
    }

    async fn push(&self, client: &mut Client, repository: &str) {
        for blob in self.blobs() {
            client.push_blob(repository, blob).await;
        }
    }

    async fn check(&self, client: &mut Client, repository: &str) {
        for blob in self.blobs() {
            let target = format!("/v2/{repository}/blobs/{}", sha256(blob));
            assert!(client.get(&target).await.is(200).body == blob);
        }
    }
}

/// The status of `DELETE` for a blob.
async fn deleted(client: &mut Client, repository: &str, blob: &[u8]) -> u16 {
    let target = format!("/v2/{repository}/blobs/{}", sha256(blob));
    client.ask("DELETE", &target).await.status
}

#[tokio::test]
async fn an_index_of_blobs_is_pushed_pulled_and_kept() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    for (kind, name) in [(INDEX, "oci"), (DOCKER_LIST, "docker")] {
        let cache = BuildCache::new(1);
        let list = cache.index(kind);
        let refused = client.push_manifest(name, "cache", &list).await;
        refused.refused(400, "MANIFEST_BLOB_UNKNOWN");
        cache.push(&mut client, name).await;
        client.push_manifest(name, "cache", &list).await.is(201);
        let pulled = client.get(&format!("/v2/{name}/manifests/cache")).await;
        assert_eq!(pulled.is(200).body, list);
        // What it lists are blobs, which are not manifests now.
        let target = format!("/v2/{name}/manifests/{}", sha256(&cache.layers[0]));
        client.get(&target).await.refused(404, "MANIFEST_UNKNOWN");
        assert_eq!(deleted(&mut client, name, &cache.layers[0]).await, 403);
        fixture.disk().age(DAY + seconds(1));
        assert_eq!(fixture.gc(&[])["blobs"], 0);
        cache.check(&mut client, name).await;
    }
    // Without the index, they are garbage.
    let target = format!(
        "/v2/oci/manifests/{}",
        sha256(&BuildCache::new(1).index(INDEX))
    );
    client.ask("DELETE", &target).await.is(202);
    fixture.disk().age(DAY + seconds(1));
    assert_eq!(fixture.gc(&[])["blobs"], 4, "three, and the index");
    BuildCache::new(1).check(&mut client, "docker").await;
}

#[tokio::test]
async fn blobs_of_an_index_in_an_index_stay() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http2();
    let (cache, image) = (BuildCache::new(3), Image::small(5));
    let inner = cache.index(INDEX);
    cache.push(&mut client, "a").await;
    client.push("a", &image.digest(), &image).await;
    client
        .push_manifest("a", &sha256(&inner), &inner)
        .await
        .is(201);
    let outer = index(&[
        descriptor(INDEX, &inner),
        image.descriptor(),
        descriptor(LAYER, &cache.layers[0]),
    ]);
    client.push_manifest("a", "outer", &outer).await.is(201);
    // As another tool lists it: the outer index only.
    let listed = json!({"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": sha256(&outer),
        "size": outer.len(), "annotations": {"org.opencontainers.image.ref.name": "outer"}}]});
    let file = fixture.disk().repository("a").join("index.json");
    std::fs::write(file, listed.to_string()).unwrap();
    fixture.disk().age(DAY + seconds(1));
    assert_eq!(fixture.gc(&[])["blobs"], 0);
    cache.check(&mut client, "a").await;
    client.check("a", &image.digest(), &image).await;
    client
        .get(&format!("/v2/a/manifests/{}", sha256(&inner)))
        .await
        .is(200);
    for blob in cache.blobs() {
        let target = format!("/v2/a/manifests/{}", sha256(blob));
        client.get(&target).await.refused(404, "MANIFEST_UNKNOWN");
        assert_eq!(deleted(&mut client, "a", blob).await, 403);
    }
}

#[tokio::test]
async fn an_entry_without_a_media_type_is_a_manifest_or_else_a_blob() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let (image, layer) = (Image::small(6), bytes(7, 100));
    client.push("a", &image.digest(), &image).await;
    client.push_blob("a", &layer).await;
    let untyped = |content: &[u8]| json!({"digest": sha256(content), "size": content.len()});
    let list = index(&[untyped(&image.manifest), untyped(&layer)]);
    client.push_manifest("a", "all", &list).await.is(201);
    let wrong: Value = json!({"digest": sha256(&layer), "size": 1});
    let refused = client.push_manifest("a", "wrong", &index(&[wrong])).await;
    refused.refused(400, "MANIFEST_INVALID");
    let file = fixture.disk().repository("a").join("index.json");
    let listed = json!({"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": sha256(&list),
        "size": list.len(), "annotations": {"org.opencontainers.image.ref.name": "all"}}]});
    std::fs::write(file, listed.to_string()).unwrap();
    fixture.disk().age(DAY + seconds(1));
    assert_eq!(fixture.gc(&[])["blobs"], 0);
    client.check("a", &image.digest(), &image).await;
    let target = format!("/v2/a/manifests/{}", image.digest());
    let answer = client.get(&target).await.is(200);
    assert_eq!(answer.header("content-type"), MANIFEST);
    client
        .get(&format!("/v2/a/blobs/{}", sha256(&layer)))
        .await
        .is(200);
}

#[tokio::test]
async fn layers_that_clients_find_elsewhere_need_not_be_pushed_but_stay_if_they_are() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let (config, pushed, elsewhere) = (b"{}", bytes(8, 500), bytes(9, 500));
    client.push_blob("a", config).await;
    client.push_blob("a", &pushed).await;
    let layer = |content: &[u8]| {
        let mut layer = descriptor(
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            content,
        );
        layer["urls"] = json!(["https://example.com/layer"]);
        layer
    };
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor("a/b", config),
        "layers": [layer(&pushed), layer(&elsewhere)]});
    let manifest = manifest.to_string().into_bytes();
    client.push_manifest("a", "v1", &manifest).await.is(201);
    assert_eq!(deleted(&mut client, "a", &pushed).await, 403);
    fixture.disk().age(DAY + seconds(1));
    assert_eq!(fixture.gc(&[])["blobs"], 0);
    let target = format!("/v2/a/blobs/{}", sha256(&pushed));
    assert!(client.get(&target).await.is(200).body == pushed);
}

/// Like [`StoreFixture::new`], for a domain that stores manifests although something is missing.
async fn sparse() -> StoreFixture {
    let upstream = "directory = \"ci\"\nmissing = \"allow\"";
    StoreFixture::with(|domain: Domain| domain.upstream(upstream)).await
}

#[tokio::test]
async fn a_domain_may_store_manifests_before_or_without_what_they_reference() {
    let fixture = sparse().await;
    let mut client = fixture.http1();
    let [here, later, never] = [30, 31, 32].map(Image::small);
    let list = index(&[here.descriptor(), later.descriptor(), never.descriptor()]);
    // Into a repository that does not exist, too.
    client.push_manifest("a", "all", &list).await.is(201);
    client.push("a", &here.digest(), &here).await;
    client
        .push_manifest("a", "sparse", &never.manifest)
        .await
        .is(201);
    assert_eq!(client.get("/v2/a/manifests/all").await.is(200).body, list);
    let target = format!("/v2/a/manifests/{}", later.digest());
    client.get(&target).await.refused(404, "MANIFEST_UNKNOWN");
    fixture.disk().age(DAY + seconds(1));
    assert_eq!(fixture.gc(&[])["blobs"], 0);
    client.push("a", &later.digest(), &later).await;
    client.push_blob("a", &never.layers[0]).await;
    fixture.disk().age(DAY + seconds(1));
    assert_eq!(fixture.gc(&[])["blobs"], 0);
    for image in [&here, &later] {
        client.check("a", &image.digest(), image).await;
        let target = format!("/v2/a/manifests/{}", image.digest());
        client.ask("DELETE", &target).await.refused(403, "DENIED");
    }
    assert_eq!(deleted(&mut client, "a", &never.layers[0]).await, 403);
}

#[tokio::test]
async fn a_wrong_size_is_logged_where_it_is_allowed() {
    let fixture = sparse().await;
    let mut client = fixture.http1();
    let events = Events::kept();
    let (image, config) = (Image::small(33), b"{}");
    client.push("a", "v1", &image).await;
    client.push_blob("a", config).await;
    assert_eq!(events.with("wrong size"), [""; 0]);
    let wrong = |kind: &str, content: &[u8], size: i64| {
        let mut descriptor = descriptor(kind, content);
        descriptor["size"] = json!(size);
        descriptor
    };
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": wrong("a/b", config, -1), "layers": []});
    let manifest = manifest.to_string().into_bytes();
    client.push_manifest("a", "v2", &manifest).await.is(201);
    let list = index(&[wrong(MANIFEST, &image.manifest, 7)]);
    client.push_manifest("a", "all", &list).await.is(201);
    let logged = events.with("manifest stored with a wrong size of what it references");
    let [first, second] = logged.as_slice() else {
        panic!("{logged:?}")
    };
    for words in [
        "WARN",
        "domain=\"ci.test\"",
        "given_bytes=-1 actual_bytes=2",
    ] {
        assert!(first.contains(words), "{first}");
    }
    let actual = format!("given_bytes=7 actual_bytes={}", image.manifest.len());
    assert!(
        second.contains(&actual) && second.contains(&image.digest()),
        "{second}"
    );
    fixture.disk().age(DAY + seconds(1));
    assert_eq!(fixture.gc(&[])["blobs"], 0);
}
