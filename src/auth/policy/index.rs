//! Finds the rules that can match a question. Each part of the question (user, action, repository,
//! tag, address) selects a set of rows; the few rows in all of the sets are compared one by one.

mod networks;
mod rows;
mod texts;

use fixedbitset::FixedBitSet;

use self::networks::Networks;
use self::rows::Rows;
use self::texts::Texts;
use super::{Question, Rule};
use crate::config::access::Selector;
use crate::registry::action::Action;

/// The rules by each part of a question.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By rank, and in the order of the rule's repositories.
    rows: Vec<Row>,
    users: Users,
    actions: Vec<(Action, Rows)>,
    repositories: Texts,
    tags: Tags,
    networks: Networks,
}

/// A rule and one of its repositories, so that a rule with a thousand repositories costs as much as
/// a thousand rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) rank: usize,
    /// The index of the repository in the rule.
    pub(super) repository: usize,
}

/// A row that can match a question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) row: Row,
    /// Whether the user's name has to be compared with the patterns of the rule.
    pub(super) by_pattern: bool,
}

#[derive(Debug, Default)]
struct Users {
    /// Rules for some users: by name, by group, and by patterns of names.
    named: Texts,
    /// Rules for every user with a login.
    authenticated: Rows,
    /// Allows for `@anonymous`, which count for users, too.
    everyone: Rows,
    /// Denies for `@anonymous`.
    anonymous_only: Rows,
}

#[derive(Debug, Default)]
struct Tags {
    /// Rules without tags.
    any: Rows,
    denies: Rows,
    allows: Rows,
    named: Texts,
}

impl Index {
    /// Indexes rules that are ordered by rank.
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self {
            actions: Action::ALL.map(|action| (action, Rows::default())).into(),
            ..Self::default()
        };
        let every = rules.iter().enumerate();
        let pairs = every.flat_map(|(rank, rule)| {
            rule.repositories
                .iter()
                .enumerate()
                .map(move |at| (rank, rule, at))
        });
        for (row, (rank, rule, (at, repository))) in pairs.enumerate() {
            index.rows.push(Row {
                rank,
                repository: at,
            });
            index.users.add(row, rule);
            for (_, rows) in index
                .actions
                .iter_mut()
                .filter(|(action, _)| rule.actions.has(*action))
            {
                rows.add(row);
            }
            index.repositories.add(row, repository.literals());
            index.tags.add(row, rule);
            index.networks.add(row, rule.networks.as_deref());
        }
        index.users.named.finish();
        index.repositories.finish();
        index.tags.named.finish();
        index
    }

    /// The rows that can match a question, by rank.
    pub(super) fn candidates(&self, question: &Question<'_>) -> impl Iterator<Item = Candidate> {
        let Question {
            principal,
            action,
            repository,
            tag,
        } = *question;
        let none = || FixedBitSet::with_capacity(self.rows.len());
        let mut sure = none();
        let mut found = none();
        self.users.find(principal.user, &mut sure, &mut found);
        found.union_with(&sure);
        let mut other = none();
        self.actions
            .iter()
            .filter(|(of, _)| *of == action)
            .for_each(|(_, rows)| rows.add_to(&mut other));
        found.intersect_with(&other);
        let parts: [&dyn Fn(&mut FixedBitSet); 3] = [
            &|bits: &mut FixedBitSet| self.repositories.find(repository, bits, None),
            &|bits: &mut FixedBitSet| self.tags.find(action, tag, bits),
            &|bits: &mut FixedBitSet| self.networks.find(principal.client, bits),
        ];
        for find in parts {
            if count(&found) <= MAX_COMPARED_ROWS {
                break;
            }
            other.clear();
            find(&mut other);
            found.intersect_with(&other);
        }
        found.into_ones().filter_map(move |row| {
            Some(Candidate {
                row: *self.rows.get(row)?,
                by_pattern: !sure.contains(row),
            })
        })
    }
}

impl Users {
    fn add(&mut self, row: usize, rule: &Rule) {
        for selector in &rule.users {
            match selector {
                Selector::Name(pattern) if pattern.is_any() => self.authenticated.add(row),
                Selector::Name(pattern) => self.named.add(row, pattern.literals()),
                Selector::Group { members, .. } => {
                    members
                        .iter()
                        .for_each(|member| self.named.add_whole(row, member));
                }
                Selector::Authenticated => self.authenticated.add(row),
                Selector::Anonymous if rule.deny => self.anonymous_only.add(row),
                Selector::Anonymous => self.everyone.add(row),
            }
        }
    }

    /// Adds the rows for the user to `sure`, and to `perhaps` those whose patterns may match the name.
    fn find(&self, user: Option<&str>, sure: &mut FixedBitSet, perhaps: &mut FixedBitSet) {
        self.everyone.add_to(sure);
        match user {
            Some(user) => {
                self.authenticated.add_to(sure);
                self.named.find(user, perhaps, Some(sure));
            }
            None => self.anonymous_only.add_to(sure),
        }
    }
}

impl Tags {
    fn add(&mut self, row: usize, rule: &Rule) {
        let Some(tags) = &rule.tags else {
            return self.any.add(row);
        };
        if rule.deny {
            self.denies.add(row)
        } else {
            self.allows.add(row)
        }
        tags.iter()
            .for_each(|tag| self.named.add(row, tag.literals()));
    }

    /// As [`Rule::is_about_tag`], for all rows.
    fn find(&self, action: Action, tag: Option<&str>, to: &mut FixedBitSet) {
        self.any.add_to(to);
        match (action, tag) {
            (Action::DeleteManifest, _) => self.denies.add_to(to),
            (Action::Push | Action::Overwrite | Action::DeleteTag, Some(tag)) => {
                self.named.find(tag, to, None)
            }
            _ => self.allows.add_to(to),
        }
    }
}

/// The number of rows in a set. `count_ones(..)` masks each block, which costs a decision up to a
/// tenth of its time.
fn count(rows: &FixedBitSet) -> usize {
    let ones = rows
        .as_slice()
        .iter()
        .map(|block| block.count_ones() as usize);
    ones.sum()
}

/// So few rows are compared one by one: searching on would cost as much.
const MAX_COMPARED_ROWS: usize = 4;
