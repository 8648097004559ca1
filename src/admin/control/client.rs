//! The other end of the control socket: a command asks, and says clearly why nobody answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Command, ControlSocket, Reply};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// Nobody listens.
    #[error("no moorgate runs here: nobody answers at {0}; is --config that of the running one?")]
    NotRunning(PathBuf),
    /// It is somebody else's.
    #[error("{0} may only be opened by root and by the user that moorgate runs as")]
    NotAllowed(PathBuf),
    /// It went away meanwhile, or did not answer in time.
    #[error("the running moorgate did not answer at {path}")]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Something else answered, or another version.
    #[error(
        "what answered at {path} cannot be understood: is the running moorgate of another version?"
    )]
    Unreadable {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// Asks the process whose state directory this is, and waits for its answer.
pub(crate) fn ask(state: &Path, command: &Command) -> Result<Reply, ControlError> {
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
    let line = talk(stream, command).map_err(|source| ControlError::Silent {
        path: path.clone(),
        source,
    })?;
    serde_json::from_slice(&line).map_err(|source| ControlError::Unreadable { path, source })
}

fn talk(mut stream: UnixStream, command: &Command) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// A reload reads files and makes certificates; other commands may be waited for first.
const PATIENCE: Duration = Duration::from_secs(120);
/// All the problems of a configuration, at most.
const LONGEST: u64 = 4 << 20;
