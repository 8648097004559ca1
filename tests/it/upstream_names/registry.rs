//! The whole protocol through a map, before a registry in this process.

use serde_json::json;

use super::fixture::{KINDS, MAP, mapped_registry};
use crate::access::fixture::AccessFixture;
use crate::store::client::{Client, Endpoint};
use crate::store::image::{Image, descriptor, referrer, sha256};

/// A client of the registry itself, with nobody in front.
fn inside(fixture: &AccessFixture) -> Client {
    let registry = fixture.registry().expect("it is before another registry");
    let mut endpoint = Endpoint::new(registry, "http/1.1");
    endpoint.host = "registry.test".to_owned();
    endpoint.client()
}

#[tokio::test]
async fn images_go_up_and_down() {
    for kind in KINDS {
        let fixture = mapped_registry(kind, "", MAP).await;
        let mut root = fixture.client("root");
        let image = Image::small(1);
        for (outside, name) in [("ci/a/b", "acme/ci-a--b"), ("base/a/b", "mirror/a/b")] {
            root.push(outside, "v1", &image).await;
            root.push(outside, "v2", &image).await;
            root.check(outside, "v1", &image).await;
            inside(&fixture).check(name, "v1", &image).await;
            let tags = root
                .get(&format!("/v2/{outside}/tags/list?n=1"))
                .await
                .is(200);
            assert_eq!(tags.json(), json!({ "name": outside, "tags": ["v1"] }));
            let next = tags.header("link").strip_prefix('<').unwrap();
            let (next, _) = next.split_once('>').unwrap();
            let tags = root.get(next).await.is(200);
            assert_eq!(tags.json(), json!({ "name": outside, "tags": ["v2"] }));
        }
        let catalog = root.get("/v2/_catalog").await.is(200);
        assert_eq!(
            catalog.json(),
            json!({"repositories": ["base/a/b", "ci/a/b"]})
        );
    }
}

#[tokio::test]
async fn referrers_are_found() {
    for kind in KINDS {
        let fixture = mapped_registry(kind, "", MAP).await;
        let mut root = fixture.client("root");
        let image = Image::small(1);
        root.push("ci/a/b", "v1", &image).await;
        root.push_blob("ci/a/b", b"{}").await;
        root.push_blob("ci/a/b", b"signature").await;
        let manifest = referrer(&image.descriptor(), "application/x", b"signature");
        let put = root
            .push_manifest("ci/a/b", &sha256(&manifest), &manifest)
            .await
            .is(201);
        assert_eq!(put.header("oci-subject"), image.digest());
        let location = format!("https://ci.test/v2/ci/a/b/manifests/{}", sha256(&manifest));
        assert_eq!(put.header("location"), location);
        let list = root
            .get(&format!("/v2/ci/a/b/referrers/{}", image.digest()))
            .await
            .is(200);
        assert_eq!(list.json()["manifests"][0]["digest"], sha256(&manifest));
    }
}

#[tokio::test]
async fn a_blob_is_uploaded_in_chunks() {
    for kind in KINDS {
        let fixture = mapped_registry(kind, "", MAP).await;
        let mut root = fixture.client("root");
        let mut session = root.start("ci/a/b").await;
        for (range, chunk) in [("0-4", "01234"), ("5-9", "56789")] {
            let headers = [("content-range", range)];
            let answer = root
                .ask_with("PATCH", &session, &headers, chunk)
                .await
                .is(202);
            session = answer.header("location").to_owned();
            assert!(session.contains("/v2/ci/a/b/blobs/uploads/"), "{session}");
        }
        let status = root.get(&session).await.is(204);
        assert_eq!(status.header("range"), "0-9");
        let digest = sha256(b"0123456789");
        let separator = if session.contains('?') { '&' } else { '?' };
        let commit = format!("{session}{separator}digest={digest}");
        let answer = root.ask_with("PUT", &commit, &[], "").await.is(201);
        let location = format!("https://ci.test/v2/ci/a/b/blobs/{digest}");
        assert_eq!(answer.header("location"), location);
        let cancelled = root.start("ci/a/b").await;
        root.ask("DELETE", &cancelled).await.is(204);
        root.get(&cancelled)
            .await
            .refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[tokio::test]
async fn a_blob_is_mounted_across_rules() {
    for kind in KINDS {
        let fixture = mapped_registry(kind, "", MAP).await;
        let mut root = fixture.client("root");
        let digest = root.push_blob("base/a/b", b"blob").await;
        let mount =
            |to: &str, from: &str| format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
        let mounted = root.ask("POST", &mount("ci/a/b", "base/a/b")).await.is(201);
        let location = format!("https://ci.test/v2/ci/a/b/blobs/{digest}");
        assert_eq!(mounted.header("location"), location);
        root.ask("HEAD", &location).await.is(200);
        // The names of the registry are none outside.
        let upload = root.ask("POST", &mount("ci/c", "mirror/a/b")).await.is(202);
        let session = upload.header("location").to_owned();
        let commit = format!("{session}?digest={digest}");
        root.ask_with("PUT", &commit, &[], "blob").await.is(201);
    }
}

#[tokio::test]
async fn content_is_deleted_and_missing_by_the_names_outside() {
    for kind in KINDS {
        let fixture = mapped_registry(kind, "", MAP).await;
        let mut root = fixture.client("root");
        let image = Image::small(1);
        root.push("ci/a/b", "v1", &image).await;
        let manifest = |reference: &str| format!("/v2/ci/a/b/manifests/{reference}");
        root.ask("DELETE", &manifest(&image.digest())).await.is(202);
        for target in [manifest("v1"), manifest(&image.digest())] {
            let missing = root.get(&target).await;
            assert_eq!(
                missing.header("content-length"),
                missing.body.len().to_string()
            );
            missing.refused(404, "MANIFEST_UNKNOWN");
        }
        let missing = root.get("/v2/ci/nil/tags/list").await.is(404);
        let text = String::from_utf8(missing.body.to_vec()).unwrap();
        assert!(!text.contains("acme"), "{text}");
        inside(&fixture)
            .push_blob(
                "acme/other",
                &json!(descriptor("x", b"y")).to_string().into_bytes(),
            )
            .await;
        root.get("/v2/acme/other/tags/list")
            .await
            .refused(404, "NAME_UNKNOWN");
    }
}
