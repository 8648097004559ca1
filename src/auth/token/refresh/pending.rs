//! Changes that are not in the file yet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{RefreshTokenRecord, TokenHash};

/// What happened to a token.
#[derive(Clone)]
pub(super) enum Change {
    Add(Arc<RefreshTokenRecord>),
    /// A use at `at`, which moved the expiry to `expires` (seconds since 1970).
    Use {
        at: u64,
        expires: u64,
    },
    Remove,
}

/// One change for each token, so that a token in use takes the same memory however long the file
/// cannot be written.
#[derive(Default)]
pub(super) struct PendingChanges {
    by_token: HashMap<TokenHash, Pending>,
    /// The number of the next change.
    next: u64,
}

struct Pending {
    change: Change,
    /// The numbers of the first and the last change that are merged here.
    first: u64,
    last: u64,
    /// When the first of them happened, if it was a use.
    used_since: Option<u64>,
}

impl PendingChanges {
    pub(super) fn push(&mut self, hash: TokenHash, change: Change) {
        let number = self.next;
        self.next += 1;
        let used_since = match change {
            Change::Use { at, .. } => Some(at),
            Change::Add(_) | Change::Remove => None,
        };
        match self.by_token.entry(hash) {
            Entry::Vacant(vacant) => {
                vacant.insert(Pending {
                    change,
                    first: number,
                    last: number,
                    used_since,
                });
            }
            Entry::Occupied(mut occupied) => {
                let pending = occupied.get_mut();
                pending.last = number;
                pending.change.merge(change);
                if !matches!(pending.change, Change::Use { .. }) {
                    pending.used_since = None;
                }
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TokenHash, &Change)> {
        self.by_token
            .iter()
            .map(|(hash, pending)| (hash, &pending.change))
    }

    /// The number of the next change: a snapshot taken now has all changes with lower numbers.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Removes the changes below a number, which have been written.
    pub(super) fn written(&mut self, before: u64) {
        self.by_token.retain(|_, pending| {
            if pending.last < before {
                return false;
            }
            if pending.first < before {
                pending.first = before;
                match &pending.change {
                    // The file has the token. Adding it again would bring it back after another
                    // process has revoked it.
                    Change::Add(record) => {
                        pending.used_since = Some(record.used);
                        pending.change = Change::Use {
                            at: record.used,
                            expires: record.expires,
                        };
                    }
                    Change::Use { at, .. } => pending.used_since = Some(*at),
                    Change::Remove => {}
                }
            }
            true
        });
    }

    /// Removes the changes of tokens that were removed.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&TokenHash) -> bool) {
        self.by_token
            .retain(|hash, pending| matches!(pending.change, Change::Remove) || is_kept(hash));
    }

    /// Removes the changes of a token.
    pub(super) fn discard(&mut self, hash: &TokenHash) {
        self.by_token.remove(hash);
    }

    /// Whether the write can be deferred: a use is written after a minute, so that a busy token does not
    /// cause a write each second.
    pub(super) fn can_wait(&self, now: u64) -> bool {
        self.by_token.values().all(|pending| {
            pending
                .used_since
                .is_some_and(|since| now.saturating_sub(since) < USE_DELAY_SECONDS)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_token.len()
    }
}

impl Change {
    /// Adds a later change of the same token.
    fn merge(&mut self, later: Self) {
        match (&mut *self, later) {
            (Self::Add(record), Self::Use { at, expires }) => {
                Arc::make_mut(record).use_at(at, expires);
            }
            (
                Self::Use { at, expires },
                Self::Use {
                    at: later,
                    expires: until,
                },
            ) => {
                *at = later.max(*at);
                *expires = until;
            }
            (Self::Remove, Self::Use { .. }) => {}
            (_, later @ (Self::Add(_) | Self::Remove)) => *self = later,
        }
    }
}

const USE_DELAY_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Arc<RefreshTokenRecord> {
        Arc::new(RefreshTokenRecord {
            domain: "ci.test".to_owned(),
            user: "alice".to_owned(),
            entry: String::new(),
            client: String::new(),
            created: 0,
            used: 0,
            expires: 100,
        })
    }

    fn used(at: u64) -> Change {
        let expires = at + 100;
        Change::Use { at, expires }
    }

    #[test]
    fn a_busy_token_is_written_after_a_minute() {
        let mut pending = PendingChanges::default();
        for at in 0..60 {
            pending.push(TokenHash([0; 32]), used(at));
            assert!(pending.can_wait(at));
        }
        assert_eq!(pending.len(), 1);
        assert!(!pending.can_wait(60));
        let (_, change) = pending.iter().next().expect("one change");
        assert!(matches!(
            change,
            Change::Use {
                at: 59,
                expires: 159
            }
        ));
    }

    #[test]
    fn a_token_that_was_used_while_it_was_written_is_not_added_again() {
        let mut pending = PendingChanges::default();
        let hash = TokenHash([0; 32]);
        pending.push(hash, Change::Add(record()));
        let written = pending.next();
        pending.push(hash, used(7));
        let (_, change) = pending.iter().next().expect("one change");
        assert!(matches!(change, Change::Add(record) if record.used == 7 && record.expires == 107));
        pending.written(written);
        let (_, change) = pending.iter().next().expect("one change");
        assert!(matches!(
            change,
            Change::Use {
                at: 7,
                expires: 107
            }
        ));
        pending.written(pending.next());
        assert!(pending.is_empty());
    }

    #[test]
    fn a_revoked_token_stays_revoked() {
        let mut pending = PendingChanges::default();
        let hash = TokenHash([0; 32]);
        for change in [Change::Add(record()), Change::Remove, used(1)] {
            pending.push(hash, change);
        }
        let (_, change) = pending.iter().next().expect("one change");
        assert!(matches!(change, Change::Remove));
        assert!(!pending.can_wait(0));
        pending.retain(|_| false);
        assert!(!pending.is_empty(), "the file still has it");
    }
}
