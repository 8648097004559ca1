//! The refresh tokens of the process, and the bounds on their number.

use std::collections::HashMap;
use std::sync::Arc;

use super::pending::Change;
use super::{RefreshTokenRecord, TokenHash};

/// The record of each token, and the number of tokens of each user.
#[derive(Default)]
pub(super) struct Records {
    all: HashMap<TokenHash, Arc<RefreshTokenRecord>>,
    /// By domain and user.
    counts: HashMap<(String, String), usize>,
}

impl Records {
    pub(super) fn new(all: HashMap<TokenHash, RefreshTokenRecord>) -> Self {
        let all: HashMap<_, _> = all
            .into_iter()
            .map(|(hash, record)| (hash, Arc::new(record)))
            .collect();
        let mut counts = HashMap::new();
        for record in all.values() {
            *counts.entry(owner(record)).or_default() += 1;
        }
        Self { all, counts }
    }

    pub(super) fn get(&self, hash: &TokenHash) -> Option<&Arc<RefreshTokenRecord>> {
        self.all.get(hash)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TokenHash, &Arc<RefreshTokenRecord>)> {
        self.all.iter()
    }

    /// A copy that is used without the lock.
    pub(super) fn snapshot(&self) -> Vec<(TokenHash, Arc<RefreshTokenRecord>)> {
        self.all
            .iter()
            .map(|(hash, record)| (*hash, record.clone()))
            .collect()
    }

    /// Applies a change. The cost of a use does not depend on the number of tokens: a thread that serves
    /// requests pays it.
    pub(super) fn apply(&mut self, hash: &TokenHash, change: &Change) {
        match change {
            Change::Add(record) => {
                self.remove(hash);
                *self.counts.entry(owner(record)).or_default() += 1;
                self.all.insert(*hash, record.clone());
            }
            Change::Use { at, expires } => {
                if let Some(record) = self.all.get_mut(hash) {
                    Arc::make_mut(record).use_at(*at, *expires);
                }
            }
            Change::Remove => self.remove(hash),
        }
    }

    pub(super) fn remove(&mut self, hash: &TokenHash) {
        let Some(record) = self.all.remove(hash) else {
            return;
        };
        let owner = owner(&record);
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
    }

    /// Removes the expired tokens, and the least recently used ones above the bounds.
    pub(super) fn trim(&mut self, now: u64) {
        let expired: Vec<_> = self
            .all
            .iter()
            .filter(|(_, record)| record.expires <= now)
            .map(|(hash, _)| *hash)
            .collect();
        expired.iter().for_each(|hash| self.remove(hash));
        let too_many = self
            .counts
            .iter()
            .filter(|(_, count)| **count > MAX_TOKENS_OF_USER);
        let too_many: Vec<_> = too_many
            .map(|(owner, count)| (owner.clone(), *count))
            .collect();
        for ((domain, user), count) in too_many {
            self.remove_least_recently_used(count - MAX_TOKENS_OF_USER, |record| {
                record.domain == domain && record.user == user
            });
        }
        self.remove_least_recently_used(self.all.len().saturating_sub(MAX_TOKENS), |_| true);
    }

    /// Removes the `count` least recently used of the selected tokens.
    fn remove_least_recently_used(
        &mut self,
        count: usize,
        of: impl Fn(&RefreshTokenRecord) -> bool,
    ) {
        let Some(last) = count.checked_sub(1) else {
            return;
        };
        let of_these = self.all.iter().filter(|(_, record)| of(record));
        let mut by_use: Vec<_> = of_these
            .map(|(hash, record)| (record.used, *hash))
            .collect();
        if last < by_use.len() {
            by_use.select_nth_unstable_by_key(last, |(used, hash)| (*used, hash.0));
        }
        by_use
            .iter()
            .take(count)
            .for_each(|(_, hash)| self.remove(hash));
    }
}

fn owner(record: &RefreshTokenRecord) -> (String, String) {
    (record.domain.clone(), record.user.clone())
}

/// Every `docker login` issues one. A job that waits an hour between its login and its push must not
/// lose its token to the logins of other jobs.
const MAX_TOKENS_OF_USER: usize = 2000;
/// About 6 MB of a file that is written with every login.
const MAX_TOKENS: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(user: usize, used: u64) -> RefreshTokenRecord {
        RefreshTokenRecord {
            domain: "ci.test".to_owned(),
            user: user.to_string(),
            entry: String::new(),
            client: String::new(),
            created: 0,
            used,
            expires: 1_000_000,
        }
    }

    fn hash(number: usize) -> TokenHash {
        TokenHash::from_token(&number.to_string())
    }

    fn records(count: usize, user: impl Fn(usize) -> usize) -> Records {
        Records::new(
            (0..count)
                .map(|number| (hash(number), record(user(number), number as u64)))
                .collect(),
        )
    }

    #[test]
    fn the_least_recently_used_tokens_above_the_bounds_are_removed() {
        let mut of_one = records(3000, |_| 0);
        of_one.apply(&hash(9999), &Change::Add(Arc::new(record(1, 0))));
        of_one.trim(1);
        assert_eq!(of_one.all.len(), MAX_TOKENS_OF_USER + 1);
        assert!(of_one.get(&hash(999)).is_none() && of_one.get(&hash(1000)).is_some());
        assert!(of_one.get(&hash(9999)).is_some(), "of another user");
        let mut of_many = records(30_000, |number| number % 100);
        of_many.trim(1);
        assert_eq!(of_many.all.len(), MAX_TOKENS);
        assert!(of_many.get(&hash(9_999)).is_none() && of_many.get(&hash(10_000)).is_some());
        of_many.trim(1_000_000);
        assert!(
            of_many.all.is_empty() && of_many.counts.is_empty(),
            "expired"
        );
    }

    #[test]
    fn a_use_evicts_no_token() {
        // As two processes may bring them together, before the next login.
        let mut records = records(3000, |_| 0);
        let used = Change::Use {
            at: 9_000,
            expires: 2_000_000,
        };
        records.apply(&hash(0), &used);
        assert_eq!(records.all.len(), 3000);
        records.trim(1);
        assert!(
            records.get(&hash(0)).is_some(),
            "it is the one that was used last"
        );
        assert!(records.get(&hash(1)).is_none());
    }

    #[test]
    fn the_tokens_of_each_user_are_counted() {
        let mut records = records(4, |number| number % 2);
        let count = |records: &Records, user: &str| {
            records
                .counts
                .get(&("ci.test".to_owned(), user.to_owned()))
                .copied()
        };
        assert_eq!(
            (count(&records, "0"), count(&records, "1")),
            (Some(2), Some(2))
        );
        for _ in 0..2 {
            records.apply(&hash(7), &Change::Add(Arc::new(record(0, 1))));
        }
        records.apply(&hash(7), &Change::Use { at: 2, expires: 3 });
        assert_eq!(count(&records, "0"), Some(3));
        for number in [1, 3, 3, 99] {
            records.apply(&hash(number), &Change::Remove);
        }
        assert_eq!(
            (count(&records, "0"), count(&records, "1")),
            (Some(3), None)
        );
    }
}
