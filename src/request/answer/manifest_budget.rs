//! Memory budget for buffered manifests: 64 MiB per process, 16 MiB per user, taken as the bytes
//! arrive. Callers wait up to 10 s for memory, with the rest of the request unread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::observe::resource_use::ResourceUse;
use crate::request::rejection::Rejection;

/// The memory that all buffered manifests together may take.
pub(crate) struct ManifestBudget(Arc<SharedBudget>);

#[derive(Debug)]
struct SharedBudget {
    memory: Mutex<BudgetState>,
    released: Notify,
}

#[derive(Debug)]
struct BudgetState {
    free: usize,
    /// What the manifests of each domain and user take, of those that take any.
    users: HashMap<String, usize>,
}

/// Memory for one manifest, released when this is dropped.
#[derive(Debug)]
pub(crate) struct MemoryPermit {
    budget: Arc<SharedBudget>,
    user: String,
    bytes: usize,
}

/// 64 MiB: sixteen manifests of the default maximum size, some ten thousand of the usual size.
const BUDGET: usize = 64 << 20;
/// The most that one user takes.
const MAX_USER_SHARE: usize = BUDGET / 4;
/// Longer than pushes that make progress take, shorter than clients wait.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);

impl ManifestBudget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(SharedBudget {
            memory: Mutex::new(BudgetState {
                free: BUDGET,
                users: HashMap::new(),
            }),
            released: Notify::new(),
        }))
    }

    /// The use of the memory, in bytes.
    pub(crate) fn usage(&self) -> ResourceUse {
        let free = self.0.memory().free;
        ResourceUse::new("manifest_memory", BUDGET - free, BUDGET)
    }

    /// A permit for no bytes yet, for a manifest of `user` (domain and name).
    pub(crate) fn permit(&self, user: String) -> MemoryPermit {
        MemoryPermit {
            budget: self.0.clone(),
            user,
            bytes: 0,
        }
    }
}

impl SharedBudget {
    fn memory(&self) -> MutexGuard<'_, BudgetState> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BudgetState {
    /// Takes memory for a user, who never gets more than is left afterwards for others: whatever
    /// some users take, there is always as much for another one.
    fn take(&mut self, user: &str, bytes: usize) -> bool {
        let taken = self.users.get(user).copied().unwrap_or_default() + bytes;
        let Some(left) = self.free.checked_sub(bytes) else {
            return false;
        };
        if taken > MAX_USER_SHARE.min(left) {
            return false;
        }
        self.free = left;
        self.users.insert(user.to_owned(), taken);
        true
    }

    fn release(&mut self, user: &str, bytes: usize) {
        self.free += bytes;
        if let Some(taken) = self.users.get_mut(user) {
            *taken -= bytes;
            if *taken == 0 {
                self.users.remove(user);
            }
        }
    }
}

impl MemoryPermit {
    /// Waits for memory for further bytes, which have arrived.
    ///
    /// Errors: 503 when there is none for [`PERMIT_TIMEOUT`].
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        let budget = self.budget.clone();
        let taken = async {
            loop {
                // Before the attempt: a release in between is not missed.
                let mut released = std::pin::pin!(budget.released.notified());
                released.as_mut().enable();
                if budget.memory().take(&self.user, bytes) {
                    return;
                }
                released.await;
            }
        };
        tokio::time::timeout(PERMIT_TIMEOUT, taken)
            .await
            .map_err(|_| Rejection::too_many_manifests())?;
        self.bytes += bytes;
        Ok(())
    }

    /// The bytes with their permit, which is released with the last reference to them.
    pub(crate) fn attach(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(PermittedBytes {
            bytes,
            _permit: self,
        })
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.memory().release(&self.user, self.bytes);
            self.budget.released.notify_waiters();
        }
    }
}

struct PermittedBytes {
    bytes: Bytes,
    _permit: MemoryPermit,
}

impl AsRef<[u8]> for PermittedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const MIB: usize = 1 << 20;

    async fn taken(budget: &ManifestBudget, user: &str, bytes: usize) -> Option<MemoryPermit> {
        let mut permit = budget.permit(user.to_owned());
        permit.grow(bytes).await.ok().map(|()| permit)
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_gets_a_quarter_at_most_and_waits_ten_seconds_for_more() {
        let budget = ManifestBudget::new();
        let mut first = taken(&budget, "alice", 8 * MIB).await.expect("memory");
        let second = taken(&budget, "alice", 8 * MIB).await.expect("memory");
        let begun = Instant::now();
        assert!(first.grow(1).await.is_err());
        assert_eq!(begun.elapsed(), PERMIT_TIMEOUT);
        let waiting = async {
            tokio::join!(first.grow(MIB), async {
                tokio::task::yield_now().await;
                drop(second);
            })
        };
        assert!(waiting.await.0.is_ok());
        assert_eq!(begun.elapsed(), PERMIT_TIMEOUT, "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_some_users_take_there_is_memory_for_another_one() {
        let budget = ManifestBudget::new();
        let mut held = Vec::new();
        for user in 0..12 {
            // In small pieces, as much as there is.
            let mut permit = budget.permit(user.to_string());
            while budget.0.memory().take(&permit.user, 1024) {
                permit.bytes += 1024;
            }
            assert!(permit.bytes >= 1024, "{user}");
            held.push(permit);
        }
        let begun = Instant::now();
        assert!(taken(&budget, "erin", 4 << 10).await.is_some());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(held);
        let state = budget.0.memory();
        assert!(state.users.is_empty() && state.free == BUDGET, "{state:?}");
    }
}
