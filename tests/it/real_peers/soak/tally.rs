//! What has become of every transfer.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::lasting_client::NoAnswer;
use crate::harness::registry_client::ClientAnswer;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Ask,
    /// Reads from moorgate's own registry.
    StoreRead,
    StorePush,
    /// Reads from the replicas that fit into one segment.
    SmallRead,
    LargeRead,
    ReplicaPush,
}

/// What it did not get.
#[derive(Debug)]
pub(super) enum Unmet {
    /// An answer that says so.
    Refused(u16, String),
    /// A body that ended too early, and showed it.
    Cut(String),
    Failed(String),
}

/// The time of a fault.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) fault: Fault,
    pub(super) began: Instant,
    pub(super) ended: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A replica is killed, stopped or cut off.
    Upstream,
    FullDisk,
    /// What no transfer may notice: a reload, an upgrade, a deleted file.
    Own,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    is_over: AtomicBool,
    good: [AtomicU64; ROLES.len()],
    refused: Mutex<Vec<Refusal>>,
    failed: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Refusal {
    role: Role,
    began: Instant,
    ended: Instant,
    unmet: Unmet,
}

impl Tally {
    pub(super) fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether nothing has failed so far.
    pub(super) fn is_well(&self) -> bool {
        self.failed.lock().unwrap().is_empty()
    }

    pub(super) fn count(&self, role: Role, began: Instant, done: Result<(), Unmet>) {
        match done {
            Ok(()) => {
                self.good[role as usize].fetch_add(1, Ordering::Relaxed);
            }
            Err(Unmet::Failed(what)) => {
                let time = began.elapsed();
                self.failed
                    .lock()
                    .unwrap()
                    .push(format!("{role:?} after {time:?}: {what}"));
            }
            Err(unmet) => self.refused.lock().unwrap().push(Refusal {
                role,
                began,
                ended: Instant::now(),
                unmet,
            }),
        }
    }

    /// Everything has happened, and nothing that the faults do not explain.
    pub(super) fn judge(&self, windows: &[Window]) {
        let failed = self.failed.lock().unwrap();
        let first = &failed[..failed.len().min(10)];
        assert!(failed.is_empty(), "{first:#?}");
        for role in ROLES {
            let good = self.good[role as usize].load(Ordering::Relaxed);
            assert!(good > 0, "{role:?}: none");
        }
        let refused = self.refused.lock().unwrap();
        for refusal in refused.iter() {
            assert!(refusal.is_explained(windows), "{refusal:?}\n{windows:#?}");
        }
        let of = |fault| {
            windows
                .iter()
                .filter(|window| window.fault == fault)
                .count()
        };
        let with_replicas = refused.iter().filter(|one| one.role != Role::StorePush);
        // What was in progress there, and what was begun before the ejection, of each client.
        let most = 2 * super::load::REPLICA_CLIENTS * of(Fault::Upstream);
        assert!(with_replicas.count() <= most, "{refused:#?}");
    }
}

impl Refusal {
    fn is_explained(&self, windows: &[Window]) -> bool {
        let (fault, after) = match (self.role, &self.unmet) {
            (Role::StorePush, Unmet::Refused(503, text)) if text.contains("disk") => {
                (Fault::FullDisk, Duration::ZERO)
            }
            (Role::ReplicaPush, Unmet::Refused(502..=504, text))
                if text.contains("UNAVAILABLE") =>
            {
                (Fault::Upstream, BACK)
            }
            // A push reads what it has pushed.
            (Role::LargeRead | Role::ReplicaPush, Unmet::Cut(_)) => (Fault::Upstream, BACK),
            _ => return false,
        };
        let is_near =
            |window: &&Window| self.ended >= window.began && self.began <= window.ended + after;
        let of = windows.iter().filter(|window| window.fault == fault);
        of.filter(is_near).count() > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = self.refused.lock().unwrap();
        for role in ROLES {
            let good = self.good[role as usize].load(Ordering::Relaxed);
            let refused = refused.iter().filter(|one| one.role == role).count();
            write!(f, "{role:?} {good}+{refused} ")?;
        }
        write!(f, "failed {}", self.failed.lock().unwrap().len())
    }
}

/// The answer with this status, or what came instead.
pub(super) fn expect(
    answer: Result<ClientAnswer, NoAnswer>,
    status: u16,
) -> Result<ClientAnswer, Unmet> {
    match answer {
        Ok(answer) if answer.status == status => Ok(answer),
        Ok(answer) if (502..=504).contains(&answer.status) => {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            Err(Unmet::Refused(answer.status, text))
        }
        Err(NoAnswer::Body(200, why)) => Err(Unmet::Cut(why)),
        Ok(answer) => Err(Unmet::Failed(format!("{answer:?}"))),
        Err(none) => Err(Unmet::Failed(none.to_string())),
    }
}

const ROLES: [Role; 6] = [
    Role::Ask,
    Role::StoreRead,
    Role::StorePush,
    Role::SmallRead,
    Role::LargeRead,
    Role::ReplicaPush,
];
/// A replica is back in service some seconds after its fault.
const BACK: Duration = Duration::from_secs(60);
