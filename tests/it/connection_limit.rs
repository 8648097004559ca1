//! How many connections there may be, and which of them ends for a new one.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::frames::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, request_block};
use crate::harness::{
    Clock, Domain, Events, Gateway, RawPeer, Setup, Upstream, promptly, request, seconds, settle,
};

type HttpsClient = RawPeer<TlsStream<TcpStream>>;

const UNAUTHENTICATED: &str = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n";
const MANIFEST: &str = "/v2/base/app/manifests/v1";

/// A gateway with so many connections, before a registry that refuses all of its own.
async fn limited(connections: usize) -> Gateway {
    before("http://127.0.0.1:9", connections).await
}

async fn before(upstream: &str, connections: usize) -> Gateway {
    let setup = Setup::new().domain(Domain::new("ci.test", upstream));
    let limit = format!("[limits]\nconnections = {connections}");
    setup.main(&limit).start().await
}

async fn ask<IO: AsyncRead + AsyncWrite + Unpin>(
    client: &mut RawPeer<IO>,
    request: impl AsRef<[u8]>,
    status: u16,
) {
    client.send(request).await;
    assert_eq!(promptly(client.answer()).await.0.status(), status);
}

/// A new connection on which a request without a login has been answered.
async fn unauthenticated(gateway: &Gateway) -> HttpsClient {
    let mut client = promptly(gateway.client()).await;
    ask(&mut client, UNAUTHENTICATED, 401).await;
    client
}

/// A new connection with a login.
async fn authenticated(gateway: &Gateway) -> HttpsClient {
    let mut client = promptly(gateway.client()).await;
    ask(&mut client, request("GET", "/v2/", ""), 503).await;
    client
}

#[tokio::test]
async fn the_longest_idle_connection_without_a_login_ends_for_a_new_one() {
    let clock = Clock::stopped();
    let gateway = limited(4).await;
    let mut user = authenticated(&gateway).await;
    clock.jump(seconds(1)).await;
    let mut first = unauthenticated(&gateway).await;
    let mut second = unauthenticated(&gateway).await;
    clock.jump(seconds(1)).await;
    ask(&mut first, UNAUTHENTICATED, 401).await;
    // One that has made no request is idle as well.
    let mut third = promptly(gateway.client()).await;
    clock.jump(seconds(1)).await;

    let mut users = Vec::new();
    for gone in [&mut second, &mut first, &mut third] {
        users.push(authenticated(&gateway).await);
        promptly(gone.ended()).await;
    }
    for client in users.iter_mut().chain([&mut user]) {
        client.silent().await;
    }
    // None is left: now it is the users' own.
    clock.jump(seconds(1)).await;
    ask(&mut user, request("GET", "/v2/", ""), 503).await;
    let mut last = unauthenticated(&gateway).await;
    promptly(users[0].ended()).await;
    for client in users[1..].iter_mut().chain([&mut user, &mut last]) {
        client.silent().await;
    }
}

#[tokio::test]
async fn a_connection_with_an_open_request_ends_for_no_other() {
    let _clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = before(&upstream.url(), 2).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut client = promptly(gateway.client()).await;
        client.send(request("GET", MANIFEST, "")).await;
        let mut registry = promptly(upstream.accept()).await;
        promptly(registry.head()).await;
        registry
            .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            .await;
        promptly(client.head()).await;
        busy.push((client, registry));
    }
    let mut third = Box::pin(gateway.client());
    tokio::select! {
        biased;
        _ = &mut third => panic!("a third connection was served"),
        () = settle() => {}
    }
    assert_eq!(gateway.app.connections(), 2);
    // The one whose request ends first makes way, and its answer is complete.
    let (mut client, mut registry) = busy.pop().unwrap();
    registry.send("cd").await;
    let mut third = promptly(third).await;
    assert_eq!(promptly(client.bytes(4)).await, b"abcd");
    promptly(client.ended()).await;
    let (mut client, mut registry) = busy.pop().unwrap();
    registry.send("cd").await;
    assert_eq!(promptly(client.bytes(4)).await, b"abcd");
    ask(&mut third, UNAUTHENTICATED, 401).await;
}

#[tokio::test]
async fn http2_clients_are_sent_away_politely() {
    let _clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = before(&upstream.url(), 1).await;
    let mut client = gateway.frames().await;
    let unauthenticated = request_block("GET", "/v2/", &[]);
    let flags = END_HEADERS | END_STREAM;
    client.send(HEADERS, flags, 1, &unauthenticated).await;
    assert_eq!(promptly(client.outcome(1)).await.status(), Some(401));
    let mut other = promptly(gateway.client()).await;
    // On its way when the other came.
    client.request(3, END_STREAM, "GET", MANIFEST).await;
    let mut registry = promptly(upstream.accept()).await;
    promptly(registry.head()).await;
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let frames = promptly(client.ended()).await;
    let last = frames.iter().rfind(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(last.payload[..8], [0, 0, 0, 3, 0, 0, 0, 0]);
    assert!(
        frames
            .iter()
            .any(|frame| frame.stream == 3 && frame.ends_stream())
    );
    ask(&mut other, UNAUTHENTICATED, 401).await;
}

#[tokio::test]
async fn whoever_fills_the_limit_locks_out_nobody_with_a_login() {
    let clock = Clock::stopped();
    let gateway = limited(128).await;
    let mut idle = Vec::new();
    for number in 0..128 {
        let address = format!("127.0.0.{}", 5 + number / 64);
        let tls = promptly(gateway.tls_from(&address)).await.unwrap();
        let mut client = RawPeer::new(tls);
        ask(&mut client, UNAUTHENTICATED, 401).await;
        idle.push(client);
    }
    clock.jump(seconds(1)).await;
    let mut user = authenticated(&gateway).await;
    // Whoever has been sent away comes again, and again.
    for number in 0..200 {
        let address = format!("127.0.1.{}", 1 + number / 64);
        let tls = promptly(gateway.tls_from(&address)).await.unwrap();
        let mut client = RawPeer::new(tls);
        ask(&mut client, UNAUTHENTICATED, 401).await;
        idle.push(client);
    }
    ask(&mut user, request("GET", "/v2/", ""), 503).await;
    authenticated(&gateway).await;
}

/// Connections that occupy a place without being of use to anybody.
#[tokio::test]
async fn handshakes_begun_heads_and_unread_refusals_end_for_a_new_connection() {
    let clock = Clock::stopped();
    let gateway = limited(1).await;
    let mut handshake = RawPeer::new(TcpStream::connect(gateway.https()).await.unwrap());
    handshake.send([22, 3, 1]).await;
    settle().await;
    let mut first_head = promptly(gateway.client()).await;
    promptly(handshake.ended()).await;
    first_head.send("GET /").await;
    settle().await;
    let mut later_head = unauthenticated(&gateway).await;
    // hyper waits for the rest of a first head, for as long as a connection may be closing.
    clock.jump(seconds(5)).await;
    promptly(first_head.ended()).await;
    later_head.send("GET /").await;
    settle().await;
    let mut unread = promptly(gateway.frames_with_window(0)).await;
    promptly(later_head.ended()).await;
    let block = request_block("GET", "/v2/", &[]);
    let flags = END_HEADERS | END_STREAM;
    unread.send(HEADERS, flags, 1, &block).await;
    assert_eq!(promptly(unread.next_of(HEADERS)).await.status(), 401);
    let mut half_head = promptly(gateway.frames()).await;
    promptly(unread.ended()).await;
    half_head.io.write_all(&[0, 0, 8]).await.unwrap();
    settle().await;
    let mut plain = RawPeer::new(TcpStream::connect(gateway.http()).await.unwrap());
    promptly(half_head.ended()).await;
    unauthenticated(&gateway).await;
    promptly(plain.ended()).await;
}

#[tokio::test]
async fn clients_that_do_not_close_are_not_waited_for_in_any_number() {
    let _clock = Clock::stopped();
    let gateway = limited(1).await;
    let mut open = Vec::new();
    for number in 0..70 {
        let address = format!("127.0.0.{}", 5 + number / 64);
        open.push(promptly(gateway.tls_from(&address)).await.unwrap());
        settle().await;
        // One that is served, and 64 that are closing.
        assert!(gateway.app.connections() <= 65);
    }
    assert_eq!(gateway.app.connections(), 65);
}

#[tokio::test]
async fn a_limit_that_is_near_or_reached_is_in_the_log_metrics_and_status() {
    let events = Events::kept();
    let clock = Clock::stopped();
    let gateway = limited(10).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(unauthenticated(&gateway).await);
    }
    let near = "a limit is nearly reached";
    clock.jump(seconds(6)).await;
    assert_eq!(events.with(near).len(), 0);
    open.push(unauthenticated(&gateway).await);
    // The next check is due within one jump, and reads on another thread. More jumps while that
    // waits for a core would end the idle connections.
    clock.jump(seconds(5)).await;
    let said = async {
        while events.with(near).is_empty() {
            settle().await;
        }
    };
    promptly(said).await;
    let line = &events.with(near)[0];
    assert!(
        line.contains("WARN") && line.contains("resource=\"connections\" used=9 limit=10"),
        "{line}"
    );
    let reached = "connection limit reached: idle connections are closed";
    assert_eq!(events.with(reached).len(), 0);
    for _ in 0..3 {
        open.push(unauthenticated(&gateway).await);
    }
    let said = events.with(reached);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains("WARN") && said[0].contains("limit=10 class=\"unauthenticated\""),
        "{said:?}"
    );
    let metrics = metrics(&gateway).await;
    for line in [
        "moorgate_connections_evicted_total{class=\"unauthenticated\"} 2",
        "moorgate_connections_evicted_total{class=\"authenticated\"} 0",
        "moorgate_resource_used{resource=\"connections\"} 10",
        "moorgate_resource_limit{resource=\"connections\"} 10",
        "moorgate_resource_used{resource=\"manifest_memory\"} 0",
        "moorgate_resource_limit{resource=\"passwords_waiting\"} 64",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{metrics}");
    }
    assert!(metrics.contains("moorgate_resource_limit{resource=\"open_files\"} "));
    let status = gateway.status().await;
    assert_eq!(
        status["resources"][0],
        serde_json::json!({ "resource": "connections", "used": 10, "limit": 10, "refused": null })
    );
}

#[tokio::test]
async fn a_limit_at_which_new_connections_wait_is_in_the_log() {
    let events = Events::kept();
    let upstream = Upstream::new().await;
    let gateway = before(&upstream.url(), 1).await;
    let mut busy = promptly(gateway.client()).await;
    busy.send(request("GET", MANIFEST, "")).await;
    let _registry = promptly(upstream.accept()).await;
    let _waiting = TcpStream::connect(gateway.https()).await.unwrap();
    let said = async {
        while events
            .with("connection limit reached: new connections wait")
            .is_empty()
        {
            settle().await;
        }
    };
    promptly(said).await;
}

async fn metrics(gateway: &Gateway) -> String {
    let mut client = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    client
        .send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    String::from_utf8(promptly(client.answer()).await.1).unwrap()
}

#[tokio::test]
async fn one_client_cannot_occupy_all_connections() {
    let setup = Setup::new().domain(Domain::new("ci.test", "http://127.0.0.1:9"));
    let gateway = setup.main("[limits]\nconnections = 256").start().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(promptly(gateway.tls_from("127.0.0.5")).await.unwrap());
    }
    assert!(promptly(gateway.tls_from("127.0.0.5")).await.is_err());
    assert!(promptly(gateway.tls_from("127.0.0.6")).await.is_ok());
    drop(open.pop());
    let freed = async { while gateway.tls_from("127.0.0.5").await.is_err() {} };
    promptly(freed).await;
}

#[tokio::test]
async fn a_trusted_proxy_has_the_connections_of_many_clients() {
    let setup = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .top("trusted_proxies = [\"127.0.0.5\"]");
    let gateway = setup.main("[limits]\nconnections = 256").start().await;
    let mut open = Vec::new();
    for _ in 0..65 {
        open.push(promptly(gateway.tls_from("127.0.0.5")).await.unwrap());
    }
}

#[tokio::test]
async fn the_admin_listener_answers_when_all_connections_are_in_use() {
    let upstream = Upstream::new().await;
    let setup = Setup::new().domain(Domain::new("ci.test", &upstream.url()));
    let gateway = setup.main("[limits]\nconnections = 1").start().await;
    let _only = promptly(gateway.client()).await;
    let mut admin = RawPeer::new(TcpStream::connect(gateway.admin()).await.unwrap());
    admin
        .send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(promptly(admin.head()).await.status(), 200);
}
