//! All access to the files of a store. It follows no symbolic link, not even within the store: one
//! that is swapped in would lead a read, a write or a removal to any file that moorgate may touch.
//! Paths are absolute and begin with the root of a store, which is resolved when that is opened.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, linkat, mkdirat, openat,
    openat2, renameat, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use crate::state_file::TEMPORARY_PREFIX;

/// A symbolic link where the store has a file or directory of its own.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} is a symbolic link, which a store does not follow: move the content itself there, or mount its file system there",
    .0.display()
)]
pub(super) struct SymbolicLink(PathBuf);

impl SymbolicLink {
    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.0 == path
    }
}

/// Device and inode.
pub(super) type FileIdentity = (u64, u64);

/// The status of a file, of a symbolic link itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileStatus {
    pub(super) size: u64,
    pub(super) owner: u32,
    pub(super) modified: SystemTime,
    /// The number of its hard links.
    pub(super) links: u64,
    pub(super) identity: FileIdentity,
    kind: FileType,
}

impl FileStatus {
    /// Whether it is a file with content, and neither a directory nor a link nor anything else.
    pub(super) fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub(super) fn is_symbolic_link(&self) -> bool {
        self.kind == FileType::Symlink
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }
}

impl From<&Metadata> for FileStatus {
    fn from(data: &Metadata) -> Self {
        Self {
            size: data.len(),
            owner: data.uid(),
            modified: data.modified().unwrap_or(UNIX_EPOCH),
            links: data.nlink(),
            identity: (data.dev(), data.ino()),
            kind: FileType::from_raw_mode(data.mode()),
        }
    }
}

impl From<Stat> for FileStatus {
    fn from(stat: Stat) -> Self {
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
        // Before 1970: as old as that.
        let seconds = u64::try_from(stat.st_mtime).unwrap_or_default();
        Self {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            owner: stat.st_uid,
            modified: UNIX_EPOCH + Duration::new(seconds, nanoseconds),
            links: stat.st_nlink,
            identity: (stat.st_dev, stat.st_ino),
            kind: FileType::from_raw_mode(stat.st_mode),
        }
    }
}

/// Creates the root of a store if it does not exist, and resolves it: it alone may be a link.
pub(super) fn create_root(path: &Path) -> io::Result<PathBuf> {
    crate::state_file::private_directory(path)?;
    std::fs::canonicalize(path)
}

/// Opens a file for reading.
///
/// Errors, here and below: those of the file system; a [`SymbolicLink`], which [`link_in`] finds.
pub(super) fn open(path: &Path) -> io::Result<File> {
    open_with(path, OFlags::RDONLY, Mode::empty())
}

pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    open_with(path, OFlags::WRONLY, Mode::empty())
}

/// Creates a file that does not exist.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    open_with(path, flags, Mode::from_raw_mode(0o666))
}

/// Creates a file, or truncates it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    open_with(path, flags, Mode::from_raw_mode(0o666))
}

pub(super) fn metadata(path: &Path) -> io::Result<Metadata> {
    open_with(path, OFlags::PATH, Mode::empty())?.metadata()
}

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    read_all(&file, size)
}

/// Reads a file of this size. Makes no further call to find its end.
///
/// Errors: `UnexpectedEof` if it is being truncated.
pub(super) fn read_all(mut file: &File, size: u64) -> io::Result<Vec<u8>> {
    let size = usize::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut content = vec![0; size];
    file.read_exact(&mut content)?;
    Ok(content)
}

/// The identity of what a path leads to now, to be compared with what was opened. `None`: there is
/// nothing.
pub(super) fn identity(path: &Path) -> io::Result<Option<FileIdentity>> {
    Ok(status(path)?.map(|status| status.identity))
}

/// The status of what a path leads to now. `None`: there is nothing.
pub(super) fn status(path: &Path) -> io::Result<Option<FileStatus>> {
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileStatus::from(stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file for reading and writing, and creates it if it does not exist.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE;
    open_with(path, flags, Mode::from_raw_mode(0o600))
}

/// Whether there is something at a path, if only a symbolic link.
pub(super) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Whether there is a directory at a path, or a symbolic link to one.
pub(super) fn leads_to_directory(path: &Path) -> bool {
    path.is_dir()
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    let (directory, name) = parent_of(path)?;
    directory.remove_file(name)
}

pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    let (directory, name) = parent_of(path)?;
    directory.remove_directory(name)
}

/// As [`OpenDirectory::replace`].
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let (directory, name) = parent_of(path)?;
    directory.replace(name, content)
}

/// As [`replace`], with what `write` writes.
pub(super) fn replace_with(
    path: &Path,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let (directory, name) = parent_of(path)?;
    let replaced = directory.replace_with(name, write);
    replaced.map_err(|error| with_path(path, &error))
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    let text = format!("{error} at path \"{}\"", path.display());
    io::Error::new(error.kind(), text)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    OpenDirectory::open(path)?.sync()
}

/// Opens a directory, which it creates, with its missing parents and mode 0700, if it does not
/// exist. Run by root, it gives each new directory the owner of its parent.
pub(super) fn private_directory(path: &Path) -> io::Result<OpenDirectory> {
    match OpenDirectory::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    let (above, name) = split(path)?;
    let parent = private_directory(above)?;
    match mkdirat(&parent.file, name, Mode::from_raw_mode(0o700)) {
        // Another process has created it meanwhile.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = OpenDirectory::open(path)?;
    parent.give_owner_of(OsStr::new("."), &directory.file)?;
    parent.sync()?;
    Ok(directory)
}

/// The directory that has a file, and the file's name in it.
pub(super) fn parent_of(path: &Path) -> io::Result<(OpenDirectory, &OsStr)> {
    let (parent, name) = split(path)?;
    Ok((OpenDirectory::open(parent)?, name))
}

pub(super) fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let parts = path.parent().zip(path.file_name());
    parts.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// An open directory. Names in it are single components of a path.
#[derive(Debug)]
pub(super) struct OpenDirectory {
    file: File,
    path: PathBuf,
}

impl OpenDirectory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open_with(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The open directory itself, to be locked.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    pub(super) fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileStatus::from(fstat(&self.file)?).identity)
    }

    /// Opens a file for reading.
    pub(super) fn file(&self, name: &OsStr) -> io::Result<File> {
        self.open_name(name, OFlags::RDONLY, Mode::empty())
    }

    /// The status of a file, of a symbolic link itself.
    pub(super) fn status(&self, name: &OsStr) -> io::Result<FileStatus> {
        let stat = statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileStatus::from(stat))
    }

    /// The names of all files and directories in it, in no particular order.
    pub(super) fn names(&self) -> io::Result<impl Iterator<Item = io::Result<OsString>>> {
        let entries = Dir::read_from(&self.file)?;
        Ok(entries.filter_map(|entry| match entry {
            Ok(entry) => {
                let name = entry.file_name().to_bytes();
                let is_name = name != b"." && name != b"..";
                is_name.then(|| Ok(OsString::from_vec(name.to_owned())))
            }
            Err(error) => Some(Err(error.into())),
        }))
    }

    /// Replaces a file, or a symbolic link, atomically and durably. Run by root, it gives the new
    /// file the owner of the old one, or of the directory.
    ///
    /// Errors: each with the path of the file.
    pub(super) fn replace(&self, name: &OsStr, content: &[u8]) -> io::Result<()> {
        self.replace_with(name, |mut file| file.write_all(content))
            .map_err(|error| with_path(&self.path.join(name), &error))
    }

    /// As [`Self::replace`], with what `write` writes.
    pub(super) fn replace_with(
        &self,
        name: &OsStr,
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let (temporary, file) = self.temporary_file()?;
        let replaced = self
            .give_owner_of(name, &file)
            .and_then(|()| write(&file))
            .and_then(|()| file.sync_all())
            .and_then(|()| self.rename(&temporary, self, name));
        if replaced.is_err() {
            let _ = self.remove_file(&temporary);
        }
        replaced?;
        self.sync()
    }

    fn temporary_file(&self) -> io::Result<(OsString, File)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let name = temporary_name()?;
        let file = self.open_name(&name, flags, Mode::from_raw_mode(0o600))?;
        Ok((name, file))
    }

    /// Replaces a file by a hard link to another file, in one step.
    pub(super) fn replace_by_link(
        &self,
        name: &OsStr,
        to: &OpenDirectory,
        to_name: &OsStr,
    ) -> io::Result<()> {
        let temporary = temporary_name()?;
        to.link(to_name, self, &temporary)?;
        let replaced = self.rename(&temporary, self, name);
        // Renaming one link of a file to another of them does nothing.
        let _ = self.remove_file(&temporary);
        replaced
    }

    pub(super) fn rename(&self, name: &OsStr, to: &OpenDirectory, new: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.file, name, &to.file, new)?)
    }

    /// Makes a hard link `new` in `to` to a file.
    pub(super) fn link(&self, name: &OsStr, to: &OpenDirectory, new: &OsStr) -> io::Result<()> {
        let made = linkat(&self.file, name, &to.file, new, AtFlags::empty());
        Ok(made?)
    }

    pub(super) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.file, name, AtFlags::empty())?)
    }

    pub(super) fn remove_directory(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.file, name, AtFlags::REMOVEDIR)?)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn open_name(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = retry_on_intr(|| openat(&self.file, name, flags, mode));
        opened
            .map(File::from)
            .map_err(|error| explain(&self.path.join(name), error))
    }

    /// Gives `file` the owner of a file of the directory, or of the directory itself. A command
    /// that root runs must not take files away from the user of the service.
    fn give_owner_of(&self, name: &OsStr, file: &File) -> io::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let model = match statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => fstat(&self.file)?,
            model => model?,
        };
        fchown(file, Some(model.st_uid), Some(model.st_gid))
    }
}

fn temporary_name() -> io::Result<OsString> {
    let random = crate::crypto::random::<8>().map_err(io::Error::from)?;
    let name = format!("{TEMPORARY_PREFIX}{}", crate::crypto::hex(&random));
    Ok(name.into())
}

/// The error of a symbolic link at a path.
pub(super) fn link_at(path: &Path) -> io::Error {
    io::Error::other(SymbolicLink(path.to_owned()))
}

/// The symbolic link that was in the way.
pub(super) fn link_in(error: &io::Error) -> Option<&SymbolicLink> {
    error.get_ref()?.downcast_ref()
}

fn open_with(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC;
    let opened = if has_openat2() {
        let resolve = ResolveFlags::NO_SYMLINKS;
        retry_on_intr(|| openat2(CWD, path, flags, mode, resolve))
    } else {
        open_by_component(path, flags, mode)
    };
    opened.map(File::from).map_err(|error| explain(path, error))
}

/// Linux has it since 5.6; some sandboxes refuse it.
fn has_openat2() -> bool {
    static HAS_OPENAT2: OnceLock<bool> = OnceLock::new();
    *HAS_OPENAT2.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).is_ok()
    })
}

/// The same in several steps.
fn open_by_component(path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        return openat(CWD, path, flags | OFlags::NOFOLLOW, mode);
    };
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = openat(CWD, "/", step, Mode::empty())?;
    for component in parent.components() {
        if let Component::Normal(name) = component {
            directory = openat(&directory, name, step, Mode::empty())?;
        }
    }
    let flags = flags | OFlags::NOFOLLOW;
    let opened = retry_on_intr(|| openat(&directory, name, flags, mode))?;
    // Opened so, a link is no error.
    let is_link = || Ok(FileType::from_raw_mode(fstat(&opened)?.st_mode) == FileType::Symlink);
    if flags.contains(OFlags::PATH) && is_link()? {
        return Err(Errno::LOOP);
    }
    Ok(opened)
}

/// The error, with the symbolic link that caused it.
fn explain(path: &Path, error: Errno) -> io::Error {
    // The latter without `openat2`.
    if matches!(error, Errno::LOOP | Errno::NOTDIR) {
        let mut above: Vec<_> = path.ancestors().collect();
        above.reverse();
        if let Some(link) = above.into_iter().find(|path| path.is_symlink()) {
            return link_at(link);
        }
    }
    error.into()
}

#[cfg(test)]
mod tests;
