//! A client that goes away cancels its upstream request at once, and what it cut never looks whole.

use super::{BLOB, UPLOAD};
use crate::harness::frames::{DATA, END_STREAM, HEADERS, RST_STREAM};
use crate::harness::{Gateway, Upstream, promptly, request, settle};

const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[tokio::test]
async fn while_the_upstream_thinks() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("GET", BLOB, "")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.silent().await;
    drop(client);
    promptly(registry.ended()).await;
}

#[tokio::test]
async fn while_the_upstream_thinks_about_a_body() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("PATCH", UPLOAD, "Content-Length: 5\r\n")).await;
    client.send("hello").await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.bytes(5).await;
    registry.silent().await;
    drop(client);
    promptly(registry.ended()).await;
}

#[tokio::test]
async fn in_the_middle_of_an_upload() {
    for (lines, part, seen) in [
        ("Content-Length: 10\r\n", "hello", "hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n", "5\r\nhello\r\n"),
        ("Transfer-Encoding: chunked\r\n", "a\r\nhello", "5\r\nhello\r\n"),
    ] {
        let upstream = Upstream::new().await;
        let gateway = Gateway::before(&upstream.url()).await;
        let mut client = gateway.client().await;
        client.send(request("PATCH", UPLOAD, lines)).await;
        client.send(part).await;
        let mut registry = upstream.accept().await;
        registry.head().await;
        assert_eq!(registry.bytes(seen.len()).await, seen.as_bytes());
        drop(client);
        assert_eq!(promptly(registry.rest()).await, b"", "neither a last chunk nor further bytes");
    }
}

#[tokio::test]
async fn in_the_middle_of_a_download() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(request("GET", BLOB, "")).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
    client.head().await;
    client.bytes(5).await;
    drop(client);
    promptly(registry.ended()).await;
}

#[tokio::test]
async fn by_resetting_its_stream_while_the_upstream_thinks() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.frames().await;
    client.request(1, END_STREAM, "GET", BLOB).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    client.send(RST_STREAM, 0, 1, &CANCEL).await;
    promptly(registry.ended()).await;
    // The connection goes on.
    client.request(3, END_STREAM, "GET", BLOB).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(promptly(client.next_of(HEADERS)).await.status(), 200);
}

#[tokio::test]
async fn by_resetting_its_stream_in_the_middle_of_an_upload() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.frames().await;
    client.request(1, 0, "PATCH", UPLOAD).await;
    client.send(DATA, 0, 1, b"hello").await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.bytes("5\r\nhello\r\n".len()).await;
    client.send(RST_STREAM, 0, 1, &CANCEL).await;
    assert_eq!(promptly(registry.rest()).await, b"", "no last chunk");
}

#[tokio::test]
async fn by_resetting_its_stream_in_the_middle_of_a_download() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.frames().await;
    client.request(1, END_STREAM, "GET", BLOB).await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    registry.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
    assert_eq!(client.next_of(DATA).await.payload, b"hello");
    client.send(RST_STREAM, 0, 1, &CANCEL).await;
    promptly(registry.ended()).await;
}

#[tokio::test]
async fn with_its_whole_http2_connection() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.frames().await;
    client.request(1, 0, "PATCH", UPLOAD).await;
    client.send(DATA, 0, 1, b"hello").await;
    let mut upload = upstream.accept().await;
    upload.head().await;
    upload.bytes("5\r\nhello\r\n".len()).await;
    client.request(3, END_STREAM, "GET", BLOB).await;
    let mut thinking = upstream.accept().await;
    thinking.head().await;
    settle().await;
    drop(client);
    assert_eq!(promptly(upload.rest()).await, b"", "no last chunk");
    promptly(thinking.ended()).await;
}
