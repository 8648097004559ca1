//! The control socket: commands for the running process, from whoever may open a socket below
//! `state`. One line of JSON in, one out.
//!
//! A further command is a variant of [`Command`], its arm in [`perform`], and a file in `cli/` that
//! asks it.

mod certs;
pub(crate) mod client;
mod socket;
mod tokens;
mod unlock;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::app::{App, StartError};
use crate::config::problem::Colour;
pub(crate) use socket::ControlSocket;
pub(crate) use tokens::Which;
pub(crate) use unlock::Whom;

/// What the running process is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Read the configuration again.
    Reload {},
    /// Say what is held for each domain, and how far its renewal is.
    Certs {
        /// As JSON, for scripts.
        json: bool,
    },
    /// Order a certificate now.
    CertsRenew {
        /// For which domain.
        domain: String,
    },
    /// Forget wrong passwords.
    Unlock {
        /// Of whom.
        whom: Whom,
        /// At which domain a user; everywhere without one.
        domain: Option<String>,
    },
    /// Take refresh tokens back.
    RevokeTokens {
        /// Which.
        which: Which,
        /// At which domain; everywhere without one.
        domain: Option<String>,
    },
}

/// What came of it, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    pub(crate) text: String,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// As it should.
    Done,
    /// It could not be done.
    Failed,
    /// The configuration, or the command, is wrong.
    Refused,
}

impl Reply {
    fn new(outcome: Outcome, text: impl Into<String>) -> Self {
        Self {
            outcome,
            text: text.into(),
        }
    }

    pub(crate) fn done(text: impl Into<String>) -> Self {
        Self::new(Outcome::Done, text)
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, text)
    }

    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::new(Outcome::Refused, text)
    }
}

/// Serves commands, one after the other. Dropped when the process drains, which removes the socket;
/// the caller of a command that runs then sees the end of its connection.
pub(super) async fn serve(app: Arc<App>, socket: ControlSocket) {
    loop {
        match socket.accept().await {
            Ok(stream) => {
                if let Err(error) = serve_one(&app, stream).await {
                    tracing::debug!(%error, "control socket: connection closed during a command");
                }
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
    let reply = match serde_json::from_slice(&line) {
        Ok(command) => perform(app, command).await,
        Err(error) => Reply::refused(format!("the command cannot be read: {error}")),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    timeout(IO_TIMEOUT, to.write_all(&line)).await?
}

async fn perform(app: &Arc<App>, command: Command) -> Reply {
    match command {
        Command::Reload {} => reload(app).await,
        Command::Certs { json } => certs::list(app, json),
        Command::CertsRenew { domain } => certs::renew(app, &domain).await,
        Command::Unlock { whom, domain } => unlock::unlock(app, &whom, domain.as_deref()),
        Command::RevokeTokens { which, domain } => {
            tokens::revoke(app, &which, domain.as_deref()).await
        }
    }
}

async fn reload(app: &Arc<App>) -> Reply {
    match app.reload().await {
        Ok(()) => Reply::done("the configuration is reloaded"),
        Err(error) => {
            error.log_reload();
            match error {
                StartError::Configuration(problems) => {
                    Reply::refused(problems.render(Colour::Never))
                }
                other => Reply::failed(format!("the new configuration is not used: {other}")),
            }
        }
    }
}

/// For a line to come, and for the reply to be taken.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_secs(5);
const MAX_COMMAND_BYTES: u64 = 16 << 10;
