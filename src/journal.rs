//! What went through the gate: when each tag and each manifest was last pushed and pulled. Kept in
//! a database of its own for each registry, to which several processes add.

mod database;
mod error;
mod file;
mod pending;
mod times;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use self::database::{RecordedSince, UseKey, Writing};
use self::file::JournalFile;
use self::pending::{PendingUses, RepositoryUses, UsesByRepository};
use self::times::UseTimes;
use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};
use crate::state_file::private_directory;

pub use self::error::JournalError;

/// The journal of one registry. Uses are counted in memory and written by [`Self::flush`], once a
/// minute: a process that is killed loses the last minute. The file is open only for a flush or a
/// read, under a lock, since several processes may share it.
#[derive(Debug)]
pub struct Journal {
    file: JournalFile,
    pending: PendingUses,
    /// Held by the first flush, from when it takes what is pending until the file has it.
    first_flush: Mutex<()>,
    /// How many tags and manifests it remembers; `None`: as many as the registry has.
    max_entries: Option<usize>,
}

/// What is known of the use of a repository.
#[derive(Clone, Debug, Default)]
pub struct RepositoryHistory {
    pub tags: HashMap<Tag, Use>,
    pub manifests: HashMap<Digest, Use>,
}

/// What was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used<'a> {
    Tag(&'a Tag),
    Manifest(&'a Digest),
}

/// The last push and pull. `None`: unknown, but not after [`Journal::recorded_since`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    pub pushed: Option<Timestamp>,
    pub pulled: Option<Timestamp>,
}

/// A pull from a record of another form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImportedPull {
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
    /// In seconds since 1970.
    pub(crate) at: u64,
}

impl Journal {
    /// The journal in a file, which the first flush creates. The directory must exist by then.
    pub fn new(path: PathBuf) -> Self {
        Self {
            file: JournalFile::new(path),
            pending: PendingUses::default(),
            first_flush: Mutex::default(),
            max_entries: None,
        }
    }

    /// As [`Self::new`], for a registry whose content others know: it remembers at most
    /// [`MAX_ENTRIES`] uses, and makes the directory.
    pub(crate) fn bounded(path: PathBuf) -> Self {
        Self {
            max_entries: Some(MAX_ENTRIES),
            ..Self::new(path)
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// A client has pulled a manifest now, by this tag or by its digest. `digest` is `None` if only
    /// the registry knows where the tag leads.
    pub fn pulled<'d>(
        &self,
        repository: &RepositoryName,
        tag: Option<&Tag>,
        digest: impl Into<Option<&'d Digest>>,
    ) {
        let times = UseTimes::pulled(times::now());
        self.pending.add(repository, tag, digest.into(), times);
    }

    /// A client has pushed a manifest now, and set these tags to it.
    pub fn pushed<'u>(
        &self,
        repository: &RepositoryName,
        tags: impl IntoIterator<Item = &'u Tag>,
        digest: impl Into<Option<&'u Digest>>,
    ) {
        let times = UseTimes::pushed(times::now());
        self.pending.add(repository, tags, digest.into(), times);
    }

    /// Whether so much is pending that a flush is due before its time.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.is_full()
    }

    /// Writes what was recorded to the disk, merged with what other processes have written. What
    /// cannot be written now stays pending. Blocks on the disk and on other processes.
    pub fn flush(&self) -> Result<(), JournalError> {
        self.flush_at(times::now())
    }

    fn flush_at(&self, now: u32) -> Result<(), JournalError> {
        // A machine without a clock of its own starts in 1970. What it counts would seem old for
        // ever, and the record long.
        if now < FIRST_PLAUSIBLE_TIME || (self.pending.is_empty() && self.file.is_known()) {
            return Ok(());
        }
        self.create_directory()?;
        let _first = self.before_first_flush();
        let file = self.file.lock()?;
        let (overflowed, mut uses) = (self.pending.take_overflow(), self.pending.take());
        correct(&mut uses, now);
        let written = file.write(now, |writing| {
            writing.add(&uses, now)?;
            writing.correct_since(now)?;
            if overflowed {
                writing.set_since(RecordedSince::from_start(now))?;
            }
            self.remove_oldest(writing)
        });
        if written.is_err() {
            self.pending.put_back(uses);
            if overflowed {
                self.pending.put_overflow_back();
            }
        }
        written
    }

    /// The history of a repository, with what is not yet written. Blocks on the disk.
    pub fn history(&self, repository: &RepositoryName) -> Result<RepositoryHistory, JournalError> {
        self.history_at(repository, times::now())
    }

    fn history_at(
        &self,
        repository: &RepositoryName,
        now: u32,
    ) -> Result<RepositoryHistory, JournalError> {
        let (uses, since) = self.uses(repository, now)?;
        let RepositoryUses { tags, manifests } = uses;
        let tags = tags.into_iter();
        let manifests = manifests.into_iter();
        Ok(RepositoryHistory {
            tags: tags
                .map(|(tag, times)| (tag, shown(times, since, now)))
                .collect(),
            manifests: manifests
                .map(|(digest, times)| (digest, shown(times, since, now)))
                .collect(),
        })
    }

    /// Visits what [`Self::history`] has, in no particular order, in half the memory: for
    /// repositories with a hundred thousand tags. Blocks on the disk.
    pub(crate) fn each_use(
        &self,
        repository: &RepositoryName,
        mut visit: impl FnMut(Used<'_>, Use),
    ) -> Result<(), JournalError> {
        let now = times::now();
        let (uses, since) = self.uses(repository, now)?;
        for (tag, times) in &uses.tags {
            visit(Used::Tag(tag), shown(*times, since, now));
        }
        for (digest, times) in &uses.manifests {
            visit(Used::Manifest(digest), shown(*times, since, now));
        }
        Ok(())
    }

    /// The uses of a repository, and since when they are complete.
    fn uses(
        &self,
        repository: &RepositoryName,
        now: u32,
    ) -> Result<(RepositoryUses, Option<RecordedSince>), JournalError> {
        if let Some(_first) = self.before_first_flush() {
            return Ok((self.pending.of(repository), None));
        }
        // While it is locked, nobody flushes what is pending.
        let file = self.file.lock()?;
        let written = file.read(now, |reading| {
            Ok((reading.repository(repository)?, reading.since(now)?))
        })?;
        let mut uses = self.pending.of(repository);
        let Some((written, since)) = written else {
            return Ok((uses, None));
        };
        uses.merge(written);
        Ok((uses, Some(since)))
    }

    /// The last use of a tag. Blocks on the disk.
    pub(crate) fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Use, JournalError> {
        let now = times::now();
        if let Some(_first) = self.before_first_flush() {
            return Ok(shown(self.pending.of_tag(repository, tag), None, now));
        }
        // While it is locked, nobody flushes what is pending.
        let file = self.file.lock()?;
        let written = file.read(now, |reading| {
            Ok((reading.tag(repository, tag)?, reading.since(now)?))
        })?;
        let (written, since) = written.unzip();
        let mut times = written.unwrap_or_default();
        times.merge(self.pending.of_tag(repository, tag));
        Ok(shown(times, since, now))
    }

    /// Since when every push and pull has been recorded without a gap. Blocks on the disk.
    pub fn recorded_since(&self) -> Result<Option<Timestamp>, JournalError> {
        let since = self.since(times::now())?;
        Ok(since.and_then(|since| times::timestamp(since.all.max(1))))
    }

    /// Since when every pull of a manifest has been recorded, although perhaps not of its tags.
    /// Blocks on the disk.
    pub(crate) fn manifest_pulls_since(&self) -> Result<Option<Timestamp>, JournalError> {
        let since = self.since(times::now())?;
        Ok(since.and_then(|since| times::timestamp(since.manifest_pulls.max(1))))
    }

    fn since(&self, now: u32) -> Result<Option<RecordedSince>, JournalError> {
        if !self.file.exists() {
            return Ok(None);
        }
        let file = self.file.lock()?;
        file.read(now, |reading| reading.since(now))
    }

    /// The repositories of which uses were written, in order. Blocks on the disk.
    pub(crate) fn repositories(&self) -> Result<Vec<RepositoryName>, JournalError> {
        if !self.file.exists() {
            return Ok(Vec::new());
        }
        let file = self.file.lock()?;
        let found = file.read(times::now(), |reading| reading.repositories())?;
        Ok(found.unwrap_or_default())
    }

    /// Forgets the tags and manifests of a repository for which `exists` is false, unless they were
    /// used in the last hour: then they may be newer than what the caller knows. Blocks.
    pub(crate) fn prune(
        &self,
        repository: &RepositoryName,
        tag_exists: impl Fn(&Tag) -> bool,
        manifest_exists: impl Fn(&Digest) -> bool,
    ) -> Result<(), JournalError> {
        let now = times::now();
        let before = now.saturating_sub(MIN_PRUNE_AGE);
        let (uses, _) = self.uses(repository, now)?;
        let is_old = |times: &UseTimes| times.latest() < before;
        let tags = uses.tags.iter();
        let tags = tags.filter(|(tag, times)| is_old(times) && !tag_exists(tag));
        let manifests = uses.manifests.iter();
        let manifests =
            manifests.filter(|(digest, times)| is_old(times) && !manifest_exists(digest));
        let gone = tags
            .map(|(tag, _)| Reference::Tag(tag.clone()))
            .chain(manifests.map(|(digest, _)| Reference::Digest(digest.clone())));
        let gone: Vec<UseKey> = gone
            .map(|reference| UseKey {
                repository: repository.clone(),
                reference,
            })
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let file = self.file.lock()?;
        file.write(now, |writing| writing.remove(&gone, before))
    }

    /// Takes over a record of pulls of manifests, which has none of tags: all that is recorded is
    /// complete from now on only. If it is itself complete and the first of this journal, the pulls
    /// of manifests are so from its beginning. Blocks.
    pub(crate) fn import(
        &self,
        pulls: &[ImportedPull],
        is_complete: bool,
    ) -> Result<(), JournalError> {
        let now = times::now();
        let mut uses = UsesByRepository::new();
        for ImportedPull {
            repository,
            digest,
            at,
        } in pulls
        {
            let at = u32::try_from(*at).unwrap_or(u32::MAX).min(now);
            let known = uses.entry(repository.clone()).or_default();
            let known = known.manifests.entry(digest.clone()).or_default();
            known.merge(UseTimes::pulled(at));
        }
        let is_first = !self.file.was_ever_used();
        let file = self.file.lock()?;
        file.write(now, |writing| {
            writing.add(&uses, now)?;
            let known = writing.since()?;
            writing.set_since(RecordedSince {
                all: now,
                manifest_pulls: match (is_complete, is_first) {
                    (true, true) => 0,
                    (true, false) => known.manifest_pulls,
                    (false, _) => now,
                },
            })
        })
    }

    /// Ends the record of a registry that is served without one: it is incomplete from now on. A
    /// later one begins with what is known. Blocks.
    pub(crate) fn end(path: &Path) -> Result<(), JournalError> {
        let file = JournalFile::new(path.to_owned());
        if !file.exists() {
            return Ok(());
        }
        file.lock()?.end()
    }

    /// `None`: there is a file, whose lock shows whether a flush goes on.
    fn before_first_flush(&self) -> Option<MutexGuard<'_, ()>> {
        if self.file.exists() {
            return None;
        }
        let first = self.first_flush.lock();
        let first = first.unwrap_or_else(PoisonError::into_inner);
        (!self.file.exists()).then_some(first)
    }

    fn create_directory(&self) -> Result<(), JournalError> {
        if self.max_entries.is_none() || self.file.has_directory() {
            return Ok(());
        }
        private_directory(self.file.directory()).map_err(|source| JournalError::Io {
            path: self.file.path().to_owned(),
            source,
        })
    }

    /// What was used last stays, and the record is complete from the newest that went.
    fn remove_oldest(&self, writing: &Writing) -> Result<(), database::DatabaseFailure> {
        let Some(max) = self.max_entries else {
            return Ok(());
        };
        let Some(newest) = writing.remove_oldest(max)? else {
            return Ok(());
        };
        let known = writing.since()?;
        writing.set_since(RecordedSince {
            all: known.all.max(newest),
            manifest_pulls: known.manifest_pulls.max(newest),
        })
    }
}

/// Uses that were counted before the clock was set count as now.
fn correct(uses: &mut UsesByRepository, now: u32) {
    let correct = |seconds: &mut u32| {
        if (1..FIRST_PLAUSIBLE_TIME).contains(seconds) || *seconds > now {
            *seconds = now;
        }
    };
    for repository in uses.values_mut() {
        let tags = repository.tags.values_mut();
        for times in tags.chain(repository.manifests.values_mut()) {
            correct(&mut times.pushed);
            correct(&mut times.pulled);
        }
    }
}

/// A push before the record was complete may not have been the last one, so that it counts as
/// unknown. A pull is one in any case.
fn shown(times: UseTimes, since: Option<RecordedSince>, now: u32) -> Use {
    let UseTimes { pushed, pulled } = times.until(now);
    let is_last = since.is_none_or(|since| pushed >= since.all);
    Use {
        pushed: times::timestamp(pushed).filter(|_| is_last),
        pulled: times::timestamp(pulled),
    }
}

/// About 150 MiB on the disk.
const MAX_ENTRIES: usize = 1_000_000;
/// Longer than between any inventory and the prune that follows it, in seconds.
const MIN_PRUNE_AGE: u32 = 60 * 60;
/// The beginning of 2026: no clock that is right shows an earlier time.
const FIRST_PLAUSIBLE_TIME: u32 = 1_767_225_600;

#[cfg(test)]
mod tests;
