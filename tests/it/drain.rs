//! A graceful stop: what runs finishes, what rests ends, and nothing new begins.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::harness::{
    Domain, Http2, PATIENCE, ProxiedPair, Setup, no_body, request, request2, settle,
};

const DOWNLOAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";

/// Begins to stop; returns what says whether all ended by themselves.
async fn stop(between: &ProxiedPair) -> tokio::task::JoinHandle<bool> {
    let app = between.gateway.app.clone();
    let stopped = tokio::spawn(async move { app.drain(Duration::from_secs(3600)).await });
    settle().await;
    stopped
}

#[tokio::test]
async fn a_running_download_finishes() {
    let mut between = ProxiedPair::new().await;
    between
        .forwarded(request("GET", "/v2/a/manifests/v1", ""))
        .await;
    between.registry().send(DOWNLOAD).await;
    between.client.head().await;
    let stopped = stop(&between).await;
    assert!(!stopped.is_finished());
    between.registry().send("67890").await;
    assert_eq!(between.client.bytes(10).await, b"1234567890");
    between.client.ended().await;
    assert!(stopped.await.unwrap());
}

#[tokio::test]
async fn a_running_upload_finishes() {
    let mut between = ProxiedPair::new().await;
    let head = request("PATCH", "/v2/a/blobs/uploads/1", "Content-Length: 10\r\n");
    between.forwarded(head + "12345").await;
    assert_eq!(between.registry().bytes(5).await, b"12345");
    let stopped = stop(&between).await;
    assert!(!stopped.is_finished());
    between.client.send("67890").await;
    assert_eq!(between.registry().bytes(5).await, b"67890");
    let (head, _) = between
        .answered("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(
        (head.status(), head.get("connection")),
        (202, Some("close"))
    );
    between.client.ended().await;
    assert!(stopped.await.unwrap());
}

#[tokio::test]
async fn new_connections_are_refused() {
    let mut between = ProxiedPair::new().await;
    between
        .forwarded(request("GET", "/v2/a/manifests/v1", ""))
        .await;
    let (https, http, admin) = (
        between.gateway.https(),
        between.gateway.http(),
        between.gateway.admin(),
    );
    let stopped = stop(&between).await;
    for address in [https, http, admin] {
        assert!(TcpStream::connect(address).await.is_err(), "{address}");
    }
    assert!(!stopped.is_finished(), "the request before still runs");
}

#[tokio::test]
async fn idle_connections_end_at_once() {
    let mut between = ProxiedPair::new().await;
    between.passed(request("GET", "/v2/", "")).await;
    let mut unused = between.gateway.client().await;
    let stopped = stop(&between).await;
    between.client.ended().await;
    unused.ended().await;
    assert!(stopped.await.unwrap());
}

#[tokio::test]
async fn http2_gets_a_goaway_and_finishes_what_runs() {
    let mut between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    drop(std::mem::replace(
        &mut between.client,
        between.gateway.client().await,
    ));
    let answer = tokio::spawn(
        client.send(
            request2("GET", "/v2/a/manifests/v1")
                .body(no_body())
                .unwrap(),
        ),
    );
    between.asked().await;
    between.registry().send(DOWNLOAD).await;
    let stopped = stop(&between).await;
    // A stream that begins after GOAWAY is refused, here or already by the client.
    let late = client
        .send(request2("GET", "/v2/_catalog").body(no_body()).unwrap())
        .await;
    assert!(late.is_err(), "{late:?}");
    between.registry().send("67890").await;
    assert_eq!(&answer.await.unwrap().unwrap().1[..], b"1234567890");
    assert!(stopped.await.unwrap());
    assert!(client.is_closed());
}

#[tokio::test]
async fn a_drain_ends_with_its_limit() {
    let mut between = ProxiedPair::new().await;
    between
        .forwarded(request("GET", "/v2/a/manifests/v1", ""))
        .await;
    let app = between.gateway.app.clone();
    let stopped = tokio::spawn(async move { app.drain(Duration::from_secs(60)).await });
    settle().await;
    crate::harness::jump(Duration::from_secs(61)).await;
    assert!(!stopped.await.unwrap());
}

/// Makes a named pipe and waits until somebody reads it, which blocks until the returned end is
/// dropped.
fn block_reader(path: &Path) -> File {
    mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
    let begun = Instant::now();
    loop {
        // Fails for as long as nobody has opened the other end.
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path);
        if let Ok(end) = opened {
            return end;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody reads it");
        std::thread::yield_now();
    }
}

#[test]
fn a_signal_ends_the_process_though_a_file_cannot_be_read() {
    let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
    let mut process = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .domain(
            Domain::new("other.test", "http://127.0.0.1:9")
                .tls("certificate = \"other.pem\"\nkey = \"other.key\""),
        )
        .spawn(&users, "http/1.1");
    let _blocked = block_reader(&process.path("conf.d/other.pem"));
    process.signal(Signal::TERM);
    let begun = Instant::now();
    while !process.has_ended() {
        assert!(begun.elapsed() < PATIENCE, "{}", process.said());
        std::thread::yield_now();
    }
    assert!(process.said().contains("stopped"), "{}", process.said());
}
