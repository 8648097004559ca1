//! What an upstream may make a client wait for: a connection, an answer's head, and the end of
//! both.

use super::{BLOB, DIGEST, UPLOAD, UnresponsiveAddress, incessantly};
use crate::harness::{
    Clock, Domain, Gateway, RawPeer, Setup, Transfer, Upstream, promptly, request, seconds, settle,
};

const MANIFEST: &str = "/v2/base/app/manifests/v1";

#[tokio::test]
async fn a_connection_to_an_upstream_is_made_within_five_seconds() {
    let clock = Clock::stopped();
    let deaf = UnresponsiveAddress::new().await;
    let gateway = Gateway::before(&deaf.url()).await;
    deaf.is_given_up_after(&clock, &gateway, seconds(5)).await;
}

#[tokio::test]
async fn an_answer_begins_within_two_minutes() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request("GET", BLOB, "")).await;
    clock.jump(seconds(119)).await;
    transfer.client.silent().await;
    clock.jump(seconds(1)).await;
    let (head, body) = promptly(transfer.client.answer()).await;
    assert_eq!(head.status(), 504);
    assert!(String::from_utf8(body).unwrap().contains("UNAVAILABLE"));
    promptly(transfer.registry.ended()).await;
}

const INTERIM: &str = "HTTP/1.1 102 Processing\r\n\r\n";

#[tokio::test]
async fn interim_answers_are_no_answer() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request("GET", BLOB, "")).await;
    for _ in 0..119 {
        transfer.registry.send(INTERIM).await;
        clock.jump(seconds(1)).await;
    }
    transfer.client.silent().await;
    transfer.registry.send(INTERIM).await;
    clock.jump(seconds(1)).await;
    assert_eq!(promptly(transfer.client.answer()).await.0.status(), 504);
    promptly(transfer.registry.ended()).await;
}

#[tokio::test]
async fn interim_answers_without_a_pause_are_no_answer_either() {
    let upstream = Upstream::new().await;
    let domain = Domain::new("ci.test", &upstream.url()).tables("[timeouts]\nupstream_head = '1s'");
    let entry = Domain::htpasswd(&[("alice".into(), "secret".into())]);
    let process = Setup::new().domain(domain).spawn(&entry, "http/1.1");
    let mut client = RawPeer::new(process.tls().await);
    client.send(request("GET", BLOB, "")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    let ended = incessantly(registry.io, INTERIM.repeat(4000));
    assert_eq!(client.answer().await.0.status(), 502);
    ended.await.unwrap();
}

/// Sends a body in ten minutes, and then waits for the answer's head up to its limit.
async fn body_then_silence(method: &str, target: &str, limit: u64) {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request(method, target, "Content-Length: 10\r\n")).await;
    for _ in 0..10 {
        clock.jump(seconds(100)).await;
        transfer.client.send("x").await;
        assert_eq!(promptly(transfer.registry.bytes(1)).await, b"x");
    }
    clock.jump(seconds(limit - 1)).await;
    transfer.client.silent().await;
    clock.jump(seconds(1)).await;
    assert_eq!(promptly(transfer.client.answer()).await.0.status(), 504);
    promptly(transfer.registry.ended()).await;
}

#[tokio::test]
async fn a_chunk_is_answered_within_two_minutes_of_its_end() {
    body_then_silence("PATCH", UPLOAD, 120).await;
}

#[tokio::test]
async fn a_commit_is_answered_within_fifteen_minutes_of_its_end() {
    body_then_silence("PUT", &format!("{UPLOAD}?digest={DIGEST}"), 900).await;
}

#[tokio::test]
async fn a_manifest_is_answered_within_fifteen_minutes_of_its_end() {
    body_then_silence("PUT", MANIFEST, 900).await;
}

#[tokio::test]
async fn a_commit_without_a_body_has_fifteen_minutes_too() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request(
        "PUT",
        &format!("{UPLOAD}?digest={DIGEST}"),
        "Content-Length: 0\r\n",
    ))
    .await;
    clock.jump(seconds(899)).await;
    transfer
        .registry
        .send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(promptly(transfer.client.answer()).await.0.status(), 201);
}

#[tokio::test]
async fn an_unused_upstream_connection_ends_after_ninety_seconds() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    let mut registry = None;
    // Each use begins the time anew.
    for _ in 0..3 {
        client.send(request("GET", MANIFEST, "")).await;
        let peer = match &mut registry {
            Some(peer) => peer,
            none => none.insert(upstream.accept().await),
        };
        promptly(peer.head()).await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
            .await;
        client.answer().await;
        settle().await;
        clock.jump(seconds(89)).await;
        peer.silent().await;
    }
    clock.jump(seconds(1)).await;
    promptly(registry.unwrap().ended()).await;
    upstream.untouched().await;
}
