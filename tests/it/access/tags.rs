//! Tags that may be made and not moved: looked up and written in one go.

use bytes::Bytes;

use super::fixture::{AccessFixture, KINDS, Kind, allow};
use crate::harness::{
    BodySender, Clock, Domain, Feed, Http2, ProxiedPair, RawPeer, Setup, Upstream, json, no_body,
    promptly, request, request2, seconds, settle,
};
use crate::store::client::{Client, Endpoint};
use crate::store::image::{Image, MANIFEST};

#[tokio::test]
async fn of_two_pushes_for_one_protected_tag_exactly_one_wins() {
    for kind in KINDS {
        let rules = "[[access]]\nusers = ['alice', 'bob']\nrepositories = ['base/**']\nactions = ['push', 'pull']\n";
        let fixture = AccessFixture::new(kind, rules).await;
        let images: Vec<_> = (0..4).map(Image::small).collect();
        for image in &images {
            for blob in image.blobs() {
                fixture.client("root").push_blob("base/app", blob).await;
            }
        }
        for round in 0..10 {
            let tag = format!("v{round}");
            let pushes =
                images
                    .iter()
                    .zip(["alice", "bob", "alice", "bob"])
                    .map(|(image, user)| {
                        let mut client = fixture.client(user);
                        let tag = &tag;
                        async move { client.push_manifest("base/app", tag, &image.manifest).await }
                    });
            let [a, b, c, d] = <[_; 4]>::try_from(pushes.collect::<Vec<_>>()).ok().unwrap();
            let answers = tokio::join!(a, b, c, d);
            let answers = [answers.0, answers.1, answers.2, answers.3];
            let won: Vec<_> = (0..4).filter(|&at| answers[at].status == 201).collect();
            assert_eq!(won.len(), 1, "{kind:?}: {answers:?}");
            for answer in answers.iter().filter(|answer| answer.status != 201) {
                answer.refused(403, "DENIED");
            }
            let there = fixture
                .client("alice")
                .get(&format!("/v2/base/app/manifests/{tag}"))
                .await
                .is(200);
            assert_eq!(there.body, images[won[0]].manifest);
        }
    }
}

#[tokio::test]
async fn every_tag_of_a_push_by_digest_counts() {
    for kind in KINDS {
        let deny = "[[access]]\ndeny = true\nusers = ['alice']\nrepositories = ['**']\ntags = ['v*']\n\
            actions = ['push', 'overwrite']\n";
        let fixture =
            AccessFixture::new(kind, &format!("{}{deny}", allow("base/**", "'all'"))).await;
        let image = fixture.seeded(1, &["base/app"], "v1").await;
        let mut alice = fixture.client("alice");
        let target = |query: &str| format!("/v2/base/app/manifests/{}{query}", image.digest());
        for (query, status) in [
            ("", 201),
            ("?tag=a&tag=b", 201),
            ("?tag=a&tag=v2", 403),
            ("?tag=%76%32", 403),
            ("?tag=v1", 403),
        ] {
            let kind = [("content-type", MANIFEST)];
            let answer = alice
                .ask_with("PUT", &target(query), &kind, image.manifest.clone())
                .await;
            assert_eq!(answer.status, status, "{query}: {answer:?}");
        }
        alice.get("/v2/base/app/manifests/v2").await.is(404);
    }
}

fn push(tag: &str, body: &str) -> String {
    let length = body.len();
    request(
        "PUT",
        &format!("/v2/base/app/manifests/{tag}?x=1"),
        &format!("Content-Type: {MANIFEST}\r\nContent-Length: {length}\r\nX-Own: 1\r\n"),
    ) + body
}

async fn restricted() -> ProxiedPair {
    ProxiedPair::with(|domain| domain.tables(&allow("base/**", "'push', 'pull'"))).await
}

#[tokio::test]
async fn the_registry_is_queried_first_and_gets_the_push_unchanged() {
    let mut between = restricted().await;
    let look = between.forwarded(push("v1", "{\"a\":1}")).await;
    assert_eq!(look.first, "HEAD /v2/base/app/manifests/v1 HTTP/1.1");
    assert!(
        look.get("accept")
            .unwrap()
            .contains("manifest.list.v2+json"),
        "{look:?}"
    );
    assert_eq!((look.get("authorization"), look.get("x-own")), (None, None));
    between
        .registry()
        .send("HTTP/1.1 404 Not Found\r\nContent-Length: 30\r\n\r\n")
        .await;
    let put = between.asked().await;
    assert_eq!(put.first, "PUT /v2/base/app/manifests/v1?x=1 HTTP/1.1");
    assert_eq!(
        (put.get("x-own"), put.get("content-type")),
        (Some("1"), Some(MANIFEST))
    );
    assert_eq!(
        between.registry().bytes(put.length().unwrap()).await,
        b"{\"a\":1}"
    );
    let (head, _) = between
        .answered("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(head.status(), 201);
}

#[tokio::test]
async fn an_error_of_the_registry_is_not_taken_for_an_absent_tag() {
    for answer in [
        "500 Oops",
        "401 Unauthorized",
        "403 Forbidden",
        "429 Slowly",
        "307 Elsewhere",
    ] {
        let mut between = restricted().await;
        between.forwarded(push("v1", "{}")).await;
        between
            .registry()
            .send(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n"))
            .await;
        let (head, body) = between.client.answer().await;
        assert_eq!(head.status(), 502, "{answer}");
        assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
    }
    let mut between = restricted().await;
    between.forwarded(push("v1", "{}")).await;
    // Without a digest nobody can say that it is the same.
    between
        .registry()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        .await;
    assert_eq!(between.client.answer().await.0.status(), 403);
}

#[tokio::test]
async fn a_push_without_its_client_still_delays_the_next_one() {
    let mut between = restricted().await;
    between.forwarded(push("v1", "{}")).await;
    between
        .registry()
        .send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        .await;
    let put = between.asked().await;
    assert!(put.first.starts_with("PUT "), "{put:?}");
    between.registry().bytes(2).await;
    let mut second = between.gateway.client().await;
    // The first client leaves; its push may still come to pass.
    between.client = between.gateway.client().await;
    second.send(push("v1", "{\"b\":2}")).await;
    settle().await;
    between.upstream.untouched().await;
    between.registry().silent().await;
    between
        .registry()
        .send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    let look = between.asked().await;
    assert_eq!(look.first, "HEAD /v2/base/app/manifests/v1 HTTP/1.1");
    between
        .registry()
        .send(format!(
            "HTTP/1.1 200 OK\r\nDocker-Content-Digest: {}\r\nContent-Length: 2\r\n\r\n",
            crate::store::image::sha256(b"{}")
        ))
        .await;
    assert_eq!(second.answer().await.0.status(), 403);
}

#[tokio::test]
async fn a_manifest_over_the_limit_is_refused_before_the_registry_gets_it() {
    let settings = format!(
        "[limits]\nmanifest = '1 KiB'\n{}",
        allow("base/**", "'push'")
    );
    let mut between = ProxiedPair::with(|domain| domain.tables(&settings)).await;
    let (head, _) = between
        .own_answer_apart(push("v1", &"x".repeat(1025)))
        .await;
    assert_eq!(head.status(), 413);
    let chunked = request(
        "PUT",
        "/v2/base/app/manifests/v1",
        "Transfer-Encoding: chunked\r\n",
    );
    between.client.send(chunked).await;
    between
        .client
        .send(format!("800\r\n{}\r\n", "x".repeat(0x800)))
        .await;
    assert_eq!(between.client.answer().await.0.status(), 413);
    between.upstream.untouched().await;
}

/// Two domains before one registry, of which only `ci.test` has rules.
async fn beside_an_open_domain() -> ProxiedPair {
    let upstream = Upstream::new().await;
    let url = upstream.url();
    let restricted = Domain::new("ci.test", &url).tables(&allow("base/**", "'push', 'pull'"));
    let gateway = Setup::new()
        .domain(restricted)
        .domain(Domain::new("open.test", &url))
        .start()
        .await;
    let client = gateway.client().await;
    ProxiedPair {
        gateway,
        upstream,
        client,
        registry: None,
    }
}

#[tokio::test]
async fn pushes_through_two_domains_of_one_registry_are_serialized() {
    let mut between = beside_an_open_domain().await;
    let of_open = |request: String| request.replace("Host: ci.test", "Host: open.test");
    let mut open = RawPeer::new(
        between
            .gateway
            .tls("open.test", &["http/1.1"])
            .await
            .unwrap(),
    );
    // Its password is known then.
    open.send(of_open(request("GET", "/v2/", ""))).await;
    between.asked().await;
    between
        .registry()
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(open.answer().await.0.status(), 200);
    let look = between.forwarded(push("v1", "{}")).await;
    assert!(look.first.starts_with("HEAD "), "{look:?}");
    open.send(of_open(push("v1", "{\"b\":2}"))).await;
    between.upstream.untouched().await;
    between
        .registry()
        .send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        .await;
    let put = between.asked().await;
    assert_eq!(
        (put.first.starts_with("PUT "), put.length()),
        (true, Some(2)),
        "{put:?}"
    );
    between.registry().bytes(2).await;
    between.upstream.untouched().await;
    between
        .answered("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    let put = between.asked().await;
    assert_eq!(
        (put.first.starts_with("PUT "), put.length()),
        (true, Some(7)),
        "{put:?}"
    );
    between.registry().bytes(7).await;
    between
        .registry()
        .send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(open.answer().await.0.status(), 201);
}

#[tokio::test]
async fn of_two_processes_over_one_store_only_one_makes_a_tag() {
    let fixture = AccessFixture::new(Kind::Store, &allow("base/**", "'push', 'pull'")).await;
    let beside = super::fixture::start(fixture.gateway.directory.path()).await;
    let beside = crate::harness::Gateway {
        app: beside,
        directory: tempfile::tempdir().unwrap(),
    };
    let endpoint = Endpoint {
        address: beside.https(),
        ..Endpoint::new(&fixture.gateway, "http/1.1")
    };
    let images = [Image::small(1), Image::small(2)];
    for blob in images.iter().flat_map(Image::blobs) {
        fixture.client("root").push_blob("base/app", blob).await;
    }
    for round in 0..20 {
        let tag = format!("v{round}");
        let mut clients: [Client; 2] = [fixture.client("alice"), endpoint.client()];
        let [here, there] = &mut clients;
        let (a, b) = tokio::join!(
            here.push_manifest("base/app", &tag, &images[0].manifest),
            there.push_manifest("base/app", &tag, &images[1].manifest)
        );
        let (lost, won) = if a.status == 201 { (b, 0) } else { (a, 1) };
        let expected = format!(
            "alice may not overwrite base/app:{tag}, which is there already, but may: pull and push base/**"
        );
        assert_eq!(lost.refused(403, "DENIED"), expected);
        let there = fixture
            .client("alice")
            .get(&format!("/v2/base/app/manifests/{tag}"))
            .await
            .is(200);
        assert_eq!(there.body, images[won].manifest);
    }
    assert!(beside.stop().await);
}

#[tokio::test]
async fn a_manifest_is_streamed_where_no_rule_depends_on_existing_tags() {
    for rules in ["'push', 'overwrite'", "'all'"] {
        let mut between = ProxiedPair::with(|domain| domain.tables(&allow("base/**", rules))).await;
        let whole = push("v1", "{\"a\":1}");
        let (first, last) = whole.split_at(whole.len() - 2);
        between.client.send(first).await;
        let put = promptly(between.asked()).await;
        assert_eq!(put.first, "PUT /v2/base/app/manifests/v1?x=1 HTTP/1.1");
        between.client.send(last).await;
        assert_eq!(between.registry().bytes(7).await, b"{\"a\":1}");
        between
            .answered("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            .await;
    }
}

type Answer = tokio::task::JoinHandle<hyper::Result<(http::response::Parts, Bytes)>>;

/// Begins to push a manifest.
fn begin(client: &mut Http2, tag: usize) -> (Feed, Answer) {
    let (feed, body) = BodySender::new();
    let target = format!("/v2/base/app/manifests/v{tag}");
    let answer = tokio::spawn(client.send(request2("PUT", &target).body(body).unwrap()));
    (feed, answer)
}

#[tokio::test]
async fn manifests_wait_for_memory_unread_and_for_a_limited_time() {
    let mut between = restricted().await;
    // Her password is known then.
    between.passed(request("GET", "/v2/", "")).await;
    let clock = Clock::stopped();
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let mut begun = Vec::new();
    // A user has 16 MiB of the 64 for all, taken as the bytes arrive. Each manifest is looked up at
    // the registry when all of it is here.
    let mut registries = Vec::new();
    for tag in 0..4 {
        let (feed, answer) = begin(&mut client, tag);
        for _ in 0..64 {
            let part = Bytes::from(vec![b' '; 64 << 10]);
            promptly(feed.send(Ok(part))).await.unwrap();
        }
        drop(feed);
        begun.push(answer);
        if tag == 0 {
            promptly(between.asked()).await;
        } else {
            let mut registry = promptly(between.upstream.accept()).await;
            promptly(registry.head()).await;
            registries.push(registry);
        }
    }
    let (feed, late) = begin(&mut client, 8);
    feed.send(Ok(Bytes::from_static(b"{"))).await.unwrap();
    // What is answered at once is behind them on the connection: they are here when it is answered.
    for _ in 0..2 {
        let refused = request2("GET", "/v2/base//app/tags/list");
        let answer = client.send(refused.body(no_body()).unwrap());
        assert_eq!(promptly(answer).await.unwrap().0.status, 400);
    }
    assert!(!late.is_finished());
    clock.jump(seconds(10)).await;
    let (head, body) = promptly(late).await.unwrap().unwrap();
    assert_eq!(
        (head.status.as_u16(), &head.headers["retry-after"]),
        (503, &"5".parse().unwrap())
    );
    assert_eq!(json(&body)["errors"][0]["code"], "UNAVAILABLE");
    // A manifest of the declared size waits for memory as well, and gets it when another is done.
    between.client.send(push("short", "{}")).await;
    between.upstream.untouched().await;
    between.registry().silent().await;
    drop(registries.pop());
    let broken = promptly(begun.pop().unwrap()).await.unwrap().unwrap();
    assert_eq!(broken.0.status, 502);
    let mut registry = promptly(between.upstream.accept()).await;
    let look = promptly(registry.head()).await;
    assert_eq!(look.first, "HEAD /v2/base/app/manifests/short HTTP/1.1");
}
