//! Whoever reads the logs may stop: nothing waits for that, neither requests nor the end.

use std::io::pipe;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::harness::process::{LogPipes, Process};
use crate::harness::{Domain, PATIENCE, RawPeer, Setup, request, seconds};

/// Logs an event for each connection that is not TLS.
fn process(pipes: LogPipes) -> Process {
    let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
    Setup::new()
        .main("[log]\nlevel = \"debug\"")
        .domain(Domain::store("ci.test", "ci"))
        .spawn_logging_to(pipes, &users, "http/1.1")
}

async fn status(
    mut peer: RawPeer<impl AsyncRead + AsyncWrite + Unpin>,
    request: impl AsRef<[u8]>,
) -> u16 {
    peer.send(request).await;
    peer.answer().await.0.status()
}

/// Leaves more events and lines of requests than a pipe holds.
async fn fill(process: &Process) {
    for index in 0..2_000 {
        let answered = async {
            let peer = RawPeer::new(TcpStream::connect(process.https).await.unwrap());
            status(peer, "GET / HTTP/1.1\r\nHost: ci.test\r\n\r\n").await
        };
        let status = timeout(PATIENCE, answered).await;
        assert_eq!(status, Ok(400), "after {index} events");
    }
}

async fn serves_on(pipes: LogPipes) {
    let process = process(pipes);
    let paused = process.pause_reading().await;
    fill(&process).await;
    let admin = RawPeer::new(TcpStream::connect(process.admin).await.unwrap());
    let healthy = status(admin, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(timeout(PATIENCE, healthy).await, Ok(200));
    let domain = async {
        let peer = RawPeer::new(process.tls().await);
        status(peer, request("GET", "/v2/", "")).await
    };
    assert_eq!(timeout(PATIENCE, domain).await, Ok(200));
    drop(paused);
    // Nothing is lost: all of it had room.
    let begun = Instant::now();
    while process.said().matches("plain HTTP on a TLS port").count() < 2_000
        || !process.said().contains("call=ping")
    {
        assert!(begun.elapsed() < PATIENCE, "{}", process.said());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_are_answered_while_nobody_reads_the_events() {
    serves_on(LogPipes::Two).await;
}

#[tokio::test]
async fn requests_are_answered_while_nobody_reads_both_logs() {
    serves_on(LogPipes::One).await;
}

fn ends(process: &mut Process) {
    let begun = Instant::now();
    while !process.has_ended() {
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_signal_ends_the_process_while_nobody_reads_its_logs() {
    for pipes in [LogPipes::One, LogPipes::Two] {
        let mut process = process(pipes);
        let _paused = process.pause_reading().await;
        fill(&process).await;
        process.signal(Signal::TERM);
        ends(&mut process);
    }
}

/// An upload that goes on, so that a drain does not end by itself.
async fn open_upload(process: &Process) -> RawPeer<TlsStream<TcpStream>> {
    let mut peer = RawPeer::new(process.tls().await);
    peer.send(request(
        "POST",
        "/v2/a/blobs/uploads/",
        "Content-Length: 0\r\n",
    ))
    .await;
    let location = peer.answer().await.0.get("location").unwrap().to_owned();
    let path = location.split_once("ci.test").unwrap().1;
    let path = &path[path.find('/').unwrap()..];
    let head = request(
        "PATCH",
        path,
        "Content-Length: 10\r\nExpect: 100-continue\r\n",
    );
    peer.send(head).await;
    assert_eq!(peer.head().await.status(), 100);
    peer
}

#[tokio::test]
async fn a_second_signal_ends_the_process_while_nobody_reads_its_logs() {
    for second in [Signal::TERM, Signal::INT] {
        let mut process = process(LogPipes::One);
        let _upload = open_upload(&process).await;
        let _paused = process.pause_reading().await;
        fill(&process).await;
        process.signal(Signal::TERM);
        // The first signal has been received once nobody listens any more.
        let begun = Instant::now();
        while TcpStream::connect(process.admin).await.is_ok() {
            assert!(begun.elapsed() < PATIENCE, "it does not drain");
        }
        assert!(!process.has_ended(), "the upload is running");
        process.signal(second);
        ends(&mut process);
    }
}

/// Less than a second signal asks for: running transfers have the drain limit, and what is written
/// last has 10 s.
#[tokio::test]
async fn one_signal_ends_the_process_soon_after_the_drain_limit_while_nobody_reads_its_logs() {
    for pipes in [LogPipes::One, LogPipes::Two] {
        let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
        let mut process = Setup::new()
            .main("[log]\nlevel = \"debug\"\n[timeouts]\ndrain = \"1s\"")
            .domain(Domain::store("ci.test", "ci"))
            .spawn_logging_to(pipes, &users, "http/1.1");
        let _upload = open_upload(&process).await;
        let _paused = process.pause_reading().await;
        fill(&process).await;
        let begun = Instant::now();
        process.signal(Signal::TERM);
        ends(&mut process);
        // With as much again for a machine that is busy.
        assert!(
            begun.elapsed() < 2 * seconds(1 + 10),
            "{:?}",
            begun.elapsed()
        );
    }
}

/// A start that fails has more to say than a pipe holds, and nobody reads it.
#[test]
fn two_signals_end_a_start_that_cannot_say_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let wrong: String = (0..2_000).map(|n| format!("unknown-{n} = {n}\n")).collect();
    std::fs::write(directory.path().join("moorgate.toml"), wrong).unwrap();
    let (reader, writer) = pipe().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_moorgate"))
        .args(["run", "--config"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while ioctl_fionread(&reader).unwrap() < 64 * 1024 {
        assert!(begun.elapsed() < PATIENCE, "it says too little");
        std::thread::yield_now();
    }
    assert_eq!(child.try_wait().unwrap(), None);
    // Two different ones: the same twice may count once.
    for signal in [Signal::TERM, Signal::INT] {
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it does not end");
        std::thread::yield_now();
    }
}
