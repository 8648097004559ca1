//! Rule 1: handshake and Host agree on the virtual host, and nobody answers by default.

use std::io::ErrorKind;

use http::Request;
use tokio::net::TcpStream;

use crate::harness::{
    Domain, Gateway, Head, Http2, ProxiedPair, RawPeer, Setup, Upstream, basic, json, no_body,
    request2,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Two domains before one upstream.
async fn two(upstream: &Upstream) -> Gateway {
    let ci = Domain::new("ci.test", &upstream.url()).top("aliases = [\"ci-alias.test\"]");
    Setup::new()
        .domain(ci)
        .domain(Domain::new("cache.test", &upstream.url()))
        .start()
        .await
}

fn ping(lines: &str) -> String {
    format!(
        "GET /v2/ HTTP/1.1\r\n{lines}Authorization: {}\r\n\r\n",
        basic("alice", "secret")
    )
}

/// The answer to a request on a connection whose handshake was for `ci.test`.
async fn refused(gateway: &Gateway, upstream: &Upstream, request: &str) -> (Head, String) {
    let mut client = gateway.client().await;
    client.send(request).await;
    let (head, body) = client.answer().await;
    upstream.untouched().await;
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn a_host_that_the_handshake_was_not_for_is_misdirected() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let (head, body) = refused(&gateway, &upstream, &ping("Host: cache.test\r\n")).await;
    assert_eq!(head.status(), 421);
    assert_eq!(json(body.as_bytes())["errors"][0]["code"], "UNSUPPORTED");
}

#[tokio::test]
async fn an_alias_of_the_same_virtual_host_is_not_misdirected() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let mut client = gateway.client().await;
    client.send(ping("Host: CI-Alias.test.:443\r\n")).await;
    let mut registry = upstream.accept().await;
    assert_eq!(
        registry.head().await.get("x-forwarded-host"),
        Some("CI-Alias.test.:443")
    );
    registry.send(OK).await;
    assert_eq!(client.answer().await.0.status(), 200);
}

#[tokio::test]
async fn a_request_without_a_host_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let (head, body) = refused(&gateway, &upstream, &ping("")).await;
    assert_eq!(head.status(), 400);
    assert!(body.contains("no Host"), "{body}");
}

#[tokio::test]
async fn an_absolute_target_does_not_replace_the_host_header() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let request = ping("").replace("/v2/", "https://ci.test/v2/");
    assert_eq!(refused(&gateway, &upstream, &request).await.0.status(), 400);
}

#[tokio::test]
async fn two_hosts_are_refused_even_when_they_are_equal() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    for second in ["cache.test", "ci.test"] {
        let lines = format!("Host: ci.test\r\nHost: {second}\r\n");
        assert_eq!(
            refused(&gateway, &upstream, &ping(&lines)).await.0.status(),
            400,
            "{second}"
        );
    }
}

#[tokio::test]
async fn an_invalid_host_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    for host in [
        "",
        "ci.test:",
        "ci.test:x",
        "user@ci.test",
        "ci.test/x",
        "ci.test,cache.test",
        "ci..test",
        "[::1",
    ] {
        let (head, _) = refused(&gateway, &upstream, &ping(&format!("Host: {host}\r\n"))).await;
        assert_eq!(head.status(), 400, "{host:?}");
    }
}

#[tokio::test]
async fn unknown_hosts_get_one_text_that_names_none() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let mut texts = Vec::new();
    for host in ["nobody.test", "cache.test.evil", "127.0.0.1", "[::1]:5000"] {
        let (head, body) = refused(&gateway, &upstream, &ping(&format!("Host: {host}\r\n"))).await;
        assert_eq!(head.status(), 404, "{host}");
        assert_eq!(json(body.as_bytes())["errors"][0]["code"], "NAME_UNKNOWN");
        assert!(
            !body.contains("ci.test") && !body.contains("cache"),
            "{body}"
        );
        texts.push(body);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn a_handshake_for_an_unknown_name_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    for name in ["nobody.test", "127.0.0.1"] {
        let error = gateway.tls(name, &["http/1.1"]).await.expect_err(name);
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidData,
            "an alert and not a cut: {error}"
        );
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_port_gets_an_explanation() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    for (target, message) in [("/", "Use https://"), ("/v2/", r#"{"errors":[{"#)] {
        let mut client = RawPeer::new(TcpStream::connect(gateway.https()).await.unwrap());
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: ci.test\r\n\r\n"))
            .await;
        let (head, body) = client.answer().await;
        assert_eq!(head.status(), 400);
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains(message), "{body}");
        client.ended().await;
    }
    upstream.untouched().await;
}

#[tokio::test]
async fn an_absolute_target_is_forwarded_as_path_and_query() {
    let mut between = ProxiedPair::new().await;
    let request = ping("Host: ci.test\r\n").replace("/v2/", "https://ci.test/v2/_catalog?n=5");
    let asked = between.passed(request).await;
    assert_eq!(asked.first, "GET /v2/_catalog?n=5 HTTP/1.1");
    assert_eq!(asked.get("x-forwarded-host"), Some("ci.test"));
}

#[tokio::test]
async fn an_absolute_target_for_another_host_than_the_header_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    for authority in ["cache.test", "ci.test:444", "nobody.test"] {
        let request =
            ping("Host: ci.test\r\n").replace("/v2/", &format!("https://{authority}/v2/"));
        assert_eq!(
            refused(&gateway, &upstream, &request).await.0.status(),
            400,
            "{authority}"
        );
    }
}

#[tokio::test]
async fn plain_listeners_only_redirect_to_https() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let ask = async |host: &str| {
        let mut client = RawPeer::new(TcpStream::connect(gateway.http()).await.unwrap());
        client
            .send(format!("GET /v2/a/tags/list?n=1 HTTP/1.1\r\n{host}\r\n"))
            .await;
        client.answer().await.0
    };
    let head = ask("Host: ci.test\r\n").await;
    assert_eq!(head.status(), 308);
    let port = gateway.https().port();
    let location = format!("https://ci.test:{port}/v2/a/tags/list?n=1");
    assert_eq!(head.get("location"), Some(location.as_str()));
    assert_eq!(ask("Host: nobody.test\r\n").await.status(), 404);
    assert_eq!(ask("").await.status(), 400);
    assert_eq!(
        ask("Host: ci.test\r\nHost: ci.test\r\n").await.status(),
        400
    );
    upstream.untouched().await;
}

#[tokio::test]
async fn http2_takes_the_host_from_the_authority() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let answer = tokio::spawn(client.send(request2("GET", "/v2/").body(no_body()).unwrap()));
    let mut registry = upstream.accept().await;
    let asked = registry.head().await;
    assert_eq!(
        asked.get("host"),
        Some(upstream.address().to_string().as_str())
    );
    assert_eq!(asked.get("x-forwarded-host"), Some("ci.test"));
    registry.send(OK).await;
    assert_eq!(answer.await.unwrap().unwrap().0.status, 200);
}

#[tokio::test]
async fn http2_may_say_the_host_in_the_header_alone() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    // A request of this version may go out without a scheme and an authority.
    let relative = Request::get("/v2/")
        .header("host", "ci.test")
        .header("authorization", basic("alice", "secret"));
    let answer = tokio::spawn(client.send(relative.body(no_body()).unwrap()));
    let mut registry = upstream.accept().await;
    assert_eq!(
        registry.head().await.get("x-forwarded-host"),
        Some("ci.test")
    );
    registry.send(OK).await;
    assert_eq!(answer.await.unwrap().unwrap().0.status, 200);
}

#[tokio::test]
async fn http2_without_any_host_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let (head, _) = client
        .send(Request::get("/v2/").body(no_body()).unwrap())
        .await
        .unwrap();
    assert_eq!(head.status, 400);
    upstream.untouched().await;
}

#[tokio::test]
async fn http2_with_two_hosts_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let request = request2("GET", "/v2/")
        .header("host", "cache.test")
        .body(no_body())
        .unwrap();
    assert_eq!(client.send(request).await.unwrap().0.status, 400);
    upstream.untouched().await;
}

#[tokio::test]
async fn http2_for_another_host_than_the_handshake_is_misdirected() {
    let upstream = Upstream::new().await;
    let gateway = two(&upstream).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let mut request = request2("GET", "/v2/").body(no_body()).unwrap();
    *request.uri_mut() = "https://cache.test/v2/".parse().unwrap();
    assert_eq!(client.send(request).await.unwrap().0.status, 421);
    upstream.untouched().await;
}
