//! Deleting: what is asked for goes, and nothing that something else needs.

use serde_json::json;

use super::fixture::StoreFixture;
use super::image::{Image, bytes, descriptor, index, sha256};

#[tokio::test]
async fn a_tag_goes_and_its_manifest_stays() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let image = Image::small(1);
    for tag in ["v1", "v2"] {
        client.push("a", tag, &image).await;
    }
    client.ask("DELETE", "/v2/a/manifests/v1").await.is(202);
    client
        .get("/v2/a/manifests/v1")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    client
        .ask("DELETE", "/v2/a/manifests/v1")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    client.check("a", "v2", &image).await;
    client.ask("DELETE", "/v2/a/manifests/v2").await.is(202);
    client.check("a", &image.digest(), &image).await;
    assert_eq!(
        client.get("/v2/a/tags/list").await.is(200).json(),
        json!({"name": "a", "tags": []})
    );
}

#[tokio::test]
async fn a_manifest_goes_with_all_its_tags() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http2();
    let (image, other) = (Image::small(2), Image::small(3));
    for tag in ["v1", "v2"] {
        client.push("a", tag, &image).await;
    }
    client.push("a", "v3", &other).await;
    let target = format!("/v2/a/manifests/{}", image.digest());
    client.ask("DELETE", &target).await.is(202);
    for reference in ["v1", "v2", &image.digest()] {
        client
            .get(&format!("/v2/a/manifests/{reference}"))
            .await
            .refused(404, "MANIFEST_UNKNOWN");
    }
    client
        .ask("DELETE", &target)
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    client.check("a", "v3", &other).await;
    client
        .ask("DELETE", "/v2/no/such/manifests/v1")
        .await
        .refused(404, "NAME_UNKNOWN");
    // It can come back.
    client.push("a", "v1", &image).await;
    client.check("a", "v1", &image).await;
}

#[tokio::test]
async fn what_something_needs_is_not_deleted() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let child = Image::small(4);
    client.push("a", &child.digest(), &child).await;
    let list = index(&[child.descriptor()]);
    client.push_manifest("a", "all", &list).await.is(201);
    let message = client
        .ask("DELETE", &format!("/v2/a/manifests/{}", child.digest()))
        .await
        .refused(403, "DENIED");
    assert_eq!(
        message,
        format!(
            "the manifest is referenced by the index {}: delete that first",
            sha256(&list)
        )
    );
    let layer = format!("/v2/a/blobs/{}", sha256(&child.layers[0]));
    let message = client.ask("DELETE", &layer).await.refused(403, "DENIED");
    assert_eq!(
        message,
        format!(
            "the blob is referenced by the manifest {}: delete that first",
            child.digest()
        )
    );
    for blob in [&child.manifest, &list, &child.config] {
        client
            .ask("DELETE", &format!("/v2/a/blobs/{}", sha256(blob)))
            .await
            .refused(403, "DENIED");
    }
    client.check("a", &child.digest(), &child).await;
    for digest in [sha256(&list), child.digest()] {
        client
            .ask("DELETE", &format!("/v2/a/manifests/{digest}"))
            .await
            .is(202);
    }
    client.ask("DELETE", &layer).await.is(202);
    client.get(&layer).await.refused(404, "BLOB_UNKNOWN");
    client
        .ask("DELETE", &layer)
        .await
        .refused(404, "BLOB_UNKNOWN");
    client
        .ask("DELETE", &format!("/v2/no/such/blobs/{}", sha256(b"x")))
        .await
        .refused(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_blob_goes_in_one_repository_and_stays_in_another() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.http1();
    let blob = bytes(5, 1000);
    let digest = client.push_blob("a", &blob).await;
    client.push_blob("b", &blob).await;
    client
        .ask("DELETE", &format!("/v2/a/blobs/{digest}"))
        .await
        .is(202);
    client.get(&format!("/v2/a/blobs/{digest}")).await.is(404);
    assert!(
        client
            .get(&format!("/v2/b/blobs/{digest}"))
            .await
            .is(200)
            .body
            == blob
    );
    // A manifest here cannot have it any more.
    let manifest = index(&[descriptor("a/b", &blob)]);
    client
        .push_manifest("a", "v1", &manifest)
        .await
        .refused(400, "MANIFEST_BLOB_UNKNOWN");
}
