//! Paths that mean different things to different readers, and redirects to somewhere else.

use super::{AttackedGateway, ask};
use crate::harness::frames::Outcome;
use crate::harness::{Domain, Gateway, Origin, RawPeer, Setup, basic, request};
use tokio::net::TcpStream;

const CROOKED: &[&str] = &[
    "/v2/../v2/_catalog",
    "/v2/..",
    "/v2/.",
    "/v2/./_catalog",
    "/v2/a/../../b/tags/list",
    "/v2/a/../b/tags/list",
    "/v2/%2e%2e/_catalog",
    "/v2/%2E%2E/_catalog",
    "/v2/.%2e/_catalog",
    "/v2/%2e/_catalog",
    "/v2/%252e%252e/_catalog",
    "/v2/..%2f_catalog",
    "/v2/..;/_catalog",
    "/v2/a;b/tags/list",
    "/v2/a/tags/list;x",
    "/v2;/a/tags/list",
    "/v2;x=y/a/tags/list",
    "/V2%2f_catalog",
    "/%2576%2532/_catalog",
    "/v%32",
    "/v1%2f_ping",
    "/x/..;/v2/_catalog",
    "/repo/a%2Fb/tags",
    "/x/..;a=b/v2/_catalog",
    "/x/.;/y",
    "//v2/_catalog",
    "/v2//_catalog",
    "/v2//a/tags/list",
    "/v2/a//tags/list",
    "/v2/a/tags/list//",
    "///v2/_catalog",
    "/v2/a%2fb/tags/list",
    "/v2/a%2Fb/tags/list",
    "/v2%2f_catalog",
    "/%76%32/_catalog",
    "/v2/%5fcatalog",
    "/v2/a%5cb/tags/list",
    "/v2/a\\b/tags/list",
    "/v2\\_catalog",
    "/v2/..\\_catalog",
    "/v2/a%00/tags/list",
    "/v2/%00",
    "/v2/a%0d%0aX:1/tags/list",
    "/v2/a%0a/tags/list",
    "/v2/a%20b/tags/list",
    "/v2/a%09/tags/list",
    "/v2/a%/tags/list",
    "/v2/a%2/tags/list",
    "/v2/a%zz/tags/list",
    "/v2/a%u002e/tags/list",
    "/v2/a%c0%ae%c0%ae/tags/list",
    "/v2/a%ef%bc%8f/tags/list",
    "/v2/A/tags/list",
    "/v2/a..b/tags/list",
    "/v2/.a/tags/list",
    "/v2/a./tags/list",
    "/v2/a/tags/list/",
    "/v2/a/tags/list/..",
    "/v2/_catalog/",
    "/v2/_catalog/..",
    "/v2/a/manifests/..",
    "/v2/a/manifests/%2e%2e",
    "/v2/a/manifests/x/../y",
    "/v2/a/blobs/..",
    "/v2/a/blobs/uploads/..",
    "/v2/a/blobs/uploads/../../manifests/x",
    "/v2/a/blobs/sha256:../x",
    "/v2/a/b c/tags/list",
    "/V2/_catalog",
    "/v2./_catalog",
    "/v2 /_catalog",
    "?",
    "?/v2/",
    "?x#",
    "*",
    "a",
    "",
];

/// The origin with a page server beside the registry: both in front of the same strict reader.
async fn with_pages() -> (Origin, Gateway) {
    let origin = Origin::new().await;
    let browser = format!("[browser]\nurl = \"{}\"", origin.url());
    let domain = Domain::new("ci.test", &origin.url()).tables(&browser);
    let gateway = Setup::new().domain(domain).start().await;
    (origin, gateway)
}

#[tokio::test]
async fn an_ambiguous_path_is_never_forwarded() {
    let (origin, gateway) = with_pages().await;
    for target in CROOKED.iter().filter(|target| !target.is_empty()) {
        for method in ["GET", "HEAD", "DELETE"] {
            let mut client = gateway.client().await;
            client.send(request(method, target, "")).await;
            let head = client.head().await;
            assert!(
                matches!(head.status(), 400 | 404),
                "{method} {target}: {head:?}"
            );
        }
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn pages_have_any_unambiguous_path() {
    let (origin, gateway) = with_pages().await;
    for target in [
        "/",
        "/v2ray",
        "/v20/x",
        "/V1a",
        "/a;b/c",
        "/%c3%a9",
        "/a..b/...",
        "/x?a=//../v2/",
    ] {
        let mut client = gateway.client().await;
        client.send(request("GET", target, "")).await;
        assert_eq!(client.answer().await.0.status(), 200, "{target}");
        assert_eq!(origin.requests()[0].target(), target);
    }
}

#[tokio::test]
async fn an_ambiguous_path_is_never_forwarded_over_http2() {
    let (origin, gateway) = with_pages().await;
    let authorization = basic("alice", "secret");
    for target in CROOKED {
        let mut client = gateway.frames().await;
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "ci.test"),
            (":path", target),
            ("authorization", authorization.as_str()),
        ];
        let outcome = client.ask(&fields).await;
        assert!(
            matches!(outcome.status(), Some(400 | 404) | None),
            "{target}: {outcome:?}"
        );
        assert!(origin.requests().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn a_query_decides_nothing_and_arrives_as_it_was_sent() {
    let fixture = AttackedGateway::new().await;
    for query in [
        "x=/v2/../_catalog",
        "/../../x",
        "?",
        "n=1&last=a%2fb%00%23",
        "_state=a%2Fb+c==",
        "a=//b/./..",
        "",
        "%0d%0aX-Injected:%201",
    ] {
        let target = format!("/v2/?{query}");
        let mut client = fixture.gateway.client().await;
        client.send(ask("GET", &target, &[])).await;
        assert_eq!(client.answer().await.0.status(), 401, "{query}");
        client.send(request("GET", &target, "")).await;
        assert_eq!(client.answer().await.0.status(), 200, "{query}");
        let seen = fixture.seen().await;
        assert_eq!((seen.len(), seen[0].target()), (1, target.as_str()));
    }
}

#[tokio::test]
async fn a_query_that_servers_read_in_different_ways_is_refused() {
    let fixture = AttackedGateway::new().await;
    for query in [
        "\\",
        "%",
        "a;b",
        "n=1;last=x",
        "n=1&n=2",
        "n=%zz",
        "last=%ff",
        "a=\u{e9}",
        "a=\"b\"",
        "a=<b>",
        "n=-1",
        "n=+1",
    ] {
        let mut client = fixture.gateway.client().await;
        client
            .send(request("GET", &format!("/v2/_catalog?{query}"), ""))
            .await;
        let (head, _) = client.answer().await;
        assert_eq!(head.status(), 400, "{query}");
        fixture.untouched().await;
    }
}

#[tokio::test]
async fn a_fragment_is_neither_authorized_nor_forwarded() {
    let fixture = AttackedGateway::new().await;
    for (target, judged) in [
        ("/v2/_catalog#", "/v2/_catalog"),
        ("/v2/#/../_catalog", "/v2/"),
        ("/v2/a/tags/list#/manifests/x", "/v2/a/tags/list"),
        ("/v2/_catalog?n=1#x?y", "/v2/_catalog?n=1"),
        ("/v2/a/manifests/x#@other.test/", "/v2/a/manifests/x"),
        ("http://ci.test/v2/#@other.test/", "/v2/"),
    ] {
        let mut client = fixture.gateway.client().await;
        client.send(request("GET", target, "")).await;
        assert_eq!(
            client.answer().await.1,
            format!("GET {judged}").into_bytes(),
            "{target}"
        );
        let seen = fixture.seen().await;
        assert_eq!((seen.len(), seen[0].target()), (1, judged));
    }
}

#[tokio::test]
async fn an_empty_path_is_a_slash() {
    let (origin, gateway) = with_pages().await;
    let authorization = basic("alice", "secret");
    let mut client = gateway.client().await;
    client.send(request("GET", "http://ci.test", "")).await;
    assert_eq!(client.answer().await.1, b"GET /");
    let mut client = gateway.frames().await;
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "ci.test"),
        (":path", "#"),
    ];
    let outcome = client
        .ask(&[&fields[..], &[("authorization", &authorization)]].concat())
        .await;
    assert_eq!(outcome, Outcome::Answer(200, b"GET /".to_vec()));
    assert_eq!(origin.requests().len(), 2);
}

#[tokio::test]
async fn the_plain_port_only_ever_redirects() {
    let fixture = AttackedGateway::new().await;
    let port = fixture.gateway.https().port();
    let authorization = format!("Authorization: {}\r\n", basic("alice", "secret"));
    for method in [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X",
    ] {
        for target in [
            "/",
            "/v2/",
            "/v2/_catalog?n=1",
            "/v2/../x",
            "//evil.example/v2/",
            "/\\evil.example",
            "/.well-known/acme-challenge/token",
            "/.well-known/acme-challenge/../../v2/_catalog",
            "/.well-known/acme-challenge/%2e%2e/%2e%2e/v2/",
            "/healthz",
        ] {
            for body in [
                "",
                "Content-Length: 5\r\n\r\nhello",
                "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ] {
                let body = if body.is_empty() { "\r\n" } else { body };
                let mut client =
                    RawPeer::new(TcpStream::connect(fixture.gateway.http()).await.unwrap());
                client
                    .send(format!(
                        "{method} {target} HTTP/1.1\r\nHost: ci.test\r\n{authorization}{body}"
                    ))
                    .await;
                let head = client.head().await;
                assert_eq!(head.status(), 308, "{method} {target}");
                assert_eq!(
                    head.get("location"),
                    Some(&*format!("https://ci.test:{port}{target}"))
                );
                client.rest().await;
            }
        }
    }
    fixture.untouched().await;
}

#[tokio::test]
async fn a_redirect_never_names_a_host_that_is_not_served() {
    let fixture = AttackedGateway::new().await;
    for lines in [
        "Host: evil.example",
        "Host: evil.example\r\nX-Forwarded-Host: ci.test",
        "Host: ci.test.evil.example",
        "Host: ci.test@evil.example",
        "Host: ci.test:80@evil.example",
        "Host: ci.test:@evil.example",
        "Host: evil.example#ci.test",
        "Host: evil.example/ci.test",
        "Host: ci.test\r\nHost: evil.example",
        "Host: evil.example\r\nHost: ci.test",
        "Host: ci.test, evil.example",
        "Host: 127.0.0.1",
        "Host: ",
        "X: y",
    ] {
        for target in ["/v2/", "http://ci.test/v2/", "http://evil.example/v2/"] {
            let mut client =
                RawPeer::new(TcpStream::connect(fixture.gateway.http()).await.unwrap());
            client
                .send(format!("GET {target} HTTP/1.1\r\n{lines}\r\n\r\n"))
                .await;
            let head = client.head().await;
            assert!(
                matches!(head.status(), 400 | 404),
                "{lines} {target}: {head:?}"
            );
            assert_eq!(head.get("location"), None);
        }
    }
    for (target, host) in [
        ("http://evil.example/", "ci.test"),
        ("http://ci.test/", "other.test"),
    ] {
        let mut client = RawPeer::new(TcpStream::connect(fixture.gateway.http()).await.unwrap());
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(client.head().await.status(), 400, "{target}");
    }
    for lines in [
        "X-Forwarded-Host: evil.example",
        "Forwarded: host=evil.example",
        "X-Host: evil.example",
    ] {
        let mut client = RawPeer::new(TcpStream::connect(fixture.gateway.http()).await.unwrap());
        client
            .send(format!(
                "GET /v2/ HTTP/1.1\r\nHost: CI.test.:80\r\n{lines}\r\n\r\n"
            ))
            .await;
        let port = fixture.gateway.https().port();
        assert_eq!(
            client.head().await.get("location"),
            Some(&*format!("https://ci.test:{port}/v2/"))
        );
    }
    fixture.untouched().await;
}

#[tokio::test]
async fn the_plain_port_answers_a_chain_of_requests_once() {
    let fixture = AttackedGateway::new().await;
    let mut client = RawPeer::new(TcpStream::connect(fixture.gateway.http()).await.unwrap());
    client
        .send(format!(
            "{}{}",
            ask("POST", "/v2/", &[("Content-Length", "5")]),
            super::hidden()
        ))
        .await;
    assert_eq!(client.head().await.status(), 308);
    let rest = client.rest().await;
    assert!(
        !rest.windows(5).any(|window| window == b"HTTP/"),
        "{:?}",
        String::from_utf8_lossy(&rest)
    );
    fixture.untouched().await;
}
