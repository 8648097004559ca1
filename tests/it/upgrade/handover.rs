//! What the new process is given, and how the old one leaves.

use std::sync::Arc;

use rustix::process::{Signal, kill_process};
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::fixture::{Service, answer, has_ended, tls, until};
use crate::harness::{Domain, Setup, basic};

type Stream = TlsStream<TcpStream>;

/// Sends a request with a password and reads the answer: its status and its head.
pub async fn status_of(stream: &mut Stream, password: &str, lines: &str) -> (u16, String) {
    let authorization = basic("alice", password);
    let request = format!(
        "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n{lines}\r\n"
    );
    answer(stream, &request).await
}

async fn connect(service: &Service, config: &Arc<ClientConfig>) -> Stream {
    tls(service.https, config).await.unwrap()
}

#[tokio::test]
async fn sessions_logins_and_failures_go_to_the_new_process() {
    let mut service = Service::with(
        Setup::new()
            .main("[auth]\naddress_failures = 5\nuser_failures = 1000")
            .domain(Domain::store("ci.test", "ci")),
    );
    let config = service.client_config("http/1.1");
    let mut stream = connect(&service, &config).await;
    assert_eq!(status_of(&mut stream, "secret", "").await.0, 200);
    // Another address, which uses up its tries.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let tcp = socket.connect(service.https).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(service.client_config("http/1.1"));
    let mut guessing = connector
        .connect("ci.test".try_into().unwrap(), tcp)
        .await
        .unwrap();
    for password in ["a", "b", "c", "d", "e"] {
        assert_eq!(status_of(&mut guessing, password, "").await.0, 401);
    }
    assert_eq!(status_of(&mut guessing, "f", "").await.0, 429);
    drop((stream, guessing));
    let pid = service.upgrade();
    assert_eq!(service.ended().code(), Some(0), "{}", service.said());
    assert!(!has_ended(pid));
    let mut stream = connect(&service, &config).await;
    let kind = stream.get_ref().1.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Resumed));
    assert_eq!(status_of(&mut stream, "secret", "").await.0, 200);
    assert_eq!(service.metric("moorgate_password_hashes_total").await, 0.0);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let tcp = socket.connect(service.https).await.unwrap();
    let mut guessing = connector
        .connect("ci.test".try_into().unwrap(), tcp)
        .await
        .unwrap();
    assert_eq!(status_of(&mut guessing, "f", "").await.0, 429);
    assert_eq!(service.metric("moorgate_password_hashes_total").await, 0.0);
}

#[tokio::test]
async fn an_idle_connection_is_answered_once_more_and_then_closed() {
    let mut service = Service::start();
    let config = service.client_config("http/1.1");
    let mut used = connect(&service, &config).await;
    let (status, head) = status_of(&mut used, "secret", "").await;
    assert_eq!((status, head.contains("connection: close")), (200, false));
    let mut unused = connect(&service, &config).await;
    service.upgrade();
    assert!(service.is_running());
    for stream in [&mut used, &mut unused] {
        let (status, head) = status_of(stream, "secret", "").await;
        assert_eq!((status, head.contains("connection: close")), (200, true));
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    drop((used, unused));
    assert_eq!(service.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_waits_at_the_limit_is_served_by_the_old_process() {
    let mut service = Service::with(
        Setup::new()
            .main("[limits]\nconnections = 1")
            .domain(Domain::store("ci.test", "ci")),
    );
    let config = service.client_config("http/1.1");
    let upload = unfinished(&service, &config).await;
    running(&service, 1.0).await;
    let own = config.clone();
    let address = service.https;
    let waiting = tokio::spawn(async move {
        let mut stream = tls(address, &own).await?;
        Ok::<_, std::io::Error>(status_of(&mut stream, "secret", "").await)
    });
    until("it waits", || {
        service.said().contains("connection limit reached")
    });
    service.upgrade();
    assert!(!waiting.is_finished());
    finish(upload).await;
    let (status, head) = waiting.await.unwrap().unwrap();
    assert_eq!((status, head.contains("connection: close")), (200, true));
    assert_eq!(service.ended().code(), Some(0));
}

/// A push that has begun: its body lacks the last byte.
pub async fn unfinished(service: &Service, config: &Arc<ClientConfig>) -> Stream {
    let mut stream = connect(service, config).await;
    let authorization = basic("alice", "secret");
    let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: ci.test\r\n\
         Authorization: {authorization}\r\nContent-Length: 5\r\n\r\nhell"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Waits until so many requests are under way.
pub async fn running(service: &Service, count: f64) {
    let domain = "moorgate_requests_in_flight{domain=\"ci.test\"}";
    while service.metric(domain).await < count {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

pub async fn finish(mut stream: Stream) {
    stream.write_all(b"o").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test]
async fn a_transfer_finishes_at_the_old_process_while_commands_reach_the_new_one() {
    let mut service = Service::start();
    let config = service.client_config("http/1.1");
    let upload = unfinished(&service, &config).await;
    running(&service, 1.0).await;
    let first = service.upgrade();
    let second = service.upgrade();
    assert!(service.is_running());
    // The one between has nothing to finish.
    until("it has ended", || has_ended(first));
    let reloaded = service.cli(&["reload"]);
    let text = String::from_utf8(reloaded.stderr).unwrap();
    assert!(reloaded.status.success(), "{text}");
    let pid = second.as_raw_nonzero();
    assert_eq!(text.matches("reloaded").count(), 1, "{text}");
    assert!(text.contains(&format!("process {pid} ")), "{text}");
    finish(upload).await;
    assert_eq!(service.ended().code(), Some(0));
    kill_process(second, Signal::TERM).unwrap();
    until("it has ended", || has_ended(second));
}
