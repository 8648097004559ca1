//! The shortest way through: a login, a pull, a push.

use crate::harness::{Gateway, Upstream, bound, request, url};

#[tokio::test]
async fn a_manifest_is_pulled() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client
        .send(request(
            "GET",
            "/v2/base/app/manifests/v1",
            "Accept: */*\r\n",
        ))
        .await;
    let mut registry = upstream.accept().await;
    let asked = registry.head().await;
    assert_eq!(asked.first, "GET /v2/base/app/manifests/v1 HTTP/1.1");
    assert_eq!(asked.get("authorization"), None);
    assert_eq!(
        asked.get("host"),
        Some(upstream.address().to_string().as_str())
    );
    registry
        .send(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nDocker-Content-Digest: sha256:1\r\n\r\n{\"1}",
        )
        .await;
    let (head, body) = client.answer().await;
    assert_eq!(head.status(), 200);
    assert_eq!(head.get("docker-content-digest"), Some("sha256:1"));
    assert_eq!(body, b"{\"1}");
    assert!(gateway.stop().await);
}

#[tokio::test]
async fn a_chunk_is_pushed_and_its_location_is_ours() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    let target = "/v2/base/app/blobs/uploads/abc?_state=x%2Fy";
    client
        .send(request("PATCH", target, "Transfer-Encoding: chunked\r\n"))
        .await;
    client.send("5\r\nhello\r\n").await;
    let mut registry = upstream.accept().await;
    let asked = registry.head().await;
    assert_eq!(asked.first, format!("PATCH {target} HTTP/1.1"));
    client.send("0\r\n\r\n").await;
    assert_eq!(
        registry.chunked().await.as_deref(),
        Some(b"hello".as_slice())
    );
    let location = format!("{}/v2/base/app/blobs/uploads/abc?_state=z", upstream.url());
    registry
        .send(format!(
            "HTTP/1.1 202 Accepted\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let (head, _) = client.answer().await;
    assert_eq!(head.status(), 202);
    assert_eq!(
        head.get("location"),
        Some(url(&bound("/v2/base/app/blobs/uploads/abc?_state=z")).as_str())
    );
}

#[tokio::test]
async fn nobody_gets_in_without_a_password() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client
        .send("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    let (head, body) = client.answer().await;
    assert_eq!(head.status(), 401);
    assert_eq!(
        head.get("www-authenticate"),
        Some("Basic realm=\"ci.test\"")
    );
    assert_eq!(
        head.get("docker-distribution-api-version"),
        Some("registry/2.0")
    );
    assert!(String::from_utf8(body).unwrap().contains("UNAUTHORIZED"));
    upstream.untouched().await;
}
