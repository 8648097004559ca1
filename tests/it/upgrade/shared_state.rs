//! What both processes write while the old one drains.

use moorgate::internal::journal::Journal;
use moorgate::internal::registry::{RepositoryName, Tag};
use rustix::process::{Signal, kill_process};

use super::fixture::{Service, answer, has_ended, tls, until};
use crate::harness::basic;

/// A request of alice, with a body.
fn request(method: &str, target: &str, body: &str) -> String {
    let authorization = basic("alice", "secret");
    format!(
        "{method} {target} HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {authorization}\r\n\
         Content-Type: {INDEX}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[tokio::test]
async fn pulls_from_both_processes_are_recorded() {
    let mut service = Service::start();
    let config = service.client_config("http/1.1");
    let mut old = tls(service.https, &config).await.unwrap();
    let tags = ["first", "second"];
    for tag in tags {
        let body = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[],\
             \"annotations\":{{\"tag\":\"{tag}\"}}}}"
        );
        let push = request("PUT", &format!("/v2/a/manifests/{tag}"), &body);
        assert_eq!(answer(&mut old, &push).await.0, 201);
    }
    let successor = service.upgrade();
    let mut new = tls(service.https, &config).await.unwrap();
    for (stream, tag, is_last) in [(&mut old, "first", true), (&mut new, "second", false)] {
        let pull = request("GET", &format!("/v2/a/manifests/{tag}"), "");
        let (status, head) = answer(stream, &pull).await;
        assert_eq!(status, 200, "{head}");
        assert_eq!(head.contains("connection: close"), is_last);
    }
    drop((old, new));
    assert_eq!(service.ended().code(), Some(0), "{}", service.said());
    kill_process(successor, Signal::TERM).unwrap();
    until("it has ended", || has_ended(successor));
    let journal = Journal::new(service.path().join("state/store/ci/journal.redb"));
    let repository = RepositoryName::parse("a").unwrap();
    let history = journal.history(&repository).unwrap();
    for tag in tags {
        let used = history.tags.get(&Tag::parse(tag).unwrap());
        assert!(used.is_some_and(|used| used.pulled.is_some()), "{tag}");
    }
}
