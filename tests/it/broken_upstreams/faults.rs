//! The ways in which an upstream breaks, and a server that does so until it is mended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::harness::RawPeer;

pub const BODY: &[u8] = b"{\"name\":\"a\",\"tags\":[]}";

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    None,
    /// Nobody listens.
    Refused,
    /// Nobody accepts, and the queue is full.
    BlackHole,
    /// Accepts, and says nothing.
    Silent,
    /// Answers a request with these bytes, and then.
    Answer(&'static str, End),
    /// Answers with the first bytes, and with the second ones over and over.
    Endless(&'static str, &'static str),
    /// One byte of these at a time, more slowly than the time limit for all of them.
    Drip(&'static str),
    /// Speaks plain HTTP where TLS is configured.
    PlainHttp,
    /// Its name leads nowhere.
    Name,
}

/// What comes after the bytes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Close,
    /// Closes the half that sends.
    HalfClose,
    Reset,
    Hold,
}

/// A fault and what it leads to.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub kind: Kind,
    /// For the client of a single upstream.
    pub status: u16,
    /// Whether the body is cut for it.
    pub is_cut: bool,
    /// What is said of the upstream; `-`: nothing.
    pub reasons: &'static [&'static str],
}

fn refused(name: &'static str, kind: Kind, status: u16, reasons: &'static [&'static str]) -> Row {
    Row {
        name,
        kind,
        status,
        is_cut: false,
        reasons,
    }
}

fn cut(name: &'static str, kind: Kind, reason: &'static [&'static str]) -> Row {
    Row {
        is_cut: true,
        ..refused(name, kind, 200, reason)
    }
}

pub fn rows() -> Vec<Row> {
    use End::{Close, HalfClose, Hold, Reset};
    use Kind::{Answer, Drip, Endless};
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200)).leak();
    vec![
        refused("refused", Kind::Refused, 503, &["refused"]),
        refused("black hole", Kind::BlackHole, 503, &["connect-timeout"]),
        refused("says nothing", Kind::Silent, 504, &["timeout"]),
        refused("closes", Answer("", Close), 502, &["closed"]),
        refused("half-closes", Answer("", HalfClose), 502, &["closed"]),
        refused("resets", Answer("", Reset), 502, &["closed"]),
        refused(
            "dies mid-head",
            Answer("HTTP/1.1 200 OK\r\nCont", Close),
            502,
            &["closed"],
        ),
        refused(
            "stops mid-head",
            Answer("HTTP/1.1 200 OK\r\nCont", Hold),
            504,
            &["timeout"],
        ),
        refused(
            "drips a head",
            Drip("HTTP/1.1 200 OK\r\nContent-Length: 0"),
            504,
            &["timeout"],
        ),
        cut("dies mid-body", Answer(HALF, Close), &["cut"]),
        cut("half-closes mid-body", Answer(HALF, HalfClose), &["cut"]),
        cut("resets mid-body", Answer(HALF, Reset), &["cut"]),
        cut("stops mid-body", Answer(HALF, Hold), &["timeout"]),
        refused("too many bytes", Answer(TOO_MANY, Hold), 200, &["-"]),
        refused("two lengths", Answer(TWO_LENGTHS, Hold), 502, &["protocol"]),
        cut("bad chunk size", Answer(BAD_CHUNK, Hold), &["cut"]),
        cut("chunks without end", Answer(CUT_CHUNKS, Close), &["cut"]),
        refused("too many headers", Answer(many, Hold), 502, &["protocol"]),
        refused(
            "endless head",
            Endless("HTTP/1.1 200 OK\r\nA: ", "aaaaaaaa"),
            502,
            &["protocol"],
        ),
        refused(
            "endless headers",
            Endless("HTTP/1.1 200 OK\r\n", "A: b\r\n"),
            502,
            &["protocol"],
        ),
        refused(
            "flood of 100",
            Endless("", "HTTP/1.1 100 Continue\r\n\r\n"),
            502,
            &["protocol"],
        ),
        refused("flood of 103", Endless("", HINTS), 502, &["protocol"]),
        refused("unasked 101", Answer(UPGRADE, Hold), 502, &["protocol"]),
        refused(
            "another protocol",
            Answer("SSH-2.0-x\r\n", Close),
            502,
            &["protocol"],
        ),
        refused("plain HTTP for TLS", Kind::PlainHttp, 503, &["protocol"]),
        refused(
            "a name without address",
            Kind::Name,
            503,
            &["lookup", "connect-timeout"],
        ),
        refused("none", Kind::None, 200, &["-"]),
    ]
}

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"name\":\"a\"";
const TOO_MANY: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{\"name\":\"a\",\"tags\":[]}HTTP/1.1 200 OK\r\n";
const TWO_LENGTHS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!";
const BAD_CHUNK: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{\"name\":\"a\"\r\nxyz\r\n";
const CUT_CHUNKS: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{\"name\":\"a\"\r\n";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
const UPGRADE: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

/// A server with a fault.
#[derive(Debug)]
pub struct FaultyServer {
    pub url: String,
    pub connections: AtomicUsize,
    /// Bytes that were taken from it.
    pub sent: AtomicUsize,
    kind: Kind,
    is_mended: AtomicBool,
    address: SocketAddr,
}

impl FaultyServer {
    pub async fn start(kind: Kind) -> Arc<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.94.1.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let url = match kind {
            Kind::PlainHttp => format!("https://{address}"),
            Kind::Name => "http://registry.invalid:5000".to_owned(),
            _ => format!("http://{address}"),
        };
        let server = Arc::new(Self {
            url,
            connections: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            kind,
            is_mended: AtomicBool::new(false),
            address,
        });
        match kind {
            Kind::Refused | Kind::Name => drop(socket),
            Kind::BlackHole => fill(socket.listen(1).unwrap()).await,
            _ => server.clone().listen(socket.listen(64).unwrap()),
        }
        server
    }

    /// The address of this one with the scheme of another one.
    pub fn url_like(&self, other: &str) -> String {
        let (scheme, _) = other.split_once(':').unwrap();
        format!("{scheme}://{}", self.address)
    }

    /// From now on it serves. Returns whether it can.
    pub async fn mend(self: &Arc<Self>) -> bool {
        self.is_mended.store(true, Ordering::Relaxed);
        match self.kind {
            Kind::BlackHole | Kind::Name | Kind::PlainHttp => return false,
            Kind::Refused => {
                let listener = TcpListener::bind(self.address).await.unwrap();
                self.clone().listen(listener);
            }
            _ => {}
        }
        self.kind != Kind::None
    }

    fn listen(self: Arc<Self>, listener: TcpListener) {
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                self.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(self.clone().connection(socket));
            }
        });
    }

    async fn connection(self: Arc<Self>, socket: TcpStream) {
        let mut peer = RawPeer::new(socket);
        if self.kind == Kind::PlainHttp {
            // A TLS hello has no end that a reader of heads would find.
            let _ = peer.more().await;
            let _ = peer.try_send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
            return;
        }
        while peer.try_head().await.is_some() {
            if self.kind != Kind::None && !self.is_mended.load(Ordering::Relaxed) {
                self.fail(peer).await;
                return;
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY.len());
            if peer
                .try_send([head.as_bytes(), BODY].concat())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    async fn fail(&self, mut peer: RawPeer<TcpStream>) {
        match self.kind {
            Kind::Answer(bytes, end) => {
                let _ = peer.try_send(bytes).await;
                match end {
                    End::Close => return,
                    End::Reset => {
                        peer.io.set_zero_linger().unwrap();
                        return;
                    }
                    End::HalfClose => peer.io.shutdown().await.unwrap(),
                    End::Hold => {}
                }
            }
            Kind::Endless(first, more) => {
                let _ = peer.try_send(first).await;
                let many = more.repeat(1000);
                while peer.try_send(&many).await.is_ok() {
                    self.sent.fetch_add(many.len(), Ordering::Relaxed);
                }
                return;
            }
            Kind::Drip(bytes) => {
                for byte in bytes.bytes() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    if peer.try_send([byte]).await.is_err() {
                        return;
                    }
                }
            }
            Kind::None
            | Kind::Refused
            | Kind::BlackHole
            | Kind::Silent
            | Kind::PlainHttp
            | Kind::Name => {}
        }
        peer.rest().await;
    }
}

/// Fills the queue of a listener that never accepts: further connections get no answer.
async fn fill(listener: TcpListener) {
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    loop {
        let connecting = TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_secs(1), connecting).await {
            Ok(connected) => waiting.push(connected.unwrap()),
            Err(_) => break,
        }
    }
    tokio::spawn(async move {
        let _open = (listener, waiting);
        std::future::pending::<()>().await;
    });
}
