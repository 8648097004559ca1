//! An htpasswd file that is looked at again and again: the last good content is what counts.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::htpasswd::{Htpasswd, Skipped};
use crate::state_file::Fingerprint;

/// An htpasswd file and what it last said. A domain is not opened, nor closed to everybody, by a
/// file that went wrong; one that has nobody in it, and stays so, lets nobody in.
#[derive(Debug)]
pub struct UsersFile {
    path: PathBuf,
    users: ArcSwap<Htpasswd>,
    seen: Mutex<Seen>,
}

/// What the last look at the file showed.
#[derive(Debug)]
struct Seen {
    fingerprint: Option<Fingerprint>,
    /// Whether an equal fingerprint means an equal file.
    settled: bool,
    /// What was wrong, so that it is told once.
    problem: Option<String>,
    /// Since when nobody is in it.
    blank: Option<Instant>,
}

/// Why a file gives no users.
#[derive(Debug, thiserror::Error)]
pub enum HtpasswdError {
    /// There is no such file.
    #[error("there is no password file `{}`: make it with `moorgate htpasswd {} USER`", path.display(), path.display())]
    Missing {
        /// Of the file.
        path: PathBuf,
    },
    /// It cannot be opened or read.
    #[error("the password file `{}` cannot be read: {source}", path.display())]
    Unreadable {
        /// Of the file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A directory, a device, or larger than 4 MiB.
    #[error("`{}` is not a password file: it is no regular file, or larger than 4 MiB", path.display())]
    NotAPasswordFile {
        /// Of the file.
        path: PathBuf,
    },
    /// Nobody could log in.
    #[error("the password file `{}` has no usable entry{}", path.display(), listed(skipped))]
    NoUsers {
        /// Of the file.
        path: PathBuf,
        /// The lines that are no entries.
        skipped: Vec<Skipped>,
    },
}

/// What a look at the file brought.
#[derive(Debug)]
pub enum Refreshed {
    /// Nothing new, or nothing new that matters.
    Unchanged,
    /// Other users, or the file is good again. Whoever lost the entry is out from now on.
    Reloaded(Arc<Htpasswd>),
    /// The file went wrong in a new way; the users are those of the last good one.
    KeptOld(HtpasswdError),
    /// Nobody is in the file any more: from now on nobody gets in.
    Emptied(HtpasswdError),
}

impl UsersFile {
    /// Reads the file for the first time.
    pub fn open(path: &Path) -> Result<Self, HtpasswdError> {
        let fingerprint = Fingerprint::from_path(path);
        let seen = Seen {
            fingerprint,
            settled: settled(fingerprint),
            problem: None,
            blank: None,
        };
        let users = ArcSwap::from_pointee(read(path)?);
        Ok(Self {
            path: path.to_owned(),
            users,
            seen: Mutex::new(seen),
        })
    }

    /// The users of the last good file. A request asks once and sees one file to its end.
    pub fn current(&self) -> Arc<Htpasswd> {
        self.users.load_full()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks whether the file changed, and reads it if it did. Costs one `stat` as long as it did
    /// not. Blocks.
    pub fn refresh(&self) -> Refreshed {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the content is read, so that a change during the reading shows the next time.
        let fingerprint = Fingerprint::from_path(&self.path);
        if fingerprint == seen.fingerprint && seen.settled {
            return Refreshed::Unchanged;
        }
        let content = read(&self.path);
        if fingerprint != Fingerprint::from_path(&self.path) {
            // Still being written (`htpasswd` does so in place): half of it is worth nothing, and
            // the next look finds it changed again.
            seen.settled = false;
            return Refreshed::Unchanged;
        }
        if fingerprint != seen.fingerprint {
            seen.blank = None;
        }
        seen.fingerprint = fingerprint;
        seen.settled = settled(fingerprint);
        match content {
            Ok(users) => self.take(users, &mut seen),
            Err(error) if error.is_blank() => self.empty(error, &mut seen),
            Err(error) => {
                // What was wrong may pass without a change of the file (too many open files, say).
                seen.settled = false;
                report_once(error, &mut seen)
            }
        }
    }

    fn take(&self, users: Htpasswd, seen: &mut Seen) -> Refreshed {
        let recovered = seen.problem.take().is_some();
        if !recovered && **self.users.load() == users {
            return Refreshed::Unchanged;
        }
        let users = Arc::new(users);
        self.users.store(users.clone());
        Refreshed::Reloaded(users)
    }

    /// Who takes out the last user means it. But a file that is written in place is empty for a
    /// moment, and no sign tells the one from the other but that it stays so.
    fn empty(&self, error: HtpasswdError, seen: &mut Seen) -> Refreshed {
        if self.users.load().users() == 0 {
            return Refreshed::Unchanged;
        }
        if seen.blank.get_or_insert_with(Instant::now).elapsed() < PASSING {
            seen.settled = false;
            return Refreshed::Unchanged;
        }
        self.users.store(Arc::new(Htpasswd::parse(b"")));
        seen.problem = Some(error.to_string());
        Refreshed::Emptied(error)
    }
}

impl HtpasswdError {
    /// Whether nobody is meant to be in the file: it can be read, and no line of it looks like an
    /// entry.
    fn is_blank(&self) -> bool {
        matches!(self, Self::NoUsers { skipped, .. } if skipped.is_empty())
    }
}

fn settled(fingerprint: Option<Fingerprint>) -> bool {
    fingerprint.is_none_or(|fingerprint| !fingerprint.is_fresh())
}

fn report_once(error: HtpasswdError, seen: &mut Seen) -> Refreshed {
    let text = error.to_string();
    if seen.problem.as_deref() == Some(text.as_str()) {
        return Refreshed::Unchanged;
    }
    seen.problem = Some(text);
    Refreshed::KeptOld(error)
}

fn read(path: &Path) -> Result<Htpasswd, HtpasswdError> {
    let content = content(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => HtpasswdError::Missing {
            path: path.to_owned(),
        },
        _ => HtpasswdError::Unreadable {
            path: path.to_owned(),
            source,
        },
    })?;
    let content = content.ok_or_else(|| HtpasswdError::NotAPasswordFile {
        path: path.to_owned(),
    })?;
    let users = Htpasswd::parse(&content);
    if users.users() == 0 {
        return Err(HtpasswdError::NoUsers {
            path: path.to_owned(),
            skipped: users.skipped().to_vec(),
        });
    }
    Ok(users)
}

/// `None` if it is no file that could hold passwords. Opening a pipe would block for ever.
fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)?;
    Ok(Some(content).filter(|content| content.len() as u64 <= MAX_FILE))
}

fn listed(skipped: &[Skipped]) -> String {
    skipped
        .iter()
        .take(MAX_LISTED)
        .map(|line| format!("\n  {line}"))
        .collect()
}

/// For how long a file is empty that is being written in place, at the very most.
const PASSING: Duration = Duration::from_secs(2);

/// About 40 000 users.
const MAX_FILE: u64 = 4 << 20;

/// A file of another kind has as many bad lines as lines.
const MAX_LISTED: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "one:$2y$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie\n";
    const TWO: &str = "two:$2y$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie\n";

    fn knows(file: &UsersFile, user: &str) -> bool {
        file.current().claim(user).user.is_some()
    }

    #[test]
    fn a_file_without_users_opens_nothing() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users");
        assert!(matches!(
            UsersFile::open(&path),
            Err(HtpasswdError::Missing { .. })
        ));
        assert!(matches!(
            UsersFile::open(directory.path()),
            Err(HtpasswdError::NotAPasswordFile { .. })
        ));
        std::fs::write(&path, "").expect("written");
        assert!(matches!(
            UsersFile::open(&path),
            Err(HtpasswdError::NoUsers { .. })
        ));
        std::fs::write(&path, "ci:plain\n").expect("written");
        let error = UsersFile::open(&path).expect_err("no users").to_string();
        assert!(error.ends_with("has no usable entry\n  line 1: `ci` has a plain password, only bcrypt is accepted: run `moorgate htpasswd FILE ci` or `htpasswd -B FILE ci`"), "{error}");
        std::fs::write(&path, vec![b'#'; (4 << 20) + 1]).expect("written");
        assert!(matches!(
            UsersFile::open(&path),
            Err(HtpasswdError::NotAPasswordFile { .. })
        ));
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users");
        std::fs::write(&path, ONE).expect("written");
        let file = UsersFile::open(&path).expect("good");
        assert!(matches!(file.refresh(), Refreshed::Unchanged));
        // As long as the old one, in place, and perhaps within the same tick of the clock.
        std::fs::write(&path, TWO).expect("written");
        assert!(matches!(file.refresh(), Refreshed::Reloaded(_)));
        assert!(knows(&file, "two") && !knows(&file, "one"));
        std::fs::write(&path, format!("# comment\n{TWO}")).expect("written");
        assert!(matches!(file.refresh(), Refreshed::Unchanged));
    }

    #[test]
    fn a_bad_file_keeps_the_last_good_one_and_says_so_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users");
        std::fs::write(&path, ONE).expect("written");
        let file = UsersFile::open(&path).expect("good");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(
            file.refresh(),
            Refreshed::KeptOld(HtpasswdError::Missing { .. })
        ));
        assert!(matches!(file.refresh(), Refreshed::Unchanged));
        std::fs::write(&path, "one\n").expect("written");
        assert!(matches!(
            file.refresh(),
            Refreshed::KeptOld(HtpasswdError::NoUsers { .. })
        ));
        assert!(matches!(file.refresh(), Refreshed::Unchanged));
        assert!(knows(&file, "one"));
        assert!(
            !file.seen.lock().expect("not poisoned").settled,
            "a bad file is read again each time"
        );
        std::fs::write(&path, ONE).expect("written");
        assert!(
            matches!(file.refresh(), Refreshed::Reloaded(_)),
            "good again is worth saying"
        );
        assert!(matches!(file.refresh(), Refreshed::Unchanged));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_stays_without_entries_lets_nobody_in() {
        for blank in ["", "\n", "# nobody\n\n", "\u{feff}# nobody"] {
            let directory = tempfile::tempdir().expect("directory");
            let path = directory.path().join("users");
            std::fs::write(&path, ONE).expect("written");
            let file = UsersFile::open(&path).expect("good");
            std::fs::write(&path, blank).expect("written");
            assert!(matches!(file.refresh(), Refreshed::Unchanged));
            tokio::time::advance(Duration::from_millis(1999)).await;
            assert!(matches!(file.refresh(), Refreshed::Unchanged));
            assert!(knows(&file, "one"), "it may be about to be written");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(
                matches!(
                    file.refresh(),
                    Refreshed::Emptied(HtpasswdError::NoUsers { .. })
                ),
                "{blank:?}"
            );
            assert!(!knows(&file, "one"));
            assert!(matches!(file.refresh(), Refreshed::Unchanged), "said once");
            std::fs::write(&path, ONE).expect("written");
            assert!(matches!(file.refresh(), Refreshed::Reloaded(_)));
            assert!(knows(&file, "one"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_written_in_place_is_empty_for_a_moment() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("users");
        std::fs::write(&path, ONE).expect("written");
        let file = UsersFile::open(&path).expect("good");
        for content in ["", "# users\n", "", "# users\n"] {
            std::fs::write(&path, content).expect("written");
            assert!(matches!(file.refresh(), Refreshed::Unchanged));
            assert!(knows(&file, "one"));
            tokio::time::advance(Duration::from_millis(1500)).await;
        }
        std::fs::write(&path, format!("# users\n{TWO}")).expect("written");
        assert!(matches!(file.refresh(), Refreshed::Reloaded(_)));
        assert!(knows(&file, "two"));
        // One that has entries, of which none can be used, has gone wrong, and stays so.
        std::fs::write(&path, "two:plain\n").expect("written");
        assert!(matches!(
            file.refresh(),
            Refreshed::KeptOld(HtpasswdError::NoUsers { .. })
        ));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(matches!(file.refresh(), Refreshed::Unchanged));
        assert!(knows(&file, "two"));
    }
}
