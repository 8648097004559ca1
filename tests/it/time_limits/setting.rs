//! Each limit is a setting, and the drain's is one of the process.

use super::{BLOB, DIGEST, UPLOAD, UnresponsiveAddress, login};
use crate::harness::frames::PING;
use crate::harness::{
    Clock, Domain, Gateway, RawPeer, Setup, Transfer, Upstream, promptly, request, seconds, settle,
};

const UNAUTHENTICATED: &str = "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n\r\n";

async fn process(upstream: &Upstream, timeouts: &str) -> Gateway {
    let setup = Setup::new().domain(Domain::new("ci.test", &upstream.url()));
    setup.main(&format!("[timeouts]\n{timeouts}")).start().await
}

async fn domain(upstream: &Upstream, timeouts: &str) -> Gateway {
    let domain = Domain::new("ci.test", &upstream.url()).tables(&format!("[timeouts]\n{timeouts}"));
    Setup::new().domain(domain).start().await
}

#[tokio::test]
async fn the_handshake_limit_is_a_setting() {
    let clock = Clock::stopped();
    let gateway = process(&Upstream::new().await, "handshake = '40s'").await;
    let mut client = RawPeer::new(
        tokio::net::TcpStream::connect(gateway.https())
            .await
            .unwrap(),
    );
    settle().await;
    clock.jump(seconds(39)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn the_first_head_limit_is_a_setting() {
    let clock = Clock::stopped();
    let gateway = process(&Upstream::new().await, "first_head = '40s'").await;
    let mut client = gateway.client().await;
    clock.jump(seconds(39)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn the_head_limit_is_a_setting() {
    let clock = Clock::stopped();
    let gateway = process(&Upstream::new().await, "head = '50s'").await;
    let mut client = gateway.client().await;
    client.send(UNAUTHENTICATED).await;
    client.answer().await;
    client.send("GET").await;
    settle().await;
    clock.jump(seconds(49)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn the_idle_limit_is_a_setting() {
    let clock = Clock::stopped();
    let gateway = process(&Upstream::new().await, "idle = '20s'").await;
    let mut client = gateway.client().await;
    client.send(login()).await;
    client.answer().await;
    clock.jump(seconds(19)).await;
    client.silent().await;
    clock.jump(seconds(1)).await;
    promptly(client.ended()).await;
}

#[tokio::test]
async fn the_idle_limit_before_a_login_is_a_setting() {
    let clock = Clock::stopped();
    for (timeouts, limit) in [
        ("idle_unauthenticated = '40s'", 40),
        ("idle_unauthenticated = '40s'\nidle = '30s'", 30),
    ] {
        let gateway = process(&Upstream::new().await, timeouts).await;
        let mut client = gateway.client().await;
        client.send(UNAUTHENTICATED).await;
        client.answer().await;
        clock.jump(seconds(limit - 1)).await;
        client.silent().await;
        clock.jump(seconds(1)).await;
        promptly(client.ended()).await;
    }
}

#[tokio::test]
async fn the_ping_interval_is_a_setting() {
    let clock = Clock::stopped();
    let gateway = process(&Upstream::new().await, "h2_ping = '6s'").await;
    let mut client = gateway.frames().await;
    client.so_far().await;
    clock.jump(seconds(5)).await;
    assert!(client.so_far().await.iter().all(|frame| frame.kind != PING));
    clock.jump(seconds(1)).await;
    promptly(client.next_of(PING)).await;
}

#[tokio::test]
async fn the_upload_limits_are_settings() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = domain(&upstream, "first_body_byte = '20s'\nstall = '50s'").await;
    for (sent, limit) in [("", 20), ("x", 50)] {
        let mut client = gateway.client().await;
        client
            .send(request("PATCH", UPLOAD, "Content-Length: 5\r\n"))
            .await;
        let mut registry = upstream.accept().await;
        registry.head().await;
        client.send(sent).await;
        registry.bytes(sent.len()).await;
        clock.jump(seconds(limit - 1)).await;
        client.silent().await;
        clock.jump(seconds(1)).await;
        assert_eq!(promptly(client.answer()).await.0.status(), 408);
    }
}

#[tokio::test]
async fn the_connect_limit_is_a_setting() {
    let clock = Clock::stopped();
    for limit in [2, 20] {
        let deaf = UnresponsiveAddress::new().await;
        let timeouts = format!("[timeouts]\nupstream_connect = '{limit}s'");
        let domain = Domain::new("ci.test", &deaf.url()).tables(&timeouts);
        let gateway = Setup::new().domain(domain).start().await;
        deaf.is_given_up_after(&clock, &gateway, seconds(limit))
            .await;
    }
}

#[tokio::test]
async fn the_connect_limit_changes_with_a_reload() {
    let clock = Clock::stopped();
    let deaf = UnresponsiveAddress::new().await;
    let gateway = Gateway::before(&deaf.url()).await;
    let file = gateway.path("conf.d/ci.test.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        format!("{before}\n[timeouts]\nupstream_connect = '20s'\n"),
    )
    .unwrap();
    gateway.app.reload().await.unwrap();
    deaf.is_given_up_after(&clock, &gateway, seconds(20)).await;
}

#[tokio::test]
async fn the_answer_limits_are_settings() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = domain(&upstream, "upstream_head = '20s'\nupstream_commit = '50s'").await;
    let commit = format!("{UPLOAD}?digest={DIGEST}");
    for (method, target, limit) in [("GET", BLOB, 20), ("PUT", commit.as_str(), 50)] {
        let mut client = gateway.client().await;
        client.send(request(method, target, "")).await;
        let mut registry = upstream.accept().await;
        registry.head().await;
        clock.jump(seconds(limit - 1)).await;
        client.silent().await;
        clock.jump(seconds(1)).await;
        assert_eq!(promptly(client.answer()).await.0.status(), 504);
    }
}

#[tokio::test]
async fn the_upstream_idle_limit_is_a_setting() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = domain(&upstream, "upstream_idle = '20s'").await;
    let mut client = gateway.client().await;
    client.send(request("GET", BLOB, "")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        .await;
    client.answer().await;
    settle().await;
    clock.jump(seconds(19)).await;
    registry.silent().await;
    clock.jump(seconds(1)).await;
    promptly(registry.ended()).await;
}

#[tokio::test]
async fn a_drain_waits_for_a_transfer_as_long_as_its_setting_says() {
    let clock = Clock::stopped();
    let upstream = Upstream::new().await;
    let gateway = process(&upstream, "drain = '40s'").await;
    let mut idle = gateway.client().await;
    idle.send(UNAUTHENTICATED).await;
    idle.answer().await;
    let mut client = gateway.client().await;
    client.send(request("GET", BLOB, "")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    let app = gateway.app.clone();
    let mut drain = tokio::spawn(async move { app.drain(app.drain_limit()).await });
    promptly(idle.ended()).await;
    clock.jump(seconds(39)).await;
    assert!(!drain.is_finished());
    clock.jump(seconds(1)).await;
    assert!(!promptly(&mut drain).await.unwrap(), "it was not idle");
}

#[tokio::test]
async fn a_drain_waits_for_an_hour_by_itself() {
    let gateway = process(&Upstream::new().await, "").await;
    assert_eq!(gateway.app.drain_limit(), seconds(3600));
}

#[tokio::test]
async fn a_drain_ends_when_the_last_transfer_does() {
    let mut transfer = Transfer::http1(request("GET", BLOB, "")).await;
    let app = transfer.gateway.app.clone();
    let drain = tokio::spawn(async move { app.drain(app.drain_limit()).await });
    settle().await;
    transfer
        .registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        .await;
    assert_eq!(promptly(transfer.client.answer()).await.1, b"x");
    promptly(transfer.client.ended()).await;
    assert!(promptly(drain).await.unwrap());
}
