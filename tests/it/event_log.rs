//! A lasting trouble does not fill the event log.

use std::time::Instant;

use rustix::process::Signal;

use crate::harness::{Domain, PATIENCE, RawPeer, Setup, request};

#[tokio::test]
async fn an_unavailable_registry_is_one_line_and_a_count() {
    let users = Domain::htpasswd(&[("alice".to_owned(), "secret".to_owned())]);
    let mut process = Setup::new()
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
        .filter(|line| line.contains("upstream request failed"))
        .collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(!lines[0].contains("repeated"), "{said}");
    assert!(
        lines[1].contains("repeated=29 last=\"domain=ci.test status=503 error="),
        "{said}"
    );
}
