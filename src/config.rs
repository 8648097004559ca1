//! The configuration plane: `conf.d` -> `raw` -> `resolve` -> [`snapshot::Snapshot`].
//! `files` reads the files, `raw` checks each key alone, `resolve` checks all of them together;
//! every problem of every file is collected on the way, not only the first. `loader` does so again
//! and again, and stays with the last valid version of a file.

pub(crate) mod access;
pub(crate) mod acme;
mod domain_file;
mod exposed;
mod files;
mod foreign;
pub(crate) mod loader;
mod named_file;
pub(crate) mod network;
pub(crate) mod problem;
mod raw;
mod resolve;
pub(crate) mod retention;
mod schema;
pub(crate) mod secret;
pub(crate) mod snapshot;
mod source;
pub(crate) mod upstream;
mod values;
pub(crate) mod vhost;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use self::problem::Problems;
pub use self::schema::settings;
use self::snapshot::Snapshot;

/// A valid configuration.
#[derive(Debug)]
pub struct Loaded {
    pub snapshot: Snapshot,
    /// Problems that do not prevent its use.
    pub warnings: Problems,
}

/// Reads `moorgate.toml` and `conf.d/*.toml` below `directory`, and the secrets that they name.
/// Blocks on the file system. Returns all errors and warnings if there is at least one error.
pub fn load(directory: &Path) -> Result<Loaded, Problems> {
    let mut problems = files::directory_problems(directory);
    if problems.has_errors() {
        return Err(problems);
    }
    let main = files::main_file(directory, &mut problems);
    let domains = files::domain_files(directory, &mut problems);
    let snapshot = resolve::snapshot(directory, main, domains, &mut problems);
    problems.sort();
    match snapshot {
        Some(snapshot) if !problems.has_errors() => Ok(Loaded {
            snapshot,
            warnings: problems,
        }),
        Some(_) | None => Err(problems),
    }
}

/// The state directory alone, which holds the control socket of the running process. Problems
/// elsewhere in the configuration do not matter.
pub(crate) fn state(directory: &Path) -> Result<PathBuf, Problems> {
    let mut problems = files::directory_problems(directory);
    if problems.has_errors() {
        return Err(problems);
    }
    let main = files::main_file(directory, &mut problems);
    problems.sort();
    resolve::state(&main).ok_or(problems)
}

/// The address of the admin listener alone, if there is one. Problems of the configuration do not
/// matter.
pub(crate) fn admin(directory: &Path) -> Option<SocketAddr> {
    let main = files::main_file(directory, &mut Problems::default());
    let listen = &main.raw.admin.given()?.listen;
    Some(listen.given()?.0)
}

#[cfg(test)]
mod tests;
