//! Events of directories, by inotify: what is created, written, renamed, deleted in them, and what
//! happens to the directories themselves.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Events of a set of directories.
#[derive(Debug)]
pub(super) struct DirectoryEvents {
    queue: AsyncFd<OwnedFd>,
    /// The paths that led to each watched directory.
    watches: HashMap<i32, BTreeSet<PathBuf>>,
    is_full: bool,
}

impl DirectoryEvents {
    /// Needs a runtime.
    #[expect(
        deprecated,
        reason = "unsound for types whose descriptor changes, which that of `OwnedFd` does not"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self {
            queue: AsyncFd::new(queue)?,
            watches: HashMap::new(),
            is_full: false,
        })
    }

    /// Watches these directories and no others. Those that cannot be watched are left to polling.
    pub(super) fn watch(&mut self, directories: &BTreeSet<PathBuf>) {
        let mut watches: HashMap<i32, BTreeSet<PathBuf>> = HashMap::new();
        let mut is_full = false;
        for directory in directories {
            match inotify::add_watch(self.queue.get_ref(), directory.as_path(), WATCHED) {
                Ok(watch) => {
                    watches.entry(watch).or_default().insert(directory.clone());
                }
                Err(error) => is_full |= error == Errno::NOSPC,
            }
        }
        if is_full && !self.is_full {
            tracing::warn!(
                "too few inotify watches, changes of some files are found by polling: raise fs.inotify.max_user_watches"
            );
        }
        self.is_full = is_full;
        for old in self
            .watches
            .keys()
            .filter(|old| !watches.contains_key(*old))
        {
            // The kernel has removed that of a deleted directory.
            let _ = inotify::remove_watch(self.queue.get_ref(), *old);
        }
        self.watches = watches;
    }

    /// The paths to which something happened since the last call: entries of directories, or
    /// directories themselves. Cancel-safe.
    pub(super) async fn next(&mut self) -> Vec<PathBuf> {
        loop {
            let Ok(mut ready) = self.queue.readable().await else {
                return std::future::pending().await;
            };
            let mut buffer = [MaybeUninit::<u8>::uninit(); EVENT_BUFFER_BYTES];
            let mut reader = Reader::new(self.queue.get_ref(), &mut buffer);
            let mut changed = Vec::new();
            while let Ok(event) = reader.next() {
                let name = event
                    .file_name()
                    .map(|name| OsStr::from_bytes(name.to_bytes()));
                if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    changed.extend(self.watches.values().flatten().cloned());
                }
                let directories = self.watches.get(&event.wd()).into_iter().flatten();
                changed.extend(directories.map(|directory| match name {
                    Some(name) if directory.as_os_str() == "." => PathBuf::from(name),
                    Some(name) => directory.join(name),
                    None => directory.clone(),
                }));
            }
            ready.clear_ready();
            if !changed.is_empty() {
                return changed;
            }
        }
    }
}

/// Not each write: a file is read when it has been closed.
const WATCHED: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);

const EVENT_BUFFER_BYTES: usize = 4096;
