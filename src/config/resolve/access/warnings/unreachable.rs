//! Unreachable rules: they match no user, action or repository, or a deny covers all of them.

use ipnet::IpNet;

use crate::config::access::{AccessRule, RuleLocation, Selector};
use crate::config::vhost::AnonymousAccess;
use crate::registry::action::Action;
use crate::registry::pattern::{Pattern, RepositoryPattern};

/// The reason why a rule never applies, and the help.
pub(super) fn unreachable_reason(
    rule: &AccessRule,
    rules: &[AccessRule],
    anonymous: AnonymousAccess,
) -> Option<(String, String)> {
    let is_empty = |selector: &Selector| matches!(selector, Selector::Group { members, .. } if members.is_empty());
    let is_anonymous = |selector: &Selector| *selector == Selector::Anonymous;
    if rule.users.iter().all(is_empty) {
        return Some((
            "its groups have no members".to_owned(),
            "write the users of the group".to_owned(),
        ));
    }
    let only_anonymous = rule
        .users
        .iter()
        .all(|user| is_anonymous(user) || is_empty(user));
    let user = |pattern: &RepositoryPattern| pattern.names_user();
    if only_anonymous && rule.deny && anonymous == AnonymousAccess::None {
        let help = "leave it out, or write anonymous = \"pull\" in [auth]";
        return Some((
            "without a login nothing is allowed here anyway".to_owned(),
            help.to_owned(),
        ));
    }
    if only_anonymous && rule.deny && rule.repositories.iter().all(user) {
        let help = "`${user}` is for users who are logged in";
        return Some(("`@anonymous` has no name".to_owned(), help.to_owned()));
    }
    if rule.deny
        && rule.tags.is_some()
        && !rule
            .actions
            .iter()
            .any(|a| a.is_of_tag() || a == Action::DeleteManifest)
    {
        let help = "leave `tags` out to deny it for the whole repository";
        return Some((
            "none of its actions is about a tag".to_owned(),
            help.to_owned(),
        ));
    }
    let other = rules
        .iter()
        .find(|other| other.deny && !rule.deny && covers(other, rule))?;
    let place = place(other, rule);
    Some((
        format!("{place} denies all of it"),
        "leave one of the two out: a deny beats every allow".to_owned(),
    ))
}

/// Where another rule is, in a message about `rule`.
pub(super) fn place(other: &AccessRule, rule: &AccessRule) -> String {
    let RuleLocation { file, line } = &other.location;
    if *file == rule.location.file {
        format!("line {line}")
    } else {
        format!("the rule at {}", other.location)
    }
}

/// Whether a deny rule covers everything that another rule allows, as far as their texts tell.
fn covers(deny: &AccessRule, rule: &AccessRule) -> bool {
    deny.actions.has_all(rule.actions) && covers_all_but_actions(deny, rule)
}

/// Whether a rule covers the users, repositories and networks of another one, and its tags.
pub(super) fn covers_all_but_actions(wide: &AccessRule, rule: &AccessRule) -> bool {
    let user = |selector: &Selector| {
        let by_one = |name: &Pattern| wide.users.iter().any(|denied| includes(denied, name));
        match selector {
            // Users with a login may still match.
            Selector::Anonymous => false,
            Selector::Authenticated => by_one(&Pattern::new("*")),
            Selector::Name(pattern) => by_one(pattern),
            Selector::Group { members, .. } => {
                members.iter().all(|member| by_one(&Pattern::new(member)))
            }
        }
    };
    let repository = |pattern: &RepositoryPattern| {
        wide.repositories
            .iter()
            .any(|denied| denied.covers(pattern))
    };
    let network = |inner: &IpNet| {
        wide.networks
            .iter()
            .flatten()
            .any(|denied| denied.contains(inner))
    };
    let from = wide.networks.is_none()
        || rule
            .networks
            .as_ref()
            .is_some_and(|own| own.iter().all(network));
    wide.tags.is_none()
        && from
        && rule.users.iter().all(user)
        && rule.repositories.iter().all(repository)
}

/// Whether a selector of a deny rule includes all users of a pattern.
fn includes(selector: &Selector, name: &Pattern) -> bool {
    match selector {
        Selector::Authenticated => true,
        Selector::Anonymous => false,
        Selector::Name(pattern) => pattern.covers(name),
        Selector::Group { members, .. } => name
            .literal()
            .is_some_and(|name| members.iter().any(|member| **member == *name)),
    }
}
