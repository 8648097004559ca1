//! Rule 11: moorgate's own answers are what clients of each kind understand.

use std::time::Duration;

use crate::harness::{
    Head, Http2, ProxiedPair, Upstream, json, jump, no_body, request, request2, settle,
};

/// Asserts the form of an answer of our own under `/v2/`.
fn is_api_error(head: &Head, body: &[u8], status: u16, code: &str) {
    assert_eq!(head.status(), status, "{head:?}");
    assert_eq!(head.get("content-type"), Some("application/json"));
    assert_eq!(
        head.get("docker-distribution-api-version"),
        Some("registry/2.0")
    );
    assert_eq!(head.length(), Some(body.len()));
    let document = json(body);
    let errors = document["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{document}");
    assert_eq!(errors[0]["code"], code);
    assert!(
        errors[0]["message"]
            .as_str()
            .is_some_and(|message| message.len() > 10),
        "{document}"
    );
}

#[tokio::test]
async fn an_upstream_that_is_down_is_unavailable_and_worth_another_try() {
    let mut between = ProxiedPair::new().await;
    // Its listener is closed with that and refuses connections.
    between.upstream = Upstream::new().await;
    between.client.send(request("GET", "/v2/", "")).await;
    let (head, body) = between.client.answer().await;
    is_api_error(&head, &body, 503, "UNAVAILABLE");
    assert!(head.get("retry-after").unwrap().parse::<u16>().unwrap() > 0);
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_a_bad_gateway() {
    let mut between = ProxiedPair::new().await;
    for answer in [
        "",
        "HTTP/1.1 200",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ] {
        between.forwarded(request("GET", "/v2/", "")).await;
        between.registry().send(answer).await;
        between.registry = None;
        let (head, body) = between.client.answer().await;
        is_api_error(&head, &body, 502, "UNAVAILABLE");
    }
}

#[tokio::test]
async fn an_upstream_that_switches_protocols_unasked_is_a_bad_gateway() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", "/v2/", "")).await;
    let (head, body) = between
        .answered("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        .await;
    is_api_error(&head, &body, 502, "UNAVAILABLE");
}

#[tokio::test]
async fn a_silent_upstream_times_out() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", "/v2/", "")).await;
    settle().await;
    jump(Duration::from_secs(121)).await;
    let (head, body) = between.client.answer().await;
    is_api_error(&head, &body, 504, "UNAVAILABLE");
}

#[tokio::test]
async fn refusals_under_v2_are_json_with_the_code_that_clients_know() {
    let between = ProxiedPair::with(|domain| domain.tables("[limits]\nmanifest = \"1KiB\"")).await;
    let anonymous = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n".to_owned();
    for (request, status, code) in [
        (anonymous, 401, "UNAUTHORIZED"),
        (request("GET", "/v2/a/b", ""), 404, "UNSUPPORTED"),
        (request("GET", "/v2/a/manifests/..", ""), 400, "UNSUPPORTED"),
        (
            request("GET", "/v2/A/manifests/v1", ""),
            400,
            "NAME_INVALID",
        ),
        (request("GET", "/v2/a/blobs/v1", ""), 400, "DIGEST_INVALID"),
        (request("PUT", "/v2/a/manifests/-", ""), 400, "TAG_INVALID"),
        (
            request("GET", "/v2/_catalog?n=x", ""),
            400,
            "PAGINATION_NUMBER_INVALID",
        ),
        (
            request("POST", "/v2/", "Content-Length: 0\r\n"),
            405,
            "UNSUPPORTED",
        ),
        (
            request("PUT", "/v2/a/manifests/v1", "Content-Length: 2000\r\n"),
            413,
            "SIZE_INVALID",
        ),
    ] {
        let (head, body) = between.own_answer_apart(&request).await;
        is_api_error(&head, &body, status, code);
    }
}

#[tokio::test]
async fn refusals_outside_v2_are_small_pages() {
    let between = ProxiedPair::new().await;
    let anonymous = "GET / HTTP/1.1\r\nHost: ci.test\r\n\r\n".to_owned();
    for (request, status) in [
        (anonymous, 404),
        (request("GET", "/", ""), 404),
        (request("GET", "/favicon.ico", ""), 404),
        (request("GET", "/v3/", ""), 404),
        (request("GET", "/x/../y", ""), 400),
    ] {
        let (head, body) = between.own_answer_apart(&request).await;
        assert_eq!(head.status(), status, "{request}");
        assert_eq!(head.get("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(head.get("docker-distribution-api-version"), None);
        let page = String::from_utf8(body).unwrap();
        assert!(
            page.starts_with("<!doctype html>") && page.len() < 1024,
            "{page}"
        );
    }
}

#[tokio::test]
async fn an_own_answer_to_head_has_the_length_and_no_body() {
    let mut between = ProxiedPair::new().await;
    between.client.send(request("HEAD", "/v2/a/b", "")).await;
    let head = between.client.head().await;
    assert_eq!(head.status(), 404);
    let (_, body) = between.own_answer(request("GET", "/v2/a/b", "")).await;
    assert_eq!(head.length(), Some(body.len()));
}

#[tokio::test]
async fn own_answers_are_the_same_over_http2() {
    let between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let (head, body) = client
        .send(request2("GET", "/v2/a/b").body(no_body()).unwrap())
        .await
        .unwrap();
    assert_eq!(head.status, 404);
    assert_eq!(
        head.headers.get("docker-distribution-api-version").unwrap(),
        "registry/2.0"
    );
    assert_eq!(json(&body)["errors"][0]["code"], "UNSUPPORTED");
    let (head, body) = client
        .send(request2("HEAD", "/v2/a/b").body(no_body()).unwrap())
        .await
        .unwrap();
    assert_eq!(head.status, 404);
    assert!(head.headers.contains_key("content-length") && body.is_empty());
}
