//! HTTP/2 frame by frame (RFC 9113), for clients that do what no library would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Gateway, basic, settle};

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The number in a RST_STREAM.
    pub fn reason(&self) -> u32 {
        assert_eq!(self.kind, RST_STREAM, "{self:?}");
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }

    /// The status in an answer's HEADERS. The connection has no dynamic table, so that it stands there.
    pub fn status(&self) -> u16 {
        assert_eq!(self.kind, HEADERS, "{self:?}");
        let block: Vec<u8> = self.payload.iter().copied().skip_while(|byte| byte & 0xe0 == 0x20).collect();
        match block[0] {
            indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            0x08 | 0x18 | 0x48 => digits(block[1], &block[2..]),
            other => panic!("no :status at the beginning: {other:#x}"),
        }
    }
}

/// Three digits, as they are or in the Huffman code of RFC 7541 Appendix B.
fn digits(length: u8, text: &[u8]) -> u16 {
    let text = &text[..usize::from(length & 0x7f)];
    if length & 0x80 == 0 {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number * 2 + u16::from(*bit));
    let mut at = 0;
    let mut value = 0;
    for _ in 0..3 {
        let (digit, length) = match number(&bits[at..at + 5]) {
            digit @ 0..=2 => (digit, 5),
            _ => (number(&bits[at..at + 6]) - 0b01_1001 + 3, 6),
        };
        value = value * 10 + digit;
        at += length;
    }
    value
}

/// A client's end of a connection.
pub struct Frames {
    pub io: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Gateway {
    /// An HTTP/2 connection for `ci.test`, of which the preface has been sent.
    pub async fn frames(&self) -> Frames {
        self.frames_with_window(65_535).await
    }

    /// The same, with a window of so many bytes for each answer.
    pub async fn frames_with_window(&self, window: u32) -> Frames {
        Frames::over(self.tls("ci.test", &["h2"]).await.unwrap(), window).await
    }
}

impl Frames {
    /// Begins a connection over TLS, with a window of so many bytes for each answer.
    pub async fn over(io: TlsStream<TcpStream>, window: u32) -> Self {
        assert_eq!(io.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let mut frames = Frames { io, buffer: Vec::new() };
        frames.io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        // No dynamic table, so that each answer can be read alone.
        let mut settings = vec![0, 1, 0, 0, 0, 0, 0, 4];
        settings.extend(window.to_be_bytes());
        frames.send(SETTINGS, 0, 0, &settings).await;
        while frames.next().await != (Frame { kind: SETTINGS, flags: ACK, stream: 0, payload: vec![] }) {}
        frames
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_send(kind, flags, stream, payload).await.unwrap();
    }

    /// Sends a frame that the other side may not want any more.
    pub async fn try_send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        self.io.write_all(&wire(kind, flags, stream, payload)).await?;
        self.io.flush().await
    }

    /// The next frame; SETTINGS are acknowledged on the way. `None` at the end, however it came.
    pub async fn try_next(&mut self) -> Option<Frame> {
        while self.whole().is_none() {
            if matches!(self.io.read_buf(&mut self.buffer).await, Ok(0) | Err(_)) {
                return None;
            }
        }
        let length = self.whole()?;
        let bytes: Vec<u8> = self.buffer.drain(..length).collect();
        let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
        let frame = Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            let _ = self.try_send(SETTINGS, ACK, 0, &[]).await;
        }
        Some(frame)
    }

    /// The length of the frame at the beginning of the buffer, if it is there to its end.
    fn whole(&self) -> Option<usize> {
        let head = self.buffer.get(..9)?;
        let length = 9 + usize::from(head[0]) * 65_536 + usize::from(head[1]) * 256 + usize::from(head[2]);
        (self.buffer.len() >= length).then_some(length)
    }

    pub async fn next(&mut self) -> Frame {
        self.try_next().await.expect("a frame before the end")
    }

    /// The next frame of this kind; others are passed over.
    pub async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads to the end of the connection, however it comes.
    pub async fn ended(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = self.try_next().await {
            all.push(frame);
        }
        all
    }

    /// What has come so far. The connection is still open.
    pub async fn so_far(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        loop {
            settle().await;
            tokio::select! {
                biased;
                // Cancel safe: bytes go to the buffer, from which whole frames are taken at once.
                frame = self.try_next() => all.push(frame.expect("the connection is open")),
                () = std::future::ready(()) => return all,
            }
        }
    }

    /// A request of `alice`.
    pub async fn request(&mut self, stream: u32, flags: u8, method: &str, path: &str) {
        let authorization = basic("alice", "secret");
        let block = block(method, path, &[("authorization", &authorization)]);
        self.send(HEADERS, END_HEADERS | flags, stream, &block).await;
    }
}

/// A frame as it goes over the wire (RFC 9113 §4.1).
pub fn wire(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request's head, each field literally (RFC 7541 §6.2.2), so that nothing is remembered.
pub fn block(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "https"), (":authority", "ci.test"), (":path", path)];
    let mut block = Vec::new();
    for (name, value) in pseudo.iter().chain(fields) {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A length with a prefix of seven bits (RFC 7541 §5.1).
fn integer(block: &mut Vec<u8>, length: usize) {
    let mut left = length;
    if left >= 127 {
        block.push(127);
        left -= 127;
        while left >= 128 {
            block.push(0x80 | u8::try_from(left & 0x7f).unwrap());
            left >>= 7;
        }
    }
    block.push(u8::try_from(left).unwrap());
}
