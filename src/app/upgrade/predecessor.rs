//! The side of the new process: it is given the sockets at its start, asks for the state when its
//! configuration is in order, and says when it serves.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::frame::{self, Frame, FrameKind};
use super::state::PassedState;
use super::{SUCCESSOR_VARIABLE, decode_owner};
use crate::listen::inherited::{InheritedSockets, PassedListener};
use crate::state_file::run_blocking;

/// The process that has started this one to take over from it.
#[derive(Clone, Debug)]
pub struct Predecessor(Arc<Mutex<UnixStream>>);

/// Why a process cannot take over.
#[derive(Debug, thiserror::Error)]
#[error("the process that is to be replaced does not answer")]
pub struct PredecessorGone(#[from] io::Error);

impl Predecessor {
    /// The predecessor of this process and its sockets, if it has one. Standard input is its
    /// connection, in the place of which nothing can be read.
    pub(crate) fn from_environment() -> io::Result<Option<(Self, InheritedSockets)>> {
        if std::env::var_os(SUCCESSOR_VARIABLE).is_none() {
            return Ok(None);
        }
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        if rustix::net::sockopt::socket_domain(&stdin) != Ok(rustix::net::AddressFamily::UNIX) {
            // The variable is all that was inherited.
            return Ok(None);
        }
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let stream = UnixStream::from(stdin);
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        stream.set_write_timeout(Some(IO_TIMEOUT))?;
        let sockets = receive_sockets(&stream)?;
        Ok(Some((Self(Arc::new(Mutex::new(stream))), sockets)))
    }

    /// What the predecessor knows: asked for when nothing can fail any more that takes long, since
    /// what it learns afterwards is lost.
    pub(crate) async fn state(&self) -> Result<PassedState, PredecessorGone> {
        let this = self.clone();
        run_blocking(move || Ok(this.receive_state()?)).await
    }

    /// Tells the predecessor that this process serves: it stops to accept connections.
    pub(crate) async fn serving(&self) -> Result<(), PredecessorGone> {
        let this = self.clone();
        run_blocking(move || Ok(this.send(FrameKind::Serving, Vec::new())?)).await
    }

    /// Tells the predecessor why this process does not serve. Blocks.
    pub(crate) fn failed(&self, why: &str) {
        // Whether it reads that or not, this process ends.
        let _ = self.send(FrameKind::Failed, why.as_bytes().to_vec());
    }

    fn receive_state(&self) -> io::Result<PassedState> {
        self.send(FrameKind::Prepared, Vec::new())?;
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = PassedState::default();
        loop {
            let (frame, _) = frame::receive(&stream)?;
            if frame.kind == Some(FrameKind::End) {
                return Ok(state);
            }
            state.add(&frame);
        }
    }

    fn send(&self, kind: FrameKind, payload: Vec<u8>) -> io::Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(&Frame::new(kind, payload).to_bytes())
    }
}

fn receive_sockets(stream: &UnixStream) -> io::Result<InheritedSockets> {
    let mut passed = Vec::new();
    loop {
        let (frame, descriptor) = frame::receive(stream)?;
        match (frame.kind, descriptor) {
            (Some(FrameKind::End), _) => return Ok(InheritedSockets::from_predecessor(passed)),
            (Some(FrameKind::Listener), Some(descriptor)) => passed.push(PassedListener {
                socket: TcpListener::from(descriptor),
                owner: decode_owner(&frame.payload)?,
            }),
            _ => {}
        }
    }
}

/// For the other side, which does nothing else meanwhile.
const IO_TIMEOUT: Duration = Duration::from_secs(20);
