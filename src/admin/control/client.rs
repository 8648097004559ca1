//! The client side of the control sockets: finds the process of a configuration among those that
//! share its state directory.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

use super::{ControlCommand, ControlReply, ControlSocket, ProcessDescription};
use crate::state_file::FileOwner;

/// Which processes a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addressees {
    /// Those that run with the configuration.
    OfConfiguration,
    /// All that share its state directory.
    OfState,
}

/// The reply of one process.
#[derive(Debug)]
pub(crate) struct ProcessReply {
    pub(crate) process: ProcessDescription,
    pub(crate) reply: ControlReply,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// No process shares the state directory.
    #[error("no moorgate runs here: nobody answers in {directory}; is --config that of the running one?", directory = .0.display())]
    NotRunning(PathBuf),
    /// Only processes of other configurations do.
    #[error(
        "no moorgate runs with the configuration {configuration}; with its state runs {others}: name \
         that configuration by --config, or all by --all-processes",
        configuration = configuration.display()
    )]
    OtherConfiguration {
        configuration: PathBuf,
        others: String,
    },
    /// The sockets belong to another user.
    #[error("{path} may only be opened by root and by the user that moorgate runs as: begin the command with `{sudo}`", path = path.display())]
    NotAllowed { path: PathBuf, sudo: String },
    /// The process ended meanwhile, or did not reply in time.
    #[error("the running moorgate did not answer at {path}", path = path.display())]
    Silent { path: PathBuf, source: io::Error },
    /// Another program or version replied.
    #[error(
        "what answered at {path} cannot be understood: is the running moorgate of another version?",
        path = path.display()
    )]
    Unreadable {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// The processes that run with a configuration, of those that this user may reach.
pub(crate) fn running(configuration: &Path, state: &Path) -> Vec<Pid> {
    let all = processes(state).unwrap_or_default().into_iter();
    let own = all.filter(|(_, process)| is_same(&process.configuration, configuration));
    own.filter_map(|(path, _)| {
        let stream = connect(&path).ok()??;
        // Its own number may be that of another process outside its PID namespace.
        Some(rustix::net::sockopt::socket_peercred(&stream).ok()?.pid)
    })
    .collect()
}

/// Sends a command to the processes of a configuration whose state directory is `state`, and waits
/// for their replies.
pub(crate) fn send(
    configuration: &Path,
    state: &Path,
    addressees: Addressees,
    command: &ControlCommand,
) -> Result<Vec<ProcessReply>, ControlError> {
    let own = addressed(configuration, state, addressees)?;
    let replies = own.into_iter().map(|(path, process)| {
        let stream = connect(&path)?.ok_or_else(|| ControlError::NotRunning(path.clone()))?;
        let reply = exchange(&path, stream, command, REPLY_TIMEOUT)?;
        Ok(ProcessReply { process, reply })
    });
    replies.collect()
}

fn not_running(state: &Path) -> ControlError {
    ControlError::NotRunning(ControlSocket::directory(state))
}

/// The processes that a command is for, at least one, each with its socket.
fn addressed(
    configuration: &Path,
    state: &Path,
    addressees: Addressees,
) -> Result<Vec<(PathBuf, ProcessDescription)>, ControlError> {
    let processes = processes(state)?;
    let (own, others): (Vec<_>, Vec<_>) = processes.into_iter().partition(|(_, process)| {
        addressees == Addressees::OfState || is_same(&process.configuration, configuration)
    });
    if own.is_empty() {
        if others.is_empty() {
            return Err(not_running(state));
        }
        let others: Vec<String> = others
            .iter()
            .map(|(_, process)| process.to_string())
            .collect();
        return Err(ControlError::OtherConfiguration {
            configuration: configuration.to_owned(),
            others: others.join(" and "),
        });
    }
    Ok(own)
}

/// A running process, to which several commands are sent in a row.
#[derive(Debug)]
pub(crate) struct ControlledProcess {
    path: PathBuf,
}

impl ControlledProcess {
    /// One of the processes of a configuration: of several with one state, each can do the work.
    pub(crate) fn find(configuration: &Path, state: &Path) -> Result<Self, ControlError> {
        let own = addressed(configuration, state, Addressees::OfConfiguration)?;
        let path = own.into_iter().map(|(path, _)| path).next();
        let path = path.ok_or_else(|| not_running(state))?;
        Ok(Self { path })
    }

    pub(crate) fn send(&self, command: &ControlCommand) -> Result<ControlReply, ControlError> {
        let path = &self.path;
        let stream = connect(path)?.ok_or_else(|| ControlError::NotRunning(path.clone()))?;
        exchange(path, stream, command, REPLY_TIMEOUT)
    }
}

/// The running processes that share a state directory, each with its socket.
fn processes(state: &Path) -> Result<Vec<(PathBuf, ProcessDescription)>, ControlError> {
    let directory = ControlSocket::directory(state);
    let sockets = ControlSocket::all(state).map_err(|source| unopened(&directory, source))?;
    let mut found = Vec::new();
    for path in sockets {
        let Some(stream) = connect(&path)? else {
            continue;
        };
        let describe = ControlCommand::Describe {};
        let reply = match exchange(&path, stream, &describe, DESCRIPTION_TIMEOUT) {
            Err(ControlError::Silent { source, .. }) if is_end(&source) => continue,
            reply => reply?,
        };
        let process = serde_json::from_str(&reply.text).map_err(|source| {
            let path = path.clone();
            ControlError::Unreadable { path, source }
        })?;
        found.push((path, process));
    }
    Ok(found)
}

/// `None`: the process has ended.
fn connect(path: &Path) -> Result<Option<UnixStream>, ControlError> {
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(unopened(path, source)),
    }
}

/// Whether the process ends just now: what it has not read is reset.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn unopened(path: &Path, source: io::Error) -> ControlError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::PermissionDenied {
        let owner = FileOwner::of(&path);
        let sudo = owner.map_or_else(|| "sudo".to_owned(), |owner| owner.sudo());
        ControlError::NotAllowed { path, sudo }
    } else {
        ControlError::Silent { path, source }
    }
}

/// Whether two paths are the same directory, by name or by what they lead to.
fn is_same(one: &Path, other: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).ok();
    let real = |path: &Path| path.canonicalize().ok();
    let same = |form: &dyn Fn(&Path) -> Option<PathBuf>| {
        form(one).is_some_and(|path| form(other) == Some(path))
    };
    same(&absolute) || same(&real)
}

fn exchange(
    path: &Path,
    stream: UnixStream,
    command: &ControlCommand,
    timeout: Duration,
) -> Result<ControlReply, ControlError> {
    let path = path.to_owned();
    let line = match send_line(stream, command, timeout) {
        Ok(line) => line,
        Err(source) => return Err(ControlError::Silent { path, source }),
    };
    serde_json::from_slice(&line).map_err(|source| ControlError::Unreadable { path, source })
}

fn send_line(
    mut stream: UnixStream,
    command: &ControlCommand,
    timeout: Duration,
) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
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

/// A reload reads files and issues certificates, and another one may come first.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);
/// For a process that answers at once, on a busy machine.
const DESCRIPTION_TIMEOUT: Duration = Duration::from_secs(10);
/// For all problems of a configuration.
const MAX_REPLY_BYTES: u64 = 4 << 20;
