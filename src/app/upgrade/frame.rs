//! Messages between a process and its successor over a pair of sockets: a kind, a length and a
//! payload. Whoever does not know a kind passes over it, and reads of a payload what it knows, so
//! that processes of different versions understand each other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use secrecy::zeroize::Zeroizing;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum FrameKind {
    /// A listening socket, which comes with it.
    Listener = 1,
    /// There are no more of what is passed now.
    End = 2,
    /// The keys of TLS tickets.
    TicketKeys = 3,
    /// The verified passwords.
    Passwords = 4,
    /// The failed logins.
    Failures = 5,
    /// From the successor: its configuration is in order, and it asks for the state.
    Prepared = 16,
    /// From the successor: it accepts connections.
    Serving = 17,
    /// From the successor: it cannot serve, and why.
    Failed = 18,
}

impl FrameKind {
    fn from_number(number: u16) -> Option<Self> {
        let all = [
            Self::Listener,
            Self::End,
            Self::TicketKeys,
            Self::Passwords,
            Self::Failures,
            Self::Prepared,
            Self::Serving,
            Self::Failed,
        ];
        all.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// A message. It may contain secrets.
pub(super) struct Frame {
    /// `None`: one of a newer version.
    pub(super) kind: Option<FrameKind>,
    pub(super) payload: Zeroizing<Vec<u8>>,
}

impl Frame {
    pub(super) fn new(kind: FrameKind, payload: Vec<u8>) -> Self {
        Self {
            kind: Some(kind),
            payload: Zeroizing::new(payload),
        }
    }

    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + self.payload.len()));
        let kind = self.kind.map_or(0, |kind| kind as u16);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(self.payload.len()).unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// The head of a message: its kind, and the length of its payload in bytes.
pub(super) fn parse_head(head: [u8; HEAD_BYTES]) -> io::Result<(Option<FrameKind>, usize)> {
    let [k0, k1, l0, l1, l2, l3] = head;
    let kind = FrameKind::from_number(u16::from_be_bytes([k0, k1]));
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let length = usize::try_from(length)
        .ok()
        .filter(|bytes| *bytes <= MAX_PAYLOAD_BYTES);
    Ok((kind, length.ok_or(io::ErrorKind::InvalidData)?))
}

/// Sends a message with a descriptor.
pub(super) fn send_with(
    stream: &UnixStream,
    frame: &Frame,
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = frame.to_bytes();
    let sent = sendmsg(
        stream,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    // A message with a descriptor is short.
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// The next message, with the descriptor that came with it. Blocks.
pub(super) fn receive(stream: &UnixStream) -> io::Result<(Frame, Option<OwnedFd>)> {
    let mut head = [0; HEAD_BYTES];
    let descriptor = receive_exact(stream, &mut head)?;
    let (kind, length) = parse_head(head)?;
    let mut payload = Zeroizing::new(vec![0; length]);
    receive_exact(stream, &mut payload)?;
    Ok((Frame { kind, payload }, descriptor))
}

/// Fills the buffer. Returns the descriptor that came with its first bytes.
fn receive_exact(stream: &UnixStream, mut buffer: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let mut descriptor = None;
    while !buffer.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            stream.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let bytes = match received {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?.bytes,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut passed) = message {
                descriptor = passed.next().or(descriptor);
            }
        }
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (_, rest) = std::mem::take(&mut buffer).split_at_mut(bytes);
        buffer = rest;
    }
    Ok(descriptor)
}

pub(super) const HEAD_BYTES: usize = 6;
/// Twice the largest tables of failed logins.
const MAX_PAYLOAD_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_descriptor_comes_with_its_message() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("bound"));
        for (socket, name) in sockets.iter().zip(["first", "second"]) {
            let frame = Frame::new(FrameKind::Listener, name.into());
            send_with(&one, &frame, socket.as_fd()).expect("sent");
        }
        (&one)
            .write_all(&Frame::new(FrameKind::End, Vec::new()).to_bytes())
            .expect("sent");
        for (socket, name) in sockets.iter().zip(["first", "second"]) {
            let (frame, descriptor) = receive(&other).expect("received");
            assert_eq!(frame.kind, Some(FrameKind::Listener));
            assert_eq!(frame.payload.as_slice(), name.as_bytes());
            let passed = descriptor.expect("with it");
            let flags = rustix::io::fcntl_getfd(&passed).expect("open");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(
                TcpListener::from(passed).local_addr().expect("bound"),
                socket.local_addr().expect("bound")
            );
        }
        let (frame, descriptor) = receive(&other).expect("received");
        assert_eq!(frame.kind, Some(FrameKind::End));
        assert!(descriptor.is_none());
    }

    #[test]
    fn an_unknown_message_is_passed_over_and_a_huge_one_is_an_error() {
        let (mut one, other) = UnixStream::pair().expect("a pair");
        one.write_all(&[0xff, 0xff, 0, 0, 0, 2, 1, 2])
            .expect("sent");
        one.write_all(&Frame::new(FrameKind::Serving, vec![7]).to_bytes())
            .expect("sent");
        assert_eq!(receive(&other).expect("received").0.kind, None);
        let (frame, _) = receive(&other).expect("received");
        assert_eq!(frame.kind, Some(FrameKind::Serving));
        assert_eq!(frame.payload.as_slice(), [7]);
        one.write_all(&[0, 3, 0xff, 0xff, 0xff, 0xff])
            .expect("sent");
        assert!(receive(&other).is_err());
        drop(other);
        assert_eq!(one.read(&mut [0]).expect("the end"), 0);
    }
}
