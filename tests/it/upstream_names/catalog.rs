//! The catalog by the names that clients know, in their order, from a registry that lists its own.

use std::collections::BTreeSet;

use tokio::net::TcpListener;

use super::fixture::MAP;
use crate::harness::{Clock, Domain, RawPeer, Setup, seconds};
use crate::store::client::{Client, Endpoint};

const INSIDE: [&str; 12] = [
    "acme/ci-a",
    "acme/ci-a-b",
    "acme/ci-a--b",
    "acme/ci-a--b--c",
    "acme/ci-a.b",
    "acme/ci-b",
    "acme/other",
    "elsewhere/app",
    "mirror",
    "mirror/a",
    "mirror/a/b",
    "secret/acme/ci-a",
];
const OUTSIDE: [&str; 8] = [
    "base/a", "base/a/b", "ci/a", "ci/a-b", "ci/a.b", "ci/a/b", "ci/a/b/c", "ci/b",
];

/// A registry that lists its names in its own order, so many at once, and pages by the last name or
/// by tokens.
async fn listing(names: &[&str], at_once: usize, by_name: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    tokio::spawn(async move {
        loop {
            let mut peer = RawPeer::new(listener.accept().await.unwrap().0);
            let names = names.clone();
            tokio::spawn(async move {
                while let Some(head) = peer.try_head().await {
                    let (_, query) = head.first.split_once('?').unwrap();
                    let query = query.split(' ').next().unwrap();
                    peer.send(page_of(&names, query, at_once, by_name)).await;
                }
            });
        }
    });
    url
}

fn page_of(names: &[String], query: &str, at_once: usize, by_name: bool) -> String {
    let last = query.split('&').find_map(|pair| pair.strip_prefix("last="));
    let start = match last {
        None => 0,
        Some(last) if by_name => names.iter().position(|name| name == last).unwrap() + 1,
        Some(token) => token.strip_prefix("token-").unwrap().parse().unwrap(),
    };
    let end = names.len().min(start + at_once);
    let last = if by_name {
        names[end - 1].clone()
    } else {
        format!("token-{end}")
    };
    let link = format!("Link: </v2/_catalog?n={at_once}&last={last}>; rel=\"next\"\r\n");
    let link = if end < names.len() { &*link } else { "" };
    let body = serde_json::json!({ "repositories": names[start..end] }).to_string();
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\n{link}Content-Length: {length}\r\n\r\n{body}")
}

async fn client(url: &str, tables: &str) -> (crate::harness::Gateway, Client) {
    let domain = Domain::new("ci.test", url).tables(tables);
    let gateway = Setup::new().domain(domain).start().await;
    let client = Endpoint::new(&gateway, "http/1.1").client();
    (gateway, client)
}

/// Every page, following the links.
async fn pages(client: &mut Client, target: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut target = target.to_owned();
    loop {
        let answer = client.get(&target).await.is(200);
        let names = serde_json::from_value(answer.json()["repositories"].clone()).unwrap();
        pages.push(names);
        assert!(pages.len() < 100, "no end: {pages:?}");
        if !answer.has("link") {
            return pages;
        }
        let link = answer.header("link").strip_prefix('<').unwrap();
        target = link.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
}

#[tokio::test]
async fn the_catalog_has_the_names_that_clients_know_in_their_order() {
    let allow = "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['all']\n";
    for by_name in [true, false] {
        for at_once in [1, 5, 100] {
            let url = listing(&INSIDE, at_once, by_name).await;
            for rules in ["", allow] {
                let (_gateway, mut alice) = client(&url, &format!("{rules}{MAP}")).await;
                for n in 1..10 {
                    let pages = pages(&mut alice, &format!("/v2/_catalog?n={n}")).await;
                    assert_eq!(pages.concat(), OUTSIDE, "{n}, {at_once}, {rules}");
                    assert_eq!(pages.len(), OUTSIDE.len().div_ceil(n), "{pages:?}");
                }
                let whole = pages(&mut alice, "/v2/_catalog").await;
                assert_eq!(whole, [OUTSIDE]);
            }
        }
    }
}

#[tokio::test]
async fn a_page_begins_after_any_name() {
    let url = listing(&INSIDE, 5, true).await;
    let (_gateway, mut alice) = client(&url, MAP).await;
    // Of a repository, of one that is gone, one that cannot be, and none.
    for last in [
        "ci/a.b",
        "ci/a0",
        "ci/a--b",
        "acme/ci-a",
        "c",
        "ci/b",
        "zz",
        "B%7e",
    ] {
        let pages = pages(&mut alice, &format!("/v2/_catalog?n=2&last={last}")).await;
        let last = last.replace("%7e", "~");
        let after: Vec<_> = OUTSIDE.into_iter().filter(|name| **name > *last).collect();
        assert_eq!(pages.concat(), after, "{last}");
    }
}

#[tokio::test]
async fn rules_for_the_catalog_are_about_the_names_that_clients_know() {
    let rules = "[[access]]\nusers = ['alice']\nrepositories = ['**']\nactions = ['catalog']\n\
        [[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['ci/a/**']\nactions = ['catalog']\n\
        [[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['mirror/**']\nactions = ['catalog']\n";
    let url = listing(&INSIDE, 5, true).await;
    let (_gateway, mut alice) = client(&url, &format!("{rules}{MAP}")).await;
    let listed: BTreeSet<_> = pages(&mut alice, "/v2/_catalog?n=2")
        .await
        .concat()
        .into_iter()
        .collect();
    let seen: BTreeSet<_> = OUTSIDE
        .into_iter()
        .filter(|name| !name.starts_with("ci/a/"))
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, seen);
}

#[tokio::test]
async fn a_catalog_that_takes_too_long_is_no_part_of_one() {
    let clock = Clock::stopped();
    let upstream = crate::harness::Upstream::new().await;
    let (gateway, _) = client(&upstream.url(), MAP).await;
    let mut alice = gateway.client().await;
    alice
        .send(crate::harness::request("GET", "/v2/_catalog?n=1", ""))
        .await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    let body = "{\"repositories\":[\"acme/ci-z\"]}";
    registry
        .send(format!(
            "HTTP/1.1 200 OK\r\nLink: </v2/_catalog?n=1&last=x>; rel=\"next\"\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    registry.head().await;
    clock.jump(seconds(120)).await;
    assert_eq!(alice.answer().await.0.status(), 504);
}
