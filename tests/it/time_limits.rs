//! Every timeout of a connection and of a transfer: silence ends it after its limit, progress
//! begins it anew, and whoever kept the other waiting is named in the answer.

mod client;
mod http2;
mod setting;
mod tag_writes;
mod transfer;
mod unauthenticated;
mod upstream;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::harness::{Clock, Gateway, RawPeer, promptly, request, settle};

const UPLOAD: &str = "/v2/base/app/blobs/uploads/abc";
const BLOB: &str =
    "/v2/base/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A request with a valid login. There need not be an upstream for it.
fn login() -> String {
    request("GET", "/v2/", "")
}

/// Writes the same again and again, from a thread of its own: there is always more to read than one
/// turn of a task may take. Says when the other side has ended the connection.
fn incessantly(io: TcpStream, part: impl Into<Vec<u8>>) -> oneshot::Receiver<()> {
    let (mut io, part) = (io.into_std().unwrap(), part.into());
    io.set_nonblocking(false).unwrap();
    let (over, ended) = oneshot::channel();
    std::thread::spawn(move || {
        while io.write_all(&part).is_ok() {}
        // Nobody waits for it after a failed test.
        let _ = over.send(());
    });
    ended
}

/// Writes until the other side takes no more. Returns how much it took.
async fn fill<IO: AsyncRead + AsyncWrite + Unpin>(peer: &mut RawPeer<IO>) -> usize {
    fill_with(&mut peer.io, &[b'x'; 16 * 1024]).await
}

/// The same again and again.
async fn fill_with<IO: AsyncWrite + Unpin>(io: &mut IO, part: &[u8]) -> usize {
    let (mut taken, mut refused) = (0, 0);
    while refused < 5 {
        let mut write = std::pin::pin!(io.write(&part[taken % part.len()..]));
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(write.as_mut().poll(cx))).await;
        match polled {
            std::task::Poll::Ready(count) => {
                taken += count.unwrap();
                refused = 0;
            }
            std::task::Poll::Pending => {
                settle().await;
                refused += 1;
            }
        }
    }
    taken
}

/// An address that answers no SYN: a listener with a full queue, kept full by these connections.
struct UnresponsiveAddress {
    _listener: socket2::Socket,
    address: SocketAddr,
    _queue: Vec<TcpStream>,
}

impl UnresponsiveAddress {
    async fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queue = Vec::new();
        // The kernel takes one more than the backlog; the first that it does not take shows it.
        loop {
            tokio::select! {
                biased;
                stream = TcpStream::connect(address) => queue.push(stream.unwrap()),
                () = settle() => break,
            }
        }
        assert!(!queue.is_empty());
        Self {
            _listener: listener,
            address,
            _queue: queue,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether somebody stands before it with a SYN that has no answer.
    fn is_called(&self) -> bool {
        const SYN_SENT: &str = "02";
        let SocketAddr::V4(address) = self.address else {
            unreachable!("it listens on IPv4")
        };
        // As the kernel prints it: the address as a number of this machine, and the port.
        let number = u32::from_ne_bytes(address.ip().octets());
        let remote = format!("{number:08X}:{:04X}", address.port());
        std::fs::read_to_string("/proc/net/tcp")
            .unwrap()
            .lines()
            .any(|line| {
                let mut columns = line.split_ascii_whitespace().skip(2);
                columns.next() == Some(&remote) && columns.next() == Some(SYN_SENT)
            })
    }

    /// Asserts that a request to it is answered so many seconds later, and not before.
    async fn is_given_up_after(&self, clock: &Clock, gateway: &Gateway, limit: Duration) {
        let mut client = gateway.client().await;
        client.send(request("GET", BLOB, "")).await;
        // The password is checked on a thread of its own, so that only the kernel can tell.
        promptly(async {
            while !self.is_called() {
                settle().await;
            }
        })
        .await;
        clock.jump(limit - Duration::from_millis(500)).await;
        client.silent().await;
        clock.jump(Duration::from_millis(500)).await;
        let (head, body) = promptly(client.answer()).await;
        assert_eq!(head.status(), 503);
        assert!(head.get("retry-after").is_some());
        assert!(String::from_utf8(body).unwrap().contains("UNAVAILABLE"));
    }
}
