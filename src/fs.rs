//! Files that must never be seen half-written, and files that only their owner may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

/// Who may read a file that moorgate writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// 0600: keys and passwords.
    Private,
    /// 0644: certificates.
    Public,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// What the names of files begin with that are not complete. A process that is killed may leave
/// one.
pub const UNFINISHED: &str = ".moorgate-";

/// Replaces `path` as a whole: written beside it, synced, renamed. A crash leaves the old file
/// or the new one. Symbolic links are followed, so that a linked file stays linked.
pub fn atomic_write(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = target
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(std::fs::Permissions::from_mode(access.mode()))
        .tempfile_in(directory)?;
    keep_owner(file.as_file(), &target, directory)?;
    file.write_all(content)?;
    // The process's umask must not decide whether a proxy of another user can read a public file.
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(access.mode()))?;
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

/// A command that root runs must not take a file away from the user that moorgate runs as.
fn keep_owner(file: &std::fs::File, target: &Path, directory: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let model = std::fs::metadata(target).or_else(|_| std::fs::metadata(directory))?;
    std::os::unix::fs::fchown(file, Some(model.uid()), Some(model.gid()))
}

/// Makes a directory and its parents, readable by the owner only where it is new.
pub fn private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// The right to change a file that is read, changed and replaced as a whole. Ends when it is
/// dropped, also by the end of the process.
#[derive(Debug)]
pub struct Locked {
    _lock: File,
}

impl Locked {
    /// Waits until nobody else, in this process or another, has the right. The lock is a file
    /// beside `path`, since that one is replaced.
    pub fn wait(path: &Path) -> io::Result<Self> {
        let path = path.with_extension("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self { _lock: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What tells a changed file from an unchanged one without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Of the file that `path` leads to, or `None` where there is none to be read.
    pub fn of(path: &Path) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }

    /// Whether the file changed so recently that a further change might leave the same times:
    /// time stamps move in steps of a clock tick, and of two seconds on some file systems.
    pub fn is_fresh(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs().cast_signed());
        now - self.changed.0 <= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_private_and_whole() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key");
        atomic_write(&path, b"one", Access::Private).expect("written");
        let before = Fingerprint::of(&path);
        atomic_write(&path, b"two", Access::Private).expect("replaced");
        assert_eq!(std::fs::read(&path).expect("read"), b"two");
        assert_ne!(before, Fingerprint::of(&path));
        let mode = std::fs::metadata(&path)
            .expect("metadata")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("listed").count(),
            1
        );
    }
}
