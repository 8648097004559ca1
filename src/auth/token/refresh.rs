//! Refresh tokens, which a client stores instead of a password. They are random, and only their hashes
//! are stored, in a file below `state` that several processes may share.

mod file;
mod pending;
mod records;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::zeroize::Zeroizing;

use super::claims::seconds;
use crate::auth::UserName;
use crate::crypto;
use crate::state_file::{FileChange, FileLock, FileWatch, LOCK_TIMEOUT, run_blocking};

pub(crate) use file::{FileError, RefreshTokenRecord};
use pending::{Change, PendingChanges};
use records::Records;

/// The refresh tokens of the process, and of the others that share its state directory.
pub struct RefreshTokens {
    path: PathBuf,
    known: Mutex<RefreshTokenState>,
    /// Held by the request that waits for the file on a thread that may block.
    exchange_lock: Arc<tokio::sync::Mutex<()>>,
}

struct RefreshTokenState {
    records: Records,
    /// The changes since the file was written. They are applied to the records already.
    pending: PendingChanges,
    watch: FileWatch,
}

/// The SHA-256 hash of a token of 256 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

/// The owner of a new token.
#[derive(Clone, Debug)]
pub struct Holder<'a> {
    pub domain: &'a str,
    pub user: &'a UserName,
    /// The tag of the user's entry: the token ends when the entry changes.
    pub entry: &'a str,
    /// The name that the client gives itself.
    pub client: &'a str,
    /// The lifetime after the last use.
    pub lifetime: Duration,
}

/// The tokens to revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked<'a> {
    /// The token with this id.
    Id(&'a str),
    /// All tokens of a user.
    User(&'a str),
    All,
}

impl RefreshTokens {
    /// Reads the file below the state directory, if there is one. Blocks.
    pub(super) fn open(state: &Path) -> Result<Self, FileError> {
        let path = file::path(state);
        let mut watch = FileWatch::of_replaced_files();
        watch.poll([&path]);
        let records = Records::new(file::read(&path)?);
        watch.settle([&path]);
        let known = RefreshTokenState {
            records,
            pending: PendingChanges::default(),
            watch,
        };
        Ok(Self {
            path,
            known: Mutex::new(known),
            exchange_lock: Arc::default(),
        })
    }

    /// Issues a token. It is in the file when this returns.
    pub async fn issue(
        self: &Arc<Self>,
        holder: &Holder<'_>,
        now: SystemTime,
    ) -> Result<Zeroizing<String>, FileError> {
        let token = random_token().ok_or_else(|| FileError::no_randomness(&self.path))?;
        let Holder {
            domain,
            user,
            entry,
            client,
            lifetime,
        } = holder;
        let now = seconds(now);
        let record = RefreshTokenRecord {
            domain: (*domain).to_owned(),
            user: user.to_string(),
            entry: (*entry).to_owned(),
            client: client
                .chars()
                .filter(|c| c.is_ascii_graphic() || *c == ' ')
                .take(64)
                .collect(),
            created: now,
            used: now,
            expires: now.saturating_add(lifetime.as_secs()),
        };
        let hash = TokenHash::from_token(&token);
        self.change(hash, Change::Add(Arc::new(record)));
        if let Err(error) = self.written(now).await {
            // No client gets the token, and it must not evict others of its user.
            self.lock().discard(&hash);
            return Err(error);
        }
        Ok(token)
    }

    /// The record of a token that is valid at this domain. Counts as a use.
    pub fn redeem(
        &self,
        token: &str,
        domain: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Option<Arc<RefreshTokenRecord>> {
        let (hash, now) = (TokenHash::from_token(token), seconds(now));
        let record = self.lock().records.get(&hash)?.clone();
        // A lifetime that was shortened counts at once.
        let limit = record
            .used
            .saturating_add(lifetime.as_secs())
            .min(record.expires);
        if record.domain != domain || limit <= now {
            return None;
        }
        let expires = now.saturating_add(lifetime.as_secs());
        // The file has a resolution of one second.
        if (record.used, record.expires) != (now, expires) {
            self.change(hash, Change::Use { at: now, expires });
        }
        Some(record)
    }

    /// Reads the tokens that other processes have issued, unless the file cannot be used.
    pub async fn catch_up(self: &Arc<Self>, now: SystemTime) {
        // The next refresh reports an error.
        let _: Result<(), _> = self.written(seconds(now)).await;
    }

    /// Revokes tokens, at one domain or at all. Returns how many there were.
    pub async fn revoke(
        self: &Arc<Self>,
        which: &Revoked<'_>,
        domain: Option<&str>,
        now: SystemTime,
    ) -> Result<usize, FileError> {
        let now = seconds(now);
        // Reads the tokens of other processes.
        self.written(now).await?;
        let is_selected = |(hash, record): &(&TokenHash, &Arc<RefreshTokenRecord>)| {
            domain.is_none_or(|domain| record.domain == domain)
                && match which {
                    Revoked::Id(id) => hash.id() == *id,
                    Revoked::User(user) => record.user == *user,
                    Revoked::All => true,
                }
        };
        let hashes: Vec<TokenHash> = self
            .lock()
            .records
            .iter()
            .filter(is_selected)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in &hashes {
            self.change(*hash, Change::Remove);
        }
        self.written(now).await?;
        Ok(hashes.len())
    }

    /// Writes the pending changes and reads those of other processes. Logs a problem each time, which
    /// the log counts. Blocks.
    pub(super) fn refresh(&self, now: SystemTime) {
        let result = self.synchronize(seconds(now));
        let mut known = self.lock();
        match result {
            Ok(()) if known.watch.problem_ended() => {
                tracing::info!("refresh token file can be used again");
            }
            Ok(()) => {}
            Err(error) => {
                known.watch.problem_began(error.to_string());
                tracing::error!(%error, "refresh token file cannot be used");
            }
        }
    }

    /// Exchanges changes with the file. One request at a time does so on a thread that may block:
    /// while another process holds the lock of the file, the others wait without a thread each.
    async fn written(self: &Arc<Self>, now: u64) -> Result<(), FileError> {
        let lock = self.exchange_lock.clone().lock_owned();
        let lock = tokio::time::timeout(LOCK_TIMEOUT, lock)
            .await
            .map_err(|_| FileError::timed_out(&self.path))?;
        let this = self.clone();
        run_blocking(move || {
            // Moved here, since the work goes on when the request is dropped.
            let _lock = lock;
            this.synchronize(now)
        })
        .await
    }

    fn change(&self, hash: TokenHash, change: Change) {
        let mut known = self.lock();
        known.records.apply(&hash, &change);
        known.pending.push(hash, change);
    }

    /// Writes the pending changes, and reads those of other processes. The first caller writes
    /// those of all callers that wait for the lock.
    fn synchronize(&self, now: u64) -> Result<(), FileError> {
        let result = self.exchange(now);
        if result.is_err() {
            // Otherwise each write trims.
            self.lock().trim(now);
        }
        result
    }

    fn exchange(&self, now: u64) -> Result<(), FileError> {
        let io = |error| FileError::new(&self.path, error);
        {
            let mut known = self.lock();
            let change = known.watch.poll([&self.path]);
            if change == FileChange::None && known.pending.can_wait(now) {
                return Ok(());
            }
        }
        let _lock = FileLock::acquire_beside(&self.path, LOCK_TIMEOUT).map_err(io)?;
        // Another caller may have read it while this one waited.
        let change = self.lock().watch.poll([&self.path]);
        let others = match change {
            FileChange::None => None,
            FileChange::Possible | FileChange::Certain => {
                Some(Records::new(file::read(&self.path)?))
            }
        };
        let (records, written) = {
            let mut known = self.lock();
            let RefreshTokenState {
                records, pending, ..
            } = &mut *known;
            if let Some(others) = others {
                *records = others;
                for (hash, change) in pending.iter() {
                    records.apply(hash, change);
                }
                known.watch.settle([&self.path]);
            }
            if known.pending.is_empty() {
                return Ok(());
            }
            known.trim(now);
            (known.records.snapshot(), known.pending.next())
        };
        // Written without the lock, so that requests are served meanwhile.
        file::write(&self.path, &file::content(records)).map_err(io)?;
        let mut known = self.lock();
        known.pending.written(written);
        known.watch.replaced([&self.path]);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, RefreshTokenState> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RefreshTokenState {
    fn trim(&mut self, now: u64) {
        let Self {
            records, pending, ..
        } = self;
        records.trim(now);
        pending.retain(|hash| records.get(hash).is_some());
    }

    fn discard(&mut self, hash: &TokenHash) {
        self.records.remove(hash);
        self.pending.discard(hash);
    }
}

impl TokenHash {
    fn from_token(token: &str) -> Self {
        Self(crypto::sha256(token.as_bytes()))
    }

    /// The id of the token for administrators.
    pub(super) fn id(&self) -> String {
        crypto::hex(&self.0[..6])
    }
}

/// 256 random bits with a prefix for secret scanners.
fn random_token() -> Option<Zeroizing<String>> {
    let bytes = crypto::random_secret::<32>().ok()?;
    Some(Zeroizing::new(format!(
        "moorgate_{}",
        URL_SAFE_NO_PAD.encode(*bytes)
    )))
}

/// The tokens below a state directory with their ids, the oldest first. For commands.
pub(crate) fn list(
    state: &Path,
    now: SystemTime,
) -> Result<Vec<(String, RefreshTokenRecord)>, FileError> {
    let now = seconds(now);
    let records = file::read(&file::path(state))?;
    let alive = records
        .into_iter()
        .filter(|(_, record)| record.expires > now);
    let mut all: Vec<_> = alive.map(|(hash, record)| (hash.id(), record)).collect();
    all.sort_by_key(|(id, record)| (record.created, id.clone()));
    Ok(all)
}

#[cfg(test)]
mod tests;
