//! What an upload gets: a window that grows with the path, and memory that does not grow with the
//! blob.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::harness::frames::{
    ACK, DATA, Frame, Frames, GOAWAY, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::harness::process::Process;
use crate::harness::{BodySender, Domain, Http2, RawPeer, Setup, request};

const UPLOAD: &str = "/v2/base/app/blobs/uploads/abc";
/// 500 Mbit/s over 100 ms.
const WINDOW: i64 = 500_000_000 / 8 / 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_of_an_http2_upload_grows_to_500_mbit_over_100_ms() {
    let process = process("h2").await;
    let relay = relay(process.https, Duration::from_millis(50)).await;
    let tls = process
        .tls_over(TcpStream::connect(relay).await.unwrap())
        .await;
    let mut client = Frames::over(tls, 65_535).await;
    client.request(1, 0, "PATCH", UPLOAD).await;
    let mut windows = Windows {
        connection: 65_535,
        stream: 65_535,
        initial: 65_535,
    };
    let mut sent = 0;
    // Each time all that is allowed goes, and then what is allowed next is awaited.
    while windows.both() < WINDOW {
        assert!(
            sent < 1 << 30,
            "no larger than {} KiB after {} MiB",
            windows.both() >> 10,
            sent >> 20
        );
        while windows.both() > 0 {
            let part = windows.both().min(16_384);
            client
                .send(DATA, 0, 1, &vec![b'x'; usize::try_from(part).unwrap()])
                .await;
            windows.connection -= part;
            windows.stream -= part;
            sent += part;
        }
        windows.grow(&mut client).await;
    }
}

/// What the server allows to be sent now.
struct Windows {
    connection: i64,
    stream: i64,
    initial: i64,
}

impl Windows {
    fn both(&self) -> i64 {
        self.connection.min(self.stream)
    }

    /// Waits until something may be sent again, and for all that comes with it.
    async fn grow(&mut self, client: &mut Frames) {
        while self.both() <= 0 {
            let frame = client.next().await;
            self.take(client, frame).await;
        }
        // What belongs together comes within much less than a round trip.
        while let Ok(frame) = tokio::time::timeout(Duration::from_millis(50), client.next()).await {
            self.take(client, frame).await;
        }
    }

    async fn take(&mut self, client: &mut Frames, frame: Frame) {
        let number = |bytes: &[u8]| i64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
        match frame.kind {
            WINDOW_UPDATE if frame.stream == 0 => self.connection += number(&frame.payload),
            WINDOW_UPDATE => self.stream += number(&frame.payload),
            SETTINGS => {
                for setting in frame
                    .payload
                    .chunks(6)
                    .filter(|setting| setting[..2] == [0, 4])
                {
                    let initial = number(&setting[2..]);
                    self.stream += initial - self.initial;
                    self.initial = initial;
                }
            }
            // The server measures the path with them.
            PING if frame.flags & ACK == 0 => client.send(PING, ACK, 0, &frame.payload).await,
            GOAWAY | RST_STREAM => panic!("{frame:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_the_blob() {
    for alpn in ["http/1.1", "h2"] {
        let process = process(alpn).await;
        upload(&process, alpn, 64 << 20).await;
        let before = process.peak();
        upload(&process, alpn, 512 << 20).await;
        let grown = process.peak().saturating_sub(before);
        // An HTTP/2 window may still grow, to 16 MiB at most.
        assert!(grown < 32 << 20, "{alpn}: {} KiB more", grown >> 10);
    }
}

async fn upload(process: &Process, alpn: &str, size: usize) {
    let part = Bytes::from(vec![b'x'; 1 << 20]);
    if alpn == "h2" {
        let mut client = Http2::over(process.tls().await).await;
        let (feed, body) = BodySender::new();
        let feeding = tokio::spawn(async move {
            for _ in 0..size >> 20 {
                feed.send(Ok(part.clone())).await.unwrap();
            }
        });
        assert_eq!(
            client.ask("PATCH", UPLOAD, body).await.unwrap().status(),
            202
        );
        feeding.await.unwrap();
        return;
    }
    let mut client = RawPeer::new(process.tls().await);
    client
        .send(request(
            "PATCH",
            UPLOAD,
            &format!("Content-Length: {size}\r\n"),
        ))
        .await;
    for _ in 0..size >> 20 {
        client.send(&part).await;
    }
    assert_eq!(client.answer().await.0.status(), 202);
}

/// The real binary before an upstream that takes everything.
async fn process(alpn: &str) -> Process {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            tokio::spawn(swallow(RawPeer::new(stream)));
        }
    });
    let entry = format!("alice:{}\n", bcrypt::hash("secret", 4).unwrap());
    Setup::new()
        .domain(Domain::new("ci.test", &url))
        .spawn(&entry, alpn)
}

/// Reads requests with bodies of any length and says 202 to each.
async fn swallow(mut registry: RawPeer<TcpStream>) {
    while let Some(head) = registry.try_head().await {
        let mut left = head.length();
        let mut tail = Vec::new();
        while left != Some(0) && !tail.ends_with(b"\r\n0\r\n\r\n") {
            if registry.buffer.is_empty()
                && !matches!(registry.io.read_buf(&mut registry.buffer).await, Ok(1..))
            {
                return;
            }
            left = left.map(|left| left - registry.buffer.len());
            let keep = registry.buffer.len().saturating_sub(7);
            tail.drain(..tail.len().saturating_sub(7));
            tail.extend(&registry.buffer[keep..]);
            registry.buffer.clear();
        }
        registry
            .send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            .await;
    }
}

/// A path to an address on which each byte is under way for so long, in each direction.
async fn relay(to: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(to).await.unwrap();
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        carry(near_in, far_out, delay);
        carry(far_in, near_out, delay);
    });
    address
}

fn carry(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
    delay: Duration,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        let mut part = Vec::with_capacity(64 * 1024);
        while matches!(from.read_buf(&mut part).await, Ok(1..)) {
            let part = std::mem::replace(&mut part, Vec::with_capacity(64 * 1024));
            if sender.send((Instant::now() + delay, part)).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, part)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&part).await.is_err() {
                return;
            }
        }
    });
}
