//! A refusal reaches a client that is still sending, and ends the connection.

use super::{UPLOAD, send_on_and_read};
use crate::harness::{
    BodySender, Clock, Gateway, Http2, Transfer, Upstream, collect, no_body, promptly, request,
    request2, settle,
};

const MANIFEST: &str = "/v2/base/app/manifests/v1";
/// What would be a request of its own if it were ever read as one.
const SMUGGLED: &str = "GET /v2/smuggled/app/tags/list HTTP/1.1\r\nHost: ci.test\r\n\r\n";

fn stranger(lines: &str) -> String {
    format!("PATCH {UPLOAD} HTTP/1.1\r\nHost: ci.test\r\n{lines}\r\n")
}

fn chunk(bytes: usize) -> Vec<u8> {
    [
        format!("{bytes:x}\r\n").into_bytes(),
        vec![b'x'; bytes],
        b"\r\n".to_vec(),
    ]
    .concat()
}

#[tokio::test]
async fn a_401_reaches_a_client_that_keeps_sending() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(stranger("Content-Length: 100000000\r\n")).await;
    let (head, body) = promptly(send_on_and_read(&mut client, &[b'x'; 65_536], 300)).await;
    assert_eq!(head.status(), 401);
    assert_eq!(head.get("connection"), Some("close"));
    assert!(String::from_utf8(body).unwrap().contains("UNAUTHORIZED"));
    upstream.untouched().await;
}

#[tokio::test]
async fn a_401_reaches_a_client_that_keeps_sending_chunks() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client
        .send(stranger("Transfer-Encoding: chunked\r\n"))
        .await;
    let (head, _) = promptly(send_on_and_read(&mut client, &chunk(65_536), 300)).await;
    assert_eq!(head.status(), 401);
    upstream.untouched().await;
}

#[tokio::test]
async fn a_401_reaches_a_client_that_has_begun_nothing_yet() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client.send(stranger("Content-Length: 100\r\n")).await;
    assert_eq!(promptly(client.answer()).await.0.status(), 401);
    promptly(client.ended()).await;
}

#[tokio::test]
async fn a_short_body_is_read_before_it_is_rejected() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let clock = Clock::stopped();
    let mut client = gateway.client().await;
    client
        .send(stranger("Content-Length: 10\r\n") + "12345")
        .await;
    client.silent().await;
    client.send("67890").await;
    let (head, _) = promptly(client.answer()).await;
    assert_eq!(
        (head.status(), head.get("connection")),
        (401, Some("close"))
    );
    let mut longest = gateway.client().await;
    longest
        .send(stranger("Content-Length: 65536\r\n").into_bytes())
        .await;
    longest.send(vec![b'x'; 65_535]).await;
    longest.silent().await;
    longest.send("x").await;
    assert_eq!(promptly(longest.answer()).await.0.status(), 401);
    // Not one that is longer, and not one that waits to be asked for.
    for lines in [
        "Content-Length: 65537\r\n",
        "Content-Length: 10\r\nExpect: 100-continue\r\n",
    ] {
        let mut client = gateway.client().await;
        client.send(stranger(lines)).await;
        assert_eq!(promptly(client.answer()).await.0.status(), 401);
    }
    let mut silent = gateway.client().await;
    silent.send(stranger("Content-Length: 10\r\n")).await;
    silent.silent().await;
    clock.jump(std::time::Duration::from_millis(250)).await;
    assert_eq!(promptly(silent.answer()).await.0.status(), 401);
}

#[tokio::test]
async fn what_was_left_unread_never_becomes_a_request() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let length = SMUGGLED.len();
    let bodies = [
        (format!("Content-Length: {length}\r\n"), SMUGGLED.to_owned()),
        (
            format!("Content-Length: {}\r\n", length + 1),
            SMUGGLED.to_owned(),
        ),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        ),
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "Content-Length: 5\r\n".to_owned(),
            format!("hello{SMUGGLED}"),
        ),
    ];
    for (lines, body) in bodies {
        for together in [true, false] {
            let mut client = gateway.client().await;
            let head = stranger(&lines);
            if together {
                client.send(format!("{head}{body}")).await;
            } else {
                client.send(head).await;
                settle().await;
                client.send(&body).await;
            }
            assert_eq!(promptly(client.answer()).await.0.status(), 401);
            let rest = promptly(client.rest()).await;
            assert_eq!(String::from_utf8_lossy(&rest), "", "{lines:?} {together}");
        }
    }
    upstream.untouched().await;
}

#[tokio::test]
async fn a_manifest_too_large_is_refused_by_its_length_at_once() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client
        .send(request("PUT", MANIFEST, "Content-Length: 8388609\r\n"))
        .await;
    let (head, body) = promptly(send_on_and_read(&mut client, &[b'x'; 65_536], 100)).await;
    assert_eq!(head.status(), 413);
    assert!(String::from_utf8(body).unwrap().contains("\"errors\""));
    upstream.untouched().await;
}

#[tokio::test]
async fn a_manifest_too_large_is_refused_by_counting_its_chunks() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    client
        .send(request("PUT", MANIFEST, "Transfer-Encoding: chunked\r\n"))
        .await;
    let mut registry = upstream.accept().await;
    let reading = tokio::spawn(async move {
        registry.head().await;
        registry.chunked().await
    });
    let (head, _) = promptly(send_on_and_read(&mut client, &chunk(65_536), 200)).await;
    assert_eq!(head.status(), 413);
    assert_eq!(
        promptly(reading).await.unwrap(),
        None,
        "the upstream never sees its end"
    );
}

#[tokio::test]
async fn an_upstreams_refusal_reaches_a_client_that_keeps_sending() {
    for (status, lines, part) in [
        (413, "Content-Length: 100000000\r\n", vec![b'x'; 65_536]),
        (416, "Transfer-Encoding: chunked\r\n", chunk(65_536)),
    ] {
        let mut transfer = Transfer::http1(request("PATCH", UPLOAD, lines)).await;
        transfer
            .registry
            .send(format!(
                "HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno"
            ))
            .await;
        let (head, body) = promptly(send_on_and_read(&mut transfer.client, &part, 300)).await;
        assert_eq!((head.status(), body.as_slice()), (status, b"no".as_slice()));
        assert_eq!(head.get("connection"), Some("close"));
        promptly(transfer.registry.rest()).await;
        transfer.upstream.untouched().await;
    }
}

#[tokio::test]
async fn an_upstreams_refusal_outlives_the_reset_that_follows_it() {
    // A server that does not read what it refuses resets the connection behind its answer.
    for round in 0..40 {
        let mut transfer =
            Transfer::http1(request("PATCH", UPLOAD, "Content-Length: 100000000\r\n")).await;
        for _ in 0..round {
            transfer.client.send(&[b'x'; 16_384]).await;
            tokio::task::yield_now().await;
        }
        transfer
            .registry
            .send("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
            .await;
        drop(transfer.registry);
        // Parts that the gateway is busy with when both come.
        transfer.client.send(&[b'x'; 65_536]).await;
        let (head, body) = promptly(transfer.client.answer()).await;
        assert_eq!(
            (head.status(), body.as_slice()),
            (413, b"no".as_slice()),
            "round {round}"
        );
    }
}

#[tokio::test]
async fn a_401_resets_an_http2_upload_and_nothing_else() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let (feed, body) = BodySender::new();
    let mut stranger = request2("PATCH", UPLOAD).body(body).unwrap();
    stranger.headers_mut().remove("authorization");
    let answer = promptly(client.begin(stranger)).await.unwrap();
    assert_eq!(answer.status(), 401);
    let text = promptly(collect(answer)).await.unwrap();
    assert!(
        String::from_utf8(text.to_vec())
            .unwrap()
            .contains("UNAUTHORIZED")
    );
    // The stream takes no more, and the connection still serves.
    promptly(async { while feed.send(Ok("x".repeat(1000).into())).await.is_ok() {} }).await;
    let played = async {
        let mut registry = upstream.accept().await;
        registry.head().await;
        registry
            .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
            .await;
        registry
    };
    let (answer, _registry) =
        promptly(async { tokio::join!(client.ask("GET", MANIFEST, no_body()), played) }).await;
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn an_upstreams_refusal_reaches_an_http2_client_that_keeps_sending() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let (feed, body) = BodySender::new();
    let feeding =
        tokio::spawn(
            async move { while feed.send(Ok(vec![b'x'; 16_384].into())).await.is_ok() {} },
        );
    let played = async {
        let mut registry = upstream.accept().await;
        registry.head().await;
        registry
            .send("HTTP/1.1 416 No\r\nContent-Length: 2\r\n\r\nno")
            .await;
        registry
    };
    let (answer, mut registry) =
        promptly(async { tokio::join!(client.ask("PATCH", UPLOAD, body), played) }).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 416);
    assert_eq!(promptly(collect(answer)).await.unwrap(), "no");
    promptly(feeding).await.unwrap();
    promptly(registry.rest()).await;
}

#[tokio::test]
async fn an_http2_manifest_too_large_is_refused() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = Http2::connect(&gateway, "ci.test").await;
    let (feed, body) = BodySender::new();
    let feeding =
        tokio::spawn(
            async move { while feed.send(Ok(vec![b'x'; 65_536].into())).await.is_ok() {} },
        );
    let reading = async {
        let mut registry = upstream.accept().await;
        registry.head().await;
        registry.chunked().await
    };
    let (answer, read) =
        promptly(async { tokio::join!(client.ask("PUT", MANIFEST, body), reading) }).await;
    assert_eq!(answer.unwrap().status(), 413);
    assert_eq!(read, None, "the upstream never sees its end");
    promptly(feeding).await.unwrap();
}
