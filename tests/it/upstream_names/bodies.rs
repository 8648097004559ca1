//! Lists of tags and errors have the names that clients know; every other body passes as it is.

use serde_json::json;

use super::fixture::mapped_pair;
use crate::harness::{json as parsed, request};

fn with_length(head: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_list_of_tags_has_the_name_that_its_client_asked_for() {
    let mut pair = mapped_pair().await;
    let google = r#"{ "child" : ["acme/ci-a--b", "x"],
        "manifest": {"sha256:0": {"imageSizeBytes": 12345678901234567890.10, "name": "acme/ci-a--b",
            "tag": ["v1"], "timeCreatedMs": "1\u0030"}},
        "name":"acme\/ci-a--b", "tags":["v1","acme"]}
"#;
    for answer in [google, r#"{"name":"other/form","tags":null}"#] {
        let asked = pair
            .forwarded(request(
                "GET",
                "/v2/ci/a/b/tags/list",
                "Accept-Encoding: gzip\r\n",
            ))
            .await;
        assert_eq!(asked.get("accept-encoding"), Some("identity"));
        let head = "200 OK\r\nContent-Type: application/json\r\nETag: \"1\"\r\n\
                    Content-Digest: sha-256=:x=:\r\nAccept-Ranges: bytes";
        let (head, body) = pair.answered(with_length(head, answer)).await;
        let body = String::from_utf8(body).unwrap();
        let expected = answer
            .replace(r#""name":"acme\/ci-a--b""#, r#""name":"ci/a/b""#)
            .replace(r#""name":"other/form""#, r#""name":"ci/a/b""#);
        assert_eq!(body, expected);
        assert_eq!(head.get("etag"), Some("\"1\""));
        for gone in ["content-digest", "accept-ranges", "content-length"] {
            assert_eq!(head.get(gone), None, "{gone}");
        }
    }
}

#[tokio::test]
async fn a_list_of_tags_streams() {
    let mut pair = mapped_pair().await;
    pair.forwarded(request("GET", "/v2/ci/app/tags/list", ""))
        .await;
    let tags = vec!["x".repeat(100); 1000];
    let list = json!({ "name": "acme/ci-app", "tags": tags }).to_string();
    let (first, rest) = list.split_at(50_000);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", list.len());
    pair.registry().send(head + first).await;
    pair.client.head().await;
    while pair.client.buffer.len() < 49_000 {
        assert!(pair.client.more().await);
    }
    pair.registry().send(rest).await;
    let body = pair.client.chunked().await.unwrap();
    assert_eq!(parsed(&body), json!({ "name": "ci/app", "tags": tags }));
}

#[tokio::test]
async fn errors_have_the_names_that_clients_know() {
    let mut pair = mapped_pair().await;
    let mount = format!(
        "/v2/ci/a/b/blobs/uploads/?mount={}&from=base/x",
        super::fixture::DIGEST
    );
    let error = |name: &str, from: &str| {
        json!({"errors": [{
            "code": "NAME_UNKNOWN",
            "message": format!("no {name}: '{name}:v1' at https://in.test/v2/{name}/manifests/v1."),
            "detail": {"name": name, "from": [from, {"x": format!("{from}/y {name}-z")}]},
        }]})
    };
    for kind in ["application/json; charset=utf-8", "application/vnd.x+JSON"] {
        let inside = error("acme/ci-a--b", "mirror/x").to_string();
        let inside = inside.replace("/", "\\/");
        pair.forwarded(request("POST", &mount, "")).await;
        let head = format!("404 Not Found\r\nContent-Type: {kind}\r\nETag: \"1\"");
        let (head, body) = pair.answered(with_length(&head, &inside)).await;
        assert_eq!(head.status(), 404);
        assert_eq!(head.length(), Some(body.len()));
        let mut outside = error("ci/a/b", "base/x");
        // The name of another repository, which begins alike.
        outside["errors"][0]["detail"]["from"][1]["x"] = json!("base/x/y acme/ci-a--b-z");
        assert_eq!(parsed(&body), outside);
    }
}

#[tokio::test]
async fn a_long_error_streams_with_other_names() {
    let mut pair = mapped_pair().await;
    let error = |name: &str| {
        let details = vec![json!({ "name": name }); 5000];
        json!({"errors": [{"code": "DENIED", "message": name, "detail": details}]})
    };
    pair.forwarded(request("GET", "/v2/ci/app/manifests/v1", ""))
        .await;
    let head = "403 Forbidden\r\nContent-Type: application/json";
    let (head, body) = pair
        .answered(with_length(head, &error("acme/ci-app").to_string()))
        .await;
    assert_eq!(head.length(), None);
    assert_eq!(parsed(&body), error("ci/app"));
}

#[tokio::test]
async fn other_bodies_pass_as_they_are() {
    let mut pair = mapped_pair().await;
    let body = r#"{"name":"acme/ci-app","errors":[{"detail":"acme/ci-app"}]}"#;
    let digest = crate::store::image::sha256(body.as_bytes());
    let manifests = "/v2/ci/app/manifests/v1";
    let referrers = format!("/v2/ci/app/referrers/{digest}");
    for (target, head) in [
        (manifests, "200 OK\r\nContent-Type: application/json"),
        (manifests, "404 Not Found\r\nContent-Type: text/html"),
        (manifests, "404 Not Found"),
        (
            manifests,
            "404 Not Found\r\nContent-Type: application/json\r\nContent-Encoding: x",
        ),
        (&referrers, "200 OK\r\nContent-Type: application/json"),
    ] {
        pair.forwarded(request("GET", target, "")).await;
        let head = format!("{head}\r\nDocker-Content-Digest: {digest}\r\nETag: \"{digest}\"");
        let (answer, got) = pair.answered(with_length(&head, body)).await;
        assert_eq!(String::from_utf8(got).unwrap(), body, "{head}");
        assert_eq!(answer.length(), Some(body.len()));
        assert_eq!(answer.get("docker-content-digest"), Some(&*digest));
        assert_eq!(answer.get("etag"), Some(&*format!("\"{digest}\"")));
    }
}

#[tokio::test]
async fn a_head_has_the_length_of_content_and_none_of_an_error() {
    let mut pair = mapped_pair().await;
    for (head, length) in [
        ("200 OK\r\nContent-Type: application/json", Some(77)),
        ("404 Not Found\r\nContent-Type: application/json", None),
    ] {
        pair.forwarded(request("HEAD", "/v2/ci/app/manifests/v1", ""))
            .await;
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 77\r\n\r\n");
        let answer = pair.answered_head(answer).await;
        assert_eq!(answer.length(), length, "{head}");
    }
}

#[tokio::test]
async fn an_error_that_ends_early_is_an_error_of_the_upstream() {
    let mut pair = mapped_pair().await;
    pair.forwarded(request("GET", "/v2/ci/app/manifests/v1", ""))
        .await;
    let answer = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\
                  Content-Length: 77\r\n\r\n{\"errors\":[";
    pair.registry().send(answer).await;
    pair.registry = None;
    let (head, _) = pair.client.answer().await;
    assert_eq!(head.status(), 502);
}
