//! The ledger on disk: read, changed and written under a lock, so that processes that share the
//! directory share one budget. A damaged file is renamed and reported.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Ledger;
use crate::certs::state::paths::{self, StatePaths};
use crate::state_file::{Access, Fingerprint, LOCK_TIMEOUT, atomic_write};

/// The ledger of a state directory.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    path: PathBuf,
    lock: PathBuf,
    ledger: Arc<Ledger>,
    /// The file as it was last read or written; `None` after a write has failed: then memory is
    /// newer than the disk.
    ///
    /// Not a `FileWatch`, which tells whether a file changed since its last poll. Here each update
    /// runs under the lock and compares the file with this process's own last write: an equal
    /// fingerprint then proves an equal file, however fresh, and after a failed write no change of
    /// the file leads to another read.
    seen: Option<Fingerprint>,
    clock: Clock,
}

/// The time by two clocks: the wall clock, which can be set, and a monotonic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// The wall clock.
    pub now: SystemTime,
    /// The monotonic clock, since an arbitrary time that is fixed for the process.
    pub steady: Duration,
}

impl Clock {
    /// By how much the wall clock was set forward between `self` and `later`; zero if it was not.
    pub(super) fn jump(self, later: Self) -> Duration {
        let by_wall = later.now.duration_since(self.now).unwrap_or_default();
        let steadily = later.steady.saturating_sub(self.steady);
        Some(by_wall.saturating_sub(steadily))
            .filter(|jump| *jump >= MIN_CLOCK_JUMP)
            .unwrap_or_default()
    }
}

/// The ledger file was damaged and has been renamed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger of ACME attempts was damaged and renamed to {}: earlier attempts are forgotten", aside.display())]
pub(crate) struct LedgerDamaged {
    /// The new path of the damaged file.
    pub aside: PathBuf,
}

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file exists but cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The change is in effect in this process but is not on disk.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file or its lock.
        path: PathBuf,
        source: io::Error,
    },
}

impl LedgerFile {
    /// Opens the ledger, or creates one. The caller reports a [`LedgerDamaged`]: it is returned
    /// once.
    pub(crate) fn open(
        state: &StatePaths,
        clock: Clock,
    ) -> Result<(Self, Option<LedgerDamaged>), LedgerError> {
        let (path, lock) = (state.ledger(), state.ledger_lock());
        let _lock = paths::lock(&lock, LOCK_TIMEOUT).map_err(|source| unwritable(&lock, source))?;
        let (ledger, damaged) = read(&path, clock.now)?;
        let seen = Fingerprint::from_path(&path);
        let mut ledger = ledger;
        ledger.settle(clock.now);
        let mut file = Self {
            path,
            lock,
            ledger: Arc::new(ledger),
            seen,
            clock,
        };
        if file.seen.is_none() {
            // Written at once: the time of creation distinguishes a new state directory from a lost
            // one.
            file.write()?;
        }
        Ok((file, damaged))
    }

    /// The ledger as of the last update. Another process may have changed the file since.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Changes the ledger under the lock, after reading what other processes have written.
    ///
    /// After an error the change is in effect in this process all the same, so that a full disk
    /// does not lose it. The caller must not do anything that the CA counts.
    pub(crate) fn update<R>(
        &mut self,
        clock: Clock,
        change: impl FnOnce(&mut Ledger, SystemTime) -> R,
    ) -> (R, Result<(), LedgerError>) {
        let held = paths::lock(&self.lock, LOCK_TIMEOUT);
        self.reload(clock.now);
        let jump = std::mem::replace(&mut self.clock, clock).jump(clock);
        Arc::make_mut(&mut self.ledger).follow(clock.now, jump);
        let before = self.ledger.clone();
        let answer = change(Arc::make_mut(&mut self.ledger), clock.now);
        let written = match held {
            Ok(_lock) if self.ledger == before && self.seen.is_some() => Ok(()),
            Ok(_lock) => self.write(),
            Err(source) => {
                self.seen = None;
                Err(unwritable(&self.lock, source))
            }
        };
        (answer, written)
    }

    /// Reads the file if another process has changed it. A file that is missing, unreadable or
    /// damaged does not change the ledger in memory: the next write replaces the file.
    fn reload(&mut self, now: SystemTime) {
        let sight = Fingerprint::from_path(&self.path);
        if self.seen.is_none() || self.seen == sight {
            return;
        }
        match (sight, read(&self.path, now)) {
            (Some(_), Ok((ledger, None))) => (self.ledger, self.seen) = (Arc::new(ledger), sight),
            _ => self.seen = None,
        }
    }

    fn write(&mut self) -> Result<(), LedgerError> {
        self.seen = None;
        let written = serde_json::to_vec_pretty(self.ledger.as_ref())
            .map_err(io::Error::from)
            .and_then(|text| atomic_write(&self.path, &text, Access::Private));
        written.map_err(|source| unwritable(&self.path, source))?;
        self.seen = Fingerprint::from_path(&self.path);
        Ok(())
    }
}

fn unwritable(path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Unwritable {
        path: path.to_owned(),
        source,
    }
}

/// Reads the ledger, or creates one where there is no file. Renames a damaged file.
fn read(path: &Path, now: SystemTime) -> Result<(Ledger, Option<LedgerDamaged>), LedgerError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Ledger::new(now), None));
        }
        Err(source) => {
            return Err(LedgerError::Unreadable {
                path: path.to_owned(),
                source,
            });
        }
    };
    if let Ok(ledger) = serde_json::from_slice(&text) {
        return Ok((ledger, None));
    }
    let aside = free_name(path, now);
    std::fs::rename(path, &aside).map_err(|source| unwritable(&aside, source))?;
    Ok((Ledger::new(now), Some(LedgerDamaged { aside })))
}

/// An unused path beside the file, with the time in seconds.
fn free_name(path: &Path, now: SystemTime) -> PathBuf {
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let name = |n: u64| path.with_extension(format!("damaged-{}.json", second + n));
    (0..)
        .map(name)
        .find(|name| !name.exists())
        .unwrap_or_else(|| name(0))
}

/// Smaller differences come from a clock that is being slewed, or from a loaded machine.
const MIN_CLOCK_JUMP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::{Event, OrderKind, OrderRequest};
    use super::*;
    use crate::certs::names::NameSet;
    use crate::certs::state::paths::CaId;

    const HOUR: Duration = Duration::from_hours(1);

    fn clock(wall: u32, steady: u32) -> Clock {
        Clock {
            now: SystemTime::UNIX_EPOCH + 500_000 * HOUR + HOUR * wall,
            steady: HOUR * steady,
        }
    }

    struct LedgerDirectory {
        directory: tempfile::TempDir,
        ca: CaId,
        names: NameSet,
    }

    impl LedgerDirectory {
        fn new() -> Self {
            Self {
                directory: tempfile::tempdir().expect("directory"),
                ca: CaId::new("https://acme-v02.api.letsencrypt.org/directory").expect("a URL"),
                names: NameSet::new(["a.example.com"]).expect("names"),
            }
        }

        fn state(&self) -> StatePaths {
            StatePaths::new(self.directory.path())
        }

        fn open(&self, clock: Clock) -> (LedgerFile, Option<LedgerDamaged>) {
            LedgerFile::open(&self.state(), clock).expect("opened")
        }

        fn request(&self) -> OrderRequest<'_> {
            let Self {
                directory: _,
                ca,
                names,
            } = self;
            OrderRequest {
                ca,
                account: "account",
                names,
                kind: OrderKind::Renewal,
                held: None,
            }
        }

        fn issue(&self, file: &mut LedgerFile, clock: Clock) -> bool {
            let (placed, written) = file.update(clock, |ledger, now| {
                let placed = ledger.place(self.request(), now).is_ok();
                if placed {
                    ledger.record(Event::Issued(self.request()), now);
                }
                placed
            });
            written.expect("written");
            placed
        }
    }

    #[test]
    fn two_processes_share_one_budget() {
        let fixture = LedgerDirectory::new();
        let now = clock(0, 0);
        let (mut one, mut other) = (fixture.open(now).0, fixture.open(now).0);
        let issued =
            (0..10).filter(|n| fixture.issue(if n % 2 == 0 { &mut one } else { &mut other }, now));
        assert_eq!(issued.count(), 5);
        let (mut restarted, damaged) = fixture.open(now);
        assert_eq!(damaged, None);
        assert!(!fixture.issue(&mut restarted, now));
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_told() {
        let fixture = LedgerDirectory::new();
        let (mut file, _) = fixture.open(clock(0, 0));
        assert!(fixture.issue(&mut file, clock(0, 0)));
        let path = fixture.state().ledger();
        let text = std::fs::read(&path).expect("read");
        let half = &text[..text.len() / 2];
        std::fs::write(&path, half).expect("written");
        let (reopened, damaged) = fixture.open(clock(1, 0));
        let aside = damaged.expect("told").aside;
        assert_eq!(std::fs::read(&aside).expect("kept"), half);
        assert!(
            aside.display().to_string().contains("ledger.damaged-"),
            "{}",
            aside.display()
        );
        assert_eq!(reopened.ledger().founded(), clock(1, 0).now);
        assert!(fixture.open(clock(1, 0)).1.is_none(), "said once");
    }

    #[test]
    fn damage_under_a_running_process_costs_it_nothing() {
        let fixture = LedgerDirectory::new();
        let (mut file, _) = fixture.open(clock(0, 0));
        for _ in 0..4 {
            assert!(fixture.issue(&mut file, clock(0, 0)));
        }
        std::fs::write(fixture.state().ledger(), "{").expect("written");
        assert!(fixture.issue(&mut file, clock(0, 0)));
        assert!(!fixture.issue(&mut file, clock(0, 0)));
        std::fs::remove_file(fixture.state().ledger()).expect("removed");
        assert!(!fixture.issue(&mut file, clock(0, 0)));
        assert!(
            !fixture.issue(&mut fixture.open(clock(0, 0)).0, clock(0, 0)),
            "it is on disk again"
        );
    }

    #[test]
    fn what_cannot_be_written_is_remembered_here() {
        let fixture = LedgerDirectory::new();
        let (mut file, _) = fixture.open(clock(0, 0));
        // A directory in its place: root may write anywhere else.
        let path = fixture.state().ledger();
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir_all(path.join("full")).expect("made");
        let place = |file: &mut LedgerFile| {
            file.update(clock(0, 0), |ledger, now| {
                let placed = ledger.place(fixture.request(), now).is_ok();
                ledger.record(Event::Issued(fixture.request()), now);
                placed
            })
        };
        for _ in 0..5 {
            let (placed, written) = place(&mut file);
            assert!(placed);
            assert!(matches!(written, Err(LedgerError::Unwritable { .. })));
        }
        assert!(!place(&mut file).0);
        std::fs::remove_dir_all(&path).expect("removed");
        place(&mut file).1.expect("written again");
        assert!(!fixture.issue(&mut fixture.open(clock(0, 0)).0, clock(0, 0)));
    }

    #[test]
    fn a_clock_set_forward_refills_nothing() {
        let fixture = LedgerDirectory::new();
        let (mut file, _) = fixture.open(clock(0, 0));
        for _ in 0..5 {
            assert!(fixture.issue(&mut file, clock(0, 0)));
        }
        // An hour later by one clock, a fortnight by the other.
        assert!(!fixture.issue(&mut file, clock(14 * 24, 1)));
        assert!(!fixture.issue(&mut file, clock(14 * 24 + 168, 169)));
        assert!(fixture.issue(&mut file, clock(14 * 24 + 171, 172)));
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out() {
        let fixture = LedgerDirectory::new();
        let year = 365 * 24;
        let (mut file, _) = fixture.open(clock(year, 0));
        for _ in 0..5 {
            assert!(fixture.issue(&mut file, clock(year, 0)));
        }
        assert!(!fixture.issue(&mut file, clock(0, 1)));
        assert!(
            fixture.issue(&mut file, clock(171, 172)),
            "a week after the clock was set back, not a year"
        );
        // Nor does it when nobody was looking.
        let (mut file, _) = fixture.open(clock(year, 0));
        for _ in 0..5 {
            assert!(fixture.issue(&mut file, clock(year, 0)));
        }
        let (mut restarted, _) = fixture.open(clock(0, 0));
        assert!(!fixture.issue(&mut restarted, clock(0, 0)));
        assert!(fixture.issue(&mut restarted, clock(171, 171)));
    }

    #[test]
    fn the_file_is_private_and_readable_by_people() {
        use std::os::unix::fs::PermissionsExt;
        let fixture = LedgerDirectory::new();
        let (mut file, _) = fixture.open(clock(0, 0));
        assert!(fixture.issue(&mut file, clock(0, 0)));
        let path = fixture.state().ledger();
        assert_eq!(
            std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        insta::assert_snapshot!(std::fs::read_to_string(path).expect("read"), @r#"
        {
          "founded": "2027-01-15T08:00:00Z",
          "confirmed": [],
          "cas": {
            "https://acme-v02.api.letsencrypt.org/directory": {
              "accounts": [],
              "attempts": [
                {
                  "account": "account",
                  "names": [
                    "a.example.com"
                  ],
                  "kind": "renewal",
                  "placed": "2027-01-15T08:00:00Z",
                  "moved": "2027-01-15T08:00:00Z",
                  "stage": "issued"
                }
              ],
              "backoffs": [],
              "streaks": [],
              "closed": []
            }
          }
        }
        "#);
    }
}
