//! Answers that come before their request has ended, and bodies that break or stop.

use super::fixture::StoreFixture;
use super::image::{bytes, sha256};
use crate::harness::{Clock, Head, RawPeer, promptly, request, seconds};
use tokio::io::{AsyncRead, AsyncWrite};

/// What would be a request of its own if it were ever read as one.
const SMUGGLED: &str = "DELETE /v2/a/manifests/v1 HTTP/1.1\r\nHost: ci.test\r\n\r\n";

async fn send_on_and_read<IO: AsyncRead + AsyncWrite + Unpin>(
    client: &mut RawPeer<IO>,
) -> (Head, Vec<u8>) {
    for _ in 0..200 {
        client.send(&[b'x'; 65_536]).await;
    }
    let answer = client.answer().await;
    let rest = client.rest_and_end().await;
    assert_eq!(rest.expect("a clean end, no reset"), b"");
    answer
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_keeps_sending() {
    let fixture = StoreFixture::new().await;
    let session = fixture.http1().start("a").await;
    let missing = format!("/v2/a/blobs/uploads/{}", "0".repeat(32));
    for (method, target, lines, status) in [
        ("PATCH", missing.as_str(), "", 404),
        ("PATCH", &session, "Content-Range: 5-104857604\r\n", 416),
        ("PATCH", &session, "Content-Range: 0-1\r\n", 400),
        ("PUT", "/v2/a/manifests/v1", "", 413),
        // Without a digest the body is nobody's.
        ("POST", "/v2/a/blobs/uploads/", "", 202),
    ] {
        let mut client = fixture.gateway.client().await;
        client
            .send(request(
                method,
                target,
                &format!("{lines}Content-Length: 104857600\r\n"),
            ))
            .await;
        let (head, _) = promptly(send_on_and_read(&mut client)).await;
        assert_eq!(
            (head.status(), head.get("connection")),
            (status, Some("close")),
            "{method} {target}"
        );
    }
}

#[tokio::test]
async fn what_was_left_unread_never_becomes_a_request() {
    let fixture = StoreFixture::new().await;
    fixture
        .http1()
        .push("a", "v1", &super::image::Image::small(1))
        .await;
    let length = SMUGGLED.len();
    for lines in [
        format!("Content-Length: {length}\r\n"),
        "Transfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let mut client = fixture.gateway.client().await;
        let body = match lines.starts_with("Content") {
            true => SMUGGLED.to_owned(),
            false => format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        };
        client
            .send(format!(
                "{}{body}",
                request("DELETE", "/v2/a/manifests/none", &lines)
            ))
            .await;
        assert_eq!(promptly(client.answer()).await.0.status(), 404);
        let rest = promptly(client.rest()).await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "{lines}");
    }
    fixture.http1().get("/v2/a/manifests/v1").await.is(200);
}

#[tokio::test]
async fn an_answer_with_its_request_read_keeps_the_connection() {
    let fixture = StoreFixture::new().await;
    let session = fixture.http1().start("a").await;
    let mut client = fixture.gateway.client().await;
    for (method, target, body, status) in [
        ("PATCH", session.clone(), "some", 202),
        (
            "PATCH",
            format!("/v2/a/blobs/uploads/{}", "0".repeat(32)),
            "",
            404,
        ),
        (
            "PUT",
            format!("{session}?digest={}", sha256(b"other")),
            "",
            400,
        ),
        ("GET", "/v2/a/manifests/v1".to_owned(), "", 404),
    ] {
        let lines = format!("Content-Length: {}\r\n", body.len());
        client
            .send(format!("{}{body}", request(method, &target, &lines)))
            .await;
        let (head, _) = promptly(client.answer()).await;
        assert_eq!(
            (head.status(), head.get("connection")),
            (status, None),
            "{method} {target}"
        );
    }
}

#[tokio::test]
async fn expect_continue_is_answered_where_the_body_is_wanted() {
    let fixture = StoreFixture::new().await;
    let session = fixture.http1().start("a").await;
    let blob = bytes(1, 100);
    let mut client = fixture.gateway.client().await;
    let target = format!("{session}?digest={}", sha256(&blob));
    client
        .send(request(
            "PUT",
            &target,
            "Content-Length: 100\r\nExpect: 100-continue\r\n",
        ))
        .await;
    assert_eq!(promptly(client.head()).await.status(), 100);
    client.send(&blob).await;
    assert_eq!(promptly(client.answer()).await.0.status(), 201);
    // Not where it is not.
    client
        .send(request(
            "PATCH",
            &session,
            "Content-Length: 100\r\nExpect: 100-continue\r\n",
        ))
        .await;
    assert_eq!(promptly(client.answer()).await.0.status(), 404);
}

#[tokio::test]
async fn a_body_that_stops_coming_ends_the_request_and_not_the_upload() {
    let fixture = StoreFixture::new().await;
    let session = fixture.http1().start("a").await;
    let mut client = fixture.gateway.client().await;
    client
        .send(request("PATCH", &session, "Content-Length: 1000000\r\n"))
        .await;
    client.send(bytes(2, 300_000)).await;
    // What is written comes from the body: its reader has begun.
    let mut other = fixture.http1();
    promptly(async { while other.get(&session).await.header("range") == "0-0" {} }).await;
    let clock = Clock::stopped();
    clock.jump(seconds(119)).await;
    client.silent().await;
    clock.jump(seconds(2)).await;
    let (head, body) = promptly(client.answer()).await;
    assert_eq!(
        (head.status(), head.get("connection")),
        (408, Some("close"))
    );
    assert!(
        String::from_utf8(body)
            .unwrap()
            .contains("the request body stopped coming")
    );
    drop(clock);
    tokio::time::resume();
    assert_eq!(
        fixture.http1().get(&session).await.is(204).header("range"),
        "0-299999"
    );
}

#[tokio::test]
async fn a_manifest_that_is_cut_is_none() {
    let fixture = StoreFixture::new().await;
    let mut client = fixture.gateway.client().await;
    let lines = "Content-Type: application/x-bytes\r\nContent-Length: 100\r\n";
    client
        .send(request("PUT", "/v2/a/manifests/v1", lines))
        .await;
    client.send([b'x'; 50]).await;
    drop(client);
    let session = fixture.http1().start("a").await;
    fixture.http1().get(&session).await.is(204);
    fixture.http1().get("/v2/a/manifests/v1").await.is(404);
    fixture.disk().is_sound();
}
