//! Limits the number of open upload sessions of each user.
//!
//! A session occupies an inode for up to a day. Sessions that were opened before a restart or by
//! another process do not count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open sessions by user; `None` stands for all clients that are not logged in.
#[derive(Debug, Default)]
pub(super) struct SessionQuota {
    open: Arc<Mutex<Counts>>,
}

type Counts = HashMap<Option<String>, usize>;

/// A session that counts until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct SessionSlot {
    user: Option<String>,
    open: Arc<Mutex<Counts>>,
}

/// By user and store. A client has one open session for each layer that it pushes in parallel.
pub(super) const MAX_SESSIONS: usize = 1000;

impl SessionQuota {
    /// Counts a session. `None`: the user already has [`MAX_SESSIONS`].
    pub(super) fn take(&self, user: Option<String>) -> Option<SessionSlot> {
        let mut counts = lock(&self.open);
        let count = counts.entry(user.clone()).or_default();
        if *count >= MAX_SESSIONS {
            return None;
        }
        *count += 1;
        Some(SessionSlot {
            user,
            open: self.open.clone(),
        })
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
