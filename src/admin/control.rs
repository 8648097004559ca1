//! The control socket: commands for this process, from users who may open a socket below `state`.
//! One line of JSON in, one out. Each process has a socket of its own.
//!
//! Each command is a variant of [`ControlCommand`], an arm in [`perform`], and a file in `cli/`.

mod certs;
pub(crate) mod client;
pub(crate) mod retention;
mod socket;
mod tokens;
mod unlock;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Readiness;
use crate::app::upgrade::{self, Successor};
use crate::app::{App, StartError};
use crate::certs::library_error::with_sources;
use retention::RetentionAction;
pub(crate) use socket::ControlSocket;
pub(crate) use tokens::TokenSelection;
pub(crate) use unlock::UnlockTarget;

/// A command for the running process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ControlCommand {
    /// Describe the process: the text of the reply is a [`ProcessDescription`] in JSON.
    Describe {},
    /// Whether the process is ready, as `/readyz` says.
    Health {},
    /// Read the configuration again.
    Reload {},
    /// List the certificates and their renewals.
    Certs {
        /// Reply as JSON, for scripts.
        json: bool,
    },
    /// Order a certificate now.
    CertsRenew { domain: String },
    /// Reset the limits on failed logins.
    Unlock {
        whom: UnlockTarget,
        /// The domain of a user; `None`: all domains.
        domain: Option<String>,
    },
    /// Revoke refresh tokens.
    RevokeTokens {
        which: TokenSelection,
        /// `None`: of all domains.
        domain: Option<String>,
    },
    /// Begin a run of retention: the text of the reply is a `RetentionJobState` in JSON.
    Retention { action: RetentionAction },
    /// Wait some seconds for the end of a run: the same reply.
    RetentionJob { job: u64 },
    /// Start the program anew and let the new process take over.
    Upgrade {},
}

/// What tells the processes that share a state directory apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessDescription {
    pub(crate) pid: u32,
    /// The directory of its configuration.
    pub(crate) configuration: PathBuf,
}

impl fmt::Display for ProcessDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.configuration.display())
    }
}

/// The result of a command, with a text for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlReply {
    pub(crate) outcome: ReplyStatus,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReplyStatus {
    Done,
    Failed,
    /// The configuration or the command is invalid.
    Refused,
}

impl ControlReply {
    fn new(outcome: ReplyStatus, text: impl Into<String>) -> Self {
        Self {
            outcome,
            text: text.into(),
        }
    }

    pub(crate) fn done(text: impl Into<String>) -> Self {
        Self::new(ReplyStatus::Done, text)
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(ReplyStatus::Failed, text)
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::new(ReplyStatus::Refused, text)
    }
}

/// Serves commands side by side. Dropped when the process drains, which removes the socket; the
/// caller of a command that runs then sees the end of its connection.
pub(super) async fn serve(app: Arc<App>, socket: ControlSocket) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        match socket.accept().await {
            Ok(stream) => {
                let own = app.clone();
                app.spawn_until_drain(async move {
                    let _permit = permit;
                    if let Err(error) = serve_one(&own, stream).await {
                        tracing::debug!(%error, "control socket: connection closed during a command");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket: accept failed");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

async fn serve_one(app: &Arc<App>, mut stream: UnixStream) -> io::Result<()> {
    let (from, mut to) = stream.split();
    let mut line = Vec::new();
    let mut from = BufReader::new(from.take(MAX_COMMAND_BYTES));
    timeout(IO_TIMEOUT, from.read_until(b'\n', &mut line)).await??;
    let mut successor = None;
    let reply = match serde_json::from_slice(&line) {
        Ok(ControlCommand::Upgrade {}) => replace_process(app, &mut successor).await,
        Ok(command) => timeout(COMMAND_TIMEOUT, perform(app, command))
            .await
            .unwrap_or_else(|_| ControlReply::failed("the command did not complete in time")),
        Err(error) => ControlReply::refused(format!("the command cannot be read: {error}")),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    timeout(IO_TIMEOUT, to.write_all(&line)).await?
}

async fn perform(app: &Arc<App>, command: ControlCommand) -> ControlReply {
    match command {
        ControlCommand::Describe {} => describe(app),
        ControlCommand::Health {} => match super::readiness(app).await {
            Readiness::Ready => ControlReply::done("ready"),
            unready => ControlReply::failed(unready.as_str()),
        },
        ControlCommand::Reload {} => reload(app).await,
        ControlCommand::Certs { json } => certs::list(app, json),
        ControlCommand::CertsRenew { domain } => certs::renew(app, &domain).await,
        ControlCommand::Unlock { whom, domain } => unlock::unlock(app, &whom, domain.as_deref()),
        ControlCommand::RevokeTokens { which, domain } => {
            tokens::revoke(app, &which, domain.as_deref()).await
        }
        ControlCommand::Retention { action } => retention::begin(app, action).await,
        ControlCommand::RetentionJob { job } => retention::wait(app, job).await,
        ControlCommand::Upgrade {} => replace_process(app, &mut None).await,
    }
}

/// This process drains when `successor` is dropped, which ends the connection of the command.
async fn replace_process(app: &App, successor: &mut Option<Successor>) -> ControlReply {
    match upgrade::request(app).await {
        Ok(new) => {
            let reply = ControlReply::done(format!("process {} serves now", new.pid));
            *successor = Some(new);
            reply
        }
        Err(error) => {
            let text = with_sources(&error);
            ControlReply::failed(format!("not upgraded, the old process serves on: {text}"))
        }
    }
}

fn describe(app: &App) -> ControlReply {
    let description = ProcessDescription {
        pid: std::process::id(),
        configuration: std::path::absolute(app.directory())
            .unwrap_or_else(|_| app.directory().to_owned()),
    };
    match serde_json::to_string(&description) {
        Ok(text) => ControlReply::done(text),
        Err(error) => ControlReply::failed(error.to_string()),
    }
}

async fn reload(app: &Arc<App>) -> ControlReply {
    let Err(error) = app.reload().await else {
        let mut text = "the configuration is reloaded".to_owned();
        for (domain, problem) in app.file_problems() {
            text.push_str(&format!("\nwarning: {domain}: {problem}"));
        }
        return ControlReply::done(text);
    };
    let text = error.text();
    let unused = match app.configuration().refused() {
        Some(_) => "the new configuration is not used",
        None => "the configuration is reloaded, but not all of it is in force",
    };
    match error {
        StartError::Configuration(_) => ControlReply::refused(format!("{unused}:\n{text}")),
        StartError::System(_) => ControlReply::failed(format!("{unused}:\n{text}")),
        _ => ControlReply::failed(format!("{unused}: {text}")),
    }
}

/// For receiving the command, and for sending the reply.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// Below the client's timeout. A reload that is dropped changes nothing.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(110);
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Each waits [`IO_TIMEOUT`] for its command at most.
const MAX_CONNECTIONS: usize = 64;
const MAX_COMMAND_BYTES: u64 = 16 << 10;
