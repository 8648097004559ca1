//! Upstreams that answer with more, less or something else than an answer: the client sees one
//! clear answer or a broken one, and the connection that carried it serves nobody else.

use super::Client;
use crate::harness::{
    Gateway, Head, Http2, ProxiedPair, RawPeer, Upstream, no_body, request, request2,
};
use tokio::net::TcpStream;

const PATH: &str = "/v2/a/tags/list";

/// A gateway, and an upstream connection on which alice's request has come.
async fn asked(method: &str) -> (Gateway, Upstream, Client, RawPeer<TcpStream>) {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request(method, path(method), "")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    (gateway, upstream, client, registry)
}

fn path(method: &str) -> &'static str {
    if method == "HEAD" {
        "/v2/a/manifests/x"
    } else {
        PATH
    }
}

/// Asserts that whoever asks next gets a connection of their own and its answer.
async fn next_is_fresh(gateway: &Gateway, upstream: &Upstream) {
    let mut next = gateway.client().await;
    next.send(request("GET", "/v2/", "")).await;
    let mut fresh = upstream.accept().await;
    assert_eq!(fresh.head().await.first, "GET /v2/ HTTP/1.1");
    fresh
        .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
        .await;
    assert_eq!(next.answer().await.1, b"mine");
}

#[tokio::test]
async fn bytes_after_a_response_never_become_another_response() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Poison: 1\r\n\r\npoison";
    for (method, answer) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "HEAD",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n",
        ),
    ] {
        for extra in [
            poison,
            "junk",
            "\r\n\r\n",
            "0\r\n\r\n",
            "6\r\npoison\r\n0\r\n\r\n",
        ] {
            let (gateway, upstream, mut client, mut registry) = asked(method).await;
            registry.send(format!("{answer}{extra}")).await;
            let head = client.head().await;
            assert_eq!(head.get("x-poison"), None);
            if answer.contains("\r\n\r\nok") {
                assert_eq!(client.bytes(2).await, b"ok");
            } else if answer.contains("2\r\nok") {
                assert_eq!(client.chunked().await.as_deref(), Some(&b"ok"[..]));
            }
            next_is_fresh(&gateway, &upstream).await;
            client.silent().await;
        }
    }
}

#[tokio::test]
async fn bytes_on_an_idle_connection_never_become_a_response() {
    let (gateway, upstream, mut client, mut registry) = asked("GET").await;
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(client.answer().await.1, b"ok");
    crate::harness::settle().await;
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        .await;
    registry.ended().await;
    next_is_fresh(&gateway, &upstream).await;
}

#[tokio::test]
async fn a_connection_whose_answer_was_whole_serves_the_next_request() {
    let (gateway, upstream, mut client, mut registry) = asked("GET").await;
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(client.answer().await.1, b"ok");
    crate::harness::settle().await;
    let mut next = gateway.client().await;
    next.send(request("GET", "/v2/", "")).await;
    assert_eq!(registry.head().await.first, "GET /v2/ HTTP/1.1");
    registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmy")
        .await;
    assert_eq!(next.answer().await.1, b"my");
    upstream.untouched().await;
}

/// What the client of an upstream gets that says this and closes. It must have a length.
async fn answered(answer: &[u8]) -> (Head, Vec<u8>) {
    let (gateway, upstream, mut client, mut registry) = asked("GET").await;
    // The gateway may end the connection before all of it is sent.
    let _ = registry.try_send(answer).await;
    drop(registry);
    let head = client.head().await;
    let body = client.bytes(head.length().unwrap()).await;
    next_is_fresh(&gateway, &upstream).await;
    (head, body)
}

#[tokio::test]
async fn a_malformed_response_is_a_bad_gateway() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "a".repeat(100_000));
    let countless = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(200));
    let answers: &[&[u8]] = &[
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"junk\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n X: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\xff: a\r\n\r\n",
        endless.as_bytes(),
        countless.as_bytes(),
    ];
    for answer in answers {
        let (head, body) = answered(answer).await;
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]);
        assert_eq!(head.status(), 502, "{shown:?}");
        assert!(
            String::from_utf8(body).unwrap().contains("UNAVAILABLE"),
            "{shown:?}"
        );
    }
}

#[tokio::test]
async fn equal_lengths_of_a_response_become_one() {
    for lines in [
        "Content-Length: 2, 2",
        "Content-Length: 2,2\r\nContent-Length: 2",
        "Content-Length: 2\r\ncontent-length: 2",
    ] {
        for (method, body) in [("GET", "ab"), ("HEAD", "")] {
            let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}");
            let (_gateway, _upstream, mut client, mut registry) = asked(method).await;
            registry.send(&answer).await;
            assert_eq!(client.head().await.all("content-length"), ["2"], "{lines}");
            assert_eq!(client.bytes(body.len()).await, body.as_bytes());

            let mut between = ProxiedPair::new().await;
            let mut client = Http2::connect(&between.gateway, "ci.test").await;
            let request = request2(method, path(method)).body(no_body()).unwrap();
            let response = tokio::spawn(client.send(request));
            between.asked().await;
            between.registry().send(&answer).await;
            let (head, received) = response.await.unwrap().unwrap();
            let lengths: Vec<_> = head.headers.get_all("content-length").iter().collect();
            assert_eq!(lengths, ["2"], "{lines}");
            assert_eq!(&received[..], body.as_bytes());
        }
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    for interim in [
        "100 Continue",
        "102 Processing",
        "103 Early Hints\r\nLink: </x>",
    ] {
        let (_gateway, _upstream, mut client, mut registry) = asked("GET").await;
        registry
            .send(format!("HTTP/1.1 {interim}\r\n\r\n").repeat(50))
            .await;
        registry
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        let (head, body) = client.answer().await;
        assert_eq!((head.status(), &body[..]), (200, &b"ok"[..]), "{interim}");
    }
}

#[tokio::test]
async fn a_cut_response_is_cut_for_the_client() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello, it",
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/20\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nhello",
    ] {
        let (gateway, upstream, mut client, mut registry) = asked("GET").await;
        registry.send(answer).await;
        drop(registry);
        // Where nothing of the body came, the head may not have gone out either.
        if let Some(head) = client.try_head().await {
            assert_eq!(head.length(), Some(10), "{answer:?}");
            assert!(client.rest().await.len() < 10, "{answer:?}");
        }
        next_is_fresh(&gateway, &upstream).await;
    }
    for body in [
        "",
        "5",
        "5\r\n",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\nx\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let (gateway, upstream, mut client, mut registry) = asked("GET").await;
        registry.send(answer).await;
        drop(registry);
        if let Some(head) = client.try_head().await {
            assert_eq!(head.get("transfer-encoding"), Some("chunked"), "{body:?}");
            assert_eq!(client.chunked().await, None, "{body:?}");
        }
        next_is_fresh(&gateway, &upstream).await;
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_passed_on_as_chunks() {
    let (gateway, upstream, mut client, mut registry) = asked("GET").await;
    registry.send("HTTP/1.1 200 OK\r\n\r\nhello").await;
    drop(registry);
    let head = client.head().await;
    assert_eq!(
        (head.get("transfer-encoding"), head.length()),
        (Some("chunked"), None)
    );
    assert_eq!(client.chunked().await.as_deref(), Some(&b"hello"[..]));
    next_is_fresh(&gateway, &upstream).await;
}

#[tokio::test]
async fn a_length_beside_chunks_never_reaches_a_client() {
    for lines in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 500",
    ] {
        let (_gateway, _upstream, mut client, mut registry) = asked("GET").await;
        registry
            .send(format!(
                "HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(
            (head.length(), head.get("transfer-encoding")),
            (None, Some("chunked")),
            "{lines}"
        );
        assert_eq!(client.chunked().await.as_deref(), Some(&b"hello"[..]));
    }
}

#[tokio::test]
async fn trailers_of_a_response_are_dropped() {
    let (_gateway, _upstream, mut client, mut registry) = asked("GET").await;
    let trailers =
        "Set-Cookie: a=b\r\nContent-Length: 5\r\nWWW-Authenticate: Basic realm=\"x\"\r\n";
    registry.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n")).await;
    assert_eq!(client.head().await.get("trailer"), None);
    assert_eq!(client.chunked().await.as_deref(), Some(&b"ok"[..]));
    client.silent().await;
}
