//! The side of the old process: starts the new one, gives it the sockets and the state, and waits
//! until it serves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::frame::{self, Frame, FrameKind, HEAD_BYTES};
use super::program::Program;
use super::{SUCCESSOR_VARIABLE, UPGRADE_TIMEOUT, UpgradeError, encode_owner, state};
use crate::app::App;
use crate::state_file::run_blocking;

/// Starts a successor and returns its process id when it serves. Dropping the future kills it.
pub(super) async fn start_successor(
    app: &Arc<App>,
    program: Option<&Program>,
) -> Result<u32, UpgradeError> {
    if std::process::id() == 1 {
        return Err(UpgradeError::FirstProcess);
    }
    let program = program.ok_or(UpgradeError::UnknownProgram)?.clone();
    tracing::info!(program = %program.path.display(), "upgrade: starting the new process");
    let (own, theirs) = BlockingStream::pair()?;
    pass_sockets(app, &own)?;
    let mut successor = run_blocking(move || NewProcess::start(&program, theirs.into())).await?;
    own.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(own)?;
    let served = tokio::time::timeout(UPGRADE_TIMEOUT, exchange(app, &mut stream)).await;
    match served {
        Ok(Ok(())) => Ok(successor.release()),
        Ok(Err(SuccessorFailure::Failed(why))) => Err(UpgradeError::CannotServe(why)),
        Ok(Err(SuccessorFailure::Closed(error))) => Err(match successor.ended().await {
            Some(status) => UpgradeError::Ended(status),
            None => error.into(),
        }),
        Err(_) => Err(UpgradeError::TimedOut),
    }
}

/// Sends the sockets before the process is started that receives them: they wait for it.
fn pass_sockets(app: &App, stream: &BlockingStream) -> io::Result<()> {
    // Bounds a list of sockets that does not fit.
    stream.set_write_timeout(Some(SOCKETS_TIMEOUT))?;
    for passed in app.passed_listeners()? {
        let frame = Frame::new(FrameKind::Listener, encode_owner(passed.owner.as_ref()));
        frame::send_with(stream, &frame, passed.socket.as_fd())?;
    }
    io::Write::write_all(
        &mut &*stream,
        &Frame::new(FrameKind::End, Vec::new()).to_bytes(),
    )
}

enum SuccessorFailure {
    /// It has said why it cannot serve.
    Failed(String),
    Closed(io::Error),
}

impl From<io::Error> for SuccessorFailure {
    fn from(error: io::Error) -> Self {
        Self::Closed(error)
    }
}

/// Answers the new process until it serves.
async fn exchange(app: &App, stream: &mut UnixStream) -> Result<(), SuccessorFailure> {
    loop {
        let frame = receive(stream).await?;
        match frame.kind {
            Some(FrameKind::Prepared) => send_state(app, stream).await?,
            Some(FrameKind::Serving) => return Ok(()),
            Some(FrameKind::Failed) => {
                let why = String::from_utf8_lossy(&frame.payload);
                return Err(SuccessorFailure::Failed(why.trim_end().to_owned()));
            }
            _ => {}
        }
    }
}

async fn send_state(app: &App, stream: &mut UnixStream) -> io::Result<()> {
    let tickets = app.server_configs.tickets().secrets();
    let logins = app.gateway.verifier.known();
    for frame in state::to_frames(&tickets, &logins) {
        stream.write_all(&frame.to_bytes()).await?;
    }
    let end = Frame::new(FrameKind::End, Vec::new());
    stream.write_all(&end.to_bytes()).await
}

async fn receive(stream: &mut UnixStream) -> io::Result<Frame> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let (kind, length) = frame::parse_head(head)?;
    let mut payload = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut payload).await?;
    Ok(Frame { kind, payload })
}

/// A process that does not serve yet. Dropping it kills it.
struct NewProcess {
    child: Option<Child>,
}

impl NewProcess {
    /// Runs the program as this one was run: in the same directory, with the same arguments and
    /// logs. Blocks until it is executed.
    fn start(program: &Program, connection: OwnedFd) -> Result<Self, UpgradeError> {
        let Program { path, arguments } = program;
        let mut command = Command::new(path);
        command
            .args(arguments)
            .stdin(Stdio::from(connection))
            .env(SUCCESSOR_VARIABLE, "1")
            // For whoever has another pid (sd_watchdog_enabled(3)).
            .env_remove("WATCHDOG_PID");
        for passed in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(passed);
        }
        let child = command.spawn().map_err(|source| {
            let path = path.clone();
            UpgradeError::NotStarted { path, source }
        })?;
        Ok(Self { child: Some(child) })
    }

    /// It serves, and outlives this process. Returns its id.
    fn release(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }

    /// How it has ended; `None`: it has not, although it has closed its connection.
    async fn ended(&mut self) -> Option<ExitStatus> {
        for _ in 0..ENDING_POLLS {
            if let Some(status) = self.child.as_mut()?.try_wait().ok()? {
                return Some(status);
            }
            tokio::time::sleep(ENDING_POLL_INTERVAL).await;
        }
        None
    }
}

impl Drop for NewProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either fails for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const SOCKETS_TIMEOUT: Duration = Duration::from_secs(1);
/// A process that ends closes its connection first: a second.
const ENDING_POLLS: u32 = 100;
const ENDING_POLL_INTERVAL: Duration = Duration::from_millis(10);
