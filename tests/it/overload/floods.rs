//! One client that floods HTTP/2 in each of the known ways, and reads nothing: it takes little
//! memory, and others are served meanwhile.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, request_block, wire,
};
use crate::harness::{Domain, PATIENCE, Setup};

const PRIORITY: u8 = 2;

/// What one attacker may take: its connection, and answers that it does not read.
const MAX_GROWTH: u64 = 8 << 20;
/// For each way, unless the connection ends before.
const FLOOD_BYTES: usize = 32 << 20;

/// Frames of the attack with this number, which continue the ones before.
type Attack = fn(u32) -> Vec<u8>;

fn head(stream: u32, flags: u8) -> Vec<u8> {
    wire(HEADERS, flags, stream, &request_block("GET", "/v2/", &[]))
}

fn stream(number: u32) -> u32 {
    2 * number + 1
}

const ATTACKS: [(&str, Attack); 10] = [
    ("rapid reset", |number| {
        let reset = wire(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes());
        [head(stream(number), END_HEADERS | END_STREAM), reset].concat()
    }),
    ("streams without number", |number| {
        head(stream(number), END_HEADERS | END_STREAM)
    }),
    ("streams that never end", |number| {
        head(stream(number), END_HEADERS)
    }),
    ("continuation", |number| match number {
        0 => head(1, 0),
        _ => wire(CONTINUATION, 0, 1, &[0x40; 1024]),
    }),
    ("header list bomb", |number| {
        // An entry of the dynamic table that is referred to a thousand times (RFC 7541 §6.1).
        let mut block = request_block("GET", "/v2/", &[]);
        block.extend([0x40, 1, b'a', 0x7f, 0x81, 0x1e]);
        block.extend([b'b'; 3968]);
        block.extend([0xbe; 1000]);
        wire(HEADERS, END_HEADERS | END_STREAM, stream(number), &block)
    }),
    ("ping", |_| wire(PING, 0, 0, &[7; 8])),
    ("settings", |_| wire(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])),
    ("empty data", |number| match number {
        0 => head(1, END_HEADERS),
        _ => wire(DATA, 0, 1, &[]),
    }),
    ("window updates", |_| {
        wire(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())
    }),
    ("priorities", |number| {
        let dependency = [0, 0, 0, 0, 16];
        wire(PRIORITY, 0, stream(number % 1_000_000), &dependency)
    }),
];

/// Floods a connection, of which nothing is read. Returns it, so that it stays open.
async fn flood(mut io: TlsStream<TcpStream>, attack: Attack) -> TlsStream<TcpStream> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let window = wire(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let _ = io.write_all(&[&preface[..], &window].concat()).await;
    let (mut sent, mut number) = (0, 0);
    while sent < FLOOD_BYTES {
        let frames: Vec<u8> = (number..number + 100).flat_map(attack).collect();
        number += 100;
        sent += frames.len();
        // It is ended, or nothing is read from it any more.
        let written = tokio::time::timeout(Duration::from_secs(1), io.write_all(&frames)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    io
}

/// A request of a user, whose answer is the refusal of a registry that is not there.
async fn served(client: &mut Frames, stream: u32) {
    let manifest = "/v2/base/app/manifests/v1";
    client.request(stream, END_STREAM, "HEAD", manifest).await;
    assert_eq!(client.outcome(stream).await.status(), Some(503));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_http2_take_little_memory_and_hold_up_nobody() {
    let domain = Domain::new("ci.test", "http://127.0.0.1:1");
    let entry = Domain::htpasswd(&[("alice".into(), "secret".into())]);
    let process = Setup::new().domain(domain).spawn(&entry, "h2");
    for (name, attack) in ATTACKS {
        let mut other = Frames::over(process.tls().await, 65_535).await;
        served(&mut other, 1).await;
        let before = process.memory();
        let attacker = process.tls().await;
        let flooding = tokio::spawn(flood(attacker, attack));
        let begun = Instant::now();
        let mut stream = 3;
        while !flooding.is_finished() {
            served(&mut other, stream).await;
            stream += 2;
            assert!(begun.elapsed() < PATIENCE, "{name} does not end");
        }
        let held = flooding.await.unwrap();
        let growth = process.memory().saturating_sub(before);
        assert!(growth < MAX_GROWTH, "{name}: {} KiB", growth / 1024);
        drop(held);
    }
}
