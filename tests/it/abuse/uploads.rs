//! Uploads that break off, are answered early, or wait to be asked: what is left of them is never a
//! request, and what was cut is never whole.

use super::{AttackedGateway, ask, hidden};
use crate::harness::frames::{Outcome, RST_STREAM};
use crate::harness::{Gateway, Upstream, basic, bound, request, settle};

const UPLOAD: &str = "/v2/a/blobs/uploads/x";

#[tokio::test]
async fn what_follows_our_early_refusal_is_never_a_request() {
    let fixture = AttackedGateway::new().await;
    let body = hidden();
    for login in [
        "",
        "Authorization: Basic Og==\r\n",
        "Authorization: Bearer x\r\n",
    ] {
        let length = body.len();
        for framing in [
            format!("Content-Length: {length}\r\n\r\n"),
            format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n"),
        ] {
            let mut client = fixture.gateway.client().await;
            client
                .send(format!(
                    "PATCH {UPLOAD} HTTP/1.1\r\nHost: ci.test\r\n{login}{framing}{body}"
                ))
                .await;
            let (head, _) = client.answer().await;
            assert_eq!(
                (head.status(), head.get("connection")),
                (401, Some("close")),
                "{framing}"
            );
            let _ = client.try_send(&body).await;
            client.ended().await;
            fixture.untouched().await;
        }
    }
}

#[tokio::test]
async fn what_follows_the_upstreams_early_refusal_is_never_a_request() {
    for status in [
        "401 Unauthorized",
        "413 Too Large",
        "500 Oops",
        "202 Accepted",
    ] {
        refused_by_the_upstream(status, "Content-Length: 1000000\r\n", "a part of the body").await;
        refused_by_the_upstream(
            status,
            "Transfer-Encoding: chunked\r\n",
            "12\r\na part of the body\r\n",
        )
        .await;
    }
}

async fn refused_by_the_upstream(status: &str, framing: &str, part: &str) {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("PATCH", UPLOAD, framing)).await;
    client.send(part).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry
        .send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nn"))
        .await;
    let head = client.head().await;
    assert_eq!(head.get("connection"), Some("close"), "{status}");
    // While the answer still comes, what is left of the body goes nowhere and does not end.
    let more = hidden();
    let more = if framing.contains("chunked") {
        format!("{:x}\r\n{more}\r\n", more.len())
    } else {
        more
    };
    let _ = client.try_send(more).await;
    settle().await;
    // Nobody waits for the rest of an answer that is not passed on.
    let _ = registry.try_send("o").await;
    client.bytes(head.length().unwrap()).await;
    client.ended().await;
    // What still came belongs to the upload; the connection is not used again.
    let rest = registry.rest().await;
    assert!(rest.starts_with(part.as_bytes()), "{status}");
    assert!(
        !rest.ends_with(b"\r\n0\r\n\r\n"),
        "{status}: it looks whole"
    );
    upstream.untouched().await;
    let mut next = gateway.client().await;
    next.send(request("GET", "/v2/", "")).await;
    let mut fresh = upstream.accept().await;
    assert_eq!(fresh.head().await.first, "GET /v2/ HTTP/1.1");
    fresh
        .send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")
        .await;
    assert_eq!(next.answer().await.1, b"yes");
}

#[tokio::test]
async fn a_cut_upload_never_arrives_whole() {
    let fixture = AttackedGateway::new().await;
    for (framing, part) in [
        ("Content-Length: 10\r\n", ""),
        ("Content-Length: 10\r\n", "hello"),
        ("Content-Length: 10\r\n", "hello, it"),
        ("Transfer-Encoding: chunked\r\n", ""),
        ("Transfer-Encoding: chunked\r\n", "5"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhel"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n"),
        (
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\nx: y\r\n",
        ),
    ] {
        let mut client = fixture.gateway.client().await;
        client.send(request("PATCH", UPLOAD, framing)).await;
        client.send(part).await;
        crate::harness::settle().await;
        drop(client);
        fixture.untouched().await;
    }
}

#[tokio::test]
async fn a_reset_upload_never_arrives_whole() {
    let fixture = AttackedGateway::new().await;
    for length in [None, Some("10")] {
        let mut client = fixture.gateway.frames().await;
        let (login, upload) = (basic("alice", "secret"), bound(UPLOAD));
        let mut head = vec![
            (":method", "PATCH"),
            (":scheme", "https"),
            (":authority", "ci.test"),
            (":path", &upload),
            ("authorization", &login),
        ];
        head.extend(length.map(|length| ("content-length", length)));
        let stream = client.stream();
        client.head(stream, &head, false).await;
        client.data(stream, b"hello", false).await;
        crate::harness::settle().await;
        let _ = client.try_send(RST_STREAM, 0, stream, &[0, 0, 0, 8]).await;
        // The connection lives on, and the stream that was reset left nothing behind.
        head[0].1 = "GET";
        head[3].1 = "/v2/";
        head.truncate(5);
        assert_eq!(
            client.ask(&head).await,
            Outcome::Answer(200, b"GET /v2/".to_vec())
        );
        assert_eq!(fixture.seen().await.len(), 1);
    }
}

#[tokio::test]
async fn no_100_continue_is_sent_before_the_login() {
    let fixture = AttackedGateway::new().await;
    let mut client = fixture.gateway.client().await;
    client
        .send(ask(
            "PATCH",
            UPLOAD,
            &[("Expect", "100-continue"), ("Content-Length", "5")],
        ))
        .await;
    let (head, _) = client.answer().await;
    assert_eq!(head.status(), 401);
    client.ended().await;
    fixture.untouched().await;
}

#[tokio::test]
async fn an_expectation_is_met_here_and_not_upstream() {
    let fixture = AttackedGateway::new().await;
    for expectation in ["100-continue", "100-Continue"] {
        let mut client = fixture.gateway.client().await;
        client
            .send(request(
                "PATCH",
                UPLOAD,
                &format!("Expect: {expectation}\r\nContent-Length: 5\r\n"),
            ))
            .await;
        assert_eq!(client.head().await.first, "HTTP/1.1 100 Continue");
        client.send("hello").await;
        assert_eq!(client.answer().await.0.status(), 200);
        let seen = fixture.seen().await;
        assert_eq!(
            (seen.len(), seen[0].head.get("expect"), &seen[0].body[..]),
            (1, None, &b"hello"[..])
        );
    }
    // Without a body to wait for there is nothing to expect.
    let mut client = fixture.gateway.client().await;
    client
        .send(request("GET", "/v2/", "Expect: 100-continue\r\n"))
        .await;
    assert_eq!(client.answer().await.1, b"GET /v2/");
    assert_eq!(fixture.seen().await.len(), 1);
}

#[tokio::test]
async fn trailers_are_dropped() {
    let fixture = AttackedGateway::new().await;
    for trailers in [
        "X: y\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Host: other.test\r\n",
        "Authorization: Basic eDp5\r\nX-Forwarded-For: 6.6.6.6\r\n",
    ] {
        let mut client = fixture.gateway.client().await;
        let lines = "Transfer-Encoding: chunked\r\nTrailer: X, Host\r\nTE: trailers\r\n";
        client.send(request("PATCH", UPLOAD, lines)).await;
        client
            .send(format!("5\r\nhello\r\n0\r\n{trailers}\r\n"))
            .await;
        assert_eq!(client.answer().await.0.status(), 200, "{trailers}");
        let seen = fixture.seen().await;
        assert_eq!(
            (seen.len(), &seen[0].body[..]),
            (1, &b"hello"[..]),
            "{trailers}"
        );
        assert_eq!(
            (seen[0].head.get("trailer"), seen[0].head.get("te")),
            (None, None)
        );
        client.send(request("GET", "/v2/", "")).await;
        assert_eq!(client.answer().await.1, b"GET /v2/");
        assert_eq!(fixture.seen().await.len(), 1);
    }
}
