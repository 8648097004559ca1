//! How much a client may send: heads, targets, bodies and streams.

use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, request_block,
};
use crate::harness::{Domain, Gateway, RawPeer, Setup, Upstream, promptly, request};

async fn gateway() -> Gateway {
    Gateway::before(&Upstream::new().await.url()).await
}

/// The status of a stranger's request, or what refused it on the way.
async fn http1(gateway: &Gateway, target: &str, lines: &str) -> u16 {
    let mut client = gateway.client().await;
    client
        .send(format!(
            "GET {target} HTTP/1.1\r\nHost: ci.test\r\n{lines}\r\n"
        ))
        .await;
    promptly(client.head()).await.status()
}

async fn http2(gateway: &Gateway, target: &str, fields: &[(String, String)]) -> u16 {
    let mut client = gateway.frames().await;
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let block = request_block("GET", target, &fields);
    let mut parts = block.chunks(16_000).peekable();
    let mut kind = HEADERS;
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        let end = if kind == HEADERS { END_STREAM } else { 0 };
        client.send(kind, end | last, 1, part).await;
        kind = crate::harness::frames::CONTINUATION;
    }
    promptly(client.next_of(HEADERS)).await.status()
}

/// Header fields of so many lines and together about so many bytes.
fn fields(count: usize, bytes: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|n| (format!("x-{n:03}"), "x".repeat(bytes / count)))
        .collect()
}

fn lines(fields: &[(String, String)]) -> String {
    fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect()
}

#[tokio::test]
async fn a_head_has_32_kib() {
    let gateway = gateway().await;
    for (bytes, status) in [(30 << 10, 401), (33 << 10, 431)] {
        let fields = fields(5, bytes);
        assert_eq!(
            http1(&gateway, "/v2/", &lines(&fields)).await,
            status,
            "{bytes}"
        );
        assert_eq!(http2(&gateway, "/v2/", &fields).await, status, "{bytes}");
    }
}

#[tokio::test]
async fn a_head_has_a_hundred_lines() {
    let gateway = gateway().await;
    // HTTP/1.1 has Host among them.
    for (count, status) in [(99, 401), (101, 431)] {
        let fields = fields(count, 0);
        assert_eq!(
            http1(&gateway, "/v2/", &lines(&fields)).await,
            status,
            "{count}"
        );
        assert_eq!(http2(&gateway, "/v2/", &fields).await, status, "{count}");
    }
}

#[tokio::test]
async fn a_target_has_8_kib() {
    let gateway = gateway().await;
    for (bytes, status) in [(8 << 10, 401), ((8 << 10) + 1, 414)] {
        let target = format!("/v2/_catalog?last={}", "x".repeat(bytes));
        let target = &target[..bytes];
        assert_eq!(http1(&gateway, target, "").await, status, "{bytes}");
        assert_eq!(http2(&gateway, target, &[]).await, status, "{bytes}");
    }
}

#[tokio::test]
async fn head_and_target_limits_are_settings() {
    let upstream = Upstream::new().await;
    let setup = Setup::new().domain(Domain::new("ci.test", &upstream.url()));
    let gateway = setup
        .main("[limits]\nhead = '4 KiB'\nhead_lines = 10\ntarget = '1 KiB'")
        .start()
        .await;
    let target = |bytes: usize| format!("/v2/_catalog?last={}", "x".repeat(bytes - 18));
    let cases = [
        (fields(2, 2 << 10), target(1024), 401),
        (fields(2, 5 << 10), target(1024), 431),
        (fields(11, 0), target(1024), 431),
        (fields(1, 0), target(1025), 414),
    ];
    for (fields, target, status) in cases {
        assert_eq!(http1(&gateway, &target, &lines(&fields)).await, status);
        assert_eq!(http2(&gateway, &target, &fields).await, status);
    }
}

#[tokio::test]
async fn a_manifest_of_4_mib_goes_through() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.client().await;
    let size = 4 << 20;
    client
        .send(request(
            "PUT",
            "/v2/base/app/manifests/v1",
            &format!("Content-Length: {size}\r\n"),
        ))
        .await;
    let mut registry = upstream.accept().await;
    registry.head().await;
    let body = vec![b'x'; size];
    let (sent, received) = tokio::join!(client.try_send(&body), registry.bytes(size));
    sent.unwrap();
    assert_eq!(received.len(), size);
    registry
        .send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(promptly(client.answer()).await.0.status(), 201);
}

#[tokio::test]
async fn body_limits_are_settings() {
    let upstream = Upstream::new().await;
    let domain = Domain::new("ci.test", &upstream.url());
    let domain = domain.tables("[limits]\nmanifest = '1 KiB'\nbody = '2 KiB'");
    let gateway = Setup::new().domain(domain).start().await;
    let chunk = "/v2/base/app/blobs/uploads/abc";
    for (method, target, limit) in [
        ("PUT", "/v2/base/app/manifests/v1", 1024),
        ("PATCH", chunk, 2048),
    ] {
        let mut client = gateway.client().await;
        client
            .send(request(
                method,
                target,
                &format!("Content-Length: {}\r\n", limit + 1),
            ))
            .await;
        assert_eq!(promptly(client.answer()).await.0.status(), 413);
        upstream.untouched().await;

        let mut client = gateway.client().await;
        client
            .send(request(method, target, "Transfer-Encoding: chunked\r\n"))
            .await;
        let mut registry = upstream.accept().await;
        registry.head().await;
        client
            .send(format!("{limit:x}\r\n{}\r\n", "x".repeat(limit)))
            .await;
        let framed = format!("{limit:x}\r\n").len() + limit + 2;
        promptly(registry.bytes(framed)).await;
        client.send("1\r\nx\r\n").await;
        assert_eq!(promptly(client.answer()).await.0.status(), 413);
        assert_eq!(promptly(registry.rest()).await, b"", "no last chunk");
    }
}

#[tokio::test]
async fn an_http2_connection_has_a_hundred_streams() {
    let upstream = Upstream::new().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let mut client = gateway.frames().await;
    for number in 0..100 {
        client
            .request(
                1 + 2 * number,
                END_STREAM,
                "GET",
                "/v2/base/app/manifests/v1",
            )
            .await;
    }
    let mut registries = Vec::new();
    for _ in 0..100 {
        let mut registry = upstream.accept().await;
        registry.head().await;
        registries.push(registry);
    }
    client
        .request(201, END_STREAM, "GET", "/v2/base/app/manifests/v1")
        .await;
    let reset = promptly(client.next_of(RST_STREAM)).await;
    assert_eq!((reset.stream, reset.reason()), (201, 7), "REFUSED_STREAM");
    // One that ends makes room for another.
    registries[0]
        .send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        .await;
    while !promptly(client.next_of(DATA)).await.ends_stream() {}
    client
        .request(203, END_STREAM, "GET", "/v2/base/app/manifests/v1")
        .await;
    registries[0].buffer.clear();
    assert!(
        promptly(registries[0].head())
            .await
            .first
            .starts_with("GET")
    );
}

#[tokio::test]
async fn the_number_of_streams_is_a_setting() {
    let upstream = Upstream::new().await;
    let setup = Setup::new().domain(Domain::new("ci.test", &upstream.url()));
    let gateway = setup.main("[limits]\nh2_streams = 7").start().await;
    let tls = gateway.tls("ci.test", &["h2"]).await.unwrap();
    let mut raw = RawPeer::new(tls);
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let head = promptly(raw.bytes(9)).await;
    assert_eq!(head[3], SETTINGS);
    let settings = raw.bytes(usize::from(head[2])).await;
    assert!(
        settings
            .chunks(6)
            .any(|setting| setting == [0, 3, 0, 0, 0, 7]),
        "{settings:?}"
    );
}
