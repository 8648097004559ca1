//! Files that are never seen half-written, and directories that only their owner may read.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Who may read a file that moorgate writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// 0600: keys and passwords.
    Private,
    /// 0644: certificates.
    Public,
    /// The mode, owner and group of the file that is replaced; 0600 for a new file. For files that
    /// an administrator owns.
    Inherited,
}

/// The prefix of the names of incomplete files. A killed process may leave one behind.
pub(crate) const TEMPORARY_PREFIX: &str = ".moorgate-";

/// Replaces the file at `path` atomically: writes a temporary file beside it, syncs it, renames it
/// and syncs the directory. After a crash either the old file exists or the new one. Follows
/// symbolic links, so that a linked file stays linked. Run by root, it gives the file the owner of
/// the file that it replaces, or of the directory.
///
/// Errors: those of the file system, each with the path; with [`Access::Inherited`],
/// `PermissionDenied` if this process cannot give the file to the owner and group of the old one.
pub(crate) fn atomic_write(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = parent(&target);
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)
        .map_err(|error| naming(&target, error))?;
    let replaced = metadata(&target)?;
    let mode = match (access, &replaced) {
        (Access::Private, _) | (Access::Inherited, None) => 0o600,
        (Access::Public, _) => 0o644,
        (Access::Inherited, Some(replaced)) => {
            inherit_owner(replaced, file.as_file())?;
            replaced.mode() & 0o777
        }
    };
    let model = if replaced.is_some() {
        &target
    } else {
        directory
    };
    give_owner_of(model, file.as_file())?;
    file.write_all(content)
        .map_err(|error| naming(&target, error))?;
    // The process's umask must not decide whether a proxy of another user can read a public file.
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&target)
        .map_err(|error| naming(&target, error.error))?;
    File::open(directory)?.sync_all()
}

/// The error with the path of the file that was to be written. The random name of the temporary file
/// says nothing to anybody, and makes a lasting error another one each time.
fn naming(target: &Path, error: io::Error) -> io::Error {
    let text = error.to_string();
    // Errors of the library name the temporary file so.
    let cause = text.split(" at path ").next().unwrap_or_default();
    io::Error::new(
        error.kind(),
        format!("{cause} at path \"{}\"", target.display()),
    )
}

fn metadata(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives `file` the owner and group of the file that it replaces, whoever runs this process.
fn inherit_owner(replaced: &Metadata, file: &File) -> io::Result<()> {
    let new = file.metadata()?;
    let changed = |old: u32, new: u32| (old != new).then_some(old);
    let user = changed(replaced.uid(), new.uid());
    let group = changed(replaced.gid(), new.gid());
    if user.is_none() && group.is_none() {
        return Ok(());
    }
    fchown(file, user, group).map_err(|error| {
        let text = "the file belongs to another user or group: run this as its owner or as root";
        io::Error::new(error.kind(), text)
    })
}

/// Gives `file`, or a directory, the owner and group of `model`. Does nothing unless the process
/// runs as root: a command that root runs must not take files away from the user of the service.
pub(crate) fn give_owner_of(model: &Path, file: &File) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let model = std::fs::metadata(model)?;
    fchown(file, Some(model.uid()), Some(model.gid()))
}

/// Creates a directory and its missing parents with mode 0700. Run by root, it gives each new
/// directory the owner of its parent. Syncs the parent of each directory that it creates.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.is_dir())
        .map(Path::to_owned)
        .collect();
    for directory in missing.iter().rev() {
        match std::fs::DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {}
            // Another process has created it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {
                continue;
            }
            Err(error) => return Err(error),
        }
        give_owner_of(parent(directory), &File::open(directory)?)?;
        File::open(parent(directory))?.sync_all()?;
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::super::Fingerprint;
    use super::*;

    #[test]
    fn a_lasting_error_has_the_same_text_each_time() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("missing/key");
        let text = || {
            let error = atomic_write(&path, b"one", Access::Private).expect_err("no directory");
            error.to_string()
        };
        let shown = path.display();
        let expected = format!("No such file or directory (os error 2) at path \"{shown}\"");
        assert_eq!([text(), text()], [expected.clone(), expected]);
    }

    #[test]
    fn a_private_file_is_private_and_whole() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key");
        atomic_write(&path, b"one", Access::Private).expect("written");
        let before = Fingerprint::from_path(&path);
        atomic_write(&path, b"two", Access::Private).expect("replaced");
        assert_eq!(std::fs::read(&path).expect("read"), b"two");
        assert_ne!(before, Fingerprint::from_path(&path));
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

    #[test]
    fn a_replaced_file_passes_on_its_owner_and_mode() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users");
        let data = || std::fs::metadata(&path).expect("there");
        atomic_write(&path, b"new", Access::Inherited).expect("written");
        assert_eq!(data().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
        // An ordinary user can give no file away, and may have one group alone.
        let own = (data().uid(), data().gid());
        let is_root = rustix::process::geteuid().is_root();
        let (user, group) = if is_root { (65534, 65533) } else { own };
        chown(&path, Some(user), Some(group)).expect("given away");
        atomic_write(&path, b"newer", Access::Inherited).expect("replaced");
        let now = (data().uid(), data().gid(), data().mode() & 0o777);
        assert_eq!(now, (user, group, 0o640));
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_parent() {
        // An ordinary user can make nothing that belongs to somebody else: there is one owner.
        let owner = if rustix::process::geteuid().is_root() {
            65534
        } else {
            rustix::process::geteuid().as_raw()
        };
        let directory = tempfile::tempdir().expect("directory");
        chown(directory.path(), Some(owner), None).expect("given away");
        let new = directory.path().join("acme/ca/orders");
        private_directory(&new).expect("made");
        private_directory(&new).expect("there already");
        atomic_write(&new.join("order"), b"{}", Access::Private).expect("written");
        for path in ["acme", "acme/ca", "acme/ca/orders", "acme/ca/orders/order"] {
            let data = std::fs::metadata(directory.path().join(path)).expect("there");
            assert_eq!(data.uid(), owner, "{path}");
            assert_eq!(data.mode() & 0o077, 0, "{path}");
        }
    }
}
