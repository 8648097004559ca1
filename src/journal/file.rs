//! The file of a journal and its previous generation, a copy that is made once a day. What is
//! damaged is moved aside, and the previous generation takes its place. All of it happens under the
//! lock of the journal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

use super::database::{self, DatabaseFailure, IntegrityCheck, Reading, RecordedSince, Writing};
use super::error::JournalError;
use super::times;
use crate::state_file::{
    FileLock, Fingerprint, LOCK_TIMEOUT, LockMode, TEMPORARY_PREFIX, give_owner_of,
};

/// The file of a journal, which several processes share.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    /// As this process has last left or checked it.
    known: Mutex<Option<Fingerprint>>,
    /// When this process began to record, in seconds since 1970.
    started: u32,
}

/// The file while nobody else uses it.
pub(super) struct LockedFile<'a> {
    file: &'a JournalFile,
    _lock: FileLock,
}

impl JournalFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            known: Mutex::default(),
            started: times::now(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is as this process has last left it.
    pub(super) fn is_known(&self) -> bool {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.is_some() && known == self.fingerprint()
    }

    pub(super) fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Whether there is or was a journal here.
    pub(super) fn was_ever_used(&self) -> bool {
        self.exists() || self.lock_path().symlink_metadata().is_ok()
    }

    fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// Waits for other processes, for [`LOCK_TIMEOUT`] at most.
    pub(super) fn lock(&self) -> Result<LockedFile<'_>, JournalError> {
        let locked = open_to_write(&self.lock_path(), true)
            .and_then(|file| FileLock::acquire_open(file, LockMode::Exclusive, LOCK_TIMEOUT));
        Ok(LockedFile {
            file: self,
            _lock: locked.map_err(|source| self.unusable(source))?,
        })
    }

    /// Whether there is a directory for it.
    pub(super) fn has_directory(&self) -> bool {
        self.directory().is_dir()
    }

    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn unusable(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn failed(&self, failure: DatabaseFailure) -> JournalError {
        match failure {
            DatabaseFailure::Io(source) => self.unusable(source),
            DatabaseFailure::Damaged(cause) => JournalError::Damaged {
                path: self.path.clone(),
                cause,
            },
        }
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Fingerprint::from_path(&self.path)
    }

    fn integrity_check(&self) -> IntegrityCheck {
        if self.is_known() {
            IntegrityCheck::Done
        } else {
            IntegrityCheck::Needed
        }
    }

    fn remember(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = self.fingerprint();
    }

    fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Since when a record is complete that begins now: since the start, unless there was a file
    /// after it.
    fn begin(&self, now: u32) -> u32 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return now;
        }
        self.started.min(now)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

impl LockedFile<'_> {
    /// Runs `work` on a transaction and commits it. Creates the file if it does not exist.
    pub(super) fn write<T>(
        &self,
        now: u32,
        work: impl Fn(&Writing) -> Result<T, DatabaseFailure>,
    ) -> Result<T, JournalError> {
        self.create_if_missing(self.file.begin(now))?;
        let done = self.repaired(now, || {
            let check = self.file.integrity_check();
            let done = database::write(self.open()?, check, &work)?;
            self.file.remember();
            Ok(done)
        })?;
        self.copy_if_due();
        Ok(done)
    }

    /// Runs `work` on what was committed. `None`: there is no file.
    pub(super) fn read<T>(
        &self,
        now: u32,
        work: impl Fn(&Reading) -> Result<T, DatabaseFailure>,
    ) -> Result<Option<T>, JournalError> {
        if !self.file.exists() {
            return Ok(None);
        }
        let done = self.repaired(now, || {
            if !self.file.is_known() {
                database::check(self.open()?)?;
                self.file.remember();
            }
            database::read(self.open()?, &work)
        })?;
        Ok(Some(done))
    }

    /// Ends the record: the file becomes the previous generation.
    pub(super) fn end(&self) -> Result<(), JournalError> {
        if !self.file.exists() {
            // Another process has ended it.
            return Ok(());
        }
        let moved = std::fs::rename(&self.file.path, self.previous());
        let moved = moved.and_then(|()| self.sync_directory());
        moved.map_err(|source| self.file.unusable(source))
    }

    /// Does `work`, and again after a damaged file is replaced.
    fn repaired<T>(
        &self,
        now: u32,
        work: impl Fn() -> Result<T, DatabaseFailure>,
    ) -> Result<T, JournalError> {
        let mut replaced = false;
        loop {
            match work() {
                Ok(done) => return Ok(done),
                Err(DatabaseFailure::Damaged(cause)) if !replaced => {
                    self.replace_damaged(&cause, now)?;
                    replaced = true;
                }
                Err(failure) => return Err(self.file.failed(failure)),
            }
        }
    }

    /// Moves the file aside, in the place of one that was damaged before, and starts again.
    fn replace_damaged(&self, cause: &str, now: u32) -> Result<(), JournalError> {
        let aside = self.file.beside(".damaged");
        std::fs::rename(&self.file.path, &aside).map_err(|source| self.file.unusable(source))?;
        let restored = self.create_if_missing(now)?;
        tracing::error!(
            path = %self.file.path.display(),
            moved_to = %aside.display(),
            cause,
            restored = if restored { "the copy of at most a day ago" } else { "nothing" },
            "journal of pushes and pulls was damaged, times begin anew"
        );
        Ok(())
    }

    /// Creates the file if it does not exist, from its previous generation if there is a good one.
    /// What was used since is unknown in any case: the record begins at `since`. Returns whether the
    /// previous generation was used.
    fn create_if_missing(&self, since: u32) -> Result<bool, JournalError> {
        if self.file.exists() {
            return Ok(false);
        }
        let restored = match self.create(Some(&self.previous()), since) {
            Ok(restored) => restored,
            Err(DatabaseFailure::Damaged(_)) => {
                let created = self.create(None, since);
                created.map_err(|failure| self.file.failed(failure))?
            }
            Err(failure) => return Err(self.file.failed(failure)),
        };
        Ok(restored)
    }

    /// Creates the file with what another one has. It appears whole or not at all.
    fn create(&self, from: Option<&Path>, since: u32) -> Result<bool, DatabaseFailure> {
        let new = self.temporary_file()?;
        let mut model = from.map(open_to_read).transpose();
        if model
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            model = Ok(None);
        }
        let mut model = model?;
        if let Some(model) = &mut model {
            io::copy(model, &mut new.as_file())?;
        }
        let check = match model {
            Some(_) => IntegrityCheck::Needed,
            None => IntegrityCheck::Done,
        };
        let begun = |writing: &Writing| {
            if model.is_some() {
                // Whether it is a journal at all.
                writing.since()?;
            }
            writing.set_since(RecordedSince::from_start(since))
        };
        database::write(new.reopen()?, check, begun)?;
        self.publish(new, &self.file.path)?;
        self.file.remember();
        Ok(model.is_some())
    }

    /// Copies the file, which is good, if the last copy is a day old. A failure costs the copy alone.
    fn copy_if_due(&self) {
        let age = self
            .previous()
            .symlink_metadata()
            .and_then(|data| data.modified());
        // A time in the future is one of a clock that was wrong.
        let age = age.map(|at| at.elapsed());
        if matches!(age, Ok(Ok(age)) if age < COPY_INTERVAL) {
            return;
        }
        if let Err(failure) = self.copy() {
            let path = self.previous();
            tracing::error!(path = %path.display(), cause = %failure, "copy of the journal not written");
        }
    }

    fn copy(&self) -> Result<(), DatabaseFailure> {
        // A page that the disk has lost would be copied, too.
        if let Err(failure) = database::check(self.open()?) {
            // The next use checks it again, and replaces it if it is damaged.
            self.file.forget();
            return Err(failure);
        }
        self.file.remember();
        let new = self.temporary_file()?;
        io::copy(&mut open_to_read(&self.file.path)?, &mut new.as_file())?;
        Ok(self.publish(new, &self.previous())?)
    }

    fn open(&self) -> Result<File, DatabaseFailure> {
        let file = open_to_write(&self.file.path, false)?;
        if file.metadata()?.len() == 0 {
            // The library would take it for a new one.
            return Err(DatabaseFailure::Damaged("it is empty".to_owned()));
        }
        Ok(file)
    }

    fn previous(&self) -> PathBuf {
        self.file.beside(".previous")
    }

    fn temporary_file(&self) -> io::Result<tempfile::NamedTempFile> {
        let directory = self.file.directory();
        let new = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(directory)?;
        give_owner_of(directory, new.as_file())?;
        Ok(new)
    }

    fn publish(&self, new: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
        new.as_file().sync_all()?;
        new.persist(path).map_err(|error| error.error)?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.file.directory())?.sync_all()
    }
}

fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Opens a file that may be written, itself and no other that it links to.
fn open_to_write(path: &Path, create: bool) -> io::Result<File> {
    let is_new = create && path.symlink_metadata().is_err();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    if let (true, Some(directory)) = (is_new, path.parent()) {
        give_owner_of(directory, &file)?;
    }
    Ok(file)
}

/// As often as the file is checked although nobody else has written it.
const COPY_INTERVAL: Duration = Duration::from_hours(24);
