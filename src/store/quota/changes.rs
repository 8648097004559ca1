//! The file by which the processes that have a store open tell each other what counts. Whoever holds
//! its lock reads what others have added, decides, and adds what it decided. It need not survive a
//! crash: what it says of a process that has ended does not count.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::event::{AreaEvent, ProcessId};
use crate::state_file::{FileLock, LOCK_TIMEOUT, LockMode, TEMPORARY_PREFIX};
use crate::store::files::{self, OpenDirectory};
use crate::store::layout::if_exists;

/// The file, as this process knows it.
#[derive(Debug)]
pub(super) struct SharedChanges {
    directory: PathBuf,
    process: ProcessId,
    /// Locked as long as the process has the store open.
    _alive: FileLock,
    /// The file that was read, and how far.
    position: Option<ReadPosition>,
}

#[derive(Clone, Debug)]
struct ReadPosition {
    header: Header,
    offset: u64,
    /// The length at which it is replaced by a shorter one.
    replaced_at: u64,
}

/// The first line of the file, which no other file has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header(String);

/// The locked file.
#[derive(Debug)]
pub(super) struct LockedChanges<'a> {
    changes: &'a mut SharedChanges,
    file: File,
    position: ReadPosition,
    _lock: FileLock,
}

/// What other processes have added.
#[derive(Debug, Default)]
pub(super) struct ForeignEvents {
    pub(super) events: Vec<AreaEvent>,
    /// Whether these are all that count, in place of those of before.
    pub(super) are_all: bool,
}

impl SharedChanges {
    /// Joins the processes that have the store open.
    pub(super) fn join(directory: PathBuf) -> io::Result<Self> {
        files::private_directory(&directory)?;
        let process = ProcessId::random()?;
        let path = directory.join(file_name(&process));
        loop {
            let file = files::open_or_create(&path)?;
            let identity = files::FileStatus::from(&file.metadata()?).identity;
            let lock = FileLock::acquire_open(file, LockMode::Exclusive, LOCK_TIMEOUT)?;
            // Another process may have found it without a lock, and removed it.
            if files::identity(&path)? == Some(identity) {
                return Ok(Self {
                    directory,
                    process,
                    _alive: lock,
                    position: None,
                });
            }
        }
    }

    pub(super) fn process(&self) -> &ProcessId {
        &self.process
    }

    /// Locks the file, and creates it if it does not exist. Blocks until `deadline`.
    ///
    /// Errors: `TimedOut`; those of the file system.
    pub(super) fn lock(
        &mut self,
        deadline: Instant,
    ) -> io::Result<(LockedChanges<'_>, ForeignEvents)> {
        let path = self.directory.join(CHANGES_FILE);
        let (file, lock) = loop {
            let file = files::open_or_create(&path)?;
            let identity = files::FileStatus::from(&file.metadata()?).identity;
            let left = deadline.saturating_duration_since(Instant::now());
            let lock = FileLock::acquire_open(file.try_clone()?, LockMode::Exclusive, left)?;
            // It may have been replaced during the wait.
            if files::identity(&path)? == Some(identity) {
                break (file, lock);
            }
        };
        let mut length = file.metadata()?.len();
        let header = Header::read(&file, length)?;
        let known = self.position.take();
        let known = known.filter(|position| Some(&position.header) == header.as_ref());
        let known = known.filter(|position| position.offset <= length);
        let is_new = known.is_none();
        let mut position = match (known, header) {
            (Some(known), _) => known,
            (None, Some(header)) => ReadPosition::after(header, length),
            (None, None) => {
                let header = Header::random()?;
                file.set_len(0)?;
                file.write_all_at(header.0.as_bytes(), 0)?;
                length = HEADER_BYTES;
                ReadPosition::after(header, 0)
            }
        };
        let added = length.saturating_sub(position.offset);
        let mut bytes = vec![0; usize::try_from(added).map_err(|_| TOO_LONG)?];
        file.read_exact_at(&mut bytes, position.offset)?;
        position.offset += added;
        let text = String::from_utf8_lossy(&bytes);
        let events = text.split('\n').filter_map(AreaEvent::parse);
        let events = events.filter(|event| *event.process() != self.process);
        let foreign = ForeignEvents {
            events: events.collect(),
            are_all: is_new,
        };
        self.position = Some(position.clone());
        let locked = LockedChanges {
            changes: self,
            file,
            position,
            _lock: lock,
        };
        Ok((locked, foreign))
    }

    /// Whether a process has ended.
    pub(super) fn is_dead(&self, process: &ProcessId) -> io::Result<bool> {
        if *process == self.process {
            return Ok(false);
        }
        let path = self.directory.join(file_name(process));
        let Some(file) = if_exists(files::open(&path))? else {
            return Ok(true);
        };
        Ok(FileLock::acquire_open(file, LockMode::Exclusive, Duration::ZERO).is_ok())
    }

    /// Removes what processes that have ended left behind.
    pub(super) fn remove_remains(&self) -> io::Result<()> {
        let directory = OpenDirectory::open(&self.directory)?;
        for name in directory.names()? {
            let name = name?;
            let text = name.to_string_lossy();
            let process = text.strip_prefix(PROCESS_PREFIX).and_then(ProcessId::parse);
            let is_dead = process.is_some_and(|process| self.is_dead(&process).unwrap_or(false));
            if is_dead || text.starts_with(TEMPORARY_PREFIX) {
                if_exists(directory.remove_file(&name))?;
            }
        }
        Ok(())
    }

    /// Leaves the other processes.
    pub(super) fn leave(&self) -> io::Result<()> {
        let path = self.directory.join(file_name(&self.process));
        if_exists(files::remove_file(&path)).map(drop)
    }
}

impl LockedChanges<'_> {
    /// Adds events. If that fails, other processes may have read none or some of them.
    pub(super) fn add(&mut self, events: &[AreaEvent]) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        // A process may have died before the end of its line.
        let mut text = String::from("\n");
        for event in events {
            text.push_str(&event.to_string());
        }
        self.file
            .write_all_at(text.as_bytes(), self.position.offset)?;
        self.position.offset += text.len() as u64;
        self.changes.position = Some(self.position.clone());
        Ok(())
    }

    /// Replaces the file, if it has become long, by one with only these events.
    pub(super) fn shorten(self, events: impl FnOnce() -> Vec<AreaEvent>) -> io::Result<()> {
        if self.position.offset < self.position.replaced_at {
            return Ok(());
        }
        let header = Header::random()?;
        let events = events();
        let lines = events.iter().map(AreaEvent::to_string);
        let text: String = std::iter::once(header.0.clone()).chain(lines).collect();
        let path = self.changes.directory.join(CHANGES_FILE);
        files::replace(&path, text.as_bytes())?;
        let length = text.len() as u64;
        self.changes.position = Some(ReadPosition {
            offset: length,
            ..ReadPosition::after(header, length)
        });
        Ok(())
    }
}

impl ReadPosition {
    /// After the header of a file of this length.
    fn after(header: Header, length: u64) -> Self {
        Self {
            header,
            offset: HEADER_BYTES,
            replaced_at: REPLACED_BYTES.saturating_add(length.saturating_mul(2)),
        }
    }
}

impl Header {
    fn random() -> io::Result<Self> {
        Ok(Self(format!("{}\n", ProcessId::random()?.as_str())))
    }

    /// `None`: the file is new.
    fn read(file: &File, length: u64) -> io::Result<Option<Self>> {
        if length < HEADER_BYTES {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_LENGTH];
        file.read_exact_at(&mut bytes, 0)?;
        let text = std::str::from_utf8(&bytes).ok();
        let is_header = |text: &&str| {
            let id = text.strip_suffix('\n').and_then(ProcessId::parse);
            id.is_some()
        };
        Ok(text.filter(is_header).map(|text| Self(text.to_owned())))
    }
}

fn file_name(process: &ProcessId) -> PathBuf {
    let name = format!("{PROCESS_PREFIX}{}", process.as_str());
    Path::new(OsStr::new(&name)).to_owned()
}

const CHANGES_FILE: &str = "changes";
/// 16 digits and the end of the line.
const HEADER_LENGTH: usize = 17;
const HEADER_BYTES: u64 = HEADER_LENGTH as u64;
const PROCESS_PREFIX: &str = "process-";
/// About 10,000 events. Tests come to more than one file.
const REPLACED_BYTES: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };
const TOO_LONG: io::ErrorKind = io::ErrorKind::FileTooLarge;
