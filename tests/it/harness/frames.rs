//! HTTP/2 by hand, frame by frame (RFC 9113), for clients that do what no library would and that
//! look at each frame which comes. What only has to be asked goes through [`super::http2`].

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

    /// The status in an answer's HEADERS.
    pub fn status(&self) -> u16 {
        assert_eq!(self.kind, HEADERS, "{self:?}");
        status_of(&self.payload)
    }
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer with its whole body.
    Answer(u16, Vec<u8>),
    /// The server reset the stream, with this code, before an answer was complete.
    Reset(u32),
    /// The server ended the connection.
    Gone,
}

impl Outcome {
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(status, _) => Some(*status),
            Self::Reset(_) | Self::Gone => None,
        }
    }
}

/// A client's end of a connection.
pub struct Frames {
    pub io: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    /// The last stream that was begun by number.
    last: Option<u32>,
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
        let mut frames = Frames {
            io,
            buffer: Vec::new(),
            last: None,
        };
        frames
            .io
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        // No dynamic table, so that each answer can be read alone.
        let mut settings = vec![0, 1, 0, 0, 0, 0, 0, 4];
        settings.extend(window.to_be_bytes());
        frames.send(SETTINGS, 0, 0, &settings).await;
        while frames.next().await
            != (Frame {
                kind: SETTINGS,
                flags: ACK,
                stream: 0,
                payload: vec![],
            })
        {}
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
        self.io
            .write_all(&wire(kind, flags, stream, payload))
            .await?;
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
        let frame = Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream,
            payload: bytes[9..].to_vec(),
        };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            let _ = self.try_send(SETTINGS, ACK, 0, &[]).await;
        }
        Some(frame)
    }

    /// The length of the frame at the beginning of the buffer, if it is there to its end.
    fn whole(&self) -> Option<usize> {
        let head = self.buffer.get(..9)?;
        let length =
            9 + usize::from(head[0]) * 65_536 + usize::from(head[1]) * 256 + usize::from(head[2]);
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

    /// Reads to the end of the connection, however it comes. PING is answered.
    pub async fn ended(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        while let Some(frame) = self.try_next().await {
            if frame.kind == PING && frame.flags & ACK == 0 {
                let _ = self.try_send(PING, ACK, 0, &frame.payload).await;
            }
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
        let block = request_block(method, path, &[("authorization", &authorization)]);
        self.send(HEADERS, END_HEADERS | flags, stream, &block)
            .await;
    }

    /// The number of the next stream.
    pub fn stream(&mut self) -> u32 {
        let next = self.last.map_or(1, |last| last + 2);
        self.last = Some(next);
        next
    }

    /// Sends a head of any fields in one frame; the server may have gone.
    pub async fn head<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        stream: u32,
        fields: &[(N, V)],
        end: bool,
    ) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        let _ = self.try_send(HEADERS, flags, stream, &block(fields)).await;
    }

    /// Sends a part of a body; the server may have gone.
    pub async fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        let _ = self
            .try_send(DATA, if end { END_STREAM } else { 0 }, stream, bytes)
            .await;
    }

    /// Reads until it is known what became of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut status, mut body) = (0, Vec::new());
        while let Some(frame) = self.try_next().await {
            match frame.kind {
                PING if frame.flags & ACK == 0 => {
                    _ = self.try_send(PING, ACK, 0, &frame.payload).await
                }
                GOAWAY if frame.payload[4..8] != [0, 0, 0, 0] => return Outcome::Gone,
                RST_STREAM if frame.stream == stream => return Outcome::Reset(frame.reason()),
                HEADERS if frame.stream == stream => status = frame.status(),
                DATA if frame.stream == stream => body.extend(&frame.payload),
                _ => {}
            }
            if frame.ends_stream() && frame.stream == stream {
                return Outcome::Answer(status, body);
            }
        }
        Outcome::Gone
    }

    /// Sends a request without body and waits for what becomes of it.
    pub async fn ask<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, fields: &[(N, V)]) -> Outcome {
        let stream = self.stream();
        self.head(stream, fields, true).await;
        self.outcome(stream).await
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

/// The header block of a request to `ci.test`, with further fields.
pub fn request_block(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let path = super::bound(path);
    let pseudo = [
        (":method", method),
        (":scheme", "https"),
        (":authority", "ci.test"),
        (":path", &path),
    ];
    block(&[&pseudo, fields].concat())
}

/// A header block of literals that are not indexed, without Huffman coding (RFC 7541 §6.2.2).
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            length(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// RFC 7541 §5.1, with a prefix of seven bits.
fn length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(u8::try_from(length).unwrap());
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// The status of an answer's header block, in which it stands first: indexed, or its three digits
/// as they are or Huffman-coded (RFC 7541 appendices A and B).
fn status_of(block: &[u8]) -> u16 {
    let after_updates = block.iter().position(|b| b & 0xe0 != 0x20).unwrap();
    match &block[after_updates..] {
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => {
            std::str::from_utf8(&[*a, *b, *c]).unwrap().parse().unwrap()
        }
        [0x08 | 0x18 | 0x48, coded, rest @ ..] => {
            huffman_digits(&rest[..usize::from(coded & 0x7f)])
        }
        other => panic!("no status in {other:?}"),
    }
}

fn huffman_digits(coded: &[u8]) -> u16 {
    let mut bits = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut take = |count: usize| {
        bits.by_ref()
            .take(count)
            .fold(0, |so_far, bit| so_far * 2 + bit)
    };
    (0..3).fold(0, |number, _| {
        let five = take(5);
        // 0, 1 and 2 have five bits, the others six, from 011001 on.
        let digit = if five < 3 {
            five
        } else {
            five * 2 + take(1) - 0b011001 + 3
        };
        number * 10 + digit
    })
}

mod tests {
    use super::{huffman_digits, status_of};

    #[test]
    fn statuses_are_read_in_every_coding() {
        assert_eq!(status_of(&[0x20, 0x88]), 200);
        assert_eq!(status_of(&[0x48, 3, b'4', b'2', b'1']), 421);
        // RFC 7541 appendix C.6.1: 302 is 6402.
        assert_eq!(huffman_digits(&[0x64, 0x02]), 302);
        assert_eq!(status_of(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
    }
}
