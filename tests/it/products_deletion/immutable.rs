//! Tags that nobody may move: the manifest that is there is no news, another one is denied.

use super::answering::{Answering, refusal};
use super::between::client;
use crate::harness::wire::Request;
use crate::store::image::{Image, sha256};

#[tokio::test]
async fn the_same_manifest_is_there_and_another_is_denied() {
    let ecr = "The image tag 'v1' already exists in the 'app' repository and cannot be overwritten \
               because the repository is immutable.";
    for (product, status, code, words) in [
        ("ecr", 400, "TAG_INVALID", ecr),
        (
            "harbor",
            412,
            "PRECONDITION",
            "the tag v1 configured as immutable",
        ),
        ("quay", 409, "TAG_IMMUTABLE", "tag v1 cannot be changed"),
        ("dockerhub", 400, "DENIED", "tag v1 is immutable"),
    ] {
        let image = Image::small(1);
        let digest = image.digest();
        let server = Answering::new(move |request: &Request| match request.method() {
            "HEAD" => {
                let line = format!("Docker-Content-Digest: {digest}\r\n");
                (200, line, String::new())
            }
            _ => refusal(status, code, words),
        })
        .await;
        let login = "username = 'AWS'\npassword = 'secret'";
        let gateway = server.gateway(product, login, "").await;
        let mut client = client(&gateway);
        let same = client.push_manifest("app/web", "v1", &image.manifest).await;
        let same = same.is(201);
        assert_eq!(
            same.header("docker-content-digest"),
            sha256(&image.manifest)
        );
        let location = format!("https://ci.test/v2/app/web/manifests/{}", image.digest());
        assert_eq!(same.header("location"), location);
        let other = Image::small(2).manifest;
        let refused = client.push_manifest("app/web", "v1", &other).await;
        assert_eq!(refused.refused(403, "DENIED"), words, "{product}");
    }
}

#[tokio::test]
async fn a_plain_registry_says_what_it_says() {
    let server = Answering::new(|_| refusal(409, "TAG_IMMUTABLE", "no")).await;
    let gateway = server.gateway("distribution", "", "").await;
    let manifest = Image::small(1).manifest;
    let refused = client(&gateway)
        .push_manifest("app", "v1", &manifest)
        .await
        .is(409);
    assert_eq!(refused.json()["errors"][0]["code"], "TAG_IMMUTABLE");
    assert_eq!(server.take(), ["PUT /v2/app/manifests/v1"]);
}
