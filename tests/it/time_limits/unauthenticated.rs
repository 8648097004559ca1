//! A connection that has not shown a login yet has less idle time than others.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::login;
use crate::harness::frames::{
    ACK, END_HEADERS, END_STREAM, Frames, HEADERS, PING, WINDOW_UPDATE, request_block, wire,
};
use crate::harness::{
    Clock, Domain, Gateway, RawPeer, Setup, Upstream, basic, json, promptly, seconds, settle,
};

const UNAUTHENTICATED: &str = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n";

async fn gateway() -> Gateway {
    Gateway::before(&Upstream::new().await.url()).await
}

/// Sends a request and expects an answer of this status.
async fn ask<IO: AsyncRead + AsyncWrite + Unpin>(
    client: &mut RawPeer<IO>,
    request: impl AsRef<[u8]>,
    status: u16,
) {
    client.send(request).await;
    assert_eq!(promptly(client.answer()).await.0.status(), status);
}

/// An HTTP/2 connection on which a request without a login has been answered.
async fn refused(gateway: &Gateway) -> Frames {
    let mut client = gateway.frames().await;
    let block = request_block("GET", "/v2/", &[]);
    let flags = END_HEADERS | END_STREAM;
    client.send(HEADERS, flags, 1, &block).await;
    assert_eq!(promptly(client.outcome(1)).await.status(), Some(401));
    client
}

/// Asserts that an idle connection ends so many seconds from now, and not before.
async fn ends_after<IO: AsyncRead + AsyncWrite + Unpin>(
    clock: &Clock,
    client: &mut RawPeer<IO>,
    limit: u64,
) {
    clock.jump(seconds(limit - 1)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn an_idle_connection_without_a_login_ends_after_fifteen_seconds() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        ask(&mut client, UNAUTHENTICATED, 401).await;
        clock.jump(seconds(14)).await;
    }
    ask(&mut client, UNAUTHENTICATED, 401).await;
    ends_after(&clock, &mut client, 15).await;
}

#[tokio::test]
async fn over_http2_neither_pings_nor_windows_renew_it() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = refused(&gateway).await;
    for _ in 0..14 {
        client.send(PING, 0, 0, b"whatever").await;
        client.send(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).await;
        let answer = promptly(client.next_of(PING)).await;
        assert_eq!(answer.flags, ACK);
        clock.jump(seconds(1)).await;
    }
    client.so_far().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn over_http2_one_short_frame_after_another_is_no_head() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = refused(&gateway).await;
    let ping = wire(PING, 0, 0, b"whatever");
    // There is never a moment without a frame that has begun.
    client.io.write_all(&ping[..4]).await.unwrap();
    for _ in 0..4 {
        settle().await;
        clock.jump(seconds(11)).await;
        let next = [&ping[4..], &ping[..4]].concat();
        client.io.write_all(&next).await.unwrap();
        promptly(client.next_of(PING)).await;
    }
    client.so_far().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn over_http2_answers_to_pings_renew_it_for_two_minutes_at_most() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = refused(&gateway).await;
    for _ in 0..14 {
        // More than one at a time may pass for the rest of a response.
        let _ = client
            .io
            .write_all(&wire(PING, 0, 0, b"whatever").repeat(20))
            .await;
        settle().await;
        clock.jump(seconds(10)).await;
    }
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_head_that_has_begun_keeps_its_own_limit() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    ask(&mut client, UNAUTHENTICATED, 401).await;
    clock.jump(seconds(14)).await;
    client.send("G").await;
    settle().await;
    ends_after(&clock, &mut client, 30).await;
}

#[tokio::test]
async fn one_login_is_enough_and_a_wrong_one_is_none() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let wrong = basic("alice", "wrong");
    let wrong = format!("GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {wrong}\r\n\r\n");
    let mut client = gateway.client().await;
    ask(&mut client, &wrong, 401).await;
    ends_after(&clock, &mut client, 15).await;
    let mut client = gateway.client().await;
    ask(&mut client, login(), 503).await;
    clock.jump(seconds(200)).await;
    ask(&mut client, UNAUTHENTICATED, 401).await;
    ends_after(&clock, &mut client, 300).await;
}

#[tokio::test]
async fn an_anonymous_pull_is_no_login() {
    let clock = Clock::stopped();
    let domain = Domain::new("ci.test", "http://127.0.0.1:9").auth("anonymous = \"pull\"");
    let gateway = Setup::new().domain(domain).start().await;
    let mut client = gateway.client().await;
    let pull = "GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: ci.test\r\n\r\n";
    ask(&mut client, pull, 503).await;
    ends_after(&clock, &mut client, 15).await;
}

#[tokio::test]
async fn a_login_for_a_token_is_one_and_so_is_the_token() {
    let clock = Clock::stopped();
    let domain = Domain::new("ci.test", "http://127.0.0.1:9").auth("mode = \"token\"");
    let gateway = Setup::new().domain(domain).start().await;
    let mut client = gateway.client().await;
    let login = basic("alice", "secret");
    client
        .send(format!(
            "GET /token?service=ci.test&scope=repository:a:pull HTTP/1.1\r\nHost: ci.test\r\n\
             Authorization: {login}\r\n\r\n"
        ))
        .await;
    let (head, body) = promptly(client.answer()).await;
    assert_eq!(head.status(), 200);
    let token = json(&body)["token"].as_str().unwrap().to_owned();
    clock.jump(seconds(16)).await;
    client.silent().await;
    let mut client = gateway.client().await;
    let pull = format!(
        "GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: ci.test\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    ask(&mut client, pull, 503).await;
    clock.jump(seconds(16)).await;
    client.silent().await;
}

#[tokio::test]
async fn connections_of_a_trusted_proxy_need_no_login() {
    let clock = Clock::stopped();
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .top("trusted_proxies = [\"127.0.0.5\"]")
        .start()
        .await;
    let mut client = RawPeer::new(gateway.tls_from("127.0.0.5").await.unwrap());
    ask(&mut client, UNAUTHENTICATED, 401).await;
    ends_after(&clock, &mut client, 300).await;
}

#[tokio::test]
async fn the_admin_listener_asks_for_no_login() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    ask(&mut client, health, 200).await;
    ends_after(&clock, &mut client, 300).await;
}
