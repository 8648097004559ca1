//! The file of the refresh tokens.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TokenHash;
use crate::crypto;
use crate::state_file::{Access, atomic_write};

/// The record of a refresh token. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTokenRecord {
    pub domain: String,
    pub user: String,
    /// The tag of the user's entry in the htpasswd file.
    pub entry: String,
    /// The name that the client gave itself.
    pub client: String,
    /// When it was issued.
    pub created: u64,
    /// When it was last used, to a minute.
    pub used: u64,
    /// When it expires, unless it is used before.
    pub expires: u64,
}

impl RefreshTokenRecord {
    /// Records a use, which extends the lifetime.
    pub(super) fn use_at(&mut self, at: u64, expires: u64) {
        self.used = self.used.max(at);
        self.expires = expires;
    }
}

/// Why the file of the refresh tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the refresh tokens in {} cannot be used: {cause}", path.display())]
pub struct FileError {
    path: PathBuf,
    cause: io::Error,
}

impl FileError {
    pub(super) fn new(path: &Path, cause: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            cause,
        }
    }

    pub(super) fn timed_out(path: &Path) -> Self {
        let text = "timed out waiting for other requests that use the file";
        Self::new(path, io::Error::new(io::ErrorKind::TimedOut, text))
    }

    pub(super) fn no_randomness(path: &Path) -> Self {
        Self::new(path, io::Error::other("the system has no randomness"))
    }
}

#[derive(Serialize, Deserialize)]
struct Document<R> {
    tokens: Vec<StoredRefreshToken<R>>,
}

#[derive(Serialize, Deserialize)]
struct StoredRefreshToken<R> {
    /// The SHA-256 hash of the token in hexadecimal digits.
    hash: String,
    #[serde(flatten)]
    record: R,
}

pub(super) fn path(state: &Path) -> PathBuf {
    state.join("refresh-tokens.json")
}

pub(super) fn read(path: &Path) -> Result<HashMap<TokenHash, RefreshTokenRecord>, FileError> {
    let damaged = || {
        FileError::new(
            path,
            io::Error::new(io::ErrorKind::InvalidData, "the file is damaged"),
        )
    };
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(FileError::new(path, error)),
    }
    let document: Document<RefreshTokenRecord> =
        serde_json::from_slice(&text).map_err(|_| damaged())?;
    let entries = document.tokens.into_iter();
    entries
        .map(|entry| Some((TokenHash(crypto::from_hex(&entry.hash)?), entry.record)))
        .collect::<Option<_>>()
        .ok_or_else(damaged)
}

pub(super) fn content(records: Vec<(TokenHash, Arc<RefreshTokenRecord>)>) -> Vec<u8> {
    let mut tokens: Vec<_> = records
        .iter()
        .map(|(hash, record)| StoredRefreshToken {
            hash: crypto::hex(&hash.0),
            record: &**record,
        })
        .collect();
    tokens.sort_by(|a, b| (a.record.created, &a.hash).cmp(&(b.record.created, &b.hash)));
    serde_json::to_vec(&Document { tokens }).expect("texts and numbers always serialize")
}

pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    atomic_write(path, content, Access::Private)
}

/// More than the maximum number of tokens takes.
const MAX_BYTES: u64 = 64 << 20;
