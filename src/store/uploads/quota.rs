//! Limits the number of open upload sessions of each user.
//!
//! A session occupies an inode for up to a day. Sessions that were opened before a restart or by
//! another process do not count.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::observe::resource_use::ResourceUse;

/// Open sessions by user; `None` stands for all clients that are not logged in.
#[derive(Debug, Default)]
pub(super) struct SessionQuota {
    open: Arc<Mutex<Counts>>,
}

type Counts = HashMap<Option<String>, usize>;

/// A session that counts until this is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct SessionSlot {
    user: Option<String>,
    open: Arc<Mutex<Counts>>,
}

/// Sessions that were refused, of the whole process: stores come and go with reloads.
static REFUSED_SESSIONS: AtomicU64 = AtomicU64::new(0);

/// Who opens a session, and how many each user of the store may have open. A client has one for each
/// layer that it pushes in parallel.
#[derive(Clone, Debug)]
pub(crate) struct SessionUser {
    /// `None` stands for all clients that are not logged in.
    pub(crate) name: Option<String>,
    pub(crate) max: usize,
}

#[cfg(test)]
impl SessionUser {
    pub(crate) fn of_test(name: Option<&str>) -> Self {
        Self {
            name: name.map(str::to_owned),
            max: 100,
        }
    }
}

/// The use of the upload sessions of one user.
pub(crate) fn upload_sessions(open: usize, max: usize) -> ResourceUse {
    let refused = REFUSED_SESSIONS.load(Ordering::Relaxed);
    ResourceUse::new("user_upload_sessions", open, max).refused(refused)
}

impl SessionQuota {
    /// Counts a session. `None`: the user already has as many as there may be.
    pub(super) fn take(&self, user: SessionUser) -> Option<SessionSlot> {
        let SessionUser { name: user, max } = user;
        let mut counts = lock(&self.open);
        let open = counts.get(&user).copied().unwrap_or_default();
        if open >= max {
            drop(counts);
            REFUSED_SESSIONS.fetch_add(1, Ordering::Relaxed);
            let limit = max;
            tracing::warn!(user, limit, "upload sessions refused: too many of one user");
            return None;
        }
        counts.insert(user.clone(), open + 1);
        Some(SessionSlot {
            user,
            open: self.open.clone(),
        })
    }

    /// The most that one user has open.
    pub(super) fn most(&self) -> usize {
        lock(&self.open).values().copied().max().unwrap_or_default()
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        let mut counts = lock(&self.open);
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
