//! What a client may make a connection wait for: the handshake, heads, and the next request.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{fill_with, login};
use crate::harness::{
    Clock, Gateway, RawPeer, Transfer, Upstream, promptly, request, seconds, settle,
};

const UNAUTHENTICATED: &str = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n";

async fn gateway() -> Gateway {
    Gateway::before(&Upstream::new().await.url()).await
}

#[tokio::test]
async fn a_handshake_takes_ten_seconds_at_most_however_it_trickles() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = RawPeer::new(TcpStream::connect(gateway.https()).await.unwrap());
    settle().await;
    // A record of 512 bytes: a ClientHello that never ends.
    for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252] {
        client.io.write_all(&[byte]).await.unwrap();
        clock.jump(seconds(1)).await;
    }
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_connection_without_a_byte_ends_after_ten_seconds() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = RawPeer::new(TcpStream::connect(gateway.https()).await.unwrap());
    settle().await;
    clock.jump(seconds(9)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn the_first_head_comes_within_fifteen_seconds_of_accept() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let tcp = TcpStream::connect(gateway.https()).await.unwrap();
    settle().await;
    // What the handshake takes is not given again.
    clock.jump(seconds(8)).await;
    let connector =
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(gateway.client_config(&[])));
    let tls = connector
        .connect("ci.test".try_into().unwrap(), tcp)
        .await
        .unwrap();
    let mut client = RawPeer::new(tls);
    clock.jump(seconds(6)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_first_head_that_trickles_has_no_more_time() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for part in UNAUTHENTICATED.as_bytes().chunks(1).take(14) {
        client.send(part).await;
        clock.jump(seconds(1)).await;
    }
    client.silent().await;
    client.send("/").await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_later_head_has_thirty_seconds_from_its_first_byte() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    client.send(login()).await;
    client.answer().await;
    clock.jump(seconds(200)).await;
    for part in UNAUTHENTICATED.as_bytes().chunks(1).take(29) {
        client.send(part).await;
        settle().await;
        clock.jump(seconds(1)).await;
    }
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn an_idle_connection_ends_after_five_minutes() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        client.send(login()).await;
        client.answer().await;
        clock.jump(seconds(299)).await;
    }
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn an_answered_request_begins_the_idle_time() {
    let clock = Clock::stopped();
    let mut transfer = Transfer::http1(request("GET", "/v2/base/app/manifests/v1", "")).await;
    clock.jump(seconds(100)).await;
    transfer
        .registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        .await;
    transfer.client.answer().await;
    clock.jump(seconds(299)).await;
    transfer.client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(transfer.client.ended()).await;
}

#[tokio::test]
async fn a_client_that_takes_no_more_of_our_answers_has_two_minutes() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    fill_with(&mut client.io, UNAUTHENTICATED.repeat(100).as_bytes()).await;
    clock.jump(seconds(119)).await;
    assert_eq!(gateway.app.connections(), 1);
    clock.jump(seconds(1)).await;
    assert_eq!(gateway.app.connections(), 0);
}

#[tokio::test]
async fn the_plain_listener_has_the_same_limits() {
    let clock = Clock::stopped();
    let gateway = gateway().await;
    let mut client = RawPeer::new(TcpStream::connect(gateway.http()).await.unwrap());
    for part in UNAUTHENTICATED.as_bytes().chunks(1).take(14) {
        client.send(part).await;
        clock.jump(seconds(1)).await;
    }
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}
