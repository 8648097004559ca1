//! Which rules can be about somebody and a repository: by the user's name, and by the levels that the
//! names of a rule's repositories begin with.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Rule;
use crate::config::access::Selector;

/// Where to look for rules.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Of one user, by name or by group.
    users: Map<Rules>,
    /// Of users by a pattern of names.
    patterned: Rules,
    /// Of every user.
    authenticated: Rules,
    /// What those may who are not logged in, and with them everybody.
    everybody: Rules,
    /// What those may not.
    strangers: Rules,
}

/// Rules by the whole levels that their repositories begin with; each list is in order of rank.
#[derive(Debug, Default)]
struct Rules {
    by_prefix: Map<Vec<usize>>,
    /// The most levels that a prefix has.
    deepest: usize,
}

/// Keys are an administrator's, so that nobody can choose ones that collide.
type Map<V> = HashMap<Box<str>, V, BuildHasherDefault<Fnv>>;

impl Index {
    /// Indexes rules, whose place is their rank.
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (rank, rule) in rules.iter().enumerate() {
            for selector in &rule.users {
                match selector {
                    Selector::Name(pattern) => match pattern.literal() {
                        Some(name) => index.users.entry(name.into()).or_default().add(rank, rule),
                        None if pattern.is_any() => index.authenticated.add(rank, rule),
                        None => index.patterned.add(rank, rule),
                    },
                    Selector::Group { members, .. } => {
                        for member in &**members {
                            index.users.entry(member.clone()).or_default().add(rank, rule);
                        }
                    }
                    Selector::Authenticated => index.authenticated.add(rank, rule),
                    Selector::Anonymous if rule.deny => index.strangers.add(rank, rule),
                    Selector::Anonymous => index.everybody.add(rank, rule),
                }
            }
        }
        index
    }

    /// The lowest rank for which `is_about` says yes. It is told whether the user's name was compared with a
    /// pattern's star alone.
    pub(super) fn first(
        &self,
        user: Option<&str>,
        repository: &str,
        mut is_about: impl FnMut(usize, bool) -> bool,
    ) -> Option<usize> {
        let mut best = None;
        let mut look = |rules: &Rules, by_pattern: bool| {
            rules.first(repository, &mut best, |rank| is_about(rank, by_pattern));
        };
        match user {
            Some(user) => {
                if let Some(own) = self.users.get(user) {
                    look(own, false);
                }
                look(&self.authenticated, false);
                look(&self.patterned, true);
            }
            None => look(&self.strangers, false),
        }
        look(&self.everybody, false);
        best
    }
}

impl Rules {
    fn add(&mut self, rank: usize, rule: &Rule) {
        for pattern in &rule.repositories {
            let prefix = pattern.prefix();
            let levels = if prefix.is_empty() { 0 } else { prefix.split('/').count() };
            self.deepest = self.deepest.max(levels);
            let list = self.by_prefix.entry(prefix.into()).or_default();
            // A rule comes more than once where several of its users or repositories lead here.
            if list.last() != Some(&rank) {
                list.push(rank);
            }
        }
    }

    /// Lowers `best` to the first rank that is about the repository.
    fn first(&self, repository: &str, best: &mut Option<usize>, mut is_about: impl FnMut(usize) -> bool) {
        if self.by_prefix.is_empty() {
            return;
        }
        let ends = repository.match_indices('/').map(|(at, _)| at).chain([repository.len()]);
        for end in std::iter::once(0).chain(ends.take(self.deepest)) {
            let ranks = repository.get(..end).and_then(|prefix| self.by_prefix.get(prefix));
            let ranks = ranks.into_iter().flatten().copied();
            let lower = *best;
            if let Some(found) =
                ranks.take_while(|&rank| lower.is_none_or(|lower| rank < lower)).find(|&rank| is_about(rank))
            {
                *best = Some(found);
            }
        }
    }
}

/// FNV-1a: for a few short keys it costs a third of the standard hash.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
