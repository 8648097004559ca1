//! An answer that the upstream cuts looks cut to the client, whatever carries it.

use super::{BLOB, UPLOAD};
use crate::harness::{Gateway, Http2, Transfer, Upstream, collect, no_body, promptly, request};

const BODIES: [&str; 4] = [
    "Content-Length: 10\r\n\r\nhello",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "Transfer-Encoding: chunked\r\n\r\na\r\nhello",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
];

#[tokio::test]
async fn an_answer_cut_by_the_upstream_is_cut_for_the_client() {
    for body in BODIES {
        let mut transfer = Transfer::http1(request("GET", BLOB, "")).await;
        transfer
            .registry
            .send(format!("HTTP/1.1 200 OK\r\n{body}"))
            .await;
        let head = transfer.client.head().await;
        drop(transfer.registry);
        match head.length() {
            Some(_) => assert_eq!(promptly(transfer.client.rest()).await, b"hello"),
            None => assert_eq!(promptly(transfer.client.chunked()).await, None, "{body:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_cut_by_the_upstream_resets_its_http2_stream() {
    for body in BODIES {
        let upstream = Upstream::new().await;
        let gateway = Gateway::before(&upstream.url()).await;
        let mut client = Http2::connect(&gateway, "ci.test").await;
        let played = async {
            let mut registry = upstream.accept().await;
            registry.head().await;
            registry.send(format!("HTTP/1.1 200 OK\r\n{body}")).await;
            registry
        };
        let (answer, registry) = tokio::join!(client.ask("GET", BLOB, no_body()), played);
        let answer = answer.unwrap();
        drop(registry);
        promptly(collect(answer)).await.expect_err(body);
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_before_its_answer_is_a_502() {
    for said in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ] {
        let mut transfer = Transfer::http1(request("PATCH", UPLOAD, "Content-Length: 5\r\n")).await;
        transfer.client.send("hello").await;
        transfer.registry.bytes(5).await;
        transfer.registry.send(said).await;
        drop(transfer.registry);
        let (head, _) = promptly(transfer.client.answer()).await;
        assert_eq!(head.status(), 502, "{said:?}");
        transfer.upstream.untouched().await;
    }
}
