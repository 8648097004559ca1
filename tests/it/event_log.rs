//! A lasting trouble does not fill the event log.

use std::time::Instant;

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::harness::{Clock, Domain, Events, PATIENCE, RawPeer, Setup, request, seconds};

#[tokio::test]
async fn an_unavailable_registry_is_one_line() {
    let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
    let mut process = Setup::new()
        // As many as there are descriptors for, wherever this runs.
        .main("[limits]\nconnections = 100")
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .spawn(&users, "http/1.1");
    let mut client = RawPeer::new(process.tls().await);
    for _ in 0..30 {
        client.send(request("GET", "/v2/a/tags/list", "")).await;
        assert_eq!(client.answer().await.0.status(), 503);
    }
    process.signal(Signal::TERM);
    let begun = Instant::now();
    while !process.has_ended() || !process.said().contains("stopped") {
        assert!(begun.elapsed() < PATIENCE, "{}", process.said());
        std::thread::yield_now();
    }
    let said = process.said();
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.contains(" WARN "))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    for part in ["WARN upstream fails", "reason=\"refused\"", "failures=1"] {
        assert!(lines[0].contains(part), "{said}");
    }
}

#[tokio::test]
async fn connections_that_become_no_request_are_one_line_for_each_client() {
    let events = Events::kept();
    let gateway = Setup::new()
        .domain(Domain::new("ci.test", "http://127.0.0.1:9"))
        .start()
        .await;
    let clock = Clock::stopped();
    let refused = async || {
        for _ in 0..5 {
            let mut plain = RawPeer::new(TcpStream::connect(gateway.https()).await.unwrap());
            plain.send("GET / HTTP/1.1\r\nHost: ci.test\r\n\r\n").await;
            assert_eq!(plain.answer().await.0.status(), 400);
            // A record of TLS without a handshake in it.
            let mut broken = RawPeer::new(TcpStream::connect(gateway.https()).await.unwrap());
            broken.send([22, 3, 1, 0, 4, 99, 0, 0, 0]).await;
            broken.ended().await;
        }
    };
    refused().await;
    for words in [PLAIN, BROKEN] {
        let said = events.with(words);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("peer=127.0.0.1 ") && said[0].contains("count=1"),
            "{said:?}"
        );
    }
    clock.jump(seconds(61)).await;
    refused().await;
    for words in [PLAIN, BROKEN] {
        let said = events.with(words);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].contains("count=5"), "{said:?}");
    }
}

const PLAIN: &str = "plain HTTP requests on a TLS port refused";
const BROKEN: &str = "TLS handshakes refused";
