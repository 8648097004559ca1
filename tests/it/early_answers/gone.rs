//! A client that goes away cancels its upstream request at once, and what it cut never looks whole.

use super::{BLOB, UPLOAD};
use crate::harness::frames::{DATA, END_STREAM, HEADERS, RST_STREAM};
use crate::harness::{Gateway, Transfer, Upstream, promptly, request, settle};

const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[tokio::test]
async fn before_the_response_of_the_upstream() {
    let mut transfer = Transfer::http1(request("GET", BLOB, "")).await;
    transfer.registry.silent().await;
    drop(transfer.client);
    promptly(transfer.registry.ended()).await;
}

#[tokio::test]
async fn before_the_response_to_a_body() {
    let mut transfer = Transfer::http1(request("PATCH", UPLOAD, "Content-Length: 5\r\n")).await;
    transfer.client.send("hello").await;
    transfer.registry.bytes(5).await;
    transfer.registry.silent().await;
    drop(transfer.client);
    promptly(transfer.registry.ended()).await;
}

#[tokio::test]
async fn in_the_middle_of_an_upload() {
    for (lines, part, seen) in [
        ("Content-Length: 10\r\n", "hello", "hello"),
        (
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n",
            "5\r\nhello\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "a\r\nhello",
            "5\r\nhello\r\n",
        ),
    ] {
        let mut transfer = Transfer::http1(request("PATCH", UPLOAD, lines)).await;
        transfer.client.send(part).await;
        assert_eq!(transfer.registry.bytes(seen.len()).await, seen.as_bytes());
        drop(transfer.client);
        assert_eq!(
            promptly(transfer.registry.rest()).await,
            b"",
            "neither a last chunk nor further bytes"
        );
    }
}

#[tokio::test]
async fn in_the_middle_of_a_download() {
    let mut transfer = Transfer::http1(request("GET", BLOB, "")).await;
    transfer
        .registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    transfer.client.head().await;
    transfer.client.bytes(5).await;
    drop(transfer.client);
    promptly(transfer.registry.ended()).await;
}

#[tokio::test]
async fn by_resetting_its_stream_before_the_response() {
    let mut transfer = Transfer::frames(END_STREAM, "GET", BLOB).await;
    transfer.client.send(RST_STREAM, 0, 1, &CANCEL).await;
    promptly(transfer.registry.ended()).await;
    // The connection goes on.
    transfer.client.request(3, END_STREAM, "GET", BLOB).await;
    transfer.registry = transfer.upstream.accept().await;
    transfer.registry.head().await;
    transfer
        .registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(
        promptly(transfer.client.next_of(HEADERS)).await.status(),
        200
    );
}

#[tokio::test]
async fn by_resetting_its_stream_in_the_middle_of_an_upload() {
    let mut transfer = Transfer::frames(0, "PATCH", UPLOAD).await;
    transfer.client.send(DATA, 0, 1, b"hello").await;
    transfer.registry.bytes("5\r\nhello\r\n".len()).await;
    transfer.client.send(RST_STREAM, 0, 1, &CANCEL).await;
    assert_eq!(
        promptly(transfer.registry.rest()).await,
        b"",
        "no last chunk"
    );
}

#[tokio::test]
async fn by_resetting_its_stream_in_the_middle_of_a_download() {
    let mut transfer = Transfer::frames(END_STREAM, "GET", BLOB).await;
    transfer
        .registry
        .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    assert_eq!(transfer.client.next_of(DATA).await.payload, b"hello");
    transfer.client.send(RST_STREAM, 0, 1, &CANCEL).await;
    promptly(transfer.registry.ended()).await;
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
