//! Requests name repositories as the registry does; everything else of them stays byte for byte.

use super::fixture::{DIGEST, MAP, mapped_pair};
use crate::harness::{ProxiedPair, request};

const MANIFEST: &str =
    "Content-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: 2\r\n";

#[tokio::test]
async fn targets_have_the_names_of_the_registry() {
    let encoded = DIGEST.replace(':', "%3a");
    let cases = [
        ("GET", "/v2/".to_owned(), "/v2/".to_owned()),
        (
            "GET",
            "/v2/ci/a/b/manifests/v1?x=%41&ns=ci/a/b&&y".to_owned(),
            "/v2/acme/ci-a--b/manifests/v1?x=%41&ns=ci/a/b&&y".to_owned(),
        ),
        (
            "GET",
            format!("/v2/ci/a-b_c/blobs/{encoded}"),
            format!("/v2/acme/ci-a-b_c/blobs/{encoded}"),
        ),
        (
            "GET",
            "/v2/ci/ci/tags/list?last=ci/ci&n=5".to_owned(),
            "/v2/acme/ci-ci/tags/list?last=ci/ci&n=5".to_owned(),
        ),
        (
            "GET",
            "/v2/base/a/b/tags/list?n=5000&last=x".to_owned(),
            "/v2/mirror/a/b/tags/list?n=1000&last=x".to_owned(),
        ),
        (
            "GET",
            format!("/v2/base/manifests/blobs/referrers/{DIGEST}?artifactType=a%2Fb"),
            format!("/v2/mirror/manifests/blobs/referrers/{DIGEST}?artifactType=a%2Fb"),
        ),
        (
            "DELETE",
            "/v2/ci/app/manifests/v1".to_owned(),
            "/v2/acme/ci-app/manifests/v1".to_owned(),
        ),
        (
            "POST",
            "/v2/ci/app/blobs/uploads/?x=1".to_owned(),
            "/v2/acme/ci-app/blobs/uploads/?x=1".to_owned(),
        ),
        (
            "POST",
            format!("/v2/ci/app/blobs/uploads/?z=%7e&mount={encoded}&from=base%2Fa%2Fb&y"),
            format!("/v2/acme/ci-app/blobs/uploads/?z=%7e&mount={encoded}&from=mirror/a/b&y"),
        ),
        (
            "PATCH",
            "/v2/ci/a/b/blobs/uploads/0-1?_state=x%3D".to_owned(),
            "/v2/acme/ci-a--b/blobs/uploads/0-1?_state=x%3D".to_owned(),
        ),
        (
            "PUT",
            format!("/v2/ci/a/b/blobs/uploads/0-1?digest={encoded}"),
            format!("/v2/acme/ci-a--b/blobs/uploads/0-1?digest={encoded}"),
        ),
    ];
    for base in ["", "/inside/ci"] {
        let mut pair = ProxiedPair::with(|domain| domain.base_path(base).tables(MAP)).await;
        for (method, target, inside) in &cases {
            let asked = pair.passed(request(method, target, "")).await;
            assert_eq!(asked.first, format!("{method} {base}{inside} HTTP/1.1"));
        }
        let put = request("PUT", "/v2/ci/app/manifests/v1?x=%41", MANIFEST);
        let asked = pair.forwarded(put + "{}").await;
        let inside = format!("{base}/v2/acme/ci-app/manifests/v1?x=%41");
        assert_eq!(asked.first, format!("PUT {inside} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_mount_from_what_the_registry_does_not_have_is_an_upload() {
    let mut pair = mapped_pair().await;
    for from in ["&from=other/app", "&from=ci/a--b", "&from=acme/ci-app", ""] {
        let target = format!("/v2/ci/app/blobs/uploads/?x=%41&mount={DIGEST}{from}");
        let asked = pair.forwarded(request("POST", &target, "")).await;
        assert_eq!(
            asked.first, "POST /v2/acme/ci-app/blobs/uploads/?x=%41 HTTP/1.1",
            "{from}"
        );
        let accepted = "HTTP/1.1 202 Accepted\r\nLocation: /v2/acme/ci-app/blobs/uploads/0-1\r\n\
                        Content-Length: 0\r\n\r\n";
        assert_eq!(pair.answered(accepted).await.0.status(), 202, "{from}");
    }
}

#[tokio::test]
async fn whether_a_tag_exists_is_asked_by_the_name_of_the_registry() {
    let rules = "[[access]]\nusers = ['alice']\nrepositories = ['ci/**']\nactions = ['push']\n";
    let mut pair = ProxiedPair::with(|domain| domain.tables(&format!("{rules}{MAP}"))).await;
    let put = request("PUT", "/v2/ci/a/b/manifests/v1", MANIFEST);
    let asked = pair.forwarded(put + "{}").await;
    assert_eq!(asked.first, "HEAD /v2/acme/ci-a--b/manifests/v1 HTTP/1.1");
    pair.registry().send("HTTP/1.1 404 Not Found\r\n\r\n").await;
    let asked = pair.asked().await;
    assert_eq!(asked.first, "PUT /v2/acme/ci-a--b/manifests/v1 HTTP/1.1");
}

#[tokio::test]
async fn a_registry_without_a_map_receives_what_the_client_sent() {
    let mut pair = ProxiedPair::new().await;
    let target = format!("/v2/ci/a/b/blobs/uploads/?mount={DIGEST}");
    let asked = pair
        .passed(request("POST", &target, "Accept-Encoding: gzip\r\n"))
        .await;
    assert_eq!(asked.first, format!("POST {target} HTTP/1.1"));
    assert_eq!(asked.get("accept-encoding"), Some("gzip"));
}
