//! Pushing and pulling manifests of all types, and what is refused.

use serde_json::json;

use super::fixture::StoreFixture;
use super::image::{INDEX, Image, MANIFEST, bytes, descriptor, index, referrer, sha256, sha512};
use crate::harness::{Domain, request, url};

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_as_it_was_pushed() {
    let fixture = StoreFixture::new().await;
    for (mut client, name) in [(fixture.http1(), "base/one"), (fixture.http2(), "base/two")] {
        let image = Image::new(1, vec![bytes(1, 1000), bytes(2, 200_000)]);
        for blob in image.blobs() {
            client.push_blob(name, blob).await;
        }
        let digest = image.digest();
        for reference in ["v1", "v1", &digest] {
            let answer = client
                .push_manifest(name, reference, &image.manifest)
                .await
                .is(201);
            assert_eq!(
                answer.header("location"),
                url(&format!("/v2/{name}/manifests/{digest}"))
            );
            assert_eq!(answer.header("docker-content-digest"), digest);
            assert!(
                !answer.has("oci-subject") && !answer.has("oci-tag"),
                "{answer:?}"
            );
        }
        for reference in ["v1", &digest] {
            client.check(name, reference, &image).await;
            for method in ["GET", "HEAD"] {
                let answer = client
                    .ask(method, &format!("/v2/{name}/manifests/{reference}"))
                    .await
                    .is(200);
                assert_eq!(answer.header("content-type"), MANIFEST);
                assert_eq!(
                    answer.header("content-length"),
                    image.manifest.len().to_string()
                );
                assert_eq!(answer.header("docker-content-digest"), digest);
                assert_eq!(answer.body.is_empty(), method == "HEAD");
            }
        }
        let newer = Image::small(2);
        client.push(name, "v1", &newer).await;
        client.check(name, "v1", &newer).await;
        client.check(name, &digest, &image).await;
        for reference in ["v2", &sha256(b"x")] {
            let answer = client
                .get(&format!("/v2/{name}/manifests/{reference}"))
                .await;
            assert_eq!(
                answer.refused(404, "MANIFEST_UNKNOWN"),
                "manifest not found"
            );
        }
        client
            .get("/v2/no/such/manifests/v1")
            .await
            .refused(404, "NAME_UNKNOWN");
    }
    fixture.disk().is_sound();
}

#[tokio::test]
async fn a_manifest_needs_what_it_lists() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(3);
    let layer = sha256(&image.layers[0]);
    client
        .push_manifest("a", "v1", &image.manifest)
        .await
        .refused(400, "MANIFEST_BLOB_UNKNOWN");
    client.push_blob("a", &image.config).await;
    // A blob of another repository is none of this.
    client.push_blob("b", &image.layers[0]).await;
    let message = client
        .push_manifest("a", "v1", &image.manifest)
        .await
        .refused(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(
        message,
        format!("the manifest references {layer}, which is not in this repository: push it first")
    );
    client.get("/v2/a/manifests/v1").await.is(404);
    client.push("a", "v1", &image).await;
    // The manifests of an index have to be pushed, and not only as blobs.
    let child = Image::small(4);
    let list = index(&[image.descriptor(), child.descriptor()]);
    client.push_blob("a", &child.manifest).await;
    let message = client
        .push_manifest("a", "all", &list)
        .await
        .refused(400, "MANIFEST_BLOB_UNKNOWN");
    assert!(message.contains(&child.digest()), "{message}");
    // The sizes count, too.
    let wrong = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "a/b", "digest": layer, "size": 1}, "layers": []});
    let message = client
        .push_manifest("a", "v2", wrong.to_string().as_bytes())
        .await
        .refused(400, "MANIFEST_INVALID");
    assert_eq!(
        message,
        format!("the manifest gives the size of {layer} as 1 bytes, but it has 2000")
    );
    fixture.disk().is_sound();
}

#[tokio::test]
async fn an_index_of_images_for_many_machines_is_pushed_and_pulled() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http2();
    let images = [Image::small(5), Image::small(6)];
    for image in &images {
        client.push("a", &image.digest(), image).await;
    }
    let list = index(&images.each_ref().map(Image::descriptor));
    client.push_manifest("a", "all", &list).await.is(201);
    let outer = index(&[descriptor(INDEX, &list)]);
    client.push_manifest("a", "outer", &outer).await.is(201);
    let answer = client.get("/v2/a/manifests/all").await.is(200);
    assert_eq!(
        (answer.header("content-type"), &answer.body[..]),
        (INDEX, &list[..])
    );
    let tags = client.get("/v2/a/tags/list").await.is(200).json();
    assert_eq!(tags, json!({"name": "a", "tags": ["all", "outer"]}));
}

#[tokio::test]
async fn a_manifest_by_its_digest_gets_all_tags_of_the_query() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(7);
    for blob in image.blobs() {
        client.push_blob("a", blob).await;
    }
    let reference = format!("{}?tag=v1&tag=latest", image.digest());
    let answer = client
        .push_manifest("a", &reference, &image.manifest)
        .await
        .is(201);
    let tags: Vec<_> = answer.headers.get_all("oci-tag").iter().collect();
    assert_eq!(tags, ["v1", "latest"]);
    for tag in ["v1", "latest"] {
        client.check("a", tag, &image).await;
    }
    let wrong = format!("{}?tag=v2", sha256(b"x"));
    client
        .push_manifest("a", &wrong, &image.manifest)
        .await
        .refused(400, "DIGEST_INVALID");
    client.get("/v2/a/manifests/v2").await.is(404);
}

#[tokio::test]
async fn a_manifest_may_be_named_by_sha512() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(8);
    for blob in image.blobs() {
        client.push_blob("a", blob).await;
    }
    let digest = sha512(&image.manifest);
    let answer = client
        .push_manifest("a", &format!("{digest}?tag=v1"), &image.manifest)
        .await
        .is(201);
    assert_eq!(answer.header("docker-content-digest"), digest);
    for reference in ["v1", &digest] {
        let answer = client
            .get(&format!("/v2/a/manifests/{reference}"))
            .await
            .is(200);
        assert_eq!(
            (answer.header("docker-content-digest"), &answer.body[..]),
            (&*digest, &image.manifest[..])
        );
    }
    fixture.disk().is_sound();
}

#[tokio::test]
async fn other_types_are_kept_as_they_are() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let image = Image::small(9);
    for blob in image.blobs() {
        client.push_blob("a", blob).await;
    }
    let text = String::from_utf8(image.manifest)
        .unwrap()
        .replace(MANIFEST, docker);
    for (kind, content) in [
        (docker, text.as_bytes()),
        (
            "application/vnd.example.thing.v1+json",
            br#"{"thing":[1,2]}"#,
        ),
        ("application/x-bytes", b"\0\x01\xff"),
    ] {
        let body = content.to_vec();
        client
            .ask_with("PUT", "/v2/a/manifests/v1", &[("content-type", kind)], body)
            .await
            .is(201);
        let answer = client.get("/v2/a/manifests/v1").await.is(200);
        assert_eq!(
            (answer.header("content-type"), &answer.body[..]),
            (kind, content)
        );
    }
}

#[tokio::test]
async fn what_is_no_manifest_is_refused_with_a_sentence() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (kind, content, words) in [
        (
            schema_1,
            "{}",
            "schema 1 manifests are not supported: push with Docker 1.10 or newer",
        ),
        (
            MANIFEST,
            r#"{"schemaVersion":1}"#,
            "schema 1 manifests are not supported",
        ),
        (MANIFEST, "{", "the manifest is not valid"),
        (
            MANIFEST,
            r#"{"schemaVersion":2}"#,
            "an image manifest must have schemaVersion 2 and a config",
        ),
        (
            INDEX,
            r#"{"schemaVersion":2,"mediaType":"a/b","manifests":[]}"#,
            "the Content-Type is",
        ),
        (
            "application/json",
            r#"{"schemaVersion":2}"#,
            "gives a media type",
        ),
    ] {
        let answer = client
            .ask_with(
                "PUT",
                "/v2/a/manifests/v1",
                &[("content-type", kind)],
                content,
            )
            .await;
        let message = answer.refused(400, "MANIFEST_INVALID");
        assert!(message.contains(words), "{message}");
    }
    client.get("/v2/a/manifests/v1").await.is(404);
}

#[tokio::test]
async fn a_manifest_of_4_mib_is_stored_unless_the_limit_is_another() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let kind = [("content-type", "application/x-bytes")];
    for (length, status) in [(4 << 20, 201), ((4 << 20) + 1, 413)] {
        let body = vec![b'x'; length];
        client
            .ask_with("PUT", "/v2/a/manifests/v1", &kind, body)
            .await
            .is(status);
    }
}

#[tokio::test]
async fn a_manifest_over_the_limit_is_refused_however_it_comes() {
    let fixture =
        StoreFixture::with(|domain: Domain| domain.tables("[limits]\nmanifest = \"4 KiB\"")).await;
    let kind = [("content-type", "application/x-bytes")];
    for (mut client, tag) in [(fixture.http1(), "v1"), (fixture.http2(), "v2")] {
        let target = format!("/v2/a/manifests/{tag}");
        client
            .ask_with("PUT", &target, &kind, vec![b'x'; 4096])
            .await
            .is(201);
        client
            .ask_with("PUT", &target, &kind, vec![b'x'; 4097])
            .await
            .refused(413, "SIZE_INVALID");
    }
    let mut client = fixture.gateway.client().await;
    let lines = "Content-Type: application/x-bytes\r\nTransfer-Encoding: chunked\r\n";
    client
        .send(request("PUT", "/v2/a/manifests/v3", lines))
        .await;
    client
        .send([b"1001\r\n".to_vec(), vec![b'x'; 4097], b"\r\n".to_vec()].concat())
        .await;
    assert_eq!(client.answer().await.0.status(), 413);
}

#[tokio::test]
async fn a_signature_is_found_by_what_it_is_about() {
    let fixture = StoreFixture::new().await;
    for (mut client, name) in [(fixture.http1(), "base/one"), (fixture.http2(), "base/two")] {
        let image = Image::small(10);
        let referrers = format!("/v2/{name}/referrers/{}", image.digest());
        // Nothing is known of it yet: that is an empty list, not an error.
        let none = client.get(&referrers).await.is(200);
        assert_eq!(none.header("content-type"), INDEX);
        assert_eq!(
            none.json(),
            json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
        );
        let blobs = [
            ("application/x-signature", bytes(11, 50)),
            ("application/x-sbom", bytes(12, 60)),
        ];
        client.push_blob(name, b"{}").await;
        let mut pushed = Vec::new();
        for (kind, blob) in &blobs {
            client.push_blob(name, blob).await;
            // Also before what it is about.
            let manifest = referrer(&image.descriptor(), kind, blob);
            let answer = client
                .push_manifest(name, &sha256(&manifest), &manifest)
                .await
                .is(201);
            assert_eq!(answer.header("oci-subject"), image.digest());
            pushed.push(manifest);
        }
        client.push(name, "v1", &image).await;
        let all = client.get(&referrers).await.is(200);
        assert!(!all.has("oci-filters-applied"));
        let mut found: Vec<_> = all.json()["manifests"].as_array().unwrap().clone();
        found.sort_by_key(|found| found["artifactType"] != "application/x-signature");
        for ((manifest, (kind, _)), found) in pushed.iter().zip(&blobs).zip(&found) {
            let mut expected = descriptor(MANIFEST, manifest);
            expected["artifactType"] = json!(kind);
            expected["annotations"] = json!({"about": kind});
            assert_eq!(*found, expected);
        }
        assert_eq!(found.len(), 2);
        let filtered = client
            .get(&format!("{referrers}?artifactType=application/x-sbom"))
            .await
            .is(200);
        assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
        let filtered = filtered.json();
        assert_eq!(filtered["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(filtered["manifests"][0]["digest"], sha256(&pushed[1]));
        client
            .ask(
                "DELETE",
                &format!("/v2/{name}/manifests/{}", sha256(&pushed[0])),
            )
            .await
            .is(202);
        assert_eq!(
            client.get(&referrers).await.json()["manifests"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
}
