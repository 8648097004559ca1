//! The files of lists, one for each. Several processes may share the directory: the name of a file
//! follows from its content, so that it does not matter which of them writes it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::ListId;
use crate::crypto;
use crate::state_file::{Access, atomic_write, private_directory};

/// The directory of the lists.
pub(super) struct AccessListFiles {
    directory: PathBuf,
}

/// The hash of a domain and a user: the beginning of the names of their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListOwner(String);

/// A file of the directory.
struct ListFile {
    path: PathBuf,
    owner: ListOwner,
    modified: SystemTime,
}

impl ListOwner {
    pub(super) fn new(domain: &str, user: &str) -> Self {
        let fields = serde_json::to_vec(&(domain, user)).expect("texts always serialize");
        let [hash @ .., _, _, _, _, _, _, _, _] = crypto::sha256(&fields);
        Self(crypto::hex(&hash))
    }
}

impl AccessListFiles {
    pub(super) fn new(state: &Path) -> Self {
        let directory = state.join("token-access");
        Self { directory }
    }

    /// Writes a list, unless that was done a short time ago. Removes those whose tokens have expired,
    /// and the oldest ones above the bounds. Blocks.
    pub(super) fn write(
        &self,
        id: &ListId,
        owner: &ListOwner,
        text: &[u8],
        now: SystemTime,
    ) -> io::Result<()> {
        let path = self.path(id, owner);
        let is_recent = |modified: SystemTime| {
            now.duration_since(modified)
                .is_ok_and(|age| age < REWRITE_INTERVAL)
        };
        let modified = fs::metadata(&path).and_then(|file| file.modified());
        if modified.is_ok_and(is_recent) {
            return Ok(());
        }
        private_directory(&self.directory)?;
        self.trim(owner, now)?;
        atomic_write(&path, text, Access::Private)
    }

    /// The content of a list's file. Blocks.
    pub(super) fn read(&self, id: &ListId, owner: &ListOwner) -> Option<Vec<u8>> {
        let file = File::open(self.path(id, owner)).ok()?;
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut text).ok()?;
        Some(text)
    }

    fn path(&self, id: &ListId, ListOwner(owner): &ListOwner) -> PathBuf {
        self.directory.join(format!("{owner}-{id}.json"))
    }

    /// Makes room for one more file of this owner.
    fn trim(&self, owner: &ListOwner, now: SystemTime) -> io::Result<()> {
        let mut files = self.files()?;
        files.sort_by_key(|file| file.modified);
        let is_expired = |file: &ListFile| {
            now.duration_since(file.modified)
                .is_ok_and(|age| age > KEPT_FOR)
        };
        let (expired, kept): (Vec<_>, Vec<_>) = files.into_iter().partition(is_expired);
        let (own, others): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|file| file.owner == *owner);
        let own_excess = (own.len() + 1).saturating_sub(MAX_FILES_OF_OWNER);
        let mut all: Vec<_> = own.iter().skip(own_excess).chain(&others).collect();
        all.sort_by_key(|file| file.modified);
        let excess = (all.len() + 1).saturating_sub(MAX_FILES);
        let removed = expired.iter().chain(own.iter().take(own_excess));
        for file in removed.chain(all.into_iter().take(excess)) {
            match fs::remove_file(&file.path) {
                // Another process did.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<ListFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let Ok(modified) = fs::metadata(&path).and_then(|file| file.modified()) else {
                continue;
            };
            let name = path.file_name().and_then(|name| name.to_str());
            let owner = name.and_then(|name| Some(name.split_once('-')?.0.to_owned()));
            files.push(ListFile {
                owner: ListOwner(owner.unwrap_or_default()),
                path,
                modified,
            });
        }
        Ok(files)
    }
}

/// How old a file is at most when a token is issued for its list.
const REWRITE_INTERVAL: Duration = Duration::from_hours(1);
/// The maximum lifetime of a token, the margin for clocks, and [`REWRITE_INTERVAL`].
const KEPT_FOR: Duration = Duration::from_hours(26);
const MAX_FILES_OF_OWNER: usize = 32;
/// Of 200 KiB at most, with the shortest names that fill a form.
const MAX_FILES: usize = 512;
const MAX_FILE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        // Files have the time of the machine.
        SystemTime::now() + Duration::from_secs(1)
    }

    fn id(number: usize) -> ListId {
        ListId(crypto::sha256(&number.to_be_bytes()))
    }

    #[test]
    fn files_are_bounded_for_each_owner_and_in_all() {
        let state = tempfile::tempdir().expect("a directory");
        let files = AccessListFiles::new(state.path());
        let count = || files.files().expect("a directory").len();
        let owner = |number: usize| ListOwner::new("ci.test", &number.to_string());
        for number in 0..40 {
            let written = files.write(&id(number), &owner(0), b"x", now());
            written.expect("a file");
        }
        assert_eq!(count(), MAX_FILES_OF_OWNER);
        assert!(files.read(&id(39), &owner(0)).is_some());
        for user in 1..20 {
            for number in 0..32 {
                let path = files.path(&id(number), &owner(user));
                fs::write(path, "x").expect("a file");
            }
        }
        let written = files.write(&id(0), &owner(99), b"x", now());
        written.expect("a file");
        assert_eq!(count(), MAX_FILES);
        assert!(files.read(&id(0), &owner(99)).is_some());
    }

    #[test]
    fn a_file_goes_with_the_last_token_of_its_list() {
        let state = tempfile::tempdir().expect("a directory");
        let files = AccessListFiles::new(state.path());
        let owner = ListOwner::new("ci.test", "alice");
        let hours = |hours| now() + Duration::from_hours(hours);
        let write = |number, now| files.write(&id(number), &owner, b"x", now).expect("a file");
        let exists = |number| files.read(&id(number), &owner).is_some();
        write(0, now());
        write(1, hours(25));
        assert!(exists(0) && exists(1));
        write(2, hours(27));
        assert!(!exists(0) && !exists(1) && exists(2));
    }

    #[test]
    fn a_recent_file_is_not_written_again() {
        let state = tempfile::tempdir().expect("a directory");
        let files = AccessListFiles::new(state.path());
        let owner = ListOwner::new("ci.test", "alice");
        let write = |text: &[u8], now| files.write(&id(0), &owner, text, now).expect("a file");
        let content = || files.read(&id(0), &owner).expect("a file");
        write(b"one", now());
        write(b"two", now());
        assert_eq!(content(), b"one");
        write(b"three", now() + REWRITE_INTERVAL);
        assert_eq!(content(), b"three");
    }
}
