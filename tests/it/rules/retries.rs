//! Rule 10: a request without a body is sent once more when a kept connection turns out dead.

use crate::harness::{ProxiedPair, json, request, settle};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const CHUNK: &str = "/v2/a/blobs/uploads/1";

/// A gateway with one connection to the upstream in its pool.
async fn with_a_kept_connection() -> ProxiedPair {
    let mut between = ProxiedPair::new().await;
    between.passed(request("GET", "/v2/", "")).await;
    settle().await;
    between
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let mut between = with_a_kept_connection().await;
    between
        .client
        .send(request("GET", "/v2/_catalog", ""))
        .await;
    assert_eq!(
        between.registry().head().await.first,
        "GET /v2/_catalog HTTP/1.1"
    );
    between.upstream.untouched().await;
}

#[tokio::test]
async fn a_request_without_a_body_is_repeated_once_on_a_fresh_connection() {
    let mut between = with_a_kept_connection().await;
    for (method, target) in [
        ("GET", "/v2/_catalog?n=1"),
        ("HEAD", "/v2/a/manifests/v1"),
        ("DELETE", "/v2/a/manifests/v1"),
    ] {
        between
            .client
            .send(request(method, target, "X-Kept: 1\r\n"))
            .await;
        let first = between.registry().head().await;
        // It read the request and ends without a byte of an answer.
        between.registry = None;
        let second = between.asked().await;
        assert_eq!(second, first);
        between.registry().send(OK).await;
        assert_eq!(between.client.head().await.status(), 200, "{method}");
        settle().await;
    }
}

#[tokio::test]
async fn it_is_not_repeated_a_second_time() {
    let mut between = with_a_kept_connection().await;
    between
        .client
        .send(request("GET", "/v2/_catalog", ""))
        .await;
    between.registry().head().await;
    between.registry = None;
    between.asked().await;
    between.registry = None;
    let (head, body) = between.client.answer().await;
    assert_eq!(head.status(), 502);
    assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
    between.upstream.untouched().await;
}

#[tokio::test]
async fn it_is_not_repeated_on_a_first_connection() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", "/v2/", "")).await;
    between.registry = None;
    assert_eq!(between.client.answer().await.0.status(), 502);
    between.upstream.untouched().await;
}

#[tokio::test]
async fn it_is_not_repeated_once_an_answer_has_begun() {
    let mut between = with_a_kept_connection().await;
    between
        .client
        .send(request("GET", "/v2/_catalog", ""))
        .await;
    between.registry().head().await;
    between
        .registry()
        .send("HTTP/1.1 200 OK\r\nContent-Le")
        .await;
    settle().await;
    between.registry = None;
    assert_eq!(between.client.answer().await.0.status(), 502);
    between.upstream.untouched().await;
}

#[tokio::test]
async fn a_request_with_a_body_is_not_repeated_once_it_was_written() {
    let mut between = with_a_kept_connection().await;
    between
        .client
        .send(format!(
            "{}hello",
            request("PATCH", CHUNK, "Content-Length: 10\r\n")
        ))
        .await;
    between.registry().head().await;
    assert_eq!(between.registry().bytes(5).await, b"hello");
    between.registry = None;
    let (head, _) = between.client.answer().await;
    assert_eq!(head.status(), 502);
    between.upstream.untouched().await;
}

#[tokio::test]
async fn a_request_with_a_body_is_not_repeated_even_if_only_its_head_was_written() {
    let mut between = with_a_kept_connection().await;
    between
        .client
        .send(request(
            "PUT",
            "/v2/a/manifests/v1",
            "Content-Length: 10\r\n",
        ))
        .await;
    between.registry().head().await;
    between.registry = None;
    assert_eq!(between.client.answer().await.0.status(), 502);
    between.upstream.untouched().await;
}

#[tokio::test]
async fn a_request_with_a_body_takes_a_fresh_connection_when_the_kept_one_was_closed() {
    let mut between = with_a_kept_connection().await;
    // Closed, and whether the gateway has seen it yet or not: nothing can have been written.
    between.registry = None;
    between
        .client
        .send(format!(
            "{}hello",
            request("PATCH", CHUNK, "Content-Length: 5\r\n")
        ))
        .await;
    let asked = between.asked().await;
    assert_eq!(asked.first, format!("PATCH {CHUNK} HTTP/1.1"));
    assert_eq!(between.registry().bytes(5).await, b"hello");
    assert_eq!(between.answered(OK).await.0.status(), 200);
}

#[tokio::test]
async fn a_closed_connection_is_not_used_again() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", "/v2/", "")).await;
    between
        .answered("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .await;
    settle().await;
    between
        .client
        .send(request("GET", "/v2/_catalog", ""))
        .await;
    let mut fresh = between.upstream.accept().await;
    assert_eq!(fresh.head().await.first, "GET /v2/_catalog HTTP/1.1");
}
