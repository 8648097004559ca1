//! An htpasswd file that is re-read when it changes. The last usable content counts.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::htpasswd::{Htpasswd, Skipped};
use crate::state_file::{FileChange, FileWatch};

/// An htpasswd file and its last usable content. While a file is unusable, its previous users can log
/// in; a file without entries for two seconds ends all logins.
#[derive(Debug)]
pub(crate) struct UsersFile {
    path: PathBuf,
    users: ArcSwap<Htpasswd>,
    watch: Mutex<UsersFileWatch>,
}

#[derive(Debug)]
struct UsersFileWatch {
    file: FileWatch,
    /// The time from which on the file has had no entries.
    empty_since: Option<Instant>,
}

/// Why a file has no users.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HtpasswdError {
    #[error("there is no password file `{}`: make it with `moorgate htpasswd {} USER`", path.display(), path.display())]
    Missing { path: PathBuf },
    #[error("the password file `{}` cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("`{}` is not a password file: it is no regular file, or larger than 4 MiB", path.display())]
    NotAPasswordFile { path: PathBuf },
    #[error("the password file `{}` has no usable entry{}", path.display(), listed(skipped))]
    NoUsers {
        path: PathBuf,
        /// The lines without a usable entry.
        skipped: Vec<Skipped>,
    },
}

/// The result of [`UsersFile::refresh`].
#[derive(Debug)]
pub(crate) enum Refreshed {
    /// The users, and the problem if there is one, are unchanged.
    Unchanged,
    /// The users changed, or the file is usable again. Users without an entry are refused from now
    /// on.
    Reloaded(Arc<Htpasswd>),
    /// The file has a new problem; the users are those of the last usable content.
    KeptOld(HtpasswdError),
    /// The file has no entries any more: all logins are refused from now on.
    Emptied(HtpasswdError),
}

impl UsersFile {
    /// Reads the file. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, HtpasswdError> {
        let mut file = FileWatch::default();
        file.poll([path]);
        let users = ArcSwap::from_pointee(read(path)?);
        file.settle([path]);
        Ok(Self {
            path: path.to_owned(),
            users,
            watch: Mutex::new(UsersFileWatch {
                file,
                empty_since: None,
            }),
        })
    }

    /// The users of the last usable content. A request loads them once.
    pub(crate) fn current(&self) -> Arc<Htpasswd> {
        self.users.load_full()
    }

    /// Why the file cannot be used as it is now, if that is so.
    pub(crate) fn problem(&self) -> Option<String> {
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.file.problem().map(str::to_owned)
    }

    /// Re-reads the file if it changed; otherwise costs one `stat`. Blocks.
    pub(crate) fn refresh(&self) -> Refreshed {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let change = watch.file.poll([&self.path]);
        if change == FileChange::None {
            return Refreshed::Unchanged;
        }
        let content = read(&self.path);
        if !watch.file.settle([&self.path]) {
            // Still being written (`htpasswd` does so in place).
            return Refreshed::Unchanged;
        }
        if change == FileChange::Certain {
            watch.empty_since = None;
        }
        match content {
            Ok(users) => self.replace(users, &mut watch),
            Err(error) if error.is_empty() => self.empty(error, &mut watch),
            Err(error) => {
                // The cause may end without a change of the file, such as too many open files.
                watch.file.retry();
                if watch.file.problem_began(error.to_string()) {
                    Refreshed::KeptOld(error)
                } else {
                    Refreshed::Unchanged
                }
            }
        }
    }

    fn replace(&self, mut users: Htpasswd, watch: &mut UsersFileWatch) -> Refreshed {
        let recovered = watch.file.problem_ended();
        if !recovered && **self.users.load() == users {
            return Refreshed::Unchanged;
        }
        users.continue_counts(&self.users.load());
        let users = Arc::new(users);
        self.users.store(users.clone());
        Refreshed::Reloaded(users)
    }

    /// An administrator may delete the last user. A file that is written in place is empty for a short
    /// time, too, and only the time distinguishes the two.
    fn empty(&self, error: HtpasswdError, watch: &mut UsersFileWatch) -> Refreshed {
        if self.users.load().users() == 0 {
            return Refreshed::Unchanged;
        }
        let empty_since = watch.empty_since.get_or_insert_with(Instant::now);
        if empty_since.elapsed() < MAX_REWRITE_TIME {
            watch.file.retry();
            return Refreshed::Unchanged;
        }
        self.users.store(Arc::new(Htpasswd::parse(b"")));
        watch.file.problem_began(error.to_string());
        Refreshed::Emptied(error)
    }
}

impl HtpasswdError {
    /// Whether the file is empty on purpose: it is readable, and has no line that could be an entry.
    fn is_empty(&self) -> bool {
        matches!(self, Self::NoUsers { skipped, .. } if skipped.is_empty())
    }
}

fn read(path: &Path) -> Result<Htpasswd, HtpasswdError> {
    let content = content(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => HtpasswdError::Missing {
            path: path.to_owned(),
        },
        _ => HtpasswdError::Unreadable {
            path: path.to_owned(),
            cause,
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

/// The content; `None` if this is no regular file, since opening a pipe would block, or too large.
fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut content)?;
    Ok(Some(content).filter(|content| content.len() as u64 <= MAX_FILE_BYTES))
}

fn listed(skipped: &[Skipped]) -> String {
    skipped
        .iter()
        .take(MAX_LISTED_LINES)
        .map(|line| format!("\n  {line}"))
        .collect()
}

/// A file that is written in place is empty for less than this.
const MAX_REWRITE_TIME: Duration = Duration::from_secs(2);

/// About 40,000 users.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Bounds the message about a file without a single usable line.
const MAX_LISTED_LINES: usize = 10;

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
        assert!(file.problem().is_some());
        std::fs::write(&path, "one\n").expect("written");
        assert!(matches!(
            file.refresh(),
            Refreshed::KeptOld(HtpasswdError::NoUsers { .. })
        ));
        assert!(matches!(file.refresh(), Refreshed::Unchanged));
        assert!(knows(&file, "one"));
        assert!(
            !file.watch.lock().expect("not poisoned").file.is_settled(),
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
        // A file of which no entry is usable is a problem, however long it stays.
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
