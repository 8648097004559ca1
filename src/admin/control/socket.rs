//! The listening socket of one process: only its owner may open it, those of killed processes are
//! removed, and it is removed at the end.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::state_file::{TEMPORARY_PREFIX, private_directory};

/// The listening socket. Dropping it removes the file.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl ControlSocket {
    /// The directory of the sockets of all processes that share a state directory.
    pub(crate) fn directory(state: &Path) -> PathBuf {
        state.join("control")
    }

    /// The sockets below `state`, of running and of killed processes. Blocks.
    pub(crate) fn all(state: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(Self::directory(state)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut all = paths.collect::<io::Result<Vec<_>>>()?;
        all.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "sock")
        });
        all.sort();
        Ok(all)
    }

    /// Listens below `state`, and removes the sockets that killed processes left. Blocks.
    pub(crate) fn bind(state: &Path) -> io::Result<Self> {
        private_directory(state)?;
        let sockets = Self::directory(state);
        private_directory(&sockets)?;
        // Created where nobody else can open it, since a socket gets its mode only after it
        // listens. The name is random and not the process id: processes in different containers
        // may share both the id and the directory.
        let directory = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .rand_bytes(8)
            .tempdir_in(&sockets)?;
        let name = directory.path().file_name().unwrap_or_default();
        let name = name.to_string_lossy().replace(TEMPORARY_PREFIX, "");
        let path = sockets.join(format!("{name}.sock"));
        let made = directory.path().join("s");
        let listener = UnixListener::bind(&made)?;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        // It listens already: a socket that refuses connections is that of a process that ended.
        std::fs::rename(&made, &path)?;
        let inode = inode(&path)?;
        remove_stale(state);
        Ok(Self {
            listener,
            path,
            inode,
        })
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(state: &Path) {
    let refuses = |path: &PathBuf| {
        BlockingStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    for path in ControlSocket::all(state)
        .unwrap_or_default()
        .iter()
        .filter(|path| refuses(path))
    {
        let _ = std::fs::remove_file(path);
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let data = std::fs::symlink_metadata(path)?;
    Ok((data.dev(), data.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_open_it_and_it_goes_with_its_process() {
        let state = tempfile::tempdir().expect("directory");
        let state = state.path().join("state");
        let all = || ControlSocket::all(&state).expect("listed");
        let socket = ControlSocket::bind(&state).expect("bound");
        let data = std::fs::metadata(&all()[0]).expect("there");
        assert_eq!(data.permissions().mode() & 0o777, 0o600);
        let directory = ControlSocket::directory(&state);
        assert_eq!(std::fs::read_dir(&directory).expect("listed").count(), 1);
        // Another process has another one.
        let second = ControlSocket::bind(&state).expect("bound");
        assert_eq!(all().len(), 2);
        drop(socket);
        assert!(UnixStream::connect(&all()[0]).await.is_ok());
        drop(second);
        assert_eq!(all(), Vec::<PathBuf>::new());
    }

    #[tokio::test]
    async fn the_sockets_of_killed_processes_are_removed() {
        let state = tempfile::tempdir().expect("directory");
        let running = ControlSocket::bind(state.path()).expect("bound");
        let stale = ControlSocket::directory(state.path()).join("abc.sock");
        drop(UnixListener::bind(&stale).expect("bound"));
        let _next = ControlSocket::bind(state.path()).expect("bound");
        let left = ControlSocket::all(state.path()).expect("listed");
        assert!(!left.contains(&stale) && left.contains(&running.path));
        assert_eq!(left.len(), 2);
    }
}
