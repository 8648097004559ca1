//! `[browser] url`: what people see outside `/v2/`, from another server behind the same login.

use crate::harness::{Http2, ProxiedPair, Upstream, no_body, request, request2};

/// A gateway before a registry and a page server, and the page server in the registry's place.
async fn before_pages() -> (ProxiedPair, Upstream) {
    let pages = Upstream::new().await;
    let table = format!("[browser]\nurl = \"{}\"", pages.url());
    let mut between = ProxiedPair::with(|domain| domain.tables(&table)).await;
    let registry = std::mem::replace(&mut between.upstream, pages);
    (between, registry)
}

#[tokio::test]
async fn pages_need_the_same_login() {
    let (mut between, _) = before_pages().await;
    let (head, body) = between
        .own_answer("GET / HTTP/1.1\r\nHost: ci.test\r\n\r\n")
        .await;
    assert_eq!(head.status(), 401);
    assert_eq!(head.all("www-authenticate"), ["Basic realm=\"ci.test\""]);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .starts_with("<!doctype html>"),
        "people read it"
    );
}

#[tokio::test]
async fn everything_outside_v2_goes_to_the_page_server() {
    let (mut between, registry) = before_pages().await;
    for target in [
        "/",
        "/repo/a?x=%2F&y",
        "/v3/",
        "/v2x",
        "/assets/a.b~c.css",
        "/a%20b/c%3Fd",
        "/?",
    ] {
        let asked = between.passed(request("GET", target, "")).await;
        assert_eq!(asked.first, format!("GET {target} HTTP/1.1"));
    }
    registry.untouched().await;
}

#[tokio::test]
async fn nothing_below_v2_goes_to_the_page_server() {
    let (mut between, registry) = before_pages().await;
    for target in ["/v2/", "/v2", "/v2/_catalog"] {
        between.client.send(request("GET", target, "")).await;
        let mut peer = registry.accept().await;
        assert_eq!(peer.head().await.first, format!("GET {target} HTTP/1.1"));
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(between.client.answer().await.0.status(), 200);
    }
    for target in ["/v2/pages", "/v1/_ping"] {
        assert_eq!(
            between
                .own_answer(request("GET", target, ""))
                .await
                .0
                .status(),
            404
        );
    }
    between.upstream.untouched().await;
}

#[tokio::test]
async fn the_password_never_reaches_the_page_server() {
    for keys in [
        "",
        "authorization = \"pass\"",
        "product = \"distribution\"\nusername = \"gate\"\npassword = \"inside\"",
    ] {
        let pages = Upstream::new().await;
        let table = format!("[browser]\nurl = \"{}\"", pages.url());
        let mut between = ProxiedPair::with(|domain| domain.upstream(keys).tables(&table)).await;
        between.upstream = pages;
        assert_eq!(
            between
                .passed(request("GET", "/", ""))
                .await
                .get("authorization"),
            None,
            "{keys}"
        );
    }
}

#[tokio::test]
async fn a_form_post_comes_as_the_browser_sent_it() {
    let (mut between, _) = before_pages().await;
    let lines = "Origin: https://ci.test\r\nReferer: https://ci.test/repo\r\nCookie: session=1; theme=dark\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 9\r\n";
    let asked = between
        .forwarded(request("POST", "/repo/a/delete", lines))
        .await;
    assert_eq!(asked.get("host"), Some("ci.test"));
    assert_eq!(asked.get("origin"), Some("https://ci.test"));
    assert_eq!(asked.get("referer"), Some("https://ci.test/repo"));
    assert_eq!(asked.get("cookie"), Some("session=1; theme=dark"));
    assert_eq!(
        asked.get("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(asked.get("sec-fetch-site"), Some("same-origin"));
    assert_eq!(
        (
            asked.get("x-forwarded-proto"),
            asked.get("x-forwarded-host")
        ),
        (Some("https"), Some("ci.test"))
    );
    between.client.send("token=abc").await;
    assert_eq!(between.registry().bytes(9).await, b"token=abc");
    let (head, _) = between
        .answered("HTTP/1.1 303 See Other\r\nLocation: /repo\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!((head.status(), head.get("location")), (303, Some("/repo")));
}

#[tokio::test]
async fn cookies_of_the_page_server_reach_the_browser() {
    let (mut between, _) = before_pages().await;
    between.forwarded(request("GET", "/", "")).await;
    let (head, _) = between
        .answered(
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/; HttpOnly\r\nSet-Cookie: b=2\r\nServer: puma\r\n\
             Strict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
    assert_eq!(head.all("set-cookie"), ["a=1; Path=/; HttpOnly", "b=2"]);
    assert_eq!(
        (head.get("server"), head.get("strict-transport-security")),
        (None, None)
    );
}

#[tokio::test]
async fn a_challenge_of_the_page_server_does_not_reach_the_browser() {
    let (mut between, _) = before_pages().await;
    between.forwarded(request("GET", "/", "")).await;
    let (head, _) = between
        .answered("HTTP/1.1 401 U\r\nWWW-Authenticate: Basic realm=\"pages\"\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(head.get("www-authenticate"), None);
}

#[tokio::test]
async fn cookies_that_http2_splits_are_one_header_to_the_page_server() {
    let (mut between, _) = before_pages().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let request = request2("GET", "/")
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let answer = tokio::spawn(client.send(request.body(no_body()).unwrap()));
    // RFC 9113 §8.2.3.
    assert_eq!(between.asked().await.all("cookie"), ["a=1; b=2"]);
    between
        .registry()
        .send("HTTP/1.1 204 No Content\r\n\r\n")
        .await;
    assert_eq!(answer.await.unwrap().unwrap().0.status, 204);
}

#[tokio::test]
async fn redirects_of_the_page_server_to_itself_become_paths() {
    let (mut between, _) = before_pages().await;
    let pages = between.upstream.url();
    for location in [
        format!("{pages}/repo?x"),
        "https://ci.test/repo?x".to_owned(),
        "http://ci.test/repo?x".to_owned(),
    ] {
        between.forwarded(request("GET", "/", "")).await;
        let answer =
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            between.answered(answer).await.0.get("location"),
            Some("/repo?x"),
            "{location}"
        );
    }
}

#[tokio::test]
async fn a_redirect_to_the_host_and_port_that_the_browser_named_becomes_a_path() {
    let (mut between, _) = before_pages().await;
    for scheme in ["http", "https"] {
        let request = request("GET", "/", "").replace("Host: ci.test", "Host: ci.test:5001");
        assert_eq!(
            between.forwarded(request).await.get("host"),
            Some("ci.test:5001")
        );
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: {scheme}://ci.test:5001/login\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(
            between.answered(answer).await.0.get("location"),
            Some("/login"),
            "{scheme}"
        );
    }
}

#[tokio::test]
async fn a_redirect_of_the_page_server_elsewhere_passes() {
    let (mut between, _) = before_pages().await;
    between.forwarded(request("GET", "/", "")).await;
    let answer =
        "HTTP/1.1 302 Found\r\nLocation: https://docs.example.com/x\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        between.answered(answer).await.0.get("location"),
        Some("https://docs.example.com/x")
    );
}

#[tokio::test]
async fn no_upgrade_reaches_the_page_server() {
    let (mut between, _) = before_pages().await;
    let lines = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n";
    let asked = between.passed(request("GET", "/cable", lines)).await;
    assert!(asked.all("upgrade").is_empty() && asked.all("connection").is_empty());
}

#[tokio::test]
async fn an_unreachable_page_server_is_reported_as_a_page() {
    let (mut between, _) = before_pages().await;
    between.upstream = Upstream::new().await;
    let (head, body) = between.own_answer(request("GET", "/", "")).await;
    assert_eq!(head.status(), 503);
    assert!(
        String::from_utf8(body)
            .unwrap()
            .starts_with("<!doctype html>")
    );
}
