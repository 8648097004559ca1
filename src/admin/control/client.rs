//! The client side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

use super::{ControlCommand, ControlReply, ControlSocket};

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// Nothing listens on the socket.
    #[error("no moorgate runs here: nobody answers at {0}; is --config that of the running one?")]
    NotRunning(PathBuf),
    /// The socket belongs to another user.
    #[error("{0} may only be opened by root and by the user that moorgate runs as")]
    NotAllowed(PathBuf),
    /// The process ended meanwhile, or did not reply in time.
    #[error("the running moorgate did not answer at {path}")]
    Silent { path: PathBuf, source: io::Error },
    /// Another program or version replied.
    #[error(
        "what answered at {path} cannot be understood: is the running moorgate of another version?"
    )]
    Unreadable {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// The process that serves this state directory, if one does and this user may reach it.
pub(crate) fn running(state: &Path) -> Option<Pid> {
    let stream = UnixStream::connect(ControlSocket::path(state)).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid)
}

/// Sends a command to the process whose state directory this is, and waits for its reply.
pub(crate) fn send(state: &Path, command: &ControlCommand) -> Result<ControlReply, ControlError> {
    let path = ControlSocket::path(state);
    let stream = UnixStream::connect(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning(path.clone())
        }
        io::ErrorKind::PermissionDenied => ControlError::NotAllowed(path.clone()),
        _ => ControlError::Silent {
            path: path.clone(),
            source,
        },
    })?;
    let line = send_line(stream, command).map_err(|source| ControlError::Silent {
        path: path.clone(),
        source,
    })?;
    serde_json::from_slice(&line).map_err(|source| ControlError::Unreadable { path, source })
}

fn send_line(mut stream: UnixStream, command: &ControlCommand) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_REPLY_BYTES)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// A reload reads files and issues certificates, and other commands may come first.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);
/// For all problems of a configuration.
const MAX_REPLY_BYTES: u64 = 4 << 20;
