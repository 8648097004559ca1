//! Rule 7: bodies and what describes them pass as they are, in both directions.

use crate::harness::{Http2, ProxiedPair, no_body, request, request2};

const BLOB: &str =
    "/v2/a/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const DESCRIBED: &str = "Content-Length: 123456789012\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\n\
    Docker-Content-Digest: sha256:1\r\nETag: \"sha256:1\"\r\nAccept-Ranges: bytes\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n";

#[tokio::test]
async fn the_headers_of_head_are_those_of_the_upstream() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("HEAD", BLOB, "")).await;
    let head = between
        .answered_head(format!("HTTP/1.1 200 OK\r\n{DESCRIBED}\r\n"))
        .await;
    assert_eq!(head.first, "HTTP/1.1 200 OK");
    let lines: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let expected = DESCRIBED.to_ascii_lowercase();
    let mut expected: Vec<_> = expected.split_inclusive("\r\n").collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines.concat().to_ascii_lowercase(), expected.concat());
}

#[tokio::test]
async fn head_without_a_length_gets_none() {
    let mut between = ProxiedPair::new().await;
    for lines in ["", "Transfer-Encoding: chunked\r\n"] {
        between.forwarded(request("HEAD", BLOB, "")).await;
        let head = between
            .answered_head(format!("HTTP/1.1 200 OK\r\n{lines}ETag: \"e\"\r\n\r\n"))
            .await;
        assert_eq!(head.get("content-length"), None, "{lines}");
        assert_eq!(head.get("etag"), Some("\"e\""));
    }
    // Nothing of a body followed: the connection goes on.
    between.passed(request("GET", BLOB, "")).await;
}

#[tokio::test]
async fn the_headers_of_head_come_through_http2() {
    let mut between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let answer = tokio::spawn(client.send(request2("HEAD", BLOB).body(no_body()).unwrap()));
    between.asked().await;
    between
        .registry()
        .send(format!("HTTP/1.1 200 OK\r\n{DESCRIBED}\r\n"))
        .await;
    let (head, body) = answer.await.unwrap().unwrap();
    assert_eq!(head.headers.get("content-length").unwrap(), "123456789012");
    assert_eq!(head.headers.get("etag").unwrap(), "\"sha256:1\"");
    assert_eq!(head.headers.len(), 6, "{head:?}");
    assert!(body.is_empty());
}

#[tokio::test]
async fn compressed_bytes_stay_compressed_and_plain_ones_plain() {
    let mut between = ProxiedPair::new().await;
    // No gzip at all: whoever tried to decompress would fail.
    for encoding in ["gzip", "zstd", "br, gzip"] {
        let asked = between.forwarded(request("GET", BLOB, "")).await;
        assert_eq!(
            asked.get("accept-encoding"),
            None,
            "nothing that the client did not ask for"
        );
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 6\r\n\r\n\x1f\x00no\x01z"
        );
        let (head, body) = between.answered(answer).await;
        assert_eq!(head.get("content-encoding"), Some(encoding));
        assert_eq!(body, b"\x1f\x00no\x01z");
    }
    let asked = between
        .forwarded(request("GET", BLOB, "Accept-Encoding: gzip\r\n"))
        .await;
    assert_eq!(asked.get("accept-encoding"), Some("gzip"));
    let (head, body) = between
        .answered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
        .await;
    assert_eq!(
        (head.get("content-encoding"), head.get("vary")),
        (None, None)
    );
    assert_eq!(body, b"plain");
}

#[tokio::test]
async fn an_answer_in_chunks_comes_whole() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", BLOB, "")).await;
    between
        .registry()
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\none\r\n")
        .await;
    let head = between.client.head().await;
    assert_eq!(
        (head.get("transfer-encoding"), head.get("content-length")),
        (Some("chunked"), None)
    );
    // The first chunk is there before the next one was sent.
    assert_eq!(between.client.bytes(8).await, b"3\r\none\r\n");
    between.registry().send("4\r\n two\r\n0\r\n\r\n").await;
    assert_eq!(
        between.client.chunked().await.as_deref(),
        Some(b" two".as_slice())
    );
    between.passed(request("GET", BLOB, "")).await;
}

#[tokio::test]
async fn an_answer_in_chunks_comes_whole_over_http2() {
    let mut between = ProxiedPair::new().await;
    let mut client = Http2::connect(&between.gateway, "ci.test").await;
    let answer = tokio::spawn(client.send(request2("GET", BLOB).body(no_body()).unwrap()));
    between.asked().await;
    between
        .registry()
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await;
    between.registry().send("4\r\n two\r\n0\r\n\r\n").await;
    let (head, body) = answer.await.unwrap().unwrap();
    assert_eq!(head.headers.get("transfer-encoding"), None);
    assert_eq!(&body[..], b"one two");
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_comes_whole() {
    let mut between = ProxiedPair::new().await;
    between.forwarded(request("GET", BLOB, "")).await;
    between
        .registry()
        .send("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end")
        .await;
    between.registry = None;
    let (head, body) = between.client.answer().await;
    assert_eq!(head.status(), 200);
    assert_eq!(body, b"to the end");
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let mut between = ProxiedPair::new().await;
    for status in ["204 No Content", "304 Not Modified"] {
        between
            .forwarded(request("GET", BLOB, "If-None-Match: \"e\"\r\n"))
            .await;
        let head = between
            .answered_head(format!("HTTP/1.1 {status}\r\nETag: \"e\"\r\n\r\n"))
            .await;
        assert_eq!(head.first, format!("HTTP/1.1 {status}"));
        assert_eq!(
            (head.get("content-length"), head.get("transfer-encoding")),
            (None, None),
            "{status}"
        );
        assert_eq!(head.get("etag"), Some("\"e\""));
    }
    between.passed(request("GET", BLOB, "")).await;
}

#[tokio::test]
async fn an_upload_with_a_length_keeps_it() {
    let mut between = ProxiedPair::new().await;
    let lines =
        "Content-Length: 10\r\nContent-Range: 0-9\r\nContent-Type: application/octet-stream\r\n";
    let asked = between
        .forwarded(request("PATCH", "/v2/a/blobs/uploads/1", lines))
        .await;
    assert_eq!(
        (asked.get("content-length"), asked.get("transfer-encoding")),
        (Some("10"), None)
    );
    assert_eq!(asked.get("content-range"), Some("0-9"));
    between.client.send("12345").await;
    // It streams: the first half is there before the second was sent.
    assert_eq!(between.registry().bytes(5).await, b"12345");
    between.client.send("67890").await;
    assert_eq!(between.registry().bytes(5).await, b"67890");
}

#[tokio::test]
async fn an_upload_in_chunks_streams() {
    let mut between = ProxiedPair::new().await;
    let asked = between
        .forwarded(request(
            "PATCH",
            "/v2/a/blobs/uploads/1",
            "Transfer-Encoding: chunked\r\n",
        ))
        .await;
    assert_eq!(
        (asked.get("content-length"), asked.get("transfer-encoding")),
        (None, Some("chunked"))
    );
    between.client.send("5\r\nfirst\r\n").await;
    assert_eq!(between.registry().bytes(10).await, b"5\r\nfirst\r\n");
    between.client.send("6\r\nsecond\r\n0\r\n\r\n").await;
    assert_eq!(
        between.registry().chunked().await.as_deref(),
        Some(b"second".as_slice())
    );
}
