//! The catalog and mounts: what may not be seen is not in them, and pages are as long as they
//! should be.

use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;

use super::fixture::{AccessFixture, KINDS, allow};
use crate::harness::{Clock, Domain, RawPeer, Setup, seconds};
use crate::store::client::{Client, Endpoint};
use crate::store::image::sha256;

/// Every page of the catalog, of so many entries each, following the links.
async fn catalog(client: &mut Client, n: usize) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut target = format!("/v2/_catalog?n={n}");
    loop {
        let answer = client.get(&target).await.is(200);
        let names = answer.json()["repositories"].as_array().unwrap().clone();
        pages.push(
            names
                .iter()
                .map(|name| name.as_str().unwrap().to_owned())
                .collect(),
        );
        assert!(pages.len() < 100, "no end: {pages:?}");
        if !answer.has("link") {
            return pages;
        }
        let link = answer.header("link");
        let (reference, rel) = link
            .strip_prefix('<')
            .and_then(|link| link.split_once('>'))
            .unwrap();
        assert_eq!(rel, "; rel=\"next\"");
        target = reference.to_owned();
    }
}

#[tokio::test]
async fn a_filtered_catalog_has_full_pages() {
    for kind in KINDS {
        let deny = "[[access]]\ndeny = true\nusers = ['*']\nrepositories = ['base/c']\nactions = ['catalog']\n";
        let rules = format!(
            "{}{}{}",
            allow("base/*", "'catalog'"),
            allow("more/**", "'pull'"),
            deny
        );
        let fixture = AccessFixture::new(kind, &rules.replace("['*']", "['alice']")).await;
        let names = [
            "a/x", "base/a", "base/b", "base/c", "base/d", "base/d/e", "base/z", "more/a", "z",
        ];
        fixture.seeded(1, &names, "v1").await;
        let mut alice = fixture.client("alice");
        let seen = ["base/a", "base/b", "base/d", "base/z"];
        for n in 1..6 {
            let pages = catalog(&mut alice, n).await;
            assert_eq!(pages.concat(), seen, "{kind:?}, {n} at once");
            assert!(
                pages.iter().rev().skip(1).all(|page| page.len() == n),
                "{kind:?}: {pages:?}"
            );
            assert_eq!(
                pages.len(),
                seen.len().div_ceil(n),
                "no empty page at the end: {pages:?}"
            );
        }
        let whole = alice.get("/v2/_catalog").await.is(200);
        assert_eq!(whole.json(), serde_json::json!({ "repositories": seen }));
        assert!(!whole.has("link"));
        let after = alice.get("/v2/_catalog?n=2&last=base/b").await.is(200);
        assert_eq!(
            after.json()["repositories"],
            serde_json::json!(["base/d", "base/z"])
        );
        let hidden = alice.get("/v2/_catalog?n=2&last=base/c").await.is(200);
        assert_eq!(
            hidden.json()["repositories"],
            serde_json::json!(["base/d", "base/z"])
        );
        assert_eq!(
            catalog(&mut fixture.client("root"), 4).await.concat(),
            names,
            "{kind:?}"
        );
        alice
            .get("/v2/base/a/tags/list")
            .await
            .refused(403, "DENIED");
        alice
            .get("/v2/z/tags/list")
            .await
            .refused(404, "NAME_UNKNOWN");
    }
}

/// A registry that pages by tokens of its own, in no order of names, three at once. It gives them
/// in this parameter, and refuses what is none of them.
async fn tokens_of_its_own(names: [&'static str; 9], parameter: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let mut peer = RawPeer::new(listener.accept().await.unwrap().0);
            while let Some(head) = peer.try_head().await {
                let (_, query) = head
                    .first
                    .split(' ')
                    .nth(1)
                    .unwrap()
                    .split_once('?')
                    .unwrap();
                let mut pairs = query.split('&').filter_map(|part| part.split_once('='));
                let token = pairs
                    .find(|(name, _)| *name == parameter)
                    .map_or("x%3D0", |(_, token)| token);
                let Some(at) = token
                    .strip_prefix("x%3D")
                    .and_then(|at| at.parse::<usize>().ok())
                else {
                    peer.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                        .await;
                    continue;
                };
                let link = format!(
                    "Link: </v2/_catalog?n=3&{parameter}=x%3D{}>; rel=\"next\"\r\n",
                    at + 3
                );
                let link = if at + 3 < names.len() {
                    link
                } else {
                    String::new()
                };
                let body = serde_json::json!({ "repositories": names[at..at + 3] }).to_string();
                let length = body.len();
                peer.send(format!(
                    "HTTP/1.1 200 OK\r\n{link}Content-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            }
        }
    });
    url
}

#[tokio::test]
async fn a_registry_with_tokens_of_its_own_is_paged_by_name() {
    let names = [
        "base/z", "base/c", "a/x", "base/a", "base/b", "more/a", "z", "base/d", "base/d/e",
    ];
    for parameter in ["next_page", "last"] {
        let url = tokens_of_its_own(names, parameter).await;
        let rules = format!(
            "{}{}",
            allow("base/*", "'catalog'"),
            allow("more/**", "'pull'")
        );
        let gateway = Setup::new()
            .domain(Domain::new("ci.test", &url).tables(&rules))
            .start()
            .await;
        let mut alice = Endpoint::new(&gateway, "http/1.1").client();
        let seen = ["base/z", "base/c", "base/a", "base/b", "base/d"];
        for n in 1..7 {
            let pages = catalog(&mut alice, n).await;
            assert_eq!(pages.concat(), seen, "{parameter}, {n} at once");
            assert_eq!(
                pages.len(),
                seen.len().div_ceil(n),
                "no empty page at the end: {pages:?}"
            );
        }
        // One that has been deleted meanwhile: from the beginning, rather than nothing.
        let gone = alice.get("/v2/_catalog?n=2&last=base/gone").await.is(200);
        assert_eq!(
            gone.json()["repositories"],
            serde_json::json!(["base/z", "base/c"])
        );
    }
}

/// A registry that answers a request for the catalog by its query, or never.
async fn catalog_of(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let mut peer = RawPeer::new(listener.accept().await.unwrap().0);
            while let Some(head) = peer.try_head().await {
                let target = head.first.split(' ').nth(1).unwrap();
                let (_, query) = target.split_once('?').unwrap();
                match answer(query) {
                    Some(answer) => peer.send(answer).await,
                    None => {
                        silent.push(peer);
                        break;
                    }
                }
            }
        }
    });
    url
}

fn listed(names: &[&str], next: Option<&str>) -> String {
    let body = serde_json::json!({ "repositories": names }).to_string();
    let link = next.map_or(String::new(), |next| {
        format!("Link: </v2/_catalog?{next}>; rel=\"next\"\r\n")
    });
    format!(
        "HTTP/1.1 200 OK\r\n{link}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_name_that_no_link_can_contain_ends_no_connection() {
    let url = catalog_of(|_| Some(listed(&["a\u{7}", "b", "c&d>", "\u{fc}", "e"], None))).await;
    let domain = Domain::new("ci.test", &url).tables(&allow("**", "'all'"));
    let gateway = Setup::new().domain(domain).start().await;
    let mut alice = Endpoint::new(&gateway, "http/1.1").client();
    let pages = catalog(&mut alice, 1).await;
    assert_eq!(pages.concat(), ["b", "c&d>", "e"]);
}

#[tokio::test]
async fn the_next_page_is_found_among_several_links() {
    let first = "</v2/_catalog?n=1000>; title=\"a, b; rel=next\"; rel=\"prev first\"";
    for next in [
        "rel=\"next\"",
        "REL=Next",
        "title=\"a, b\"; rel=\"last next\"",
    ] {
        let answers = move |query: &str| {
            let next = format!("</v2/_catalog?n=1000&last=a,b;c>; {next}");
            let page = match query {
                "n=1000" => listed(&["a"], None).replacen(
                    "Content-Length",
                    &format!("Link: {first}\r\nLink: {first}, {next}\r\nContent-Length"),
                    1,
                ),
                "n=1000&last=a,b;c" => listed(&["b"], None),
                other => panic!("asked for {other}"),
            };
            Some(page)
        };
        let url = catalog_of(answers).await;
        let domain = Domain::new("ci.test", &url).tables(&allow("**", "'all'"));
        let gateway = Setup::new().domain(domain).start().await;
        let mut alice = Endpoint::new(&gateway, "http/1.1").client();
        assert_eq!(catalog(&mut alice, 9).await.concat(), ["a", "b"], "{next}");
    }
}

#[tokio::test]
async fn a_catalog_that_takes_too_long_ends_with_a_link() {
    let clock = Clock::stopped();
    let (silent, mut is_silent) = unbounded_channel();
    let answers = move |query: &str| match query {
        "n=1000" => Some(listed(&["base/a", "x"], Some("n=1000&last=x"))),
        "n=1000&last=x" => Some(listed(&["base/b"], Some("n=1000&last=base/b"))),
        _ => {
            silent.send(()).unwrap();
            None
        }
    };
    let url = catalog_of(answers).await;
    let domain = Domain::new("ci.test", &url).tables(&allow("base/*", "'catalog'"));
    let gateway = Setup::new().domain(domain).start().await;
    let mut alice = Endpoint::new(&gateway, "http/1.1").client();
    let mut time_passes = async || {
        is_silent.recv().await.unwrap();
        clock.jump(seconds(120)).await;
    };
    let (page, ()) = tokio::join!(alice.get("/v2/_catalog?n=9"), time_passes());
    let page = page.is(200);
    let names = serde_json::json!({ "repositories": ["base/a", "base/b"] });
    assert_eq!(page.json(), names);
    assert_eq!(
        page.header("link"),
        "</v2/_catalog?n=9&last=base/b>; rel=\"next\""
    );
    // Nothing was found in time, so that there is nothing to go on from.
    let (late, ()) = tokio::join!(alice.get("/v2/_catalog?n=9&last=base/b"), time_passes());
    late.refused(504, "UNAVAILABLE");
}

#[tokio::test]
async fn a_mount_from_an_unreadable_repository_is_an_upload() {
    for kind in KINDS {
        let rules = format!(
            "{}{}{}",
            allow("to/**", "'push'"),
            allow("read/**", "'pull'"),
            allow("lent/**", "'mount-from'")
        );
        let fixture = AccessFixture::new(kind, &rules).await;
        let image = fixture
            .seeded(1, &["read/app", "lent/app", "secret/app"], "v1")
            .await;
        let blob = sha256(&image.layers[0]);
        let mut alice = fixture.client("alice");
        for (from, status, to) in [
            ("secret", 202, "to/a"),
            ("read", 201, "to/b"),
            ("lent", 201, "to/c"),
        ] {
            let target = format!("/v2/{to}/blobs/uploads/?mount={blob}&from={from}%2Fapp&x=1");
            let answer = alice.ask("POST", &target).await.is(status);
            if status == 202 {
                // It is an upload like any other.
                let session = answer.header("location").to_owned();
                let commit = format!(
                    "{session}{}digest={blob}",
                    if session.contains('?') { '&' } else { '?' }
                );
                alice
                    .ask_with("PUT", &commit, &[], image.layers[0].clone())
                    .await
                    .is(201);
            }
            alice
                .ask("HEAD", &format!("/v2/{to}/blobs/{blob}"))
                .await
                .is(200);
        }
        let anywhere = format!("/v2/to/d/blobs/uploads/?mount={blob}");
        alice.ask("POST", &anywhere).await.is(202);
        alice
            .ask("HEAD", &format!("/v2/to/d/blobs/{blob}"))
            .await
            .is(404);
    }
}
