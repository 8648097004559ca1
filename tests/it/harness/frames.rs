//! HTTP/2 by hand: a client that writes any frame and any header, right or wrong, and reads answers.

use tokio::io::{AsyncRead, AsyncWrite};

use super::peer::Peer;

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PING: u8 = 0x6;
pub const GOAWAY: u8 = 0x7;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// One frame, as it came (RFC 9113 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
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

/// A client's connection.
#[derive(Debug)]
pub struct Http2<IO> {
    pub peer: Peer<IO>,
    last: Option<u32>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Http2<IO> {
    /// Sends the preface, and settings that forbid the server a dynamic table.
    pub async fn start(io: IO) -> Self {
        let mut started = Self { peer: Peer::new(io), last: None };
        started.peer.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        started.frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]).await;
        started
    }

    /// The number of the next stream.
    pub fn stream(&mut self) -> u32 {
        let next = self.last.map_or(1, |last| last + 2);
        self.last = Some(next);
        next
    }

    /// Sends a frame; the server may have gone.
    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let [s, t, u, v] = stream.to_be_bytes();
        let bytes = [&[a, b, c, kind, flags, s, t, u, v], payload].concat();
        let _ = self.peer.try_send(bytes).await;
    }

    /// Sends a head in one frame.
    pub async fn head<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, stream: u32, fields: &[(N, V)], end: bool) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block(fields)).await;
    }

    /// Sends a part of a body.
    pub async fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, bytes).await;
    }

    /// Reads a frame; `None` when the connection ends.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((&[a, b, c, kind, flags, s, t, u, v], _)) = self.peer.buffer.split_first_chunk() {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if self.peer.buffer.len() >= 9 + length {
                    let payload = self.peer.buffer.drain(..9 + length).skip(9).collect();
                    return Some(Frame { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload });
                }
            }
            if !self.peer.more().await {
                return None;
            }
        }
    }

    /// Reads until it is known what became of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut status, mut body) = (0, Vec::new());
        while let Some(frame) = self.next().await {
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]).await,
                PING if frame.flags & ACK == 0 => self.frame(PING, ACK, 0, &frame.payload).await,
                GOAWAY if frame.payload[4..8] != [0, 0, 0, 0] => return Outcome::Gone,
                RST_STREAM if frame.stream == stream => {
                    return Outcome::Reset(u32::from_be_bytes(frame.payload.try_into().unwrap()));
                }
                HEADERS if frame.stream == stream => status = status_of(&frame.payload),
                DATA if frame.stream == stream => body.extend(&frame.payload),
                _ => {}
            }
            let of_answer = frame_ends(frame.kind, frame.flags) && frame.stream == stream;
            if of_answer {
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

fn frame_ends(kind: u8, flags: u8) -> bool {
    matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0
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

/// The status of an answer's header block, in which it stands first: indexed, or its three digits as
/// they are or Huffman-coded (RFC 7541 appendices A and B).
fn status_of(block: &[u8]) -> u16 {
    let after_updates = block.iter().position(|b| b & 0xe0 != 0x20).unwrap();
    match &block[after_updates..] {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => std::str::from_utf8(&[*a, *b, *c]).unwrap().parse().unwrap(),
        [0x08 | 0x18 | 0x48, coded, rest @ ..] => huffman_digits(&rest[..usize::from(coded & 0x7f)]),
        other => panic!("no status in {other:?}"),
    }
}

fn huffman_digits(coded: &[u8]) -> u16 {
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut take = |count: usize| bits.by_ref().take(count).fold(0, |so_far, bit| so_far * 2 + bit);
    (0..3).fold(0, |number, _| {
        let five = take(5);
        // 0, 1 and 2 have five bits, the others six, from 011001 on.
        let digit = if five < 3 { five } else { five * 2 + take(1) - 0b011001 + 3 };
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
