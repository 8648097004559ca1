//! Connections to an upstream: requests beyond their number wait in line.

use tokio::net::TcpStream;

use super::{HttpsClient, counts};
use crate::harness::{
    Clock, Domain, Events, Gateway, RawPeer, Setup, Upstream, promptly, request, seconds, settle,
};

const MANIFEST: &str = "/v2/base/app/manifests/v1";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn limit(connections: usize) -> String {
    format!("[limits]\nupstream_connections = {connections}")
}

async fn limited(upstream: &Upstream, connections: usize) -> Gateway {
    let setup = Setup::new().domain(Domain::new("ci.test", &upstream.url()));
    setup.main(&limit(connections)).start().await
}

/// A client that has sent a request.
async fn asking(gateway: &Gateway) -> HttpsClient {
    let mut client = promptly(gateway.client()).await;
    client.send(request("GET", MANIFEST, "")).await;
    settle().await;
    client
}

/// The connection of the gateway on which a request has come.
async fn asked(upstream: &Upstream) -> RawPeer<TcpStream> {
    let mut registry = promptly(upstream.accept()).await;
    promptly(registry.head()).await;
    registry
}

async fn answered(client: &mut HttpsClient) {
    let (head, body) = promptly(client.answer()).await;
    assert_eq!((head.status(), &body[..]), (200, &b"ok"[..]));
}

#[tokio::test]
async fn a_request_beyond_the_limit_gets_the_connection_of_another_in_the_order_of_arrival() {
    let _clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, 1).await;
    let mut first = asking(&gateway).await;
    let mut registry = asked(&upstream).await;
    let mut second = asking(&gateway).await;
    let mut third = asking(&gateway).await;
    upstream.untouched().await;
    registry.send(OK).await;
    answered(&mut first).await;
    for client in [&mut second, &mut third] {
        promptly(registry.head()).await;
        client.silent().await;
        registry.send(OK).await;
        answered(client).await;
    }
    upstream.untouched().await;
    assert_eq!(counts(&gateway, "upstream_connections").await[..2], [1, 1]);
}

#[tokio::test]
async fn whoever_waits_too_long_is_told_so_and_the_log_and_metrics_say_it() {
    let events = Events::kept();
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, 1).await;
    let mut first = asking(&gateway).await;
    let mut registry = asked(&upstream).await;
    let mut second = asking(&gateway).await;
    clock.jump(seconds(29)).await;
    second.silent().await;
    clock.jump(seconds(1)).await;
    let (head, body) = promptly(second.answer()).await;
    assert_eq!((head.status(), head.get("retry-after")), (503, Some("5")));
    assert!(String::from_utf8(body).unwrap().contains("UNAVAILABLE"));
    let said = events.with("upstream connection limit reached: requests are refused");
    assert!(said.len() == 1 && said[0].contains("limit=1"), "{said:?}");
    assert_eq!(counts(&gateway, "upstream_connections").await, [1, 1, 1]);
    // The refusal is no failure of the upstream, and the connection is as good as before.
    registry.send(OK).await;
    answered(&mut first).await;
    second.send(request("GET", MANIFEST, "")).await;
    promptly(registry.head()).await;
    registry.send(OK).await;
    answered(&mut second).await;
}

#[tokio::test]
async fn no_more_requests_wait_than_there_is_a_line_for() {
    let _clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, 1).await;
    let _first = asking(&gateway).await;
    let _registry = asked(&upstream).await;
    let mut waiting = Vec::new();
    for _ in 0..64 {
        waiting.push(asking(&gateway).await);
    }
    let mut last = asking(&gateway).await;
    assert_eq!(promptly(last.answer()).await.0.status(), 503);
    // Whoever leaves the line makes room in it.
    drop(waiting.pop());
    settle().await;
    let mut last = asking(&gateway).await;
    last.silent().await;
}

#[tokio::test]
async fn clients_that_vanish_hold_up_nobody() {
    let _clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, 1).await;
    let first = asking(&gateway).await;
    let mut registry = asked(&upstream).await;
    let second = asking(&gateway).await;
    let mut third = asking(&gateway).await;
    drop(second);
    drop(first);
    promptly(registry.ended()).await;
    let mut registry = asked(&upstream).await;
    registry.send(OK).await;
    answered(&mut third).await;
}

#[tokio::test]
async fn an_upstream_that_ends_its_connections_holds_up_nobody() {
    let _clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, 1).await;
    let mut first = asking(&gateway).await;
    let mut registry = asked(&upstream).await;
    let mut second = asking(&gateway).await;
    // It answers, and closes the connection that the next in line gets.
    registry.send(OK).await;
    drop(registry);
    answered(&mut first).await;
    let mut registry = asked(&upstream).await;
    registry.send(OK).await;
    answered(&mut second).await;
    drop(registry);
    settle().await;
    let mut third = asking(&gateway).await;
    let mut registry = asked(&upstream).await;
    registry.send(OK).await;
    answered(&mut third).await;
}

#[tokio::test]
async fn a_reload_changes_the_limit() {
    let _clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = limited(&upstream, 1).await;
    let mut first = asking(&gateway).await;
    let mut registry = asked(&upstream).await;
    let mut second = asking(&gateway).await;
    upstream.untouched().await;
    Setup::new().main(&limit(2)).write(gateway.directory.path());
    promptly(gateway.app.reload()).await.unwrap();
    let mut other = asked(&upstream).await;
    for (client, registry) in [(&mut first, &mut registry), (&mut second, &mut other)] {
        registry.send(OK).await;
        answered(client).await;
    }
    assert_eq!(counts(&gateway, "upstream_connections").await, [2, 2, 0]);
}
