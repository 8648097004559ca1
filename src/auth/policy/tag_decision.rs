//! Decisions about writes to one tag, with the conditions of the rules that allow them.

use std::time::Duration;

use super::{Decision, Policy, Principal, Question, Rule};
use crate::config::access::RuleLocation;
use crate::registry::action::Action;
use crate::registry::pattern::RepositoryPattern;

/// The decision about a write to a tag, and on what it depends.
#[derive(Clone, Debug)]
pub struct TagAccess<'p> {
    pub decision: Decision<'p>,
    /// It is allowed if any of these is met; if there is none, without any condition.
    pub conditions: Vec<TagCondition<'p>>,
}

/// What a rule demands before it allows a write to a tag. All of it must hold; there is something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagCondition<'p> {
    /// Another repository that matches one of these has the manifest.
    pub from: Option<&'p [RepositoryPattern]>,
    /// The pattern by which the rule is about the repository.
    pub repository: &'p RepositoryPattern,
    /// The last push that moved the tag is not longer ago.
    pub immutable_after: Option<Duration>,
    pub rule: &'p RuleLocation,
}

impl Policy {
    /// Decides about a write to a tag or its deletion. A deny beats every allow, and an allow without
    /// conditions beats those with conditions.
    pub fn decide_tag(
        &self,
        principal: Principal<'_>,
        action: Action,
        repository: &str,
        tag: &str,
    ) -> TagAccess<'_> {
        if action == Action::MountFrom {
            // Of no tag, and more than one action decides about it.
            return TagAccess {
                decision: self.decide(principal, action, repository, Some(tag)),
                conditions: Vec::new(),
            };
        }
        let question = Question {
            principal,
            action,
            repository,
            tag: Some(tag),
        };
        let mut first = None;
        let mut conditions = Vec::new();
        let decision = self.decide_without_rules(&question);
        let matching = self.matching(&question).filter(|_| decision.is_none());
        for row in matching {
            let Some(rule) = self.rule(row.rank) else {
                continue;
            };
            first.get_or_insert(row.rank);
            let repository = rule.repositories.get(row.repository);
            let condition = repository.and_then(|repository| rule.condition(action, repository));
            let Some(condition) = condition else {
                // A deny, which comes before all allows, or an allow without conditions.
                first = Some(row.rank);
                conditions.clear();
                break;
            };
            conditions.push(condition);
        }
        TagAccess {
            decision: decision.unwrap_or_else(|| self.decided(first)),
            conditions,
        }
    }
}

impl Rule {
    /// What the rule demands for an action; `None`: nothing.
    fn condition<'p>(
        &'p self,
        action: Action,
        repository: &'p RepositoryPattern,
    ) -> Option<TagCondition<'p>> {
        let (from, immutable_after) = self.conditions.of_action(action);
        (from.is_some() || immutable_after.is_some()).then_some(TagCondition {
            from,
            repository,
            immutable_after,
            rule: &self.location,
        })
    }
}
