//! The stream between the socket and rustls: recognizes plain HTTP by the first byte, and reads
//! large chunks while the peer is sending.

// rustls 0.23 asks for at most 4 KiB at a time (`DeframerVecBuffer::prepare_read`), so that an
// upload would cost a system call for each quarter of a record. A read that fills what was asked
// for shows that more is waiting: then the next one takes 32 KiB. The buffer is given back as soon
// as the socket has nothing more, so that an idle connection, or one that sends only small heads,
// holds none.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// A byte stream below TLS. Writes pass through unchanged.
#[derive(Debug)]
pub(crate) struct TlsTransport<IO> {
    io: IO,
    first_byte: FirstByte,
    /// Whether the last read from `io` filled its buffer, so that more is to be expected.
    more_expected: bool,
    buffer: Vec<u8>,
    /// How much of `buffer` has been passed on.
    consumed: usize,
}

/// What the first byte of the stream says about the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstByte {
    /// No byte came yet.
    Pending,
    /// TLS, or an unknown protocol, which rustls refuses.
    Tls,
    /// An upper-case letter begins an HTTP request line. A TLS record begins with 0x16.
    PlainHttp,
}

impl<IO> TlsTransport<IO> {
    /// A stream of which `read` has been read already.
    pub(crate) fn new(io: IO, read: Vec<u8>) -> Self {
        Self {
            io,
            first_byte: FirstByte::Pending,
            more_expected: false,
            buffer: read,
            consumed: 0,
        }
    }

    /// Whether the peer began with an HTTP request. No byte of it has been passed on.
    pub(crate) fn speaks_plain_http(&self) -> bool {
        self.first_byte == FirstByte::PlainHttp
    }

    /// The stream below, and the bytes that have been read from it and not passed on.
    pub(crate) fn into_parts(mut self) -> (IO, Vec<u8>) {
        self.buffer.drain(..self.consumed);
        (self.io, self.buffer)
    }

    fn release_buffer(&mut self) {
        self.buffer = Vec::new();
        self.consumed = 0;
    }

    fn check_first_byte(&mut self, first: Option<u8>) -> io::Result<()> {
        if self.first_byte != FirstByte::Pending {
            return Ok(());
        }
        match first {
            Some(byte) if byte.is_ascii_uppercase() => {
                self.first_byte = FirstByte::PlainHttp;
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the peer speaks plain HTTP",
                ));
            }
            Some(_) => self.first_byte = FirstByte::Tls,
            None => {}
        }
        Ok(())
    }
}

impl<IO: AsyncRead + Unpin> TlsTransport<IO> {
    fn poll_read_directly(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, into);
        if !matches!(polled, Poll::Ready(Ok(()))) {
            self.release_buffer();
            return polled;
        }
        self.more_expected = into.remaining() == 0;
        let new = into.filled().get(before..).unwrap_or_default();
        if let Err(error) = self.check_first_byte(new.first().copied()) {
            self.buffer = new.to_vec();
            into.set_filled(before);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_fill_buffer(&mut self, cx: &mut Context<'_>, requested: usize) -> Poll<io::Result<()>> {
        self.buffer.clear();
        self.consumed = 0;
        self.buffer.reserve_exact(READ_BUFFER_SIZE);
        // `read_buf` has no state between polls, so a new one each time loses nothing.
        let polled = pin!(self.io.read_buf(&mut self.buffer)).poll(cx);
        match polled {
            Poll::Ready(Ok(count)) if count > 0 => self.more_expected = count >= requested,
            Poll::Ready(_) | Poll::Pending => self.release_buffer(),
        }
        polled.map_ok(|_| ())
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for TlsTransport<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.consumed == this.buffer.len() {
            if !this.more_expected {
                return this.poll_read_directly(cx, into);
            }
            ready!(this.poll_fill_buffer(cx, into.remaining()))?;
        }
        // The bytes that were read before `new` are unchecked.
        this.check_first_byte(this.buffer.first().copied())?;
        let waiting = this.buffer.get(this.consumed..).unwrap_or_default();
        let count = waiting.len().min(into.remaining());
        into.put_slice(waiting.get(..count).unwrap_or_default());
        this.consumed += count;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for TlsTransport<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// Two records. Part of the 256 KiB that an unauthenticated client may occupy.
const READ_BUFFER_SIZE: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A socket that returns these chunks, one each time it becomes readable.
    #[derive(Default)]
    struct ScriptedSocket {
        chunks: VecDeque<Vec<u8>>,
        reads: usize,
        vectored: usize,
    }

    impl AsyncRead for ScriptedSocket {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.reads += 1;
            let Some(chunk) = self.chunks.front_mut() else {
                return Poll::Ready(Ok(()));
            };
            if chunk.is_empty() {
                self.chunks.pop_front();
                return Poll::Pending;
            }
            let count = chunk.len().min(into.remaining());
            into.put_slice(&chunk[..count]);
            chunk.drain(..count);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for ScriptedSocket {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            from: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(from.len()))
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            from: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.vectored += 1;
            Poll::Ready(Ok(from.iter().map(|slice| slice.len()).sum()))
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn transport(chunks: &[&[u8]]) -> TlsTransport<ScriptedSocket> {
        let chunks = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        TlsTransport::new(
            ScriptedSocket {
                chunks,
                ..ScriptedSocket::default()
            },
            Vec::new(),
        )
    }

    /// Reads as rustls does, until the socket has nothing more.
    fn drain(transport: &mut TlsTransport<ScriptedSocket>) -> Vec<u8> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let mut into = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *transport).poll_read(&mut cx, &mut into) {
                Poll::Pending => return all,
                Poll::Ready(result) => result.expect("in order"),
            }
            if into.filled().is_empty() {
                return all;
            }
            all.extend_from_slice(into.filled());
        }
    }

    #[test]
    fn bytes_arrive_as_they_were_sent() {
        let upload: Vec<u8> = (0..300_000_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        let mut chunks: Vec<&[u8]> = vec![b"\x16head"];
        chunks.extend(upload.chunks(70_001));
        let mut transport = transport(&chunks);
        let mut all = Vec::new();
        for _ in 0..chunks.len() {
            all.extend(drain(&mut transport));
            assert_eq!(
                transport.buffer.capacity(),
                0,
                "no buffer while nothing comes"
            );
        }
        assert_eq!(all, chunks.concat());
    }

    #[test]
    fn an_upload_is_read_in_large_chunks() {
        let upload = vec![0x16; 1 << 20];
        let mut transport = transport(&[&upload]);
        assert_eq!(drain(&mut transport).len(), upload.len());
        // One small read, then 32 KiB each, then the one that finds nothing.
        assert!(transport.io.reads <= 35, "{} reads", transport.io.reads);
    }

    #[test]
    fn small_messages_need_no_buffer() {
        let mut transport = transport(&[b"\x16one", b"two", b"three"]);
        for message in [&b"\x16one"[..], b"two", b"three"] {
            assert_eq!(drain(&mut transport), message);
            assert!(!transport.more_expected);
            assert_eq!(transport.buffer.capacity(), 0);
        }
    }

    #[test]
    fn the_end_of_the_stream_is_passed_on() {
        let mut transport = transport(&[&[0x16; 4096]]);
        assert_eq!(drain(&mut transport).len(), 4096);
        assert_eq!(drain(&mut transport).len(), 0);
        assert_eq!(drain(&mut transport).len(), 0);
    }

    #[test]
    fn only_an_upper_case_letter_is_taken_for_http() {
        for (first, plain) in [
            (b'G', true),
            (b'P', true),
            (0x16, false),
            (b'g', false),
            (0, false),
            (0x80, false),
        ] {
            let mut transport = transport(&[&[first, b'E', b'T']]);
            let mut bytes = [0; 4096];
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let polled = Pin::new(&mut transport).poll_read(&mut cx, &mut ReadBuf::new(&mut bytes));
            assert_eq!(matches!(polled, Poll::Ready(Err(_))), plain, "{first}");
            assert_eq!(transport.speaks_plain_http(), plain, "{first}");
        }
    }

    #[test]
    fn earlier_bytes_come_first_and_are_inspected() {
        let read = |read: &[u8]| {
            let chunks = [b"second".to_vec()].into();
            TlsTransport::new(
                ScriptedSocket {
                    chunks,
                    ..ScriptedSocket::default()
                },
                read.to_vec(),
            )
        };
        assert_eq!(drain(&mut read(b"\x16first")), b"\x16firstsecond");
        let mut plain = read(b"GET / HTTP/1.1");
        let mut bytes = [0; 4096];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = Pin::new(&mut plain).poll_read(&mut cx, &mut ReadBuf::new(&mut bytes));
        assert!(matches!(polled, Poll::Ready(Err(_))) && plain.speaks_plain_http());
    }

    #[test]
    fn vectored_writes_pass_through() {
        let mut transport = transport(&[]);
        assert!(transport.is_write_vectored());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let slices = [IoSlice::new(b"one"), IoSlice::new(b"two")];
        let polled = Pin::new(&mut transport).poll_write_vectored(&mut cx, &slices);
        assert!(matches!(polled, Poll::Ready(Ok(6))));
        assert_eq!(transport.io.vectored, 1);
    }
}
