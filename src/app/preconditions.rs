//! What a start needs of the machine, and the problem where it is missing: addresses to listen on,
//! and a state directory to write to.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::Pid;

use super::listen_problem::{listen_problem, socket_unit_problem};
use super::listeners::configured_listeners;
use super::port_holder::{PortHolder, holder, is_visible};
use crate::config::problem::{Problem, Problems};
use crate::config::snapshot::Snapshot;
use crate::listen::socket;

/// The problem of a state directory that this user's start could not write, for `moorgate check`.
pub(crate) fn missing_state(snapshot: &Snapshot) -> Option<Problem> {
    let error = state_access(snapshot).err()?;
    let problem = state_problem(snapshot, &error);
    // It may be the installation, or whoever starts the service, that makes it.
    let is_made_later = !snapshot.state.exists() && error.is_denied();
    Some(if is_made_later {
        problem.warning()
    } else {
        problem
    })
}

/// The addresses that this user's start could not listen on, for `moorgate check`. `running` are
/// the processes of this configuration: what they hold is not missing.
pub(crate) fn missing_addresses(snapshot: &Snapshot, running: &[Pid]) -> Problems {
    let mut problems = Problems::default();
    for (_, address) in configured_listeners(snapshot) {
        let Err(error) = socket::probe(address) else {
            continue;
        };
        let holder = is_in_use(&error).then(|| holder(address.0)).flatten();
        if is_in_use(&error) && is_held_by(holder.as_ref(), running) {
            continue;
        }
        if holder.as_ref().is_some_and(PortHolder::is_service_manager) {
            problems.push(socket_unit_problem(snapshot, address));
            continue;
        }
        problems.push(match error.kind() {
            // Whoever starts the service may give it the capability.
            io::ErrorKind::PermissionDenied => listen_problem(snapshot, address, &error).warning(),
            _ => listen_problem(snapshot, address, &error),
        });
    }
    problems
}

/// Without rights to see what a running process has open, the socket is taken for its own.
fn is_held_by(holder: Option<&PortHolder>, running: &[Pid]) -> bool {
    let mut running = running.iter();
    match holder {
        None => running.any(|pid| !is_visible(*pid)),
        Some(holder) => running.any(|pid| holder.pid == pid.as_raw_pid()),
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// A directory below which moorgate must be able to write, and cannot.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written: {cause}", path.display())]
pub(super) struct NotWritable {
    path: PathBuf,
    cause: io::Error,
}

impl NotWritable {
    fn is_denied(&self) -> bool {
        self.cause.kind() == io::ErrorKind::PermissionDenied
    }
}

/// Whether this process may write to the state directory and to the directories that earlier runs
/// made in it. Changes nothing.
pub(super) fn state_access(snapshot: &Snapshot) -> Result<(), NotWritable> {
    let state = &snapshot.state;
    let made = ["acme", "internal-ca", "store"].map(|name| state.join(name));
    let stores = snapshot.domains.iter();
    let stores = stores.filter_map(|host| Some(host.registry.store()?.directory.clone()));
    let existing = made.into_iter().chain(stores).filter(|path| path.exists());
    for path in std::iter::once(state.clone()).chain(existing) {
        write_access(&path).map_err(|cause| NotWritable { path, cause })?;
    }
    Ok(())
}

/// Whether this process may make files in the directory; for a missing one, whether it may make
/// that.
fn write_access(directory: &Path) -> io::Result<()> {
    let nearest = directory.ancestors().find(|path| path.exists());
    let nearest = nearest.unwrap_or(Path::new("."));
    if !nearest.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let access = Access::WRITE_OK | Access::EXEC_OK;
    Ok(accessat(CWD, nearest, access, AtFlags::empty())?)
}

/// The problem of a state directory that cannot be written. A warning where the domains can be
/// served without it.
pub(super) fn state_problem(snapshot: &Snapshot, error: &NotWritable) -> Problem {
    let user = rustix::process::geteuid().as_raw();
    let help = format!(
        "make it writable for the user that runs moorgate (this one has the id {user}), or name another directory in \
         `state`"
    );
    let message = format!("the state directory {error}");
    let problem = Problem::at_key(&snapshot.main_file(), &["state"], message, help);
    let is_needed = snapshot.domains.iter().any(|host| {
        !host.access.rules.is_empty()
            || host.auth.mode.tokens().is_some()
            || host.registry.store().is_some()
    });
    if is_needed {
        problem
    } else {
        problem.warning()
    }
}
