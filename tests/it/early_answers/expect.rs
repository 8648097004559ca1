//! `Expect: 100-continue` waits for the right to send; other protocols are not spoken.

use super::UPLOAD;
use crate::harness::{Gateway, ProxiedPair, Transfer, Upstream, basic, promptly, request};

const EXPECT: &str = "Content-Length: 5\r\nExpect: 100-continue\r\n";

#[tokio::test]
async fn no_100_comes_before_a_401() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let wrong = format!("Authorization: {}\r\n", basic("alice", "wrong"));
    for authorization in ["", &wrong] {
        let mut client = gateway.client().await;
        let head =
            format!("PATCH {UPLOAD} HTTP/1.1\r\nHost: ci.test\r\n{authorization}{EXPECT}\r\n");
        client.send(head).await;
        assert_eq!(promptly(client.answer()).await.0.status(), 401);
        promptly(client.ended()).await;
    }
    upstream.untouched().await;
}

#[tokio::test]
async fn a_100_comes_with_the_right_to_send_and_expect_goes_no_further() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("PATCH", UPLOAD, EXPECT)).await;
    assert_eq!(promptly(client.head()).await.first, "HTTP/1.1 100 Continue");
    let mut registry = upstream.accept().await;
    assert_eq!(registry.head().await.get("expect"), None);
    client.send("hello").await;
    assert_eq!(promptly(registry.bytes(5)).await, b"hello");
    registry
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(promptly(client.answer()).await.0.status(), 202);
}

#[tokio::test]
async fn an_interim_answer_of_the_upstream_is_no_answer() {
    let mut transfer = Transfer::http1(request("PATCH", UPLOAD, "Content-Length: 5\r\n")).await;
    transfer
        .registry
        .send("HTTP/1.1 100 Continue\r\n\r\n")
        .await;
    transfer.client.send("hello").await;
    assert_eq!(promptly(transfer.registry.bytes(5)).await, b"hello");
    transfer
        .registry
        .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(promptly(transfer.client.answer()).await.0.status(), 202);
}

#[tokio::test]
async fn an_upgrade_is_ignored_and_never_forwarded() {
    let mut between = ProxiedPair::new().await;
    for lines in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: TLS/1.0\r\n",
        "Upgrade: \r\n",
        "Upgrade: h2c\r\nUpgrade: websocket\r\n",
    ] {
        // Over one connection, which stays HTTP.
        let asked = between.passed(request("GET", "/v2/", lines)).await;
        for name in ["upgrade", "connection", "http2-settings"] {
            assert!(asked.all(name).is_empty(), "{lines}: {asked:?}");
        }
    }
    let lines = "Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n";
    let asked = request("PUT", "/v2/a/manifests/v1", lines) + "{}";
    let head = between.forwarded(asked).await;
    assert!(head.all("upgrade").is_empty());
    assert_eq!(between.registry().bytes(2).await, b"{}");
}

#[tokio::test]
async fn connect_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    let authorization = basic("alice", "secret");
    client
        .send(format!(
            "CONNECT {} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\r\n",
            upstream.address()
        ))
        .await;
    let head = promptly(client.head()).await;
    assert_eq!(head.status(), 501);
    client
        .try_send("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await
        .ok();
    upstream.untouched().await;
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_502() {
    let mut transfer = Transfer::http1(request("GET", "/v2/", "")).await;
    transfer
        .registry
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nbytes")
        .await;
    assert_eq!(promptly(transfer.client.answer()).await.0.status(), 502);
    promptly(transfer.registry.ended()).await;
}
