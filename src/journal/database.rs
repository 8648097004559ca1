//! The tables of a journal in a redb database. A failure says whether the file is damaged, or merely
//! cannot be used now: only a damaged one is ever replaced.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};

use super::pending::{RepositoryUses, UsesByRepository};
use super::times::UseTimes;
use crate::registry::name::RepositoryName;
use crate::registry::reference::{Reference, Tag};

/// Repository and reference.
type JournalKey = (&'static str, &'static str);
/// The last push and the last pull.
type StoredTimes = (u32, u32);

const USES: TableDefinition<JournalKey, StoredTimes> = TableDefinition::new("uses");
/// Has one entry. Of the same types: the code of a table is compiled for each pair of types.
const SINCE: TableDefinition<JournalKey, StoredTimes> = TableDefinition::new("since");

/// Why the database did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseFailure {
    /// Its file holds what no writer has left there.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The file cannot be used now.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Since when the record is complete, in seconds since 1970; 0 of manifests imported from a store
/// that has always recorded them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordedSince {
    /// Every push and pull.
    pub(super) all: u32,
    /// The pulls of manifests by their digests and tags, although not of which tags.
    pub(super) manifest_pulls: u32,
}

impl RecordedSince {
    pub(super) fn from_start(now: u32) -> Self {
        Self {
            all: now,
            manifest_pulls: now,
        }
    }

    /// A start in the future is one by a clock that was wrong.
    fn until(self, now: u32) -> Self {
        Self {
            all: self.all.min(now),
            manifest_pulls: self.manifest_pulls.min(now),
        }
    }
}

/// A reference of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UseKey {
    pub(super) repository: RepositoryName,
    pub(super) reference: Reference,
}

/// Whether a file is checked before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntegrityCheck {
    /// Every page is read and checked.
    Needed,
    /// This process has left the file as it is.
    Done,
}

/// Runs `work` on a writable transaction of the database in `file`, and commits it.
pub(super) fn write<T>(
    file: File,
    check: IntegrityCheck,
    work: impl FnOnce(&Writing) -> Result<T, DatabaseFailure>,
) -> Result<T, DatabaseFailure> {
    caught(|| {
        let mut database = open(file)?;
        if check == IntegrityCheck::Needed {
            is_whole(&mut database)?;
        }
        let transaction = database.begin_write().map_err(failed)?;
        let writing = Writing { transaction };
        let done = work(&writing)?;
        writing.transaction.commit().map_err(failed)?;
        database.close().map_err(failed)?;
        Ok(done)
    })
}

/// Checks every page of the database in `file`. Writes nothing but the mark of a file that is in
/// use, so that a full disk is in nobody's way.
pub(super) fn check(file: File) -> Result<(), DatabaseFailure> {
    caught(|| {
        let mut database = open(file)?;
        is_whole(&mut database)?;
        let reading = Reading {
            transaction: database.begin_read().map_err(failed)?,
        };
        reading.since(u32::MAX)?;
        reading.uses()?;
        Ok(())
    })
}

fn is_whole(database: &mut Database) -> Result<(), DatabaseFailure> {
    if database.check_integrity().map_err(failed)? {
        return Ok(());
    }
    let text = "a page did not match its checksum".to_owned();
    Err(DatabaseFailure::Damaged(text))
}

/// Runs `work` on the database in `file`, which a writer has closed or [`check`] has found good.
pub(super) fn read<T>(
    file: File,
    work: impl FnOnce(&Reading) -> Result<T, DatabaseFailure>,
) -> Result<T, DatabaseFailure> {
    caught(|| {
        let backend = FileBackend::new(file.try_clone()?).map_err(failed)?;
        let opened = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .open_read_only_with_backend(backend);
        let transaction = match opened {
            Ok(database) => database.begin_read(),
            // Nobody has closed it: on a full disk, or because its process was killed.
            Err(DatabaseError::RepairAborted) => {
                return open(file)?
                    .begin_read()
                    .map_err(failed)
                    .and_then(|transaction| work(&Reading { transaction }));
            }
            Err(error) => return Err(failed(error)),
        };
        let transaction = transaction.map_err(failed)?;
        work(&Reading { transaction })
    })
}

/// The library panics on some files that are not as it has written them.
fn caught<T>(work: impl FnOnce() -> Result<T, DatabaseFailure>) -> Result<T, DatabaseFailure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let text = "the database library panicked".to_owned();
        Err(DatabaseFailure::Damaged(text))
    })
}

fn open(file: File) -> Result<Database, DatabaseFailure> {
    let backend = FileBackend::new(file).map_err(failed)?;
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend)
        .map_err(failed)
}

fn failed(error: impl Into<redb::Error>) -> DatabaseFailure {
    match error.into() {
        redb::Error::Io(error) if is_damage(error.kind()) => {
            DatabaseFailure::Damaged(error.to_string())
        }
        redb::Error::Io(error) => DatabaseFailure::Io(error),
        busy @ (redb::Error::DatabaseAlreadyOpen
        | redb::Error::LockProtocolMismatch
        | redb::Error::TransactionInProgress
        | redb::Error::PreviousIo
        | redb::Error::RepairAborted
        | redb::Error::Backend(_)
        | redb::Error::Unsupported
        | redb::Error::WouldBlock) => DatabaseFailure::Io(io::Error::other(busy)),
        other => DatabaseFailure::Damaged(other.to_string()),
    }
}

/// Errors that a file has by its content.
fn is_damage(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
    )
}

/// A transaction that reads.
pub(super) struct Reading {
    transaction: ReadTransaction,
}

impl Reading {
    fn uses(&self) -> Result<ReadOnlyTable<JournalKey, StoredTimes>, DatabaseFailure> {
        self.transaction.open_table(USES).map_err(failed)
    }

    pub(super) fn since(&self, now: u32) -> Result<RecordedSince, DatabaseFailure> {
        let table = self.transaction.open_table(SINCE).map_err(failed)?;
        Ok(since(&table)?.until(now))
    }

    pub(super) fn tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<UseTimes, DatabaseFailure> {
        let key = (repository.as_str(), tag.as_str());
        let found = self.uses()?.get(key).map_err(failed)?;
        Ok(found.map_or_else(UseTimes::default, |times| use_times(times.value())))
    }

    pub(super) fn repository(
        &self,
        repository: &RepositoryName,
    ) -> Result<RepositoryUses, DatabaseFailure> {
        let mut found = RepositoryUses::default();
        let name = repository.as_str();
        // `~` and what follows it are in no reference.
        for entry in self
            .uses()?
            .range((name, "")..(name, "~"))
            .map_err(failed)?
        {
            let (key, times) = entry.map_err(failed)?;
            let times = use_times(times.value());
            match reference(key.value().1)? {
                Reference::Tag(tag) => drop(found.tags.insert(tag, times)),
                Reference::Digest(digest) => drop(found.manifests.insert(digest, times)),
            }
        }
        Ok(found)
    }

    /// The repositories that have uses, in order.
    pub(super) fn repositories(&self) -> Result<Vec<RepositoryName>, DatabaseFailure> {
        let table = self.uses()?;
        let mut found: Vec<RepositoryName> = Vec::new();
        loop {
            let last = found.last().map_or("", RepositoryName::as_str);
            let next = table.range((last, "~")..).map_err(failed)?.next();
            let Some(entry) = next else {
                return Ok(found);
            };
            let (key, _) = entry.map_err(failed)?;
            let name = RepositoryName::parse(key.value().0);
            found.push(name.map_err(|error| DatabaseFailure::Damaged(error.to_string()))?);
        }
    }
}

/// A transaction that writes.
pub(super) struct Writing {
    transaction: WriteTransaction,
}

impl Writing {
    fn uses(&self) -> Result<Table<'_, JournalKey, StoredTimes>, DatabaseFailure> {
        self.transaction.open_table(USES).map_err(failed)
    }

    pub(super) fn since(&self) -> Result<RecordedSince, DatabaseFailure> {
        let table = self.transaction.open_table(SINCE).map_err(failed)?;
        since(&table)
    }

    pub(super) fn set_since(&self, since: RecordedSince) -> Result<(), DatabaseFailure> {
        let mut table = self.transaction.open_table(SINCE).map_err(failed)?;
        table
            .insert(SINCE_KEY, (since.all, since.manifest_pulls))
            .map_err(failed)?;
        Ok(())
    }

    /// Sets a start in the future, of a clock that was wrong, to now.
    pub(super) fn correct_since(&self, now: u32) -> Result<(), DatabaseFailure> {
        let known = self.since()?;
        let corrected = known.until(now);
        if corrected == known {
            return Ok(());
        }
        self.set_since(corrected)
    }

    /// Adds uses to those written before.
    pub(super) fn add(&self, all: &UsesByRepository, now: u32) -> Result<(), DatabaseFailure> {
        let mut table = self.uses()?;
        // In the order of the keys, so that neighbours are written with one page.
        let mut entries: Vec<_> = all
            .iter()
            .flat_map(|(name, uses)| entries(name, uses))
            .collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        for (key, times) in entries {
            let known = table.get(key).map_err(failed)?;
            let known = known.map(|known| use_times(known.value()));
            let mut merged = known.unwrap_or_default().until(now);
            merged.merge(times);
            if known != Some(merged) {
                let value = (merged.pushed, merged.pulled);
                table.insert(key, value).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes entries that have not been used since `before`.
    pub(super) fn remove(&self, keys: &[UseKey], before: u32) -> Result<(), DatabaseFailure> {
        let mut table = self.uses()?;
        for UseKey {
            repository,
            reference,
        } in keys
        {
            let key = (repository.as_str(), reference.as_str());
            let known = table.get(key).map_err(failed)?;
            let known = known.map(|known| use_times(known.value()).latest());
            if known.is_some_and(|latest| latest < before) {
                table.remove(key).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Forgets the oldest entries, if there are more than `max`, down to nine tenths of that.
    /// Returns the time of the newest that went.
    pub(super) fn remove_oldest(&self, max: usize) -> Result<Option<u32>, DatabaseFailure> {
        let mut table = self.uses()?;
        let count = usize::try_from(table.len().map_err(failed)?).unwrap_or(usize::MAX);
        if count <= max {
            return Ok(None);
        }
        let mut latest = Vec::new();
        for entry in table.iter().map_err(failed)? {
            latest.push(use_times(entry.map_err(failed)?.1.value()).latest());
        }
        let excess = latest.len().saturating_sub(max - max / 10).max(1);
        let Some((_, newest, _)) =
            (excess <= latest.len()).then(|| latest.select_nth_unstable(excess - 1))
        else {
            return Ok(None);
        };
        let newest = *newest;
        table
            .retain(|_, times| use_times(times).latest() > newest)
            .map_err(failed)?;
        Ok(Some(newest))
    }
}

type Entry<'a> = ((&'a str, &'a str), UseTimes);

fn entries<'a>(
    name: &'a RepositoryName,
    uses: &'a RepositoryUses,
) -> impl Iterator<Item = Entry<'a>> {
    let tags = uses.tags.iter().map(|(tag, times)| (tag.as_str(), *times));
    let manifests = uses.manifests.iter();
    let manifests = manifests.map(|(digest, times)| (digest.as_str(), *times));
    tags.chain(manifests)
        .map(|(reference, times)| ((name.as_str(), reference), times))
}

fn since(
    table: &impl ReadableTable<JournalKey, StoredTimes>,
) -> Result<RecordedSince, DatabaseFailure> {
    let Some(since) = table.get(SINCE_KEY).map_err(failed)? else {
        return Err(DatabaseFailure::Damaged(
            "it does not say since when it records".to_owned(),
        ));
    };
    let (all, manifest_pulls) = since.value();
    Ok(RecordedSince {
        all,
        manifest_pulls,
    })
}

fn use_times((pushed, pulled): (u32, u32)) -> UseTimes {
    UseTimes { pushed, pulled }
}

fn reference(text: &str) -> Result<Reference, DatabaseFailure> {
    Reference::parse(text).map_err(|error| DatabaseFailure::Damaged(error.to_string()))
}

const SINCE_KEY: JournalKey = ("", "");
/// A flush needs some pages, and a read each of its pages once.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
