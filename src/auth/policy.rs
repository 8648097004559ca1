//! The access rules of a virtual host, compiled to an index, so that a decision compares only the
//! few rules that can match. Pure: no I/O, no async.

mod index;
mod summary;
mod tag_decision;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use self::index::{Candidate, Index, Row};
pub(crate) use self::tag_decision::{TagAccess, TagCondition};
use crate::config::access::{AccessRule, AccessSettings, RuleLocation, Selector, TagConditions};
use crate::registry::action::{Action, Actions};
use crate::registry::pattern::{Pattern, RepositoryPattern};

/// The rules of a virtual host. A deny beats every allow; what no rule allows is denied.
#[derive(Debug)]
pub struct Policy {
    /// By rank: all denies before all allows, and each kind in the order of the file, so that the
    /// first rule that matches a question decides it.
    rules: Box<[Rule]>,
    index: Index,
    /// There are no rules: every user may do everything.
    open: bool,
    anonymous: Actions,
    limits_ages: bool,
}

/// The user and the address that a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal<'a> {
    /// The name of the user; `None` for a client without a login.
    pub user: Option<&'a str>,
    pub client: IpAddr,
}

/// The decision of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'p> {
    pub allowed: bool,
    /// The rule that decided; `None` if no rule matches.
    pub rule: Option<&'p RuleLocation>,
}

impl Decision<'_> {
    /// Whether a rule denies it; false where no rule matches.
    pub fn is_denied(&self) -> bool {
        !self.allowed && self.rule.is_some()
    }
}

#[derive(Debug)]
struct Rule {
    deny: bool,
    /// The user names with a star, which the index cannot find by their text.
    names: Box<[Pattern]>,
    repositories: Box<[RepositoryPattern]>,
    tags: Option<Box<[Pattern]>>,
    actions: Actions,
    networks: Option<Box<[IpNet]>>,
    users: Box<[Selector]>,
    conditions: TagConditions,
    location: RuleLocation,
}

impl Policy {
    /// Compiles rules. `anonymous` are the actions that rules can allow without a login.
    pub fn new(settings: &AccessSettings, anonymous: Actions) -> Self {
        let AccessSettings {
            rules,
            groups: _,
            inherits: _,
            written: _,
        } = settings;
        let denies = rules.iter().filter(|rule| rule.deny);
        let allows = rules.iter().filter(|rule| !rule.deny);
        let compiled: Box<[Rule]> = denies.chain(allows).map(Rule::new).collect();
        Self {
            index: Index::new(&compiled),
            open: compiled.is_empty(),
            rules: compiled,
            anonymous,
            limits_ages: settings.limits_ages(),
        }
    }

    /// Whether there are no rules, so that every user may do everything.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a rule allows something by the age of a tag.
    pub fn limits_ages(&self) -> bool {
        self.limits_ages
    }

    /// Whether an action is allowed, if only under conditions: [`Self::decide_tag`] returns those. A
    /// write without a tag has none. Without a tag, an action on tags is allowed if it is allowed for
    /// any tag, and a deny of certain tags does not count. A mount reads as a pull does: an allow of
    /// either allows it, and a deny of either denies it.
    pub fn decide(
        &self,
        principal: Principal<'_>,
        action: Action,
        repository: &str,
        tag: Option<&str>,
    ) -> Decision<'_> {
        let decision = self.decide_alone(principal, action, repository, tag);
        if action != Action::MountFrom || decision.is_denied() {
            return decision;
        }
        let pull = self.decide_alone(principal, Action::Pull, repository, tag);
        if decision.allowed && !pull.is_denied() {
            decision
        } else {
            pull
        }
    }

    /// Whether HEAD requests for the content of a repository are allowed. Clients check with them
    /// whether content exists before and after they push it: the right to push suffices, unless a
    /// rule denies pulls.
    pub fn decide_head(&self, principal: Principal<'_>, repository: &str) -> Decision<'_> {
        let pull = self.decide(principal, Action::Pull, repository, None);
        if pull.allowed || pull.is_denied() {
            return pull;
        }
        let push = self.decide(principal, Action::Push, repository, None);
        if push.allowed { push } else { pull }
    }

    fn decide_alone(
        &self,
        principal: Principal<'_>,
        action: Action,
        repository: &str,
        tag: Option<&str>,
    ) -> Decision<'_> {
        let question = Question {
            principal,
            action,
            repository,
            tag,
        };
        if let Some(decision) = self.decide_without_rules(&question) {
            return decision;
        }
        let first = self.matching(&question).next();
        self.decided(first.map(|row| row.rank))
    }

    fn decide_without_rules(&self, question: &Question<'_>) -> Option<Decision<'_>> {
        let Question {
            principal, action, ..
        } = *question;
        let is_impossible = principal.user.is_none() && !self.anonymous.has(action);
        (is_impossible || self.open).then_some(Decision {
            allowed: !is_impossible,
            rule: None,
        })
    }

    /// The rows that match a question, by rank.
    fn matching(&self, question: &Question<'_>) -> impl Iterator<Item = Row> {
        let candidates = self.index.candidates(question);
        candidates
            .filter(|candidate| self.is_met(*candidate, question))
            .map(|candidate| candidate.row)
    }

    fn is_met(&self, Candidate { row, by_pattern }: Candidate, question: &Question<'_>) -> bool {
        let Question {
            principal,
            repository,
            ..
        } = *question;
        self.rule(row.rank).is_some_and(|rule| {
            let name = rule.repositories.get(row.repository);
            name.is_some_and(|name| name.matches(repository, principal.user))
                && rule.is_about(question, by_pattern)
        })
    }

    /// Whether any action on a repository is allowed. Otherwise it is treated as nonexistent.
    pub fn sees(&self, principal: Principal<'_>, repository: &str) -> bool {
        Action::ALL
            .into_iter()
            .any(|action| self.decide(principal, action, repository, None).allowed)
    }

    /// Whether an action may be allowed on some repository.
    pub fn may_somewhere(&self, principal: Principal<'_>, action: Action) -> bool {
        let of_user = principal.user.is_some() || self.anonymous.has(action);
        let gives = |rule: &Rule| !rule.deny && rule.actions.has(action);
        let own = |rule: &Rule| rule.is_of(principal.user) && rule.is_from(principal.client);
        of_user && (self.open || self.rules.iter().any(|rule| gives(rule) && own(rule)))
    }

    /// Whether all repositories may be read, as the pages of a registry browser do: a rule allows
    /// `pull` and `catalog` everywhere, and no rule denies either anywhere.
    pub fn sees_everything(&self, principal: Principal<'_>) -> Decision<'_> {
        let reading: Actions = [Action::Pull, Action::Catalog].into_iter().collect();
        self.everywhere(principal, reading, |rule| {
            !(rule.deny && rule.tags.is_some())
        })
    }

    /// Whether every action on all repositories is allowed, as the pages of a registry browser need
    /// to write: a rule allows every action everywhere, for all tags and without conditions, and no
    /// rule denies any action anywhere.
    pub fn changes_everything(&self, principal: Principal<'_>) -> Decision<'_> {
        self.everywhere(principal, Actions::ALL, |rule| {
            rule.deny || rule.tags.is_none() && rule.conditions.is_none()
        })
    }

    /// The decision about `actions` on all repositories, by the rules that `counts` selects: an allow
    /// must have all actions and `**`, a deny any of the actions.
    fn everywhere(
        &self,
        principal: Principal<'_>,
        actions: Actions,
        counts: impl Fn(&Rule) -> bool,
    ) -> Decision<'_> {
        if self.open || principal.user.is_none() {
            return Decision {
                allowed: principal.user.is_some(),
                rule: None,
            };
        }
        let everywhere = |rule: &Rule| {
            rule.actions.has_all(actions) && rule.repositories.iter().any(RepositoryPattern::is_any)
        };
        self.decided(self.rules.iter().position(|rule| {
            let matters = if rule.deny {
                actions.iter().any(|a| rule.actions.has(a))
            } else {
                everywhere(rule)
            };
            matters && counts(rule) && rule.is_of(principal.user) && rule.is_from(principal.client)
        }))
    }

    /// Addresses that represent all others: at least one of each network of the rules, of each
    /// intersection of them, and of the addresses in none. If a decision is equal for all of these,
    /// it is equal for every address.
    pub(crate) fn representative_addresses(&self) -> Vec<IpAddr> {
        // Membership changes at the first address of a network and behind its last.
        let networks = self
            .rules
            .iter()
            .flat_map(|rule| rule.networks.iter().flatten());
        let ends =
            networks.flat_map(|network| [Some(network.network()), after(network.broadcast())]);
        let first = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        ends.flatten().chain(first).collect()
    }

    fn rule(&self, rank: usize) -> Option<&Rule> {
        self.rules.get(rank)
    }

    fn decided(&self, rank: Option<usize>) -> Decision<'_> {
        let rule = rank.and_then(|rank| self.rule(rank));
        Decision {
            allowed: rule.is_some_and(|rule| !rule.deny),
            rule: rule.map(|rule| &rule.location),
        }
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4)
            .checked_add(1)
            .map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(v6) => u128::from(v6)
            .checked_add(1)
            .map(|next| IpAddr::V6(next.into())),
    }
}

struct Question<'a> {
    principal: Principal<'a>,
    action: Action,
    repository: &'a str,
    tag: Option<&'a str>,
}

impl Rule {
    fn new(rule: &AccessRule) -> Self {
        let AccessRule {
            deny,
            users,
            repositories,
            tags,
            actions,
            networks,
            conditions,
            location,
        } = rule;
        let starred = users.iter().filter_map(|selector| match selector {
            Selector::Name(pattern) if pattern.literal().is_none() => Some(pattern.clone()),
            Selector::Name(_)
            | Selector::Group { .. }
            | Selector::Authenticated
            | Selector::Anonymous => None,
        });
        Self {
            deny: *deny,
            names: starred.collect(),
            repositories: repositories.clone().into(),
            tags: tags.clone().map(Into::into),
            actions: *actions,
            networks: networks.clone().map(Into::into),
            users: users.clone().into(),
            conditions: conditions.clone(),
            location: location.clone(),
        }
    }

    /// Whether it matches a question, apart from the repository, whose user the index has found.
    /// `by_pattern`: the user's name has to be compared with the patterns.
    fn is_about(&self, question: &Question<'_>, by_pattern: bool) -> bool {
        let Question {
            principal,
            action,
            repository: _,
            tag,
        } = *question;
        self.actions.has(action)
            && (!by_pattern
                || principal
                    .user
                    .is_some_and(|user| self.names.iter().any(|name| name.matches(user))))
            && self.is_about_tag(action, tag)
            && self.is_from(principal.client)
    }

    fn is_about_tag(&self, action: Action, tag: Option<&str>) -> bool {
        let Some(tags) = &self.tags else { return true };
        match (action, tag) {
            // The manifest may have any tag: a deny of some tags counts, an allow of some does not.
            (Action::DeleteManifest, _) => self.deny,
            (Action::Push | Action::Overwrite | Action::DeleteTag, Some(tag)) => {
                tags.iter().any(|pattern| pattern.matches(tag))
            }
            // Blobs, manifests by digest and all reads have no tag that a rule could restrict.
            _ => !self.deny,
        }
    }

    fn is_from(&self, client: IpAddr) -> bool {
        self.networks
            .as_ref()
            .is_none_or(|networks| networks.iter().any(|network| network.contains(&client)))
    }

    fn is_of(&self, user: Option<&str>) -> bool {
        self.users.iter().any(|selector| match (selector, user) {
            (Selector::Anonymous, None) => true,
            (Selector::Anonymous, Some(_)) => !self.deny,
            (_, None) => false,
            (Selector::Authenticated, Some(_)) => true,
            (Selector::Name(pattern), Some(user)) => pattern.matches(user),
            (Selector::Group { members, .. }, Some(user)) => {
                members.iter().any(|member| **member == *user)
            }
        })
    }
}
