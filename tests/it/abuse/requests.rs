//! Requests that mean to be somebody else's: other hosts, other protocols, other people's headers.

use super::{AttackedGateway, ask, refused};
use crate::harness::{RawPeer, basic, request};

const PING: &str = "/v2/";

/// What alice gets for a request head, with `{auth}` where her credentials go; the
/// connection may go on or not.
async fn status(fixture: &AttackedGateway, head: &str) -> u16 {
    let mut client = fixture.gateway.client().await;
    let head = head.replace(
        "{auth}",
        &format!("Authorization: {}", basic("alice", "secret")),
    );
    client.send(&head).await;
    client.answer().await.0.status()
}

#[tokio::test]
async fn an_absolute_target_names_the_host_that_the_host_header_names() {
    let fixture = AttackedGateway::new().await;
    for target in [
        "http://ci.test/v2/",
        "https://ci.test/v2/",
        "https://CI.test/v2/",
        "hTTps://ci.test/v2/?x",
    ] {
        let code = status(
            &fixture,
            &format!("GET {target} HTTP/1.1\r\nHost: ci.test\r\n{{auth}}\r\n\r\n"),
        )
        .await;
        let seen = fixture.seen().await;
        assert_eq!((code, seen.len()), (200, 1), "{target}");
        assert!(seen[0].target().starts_with(PING), "{target}");
        assert_eq!(seen[0].head.get("x-forwarded-host"), Some("ci.test"));
    }
    for (target, host) in [
        ("http://other.test/v2/", "ci.test"),
        ("http://ci.test/v2/", "other.test"),
        ("http://ci.test:1/v2/", "ci.test"),
        ("http://alice@ci.test/v2/", "ci.test"),
        ("http://ci.test@other.test/v2/", "ci.test"),
        ("http://ci.test,other.test/v2/", "ci.test"),
        ("http://evil.example/v2/", "ci.test"),
        ("v2", "ci.test"),
        ("ci.test:443", "ci.test"),
    ] {
        let code = status(
            &fixture,
            &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{{auth}}\r\n\r\n"),
        )
        .await;
        assert_eq!(code, 400, "{target}");
        fixture.untouched().await;
    }
}

#[tokio::test]
async fn a_request_has_exactly_one_valid_host() {
    let fixture = AttackedGateway::new().await;
    for lines in [
        "",
        "Host:",
        "Host: ",
        "Host: ci.test\r\nHost: ci.test",
        "Host: ci.test\r\nHost: other.test",
        "Host: other.test\r\nHost: ci.test",
        "Host: ci.test, other.test",
        "Host: ci.test other.test",
        "Host: ci.test:",
        "Host: ci.test:x",
        "Host: ci.test:65536",
        "Host: ci.test:443:443",
        "Host: ci.test/",
        "Host: ci.test/v2",
        "Host: ci.test?",
        "Host: ci.test#",
        "Host: alice@ci.test",
        "Host: http://ci.test",
        "Host: ci.test\\",
        "Host: ci%2etest",
        "Host: ci..test",
        "Host: .ci.test",
        "Host: [ci.test]",
        "Host: c\u{456}.test",
        "Host: ci\ttest",
    ] {
        let lines = if lines.is_empty() {
            String::new()
        } else {
            format!("{lines}\r\n")
        };
        let code = status(
            &fixture,
            &format!("GET {PING} HTTP/1.1\r\n{lines}{{auth}}\r\n\r\n"),
        )
        .await;
        assert_eq!(code, 400, "{lines:?}");
        fixture.untouched().await;
    }
}

#[tokio::test]
async fn the_handshake_and_the_host_agree_on_the_domain() {
    let fixture = AttackedGateway::new().await;
    // carol's password must not work on a connection for ci.test, nor alice's elsewhere.
    for (host, user, password) in [
        ("other.test", "carol", "secret3"),
        ("OTHER.test.", "carol", "secret3"),
        ("other.test:443", "alice", "secret"),
    ] {
        let head = format!(
            "GET {PING} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\n\r\n",
            basic(user, password)
        );
        assert_eq!(status(&fixture, &head).await, 421, "{host}");
        fixture.untouched().await;
    }
    for host in [
        "unknown.test",
        "ci.test.example",
        "xci.test",
        "127.0.0.1",
        "localhost",
    ] {
        let head = format!("GET {PING} HTTP/1.1\r\nHost: {host}\r\n{{auth}}\r\n\r\n");
        assert_eq!(status(&fixture, &head).await, 404, "{host}");
        fixture.untouched().await;
    }
    for host in ["CI.TEST", "ci.test.", "ci.test:5000", "Ci.TeSt.:1"] {
        let head = format!("GET {PING} HTTP/1.1\r\nHost: {host}\r\n{{auth}}\r\n\r\n");
        assert_eq!(status(&fixture, &head).await, 200, "{host}");
        assert_eq!(fixture.seen().await.len(), 1, "{host}");
    }
}

#[tokio::test]
async fn the_users_of_one_domain_are_unknown_on_another() {
    let fixture = AttackedGateway::new().await;
    let mut client = RawPeer::new(
        fixture
            .gateway
            .tls("other.test", &["http/1.1"])
            .await
            .unwrap(),
    );
    for (user, password, expected) in [
        ("bob", "hunter2", 401),
        ("carol", "secret3", 200),
        ("bob", "hunter2", 401),
    ] {
        let authorization = basic(user, password);
        client
            .send(format!(
                "GET {PING} HTTP/1.1\r\nHost: other.test\r\nAuthorization: {authorization}\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.0.status(), expected, "{user}");
    }
    assert_eq!(fixture.other.requests().len(), 1);
    fixture.untouched().await;
}

#[tokio::test]
async fn connect_is_not_spoken_and_its_bytes_are_no_requests() {
    let fixture = AttackedGateway::new().await;
    for target in ["ci.test:443", "other.test:443", "127.0.0.1:22", "/v2/"] {
        let mut client = fixture.gateway.client().await;
        client.send(request("CONNECT", target, "")).await;
        client.send(super::hidden()).await;
        let (head, _) = client.answer().await;
        assert!(matches!(head.status(), 400 | 501), "{target}: {head:?}");
        client.ended().await;
        fixture.untouched().await;
    }
}

#[tokio::test]
async fn every_method_needs_a_login() {
    let fixture = AttackedGateway::new().await;
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "Get", "GETT",
        "PROPFIND", "M-SEARCH", "X",
    ];
    let targets = [
        PING,
        "/v2",
        "/v2/_catalog",
        "/v2/a/tags/list",
        "/v2/a/manifests/x",
        "/v2/a/blobs/uploads/",
    ];
    for method in methods {
        for target in targets {
            for lines in [
                &[][..],
                &[("Authorization", "Basic Og==")],
                &[("X-HTTP-Method-Override", "GET")],
            ] {
                let mut client = fixture.gateway.client().await;
                client.send(ask(method, target, lines)).await;
                let head = client.head().await;
                assert!(
                    matches!(head.status(), 401 | 404 | 405),
                    "{method} {target}: {head:?}"
                );
            }
        }
    }
    fixture.untouched().await;
}

#[tokio::test]
async fn methods_that_a_registry_does_not_know_go_nowhere() {
    let fixture = AttackedGateway::new().await;
    for method in [
        "OPTIONS", "TRACE", "get", "Head", "PUSH", "PROPFIND", "POST",
    ] {
        assert_eq!(
            status(&fixture, &request(method, PING, "")).await,
            405,
            "{method}"
        );
    }
    assert_eq!(status(&fixture, &request("OPTIONS", "*", "")).await, 400);
    fixture.untouched().await;
}

#[tokio::test]
async fn what_a_client_says_about_itself_is_dropped() {
    let fixture = AttackedGateway::new().await;
    let lies = [
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-for",
        "X-FORWARDED-FOR",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
        "X-Forwarded-Path",
        "X-Forwarded-User",
        "X-Forwarded-Email",
        "X-Forwarded-Groups",
        "X-Forwarded-Server",
        "X-Forwarded-Method",
        "X-Forwarded-Preferred-Username",
        "X-Forwarded-Access-Token",
        "X-Forwarded-Ssl",
        "X-Forwarded-Scheme",
        "X-Forwarded",
        "X-Real-IP",
        "X_Forwarded_For",
        "X_FORWARDED-FOR",
        "X-Forwarded_For",
        "X_Real_IP",
        "X_Auth_User",
        "Remote_User",
        "Content_Length",
        "Transfer_Encoding",
        "Authorization_",
        "_Host",
        "_",
        "Remote-User",
        "X-Remote-User",
        "X-Auth-User",
        "X-Auth-Request-User",
        "X-WebAuth-User",
        "X-Authenticated-User",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-Host",
        "X-Host",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Client-IP",
        "Proxy",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Keep-Alive",
        "Trailer",
        "Expect",
        "Cookie",
    ];
    for name in lies {
        let value = if name == "Expect" {
            "100-continue"
        } else {
            "6.6.6.6"
        };
        let mut client = fixture.gateway.client().await;
        client
            .send(request("GET", PING, &format!("{name}: {value}\r\n")))
            .await;
        assert_eq!(client.answer().await.0.status(), 200, "{name}");
        let seen = fixture.seen().await;
        assert_eq!(seen.len(), 1, "{name}");
        let head = &seen[0].head;
        assert!(
            head.headers.iter().all(|(_, seen)| seen != value),
            "{name}: {head:?}"
        );
        let names: Vec<&str> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            sorted(names),
            [
                "host",
                "via",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto"
            ],
            "{name}"
        );
    }
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

#[tokio::test]
async fn connection_removes_none_of_our_headers() {
    let fixture = AttackedGateway::new().await;
    for named in [
        "X-Forwarded-For",
        "x-forwarded-for",
        "X-FORWARDED-FOR, X-Forwarded-Proto,x-forwarded-host",
        "close, Host",
        "Authorization",
        "authorization, host, x-forwarded-for, content-length",
        "X-Real-Ip",
    ] {
        let mut client = fixture.gateway.client().await;
        let lines = format!(
            "Connection: {named}\r\nConnection: X-Forwarded-Host\r\nX-Forwarded-For: 6.6.6.6\r\n"
        );
        client.send(request("GET", PING, &lines)).await;
        assert_eq!(client.answer().await.0.status(), 200, "{named}");
        let seen = fixture.seen().await;
        let head = &seen[0].head;
        assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"), "{named}");
        assert_eq!(head.get("x-forwarded-proto"), Some("https"), "{named}");
        assert_eq!(head.get("x-forwarded-host"), Some("ci.test"), "{named}");
    }
}

#[tokio::test]
async fn connection_removes_other_named_headers() {
    let fixture = AttackedGateway::new().await;
    let mut client = fixture.gateway.client().await;
    client
        .send(request(
            "GET",
            PING,
            "Connection: X-Hop , x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Third: 3\r\n",
        ))
        .await;
    assert_eq!(client.answer().await.0.status(), 200);
    let seen = fixture.seen().await;
    let head = &seen[0].head;
    assert_eq!(
        (head.get("x-hop"), head.get("x-other"), head.get("x-third")),
        (None, None, Some("3"))
    );
    assert_eq!(head.get("connection"), None);
}

#[tokio::test]
async fn health_and_debug_pages_are_not_on_the_public_port() {
    let fixture = AttackedGateway::new().await;
    for target in [
        "/",
        "/healthz",
        "/readyz",
        "/status",
        "/metrics",
        "/debug/pprof/",
        "/debug/vars",
        "/debug/health",
        "/ping",
        "/api/health",
        "/.well-known/acme-challenge/x",
        "/server-status",
        "/v1/_ping",
        "/v1/search",
    ] {
        for lines in [
            &[][..],
            &[("User-Agent", "GoogleHC/1.0")],
            &[("User-Agent", "kube-probe/1.30")],
        ] {
            let mut client = fixture.gateway.client().await;
            client.send(ask("GET", target, lines)).await;
            assert_eq!(client.answer().await.0.status(), 404, "{target}");
        }
    }
    fixture.untouched().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let fixture = AttackedGateway::new().await;
    let mut client = fixture.gateway.client().await;
    let targets = ["/v2/a/tags/list", "/v2/b/tags/list", "/v2/c/tags/list"];
    let all: String = targets
        .iter()
        .map(|target| request("GET", target, ""))
        .collect();
    client.send(all + "NONSENSE\r\n\r\n").await;
    for target in targets {
        assert_eq!(
            client.answer().await.1,
            format!("GET {target}").into_bytes()
        );
    }
    refused(&mut client, 400, "NONSENSE").await;
    assert_eq!(fixture.seen().await.len(), 3);
}
