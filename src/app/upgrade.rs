//! Replaces the process by a new one without a lost connection: the new one is given the sockets
//! and what the old one knows, and the old one stops to accept when the new one serves.

mod exchange;
mod frame;
pub(crate) mod predecessor;
pub(crate) mod program;
pub(crate) mod state;

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::App;
use crate::config::vhost::ListenAddress;
use crate::listen::inherited::ListenerOwner;
use program::Program;

/// The process that serves now. Dropping it tells the process that drains that whoever asked for
/// the upgrade has been answered.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) pid: u32,
    _answered: oneshot::Sender<()>,
}

/// Why an upgrade has failed. The process serves on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    #[error("an upgrade is under way")]
    AlreadyRunning,
    #[error("the process ends")]
    Stopping,
    #[error("the first process of a container ends it: start a new container instead")]
    FirstProcess,
    #[error("the program of the process is unknown")]
    UnknownProgram,
    #[error("{path} cannot be started", path = path.display())]
    NotStarted { path: PathBuf, source: io::Error },
    #[error("the new process cannot serve:\n{0}")]
    CannotServe(String),
    #[error("the new process ended before it served: {0}")]
    Ended(ExitStatus),
    #[error("the new process did not serve within {} s and was killed", UPGRADE_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the sockets cannot be passed on")]
    Connection(#[from] io::Error),
}

/// The upgrades that commands ask for.
#[derive(Debug)]
pub(super) struct UpgradeRequests {
    sender: mpsc::Sender<UpgradeReply>,
    /// `None` once the process waits for them.
    receiver: Mutex<Option<mpsc::Receiver<UpgradeReply>>>,
    is_running: AtomicBool,
}

type UpgradeReply = oneshot::Sender<Result<Successor, UpgradeError>>;

impl UpgradeRequests {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(1);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            is_running: AtomicBool::new(false),
        }
    }

    fn take(&self) -> Option<mpsc::Receiver<UpgradeReply>> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.take()
    }

    fn begin(&self) -> Result<(), UpgradeError> {
        if self.is_running.swap(true, Ordering::AcqRel) {
            return Err(UpgradeError::AlreadyRunning);
        }
        Ok(())
    }

    fn end(&self) {
        self.is_running.store(false, Ordering::Release);
    }
}

/// Replaces the process, and waits until the new one serves.
pub(crate) async fn request(app: &App) -> Result<Successor, UpgradeError> {
    app.upgrades.begin()?;
    let (reply, replied) = oneshot::channel();
    if app.upgrades.sender.try_send(reply).is_err() {
        app.upgrades.end();
        return Err(UpgradeError::Stopping);
    }
    replied.await.unwrap_or(Err(UpgradeError::Stopping))
}

/// Upgrades on each signal and request, until one succeeds. Dropping this kills a new process that
/// does not serve yet.
pub(super) async fn until_replaced(
    app: &Arc<App>,
    program: Option<&Program>,
    signal: &mut Signal,
) -> u32 {
    let Some(mut requests) = app.upgrades.take() else {
        return std::future::pending().await;
    };
    loop {
        let reply = tokio::select! {
            // Both are cancel-safe.
            Some(()) = signal.recv() => match app.upgrades.begin() {
                Ok(()) => None,
                // By a request that is received next.
                Err(_) => continue,
            },
            Some(reply) = requests.recv() => Some(reply),
            else => return std::future::pending().await,
        };
        match exchange::start_successor(app, program).await {
            Ok(pid) => {
                report_success(reply, pid).await;
                return pid;
            }
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::error!(error = cause, "upgrade failed, this process serves on");
                app.upgrades.end();
                if let Some(reply) = reply {
                    let _ = reply.send(Err(error));
                }
            }
        }
    }
}

/// Answers whoever asked for the upgrade before the connection ends with the drain.
async fn report_success(reply: Option<UpgradeReply>, pid: u32) {
    let Some(reply) = reply else { return };
    let (sender, answered) = oneshot::channel();
    let successor = Successor {
        pid,
        _answered: sender,
    };
    if reply.send(Ok(successor)).is_ok() {
        // An error is what is waited for: the sender is dropped.
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
    }
}

/// The payload of a message with a listening socket: the kind and the configured address.
fn encode_owner(owner: Option<&ListenerOwner>) -> Vec<u8> {
    owner.map_or_else(Vec::new, |owner| {
        format!("{} {}", owner.kind, owner.configured.0).into_bytes()
    })
}

fn decode_owner(payload: &[u8]) -> io::Result<Option<ListenerOwner>> {
    if payload.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(payload).map_err(io::Error::other)?;
    let mut fields = text.split(' ');
    let (kind, address) = (fields.next(), fields.next());
    let (kind, address) = kind.zip(address).ok_or(io::ErrorKind::InvalidData)?;
    let configured = FromStr::from_str(address).map_err(io::Error::other)?;
    Ok(Some(ListenerOwner {
        kind: kind.to_owned(),
        configured: ListenAddress(configured),
    }))
}

/// Tells a process that its standard input leads to the process that it is to replace.
const SUCCESSOR_VARIABLE: &str = "MOORGATE_SUCCESSOR";
/// Less than the 30 s in which whoever asks learns the result.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(25);
/// For a line on a local socket.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
