//! A client without credentials makes a connection take at most 256 KiB, whatever it does.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, request_block, wire,
};
use crate::harness::process::Process;
use crate::harness::{Domain, Setup};

type Tls = TlsStream<TcpStream>;

/// Enough that what the process holds once for all of them does not count: the allocator takes
/// memory from the system by the megabyte.
const CONNECTIONS: u64 = 400;
/// The same for those that take a while each.
const SLOW_CONNECTIONS: u64 = 100;
const MAX_BYTES_EACH: u64 = 256 * 1024;

/// Lets many connections do their worst, and asserts what each of them costs.
async fn each_takes_little<F: Future<Output = Tls>>(
    alpn: &str,
    connections: u64,
    worst: impl Fn(Tls) -> F,
) {
    let domain = Domain::new("ci.test", "http://127.0.0.1:1");
    let entry = format!("alice:{}\n", bcrypt::hash("secret", 4).unwrap());
    let process: Process = Setup::new().domain(domain).spawn(&entry, alpn);
    // What is made once, whoever comes first.
    for _ in 0..4 {
        worst(process.tls().await).await;
    }
    let before = process.memory();
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push(worst(process.tls().await).await);
    }
    let each = process.memory().saturating_sub(before) / connections;
    assert!(each <= MAX_BYTES_EACH, "{} KiB each", each / 1024);
    drop(held);
}

/// Writes as long as the other side takes it: until nothing went for a while.
async fn flood(io: &mut Tls, part: &[u8], most: usize) {
    let mut written = 0;
    let mut last = Instant::now();
    while written < most && last.elapsed() < Duration::from_millis(100) {
        tokio::select! {
            biased;
            count = io.write(part) => match count {
                Ok(count) => {
                    written += count;
                    last = Instant::now();
                }
                Err(_) => return,
            },
            () = tokio::task::yield_now() => {}
        }
    }
    let _ = tokio::time::timeout(Duration::from_millis(20), io.flush()).await;
}

#[tokio::test]
async fn with_half_a_head() {
    each_takes_little("http/1.1", CONNECTIONS, async |mut io: Tls| {
        let head = format!(
            "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\n{}",
            "X: y\r\n".repeat(40)
        );
        io.write_all(head.as_bytes()).await.unwrap();
        io.write_all(format!("Y: {}", "y".repeat(31 << 10)).as_bytes())
            .await
            .unwrap();
        io.flush().await.unwrap();
        io
    })
    .await;
}

#[tokio::test]
async fn with_answers_that_it_never_reads() {
    each_takes_little("http/1.1", SLOW_CONNECTIONS, async |mut io: Tls| {
        let request = format!(
            "GET /v2/ HTTP/1.1\r\nHost: ci.test\r\nX: {}\r\n\r\n",
            "x".repeat(100)
        );
        flood(&mut io, request.repeat(100).as_bytes(), 32 << 20).await;
        io
    })
    .await;
}

#[tokio::test]
async fn with_http2_answers_that_it_never_reads() {
    each_takes_little("h2", CONNECTIONS, async |mut io: Tls| {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(wire(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        let long = "x".repeat(4000);
        for number in 0..100 {
            let head = request_block("GET", "/v2/base/app/manifests/v1", &[("x-long", &long)]);
            bytes.extend(wire(
                HEADERS,
                END_HEADERS | END_STREAM,
                1 + 2 * number,
                &head,
            ));
        }
        flood(&mut io, &bytes, bytes.len()).await;
        io
    })
    .await;
}

#[tokio::test]
async fn with_http2_uploads_that_fill_their_windows() {
    each_takes_little("h2", CONNECTIONS, async |mut io: Tls| {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(wire(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        for number in 0..50 {
            let head = request_block("PATCH", "/v2/base/app/blobs/uploads/abc", &[]);
            bytes.extend(wire(HEADERS, END_HEADERS, 1 + 2 * number, &head));
        }
        for number in 0..4 {
            bytes.extend(wire(DATA, 0, 1 + 2 * number, &[b'x'; 16_000]));
        }
        flood(&mut io, &bytes, bytes.len()).await;
        io
    })
    .await;
}
