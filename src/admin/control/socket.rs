//! The listening socket: only its owner may open it, a stale one is replaced, and it is removed at
//! the end.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::state_file::{TEMPORARY_PREFIX, private_directory};

/// The listening socket. Dropping it removes the file, unless another process has replaced it.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl ControlSocket {
    /// The path of the socket.
    pub(crate) fn path(state: &Path) -> PathBuf {
        state.join("control.sock")
    }

    /// Listens below `state`, in place of the socket that a killed process left.
    pub(crate) fn bind(state: &Path) -> io::Result<Self> {
        private_directory(state)?;
        let path = Self::path(state);
        // Created where nobody else can open it, since a socket gets its mode only after it
        // listens.
        let directory = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .rand_bytes(4)
            .tempdir_in(state)?;
        let made = directory.path().join("s");
        let listener = UnixListener::bind(&made)?;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&made, &path)?;
        let inode = inode(&path)?;
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
        let path = ControlSocket::path(&state);
        let socket = ControlSocket::bind(&state).expect("bound");
        assert_eq!(
            std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(&state).expect("listed").count(), 1);
        // As when a process is killed: the next one replaces its socket, and dropping the first one
        // does not remove it.
        let second = ControlSocket::bind(&state).expect("bound");
        drop(socket);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(second);
        assert!(!path.exists());
    }
}
