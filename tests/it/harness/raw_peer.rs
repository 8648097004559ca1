//! One end of a connection, played by the test.

use std::fmt::Debug;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One end of a connection: the client's, or the upstream's.
pub struct RawPeer<IO> {
    pub io: IO,
    /// Bytes that were read and not yet taken.
    pub buffer: Vec<u8>,
}

/// A request's or an answer's head, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The request line or the status line.
    pub first: String,
    /// Header lines: names in lower case, values as they are.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("{self:?}"))
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a header that may stand once at most.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands more than once: {self:?}");
        all.first().copied()
    }

    /// What `Content-Length` says.
    pub fn length(&self) -> Option<usize> {
        self.get("content-length")
            .map(|length| length.parse().unwrap())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> RawPeer<IO> {
    pub fn new(io: IO) -> Self {
        Self {
            io,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes and flushes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends bytes, which the other side may not want any more.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.io.write_all(bytes.as_ref()).await?;
        self.io.flush().await
    }

    /// Reads more into the buffer; false at the end, however it came.
    pub async fn more(&mut self) -> bool {
        !matches!(self.io.read_buf(&mut self.buffer).await, Ok(0) | Err(_))
    }

    /// Reads a head; `None` if the connection ends without one.
    pub async fn try_head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let text: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(parse_head(&text));
            }
            if !self.more().await {
                assert!(
                    self.buffer.is_empty(),
                    "half a head: {:?}",
                    String::from_utf8_lossy(&self.buffer)
                );
                return None;
            }
        }
    }

    /// Reads a head.
    pub async fn head(&mut self) -> Head {
        self.try_head().await.expect("a head before the end")
    }

    /// Reads that many bytes of a body.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(
                self.more().await,
                "ended after {} of {count} bytes",
                self.buffer.len()
            );
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads everything to the end of the connection, whether that is clean or not.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// The same, with the error if the end was not clean.
    pub async fn rest_and_end(&mut self) -> std::io::Result<Vec<u8>> {
        while self.io.read_buf(&mut self.buffer).await? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads a chunked body to its last chunk; `None` if the connection ends before it.
    pub async fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                    break self.buffer.drain(..end + 2).collect::<Vec<u8>>();
                }
                if !self.more().await {
                    return None;
                }
            };
            let size = std::str::from_utf8(&line).unwrap().trim();
            let size = usize::from_str_radix(size, 16).unwrap();
            while self.buffer.len() < size + 2 {
                if !self.more().await {
                    return None;
                }
            }
            let chunk: Vec<u8> = self.buffer.drain(..size + 2).collect();
            assert!(chunk.ends_with(b"\r\n"));
            if size == 0 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    /// An answer with its body, by Content-Length. For HEAD and 204 use [`RawPeer::head`].
    pub async fn answer(&mut self) -> (Head, Vec<u8>) {
        let head = self.head().await;
        let body = match head.length() {
            Some(length) => self.bytes(length).await,
            None => self.chunked().await.expect("a whole body"),
        };
        (head, body)
    }

    /// Asserts that nothing more comes and that the connection ends.
    pub async fn ended(&mut self) {
        let rest = self.rest().await;
        assert!(
            rest.is_empty(),
            "still came: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// Asserts that neither a byte nor the end has come so far.
    pub async fn silent(&mut self) {
        super::settle().await;
        let mut byte = [0; 1];
        let mut read = std::pin::pin!(self.io.read(&mut byte));
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(read.as_mut().poll(cx))).await;
        assert!(polled.is_pending(), "something came: {polled:?}");
    }
}

fn parse_head(text: &[u8]) -> Head {
    let text = std::str::from_utf8(text).expect("heads are text here");
    let mut lines = text.trim_end().split("\r\n");
    let first = lines.next().unwrap().to_owned();
    let header = |line: &str| {
        let (name, value) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("no header: {line:?}"));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Head {
        first,
        headers: lines.map(header).collect(),
    }
}

impl<IO> Debug for RawPeer<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawPeer")
            .field("buffer", &String::from_utf8_lossy(&self.buffer))
            .finish_non_exhaustive()
    }
}
