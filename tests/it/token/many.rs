//! Tokens for many repositories, as mirrors request them, and the errors of the token endpoint.

use serde_json::json;

use super::calls::challenge;
use super::fixture::{Kind, TokenFixture, part};
use crate::access::fixture::{KINDS, allow};
use crate::harness::{Domain, Head, RawPeer, Setup, basic};
use crate::store::client::{Answer, Endpoint};

/// The name of one of many repositories.
fn name(number: usize) -> String {
    format!("mirror/openshift-release-dev/some-operator-{number:04}")
}

/// The scopes to pull from so many repositories, as a parameter each.
fn scopes(count: usize) -> String {
    (0..count)
        .map(|number| format!("&scope=repository%3A{}%3Apull", name(number)))
        .collect()
}

async fn posted(fixture: &TokenFixture, count: usize) -> Answer {
    let form = format!(
        "grant_type=password&username=alice&password=secret{}",
        scopes(count)
    );
    fixture.post_form(&form).await
}

fn token(answer: &Answer) -> String {
    answer.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_for_hundreds_of_repositories_is_short_and_grants_each() {
    for kind in KINDS {
        let fixture = TokenFixture::with(kind, "", &allow("mirror/**", "'pull'")).await;
        let (first, last, other) = (name(0), name(399), name(400));
        let image = fixture.seeded(&[&first, &last, &other], "v1").await;
        let alice = Some(("alice", "secret"));
        let query = format!("service=ci.test{}", scopes(400));
        for answer in [
            fixture.get_token(alice, &query).await,
            posted(&fixture, 400).await,
        ] {
            let token = token(&answer.is(200));
            // What fronts accept: 8 KiB for a line of a head.
            assert!(token.len() < 1024, "{} bytes", token.len());
            assert_eq!(part(&token, 1)["access"], json!([]));
            let mut alice = fixture.client().bearing(&token);
            for name in [&first, &last] {
                alice.check(name, "v1", &image).await;
            }
            let answer = alice
                .get(&format!("/v2/{other}/manifests/v1"))
                .await
                .is(401);
            assert_eq!(
                challenge(&answer),
                format!(",scope=\"repository:{other}:pull\",error=\"insufficient_scope\"")
            );
            alice
                .ask("POST", &format!("/v2/{first}/blobs/uploads/"))
                .await
                .refused(403, "DENIED");
            // The rules decide on.
            fixture.0.rules("").await;
            alice.get(&format!("/v2/{last}/manifests/v1")).await.is(404);
            fixture.0.rules(&allow("mirror/**", "'pull'")).await;
        }
    }
}

#[tokio::test]
async fn the_number_of_scopes_is_bounded_by_the_size_of_a_form_alone() {
    let fixture = TokenFixture::new(&allow("mirror/**", "'pull'")).await;
    let answer = posted(&fixture, 800).await.is(200);
    // Clients know what they asked for: a long list is not repeated.
    assert!(answer.json().get("scope").is_none());
    assert!(answer.body.len() < 4096, "{} bytes", answer.body.len());
    let short: String = (0..2500)
        .map(|n| format!("&scope=repository:{n}:"))
        .collect();
    let form = format!("grant_type=password&username=alice&password=secret{short}");
    fixture.post_form(&form).await.is(200);
    let message = posted(&fixture, 1500)
        .await
        .refused_token(413, "SIZE_INVALID");
    assert!(message.contains("65536"), "{message}");
    // A query has what a head has.
    let alice = Some(("alice", "secret"));
    fixture.get_token(alice, &scopes(400)).await.is(200);
}

#[tokio::test]
async fn long_lists_survive_a_restart_and_anonymous_ones_are_not_written() {
    let rules = allow("mirror/**", "'pull'")
        + "[[access]]\nusers = ['@anonymous']\nrepositories = ['mirror/**']\nactions = ['pull']\n";
    let mut fixture = TokenFixture::with(Kind::Store, "anonymous = 'pull'", &rules).await;
    let image = fixture.seeded(&[&name(7)], "v1").await;
    let lists = fixture.0.gateway.path("state/token-access");
    let anonymous = token(&fixture.get_token(None, &scopes(300)).await.is(200));
    let written = || std::fs::read_dir(&lists).map_or(0, Iterator::count);
    assert_eq!(written(), 0);
    let mut client = fixture.client().bearing(&anonymous);
    client.check(&name(7), "v1", &image).await;
    let alice = token(&posted(&fixture, 300).await.is(200));
    assert_eq!(written(), 1);
    // The same list again is the same one.
    posted(&fixture, 300).await.is(200);
    assert_eq!(written(), 1);
    fixture.0.restart().await;
    let mut client = fixture.client().bearing(&alice);
    client.check(&name(7), "v1", &image).await;
    let target = format!("/v2/{}/manifests/v1", name(7));
    let answer = fixture.client().bearing(&anonymous).get(&target).await;
    answer.refused(401, "UNAUTHORIZED");
    assert_eq!(
        challenge(&answer),
        format!(
            ",scope=\"repository:{}:pull\",error=\"invalid_token\"",
            name(7)
        )
    );
    // A list that is lost or was changed grants nothing.
    let file = std::fs::read_dir(&lists)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = std::fs::read_to_string(&file).unwrap();
    for change in [
        Some(text.replace("0007", "9999")),
        Some(String::new()),
        None,
    ] {
        match change {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        fixture.0.restart().await;
        let mut client = fixture.client().bearing(&alice);
        client.get(&target).await.refused(401, "UNAUTHORIZED");
    }
}

/// Asserts that an answer is JSON with the error of OAuth and of the registry.
fn is_json(answer: &Head, body: &[u8], status: u16, what: &str) {
    assert_eq!(answer.status(), status, "{what}");
    assert_eq!(
        answer.get("content-type"),
        Some("application/json"),
        "{what}"
    );
    let body = crate::harness::json(body);
    assert!(
        body["error"].is_string() && body["errors"][0]["code"].is_string(),
        "{what}: {body}"
    );
}

#[tokio::test]
async fn every_error_of_the_token_endpoint_is_json() {
    let fixture = TokenFixture::new("").await;
    let login = basic("alice", "secret");
    let cases = [
        ("PUT /token HTTP/1.1\r\nHost: ci.test\r\n\r\n".to_owned(), 405),
        ("GET /token HTTP/1.1\r\nHost: other.test\r\n\r\n".to_owned(), 404),
        ("GET /token HTTP/1.1\r\nHost: /\r\n\r\n".to_owned(), 400),
        ("GET /token HTTP/1.1\r\nHost: ci.test\r\nUpgrade: h2c\r\n\r\n".to_owned(), 401),
        (
            "POST /token HTTP/1.1\r\nHost: ci.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
            400,
        ),
        (
            format!("GET /token?scope=x HTTP/1.1\r\nHost: ci.test\r\nAuthorization: {login}\r\n\r\n"),
            400,
        ),
        ("GET /token HTTP/1.1\r\nHost: ci.test\r\n\r\n".to_owned(), 401),
    ];
    for (request, status) in cases {
        let mut peer = fixture.0.gateway.client().await;
        peer.send(&request).await;
        let (head, body) = peer.answer().await;
        is_json(&head, &body, status, &request);
    }
    // Over HTTP/1.1 such a head is refused before there is a request.
    let many: Vec<_> = (0..101).map(|n| (format!("x-{n}"), "y")).collect();
    let many: Vec<_> = many
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    let mut client = Endpoint::new(&fixture.0.gateway, "h2").client();
    client
        .ask_with("GET", "/token", &many, "")
        .await
        .refused_token(431, "UNSUPPORTED");
    // One that the limits of a domain's other requests would refuse.
    let long = "&x=".repeat(3000);
    fixture
        .get_token(Some(("alice", "secret")), &long)
        .await
        .is(200);
    fixture
        .client()
        .get(&format!("/v2/_catalog?{long}"))
        .await
        .refused(414, "UNSUPPORTED");
    // Another domain's connection.
    let gateway = Setup::new()
        .domain(Domain::store("ci.test", "ci").auth("mode = 'token'"))
        .domain(Domain::store("other.test", "other").auth("mode = 'token'"))
        .start()
        .await;
    let mut peer = RawPeer::new(gateway.tls("other.test", &["http/1.1"]).await.unwrap());
    peer.send("GET /token HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    let (head, body) = peer.answer().await;
    is_json(&head, &body, 421, "misdirected");
}

#[tokio::test]
async fn a_long_target_is_for_the_token_endpoint_alone() {
    let pages = crate::harness::Origin::new().await;
    let browser = format!("[browser]\nurl = '{}'", pages.url());
    for (mode, status) in [("mode = 'token'", 200), ("", 414)] {
        let domain = Domain::store("ci.test", "ci").tables(&browser).auth(mode);
        let gateway = Setup::new().domain(domain).start().await;
        let mut client = Endpoint::new(&gateway, "http/1.1").client();
        let target = format!("/token?{}", "x".repeat(9000));
        client.get(&target).await.is(status);
    }
    assert_eq!(pages.requests().len(), 0);
}
