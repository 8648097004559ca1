//! What is allowed in rules and still cannot be meant: rules that never match, and tags that say nothing.

use super::groups::Groups;
use crate::config::access::{AccessRule, Selector};
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawMode, Setting};
use crate::config::resolve::DomainFile;
use crate::config::vhost::AnonymousAccess;
use crate::registry::action::Action;
use crate::registry::pattern::RepositoryPattern;

/// Notes all warnings about the rules of a file. `rules` are those of the file, one for each.
pub(super) fn note(file: &DomainFile, rules: &[AccessRule], groups: &Groups, problems: &mut Problems) {
    let auth = file.raw.auth.given();
    let anonymous = auth.map_or(AnonymousAccess::None, |auth| auth.anonymous.or_empty());
    for (source, span, name) in groups.empty() {
        let message = format!("the group `{name}` has nobody in it");
        problems.push(Problem::at(source, span, message, "write its users, or leave it out").warning());
    }
    for (rule, raw) in rules.iter().zip(file.raw.access.given().into_iter().flatten()) {
        let mut warn = |span: &_, message: String, help: String| {
            problems.push(Problem::at(&file.source, span, message, help).warning());
        };
        if let Some((message, help)) = dead(rule, rules, anonymous) {
            warn(&raw.span(), format!("this rule can never match: {message}"), help);
        }
        if let Some((message, help)) = idle_tags(rule) {
            warn(raw.get_ref().tags.span().unwrap_or(&raw.span()), message, help);
        }
    }
    if anonymous == AnonymousAccess::Pull {
        of_anonymous(file, rules, problems);
    }
}

/// Why a rule is about nothing.
fn dead(rule: &AccessRule, rules: &[AccessRule], anonymous: AnonymousAccess) -> Option<(String, String)> {
    let is_empty =
        |selector: &Selector| matches!(selector, Selector::Group { members, .. } if members.is_empty());
    let strangers = |selector: &Selector| *selector == Selector::Anonymous;
    if rule.users.iter().all(is_empty) {
        return Some((
            "its groups have nobody in them".to_owned(),
            "write the users of the group".to_owned(),
        ));
    }
    let only_strangers = rule.users.iter().all(|user| strangers(user) || is_empty(user));
    let user = |pattern: &RepositoryPattern| pattern.names_user();
    if only_strangers && rule.deny && anonymous == AnonymousAccess::None {
        let help = "leave it out, or write anonymous = \"pull\" in [auth]";
        return Some(("without a login nothing is allowed here anyway".to_owned(), help.to_owned()));
    }
    if only_strangers && rule.deny && rule.repositories.iter().all(user) {
        let help = "`${user}` is for users who are logged in";
        return Some(("`@anonymous` has no name".to_owned(), help.to_owned()));
    }
    if rule.deny && rule.tags.is_some() && !rule.actions.iter().any(|a| a.is_of_tag() || deletes(a)) {
        let help = "leave `tags` out to deny it for the whole repository";
        return Some(("none of its actions is about a tag".to_owned(), help.to_owned()));
    }
    let other = rules.iter().find(|other| other.deny && !rule.deny && covers(other, rule))?;
    let line = other.place.line;
    Some((
        format!("line {line} denies all of it"),
        "leave one of the two out: a deny beats every allow".to_owned(),
    ))
}

fn deletes(action: Action) -> bool {
    action == Action::DeleteManifest
}

/// Whether a deny takes away everything that a rule gives, as far as their texts tell.
fn covers(deny: &AccessRule, rule: &AccessRule) -> bool {
    let names_all = |selector: &Selector| match selector {
        Selector::Authenticated => true,
        Selector::Name(pattern) => pattern.is_any(),
        Selector::Group { .. } | Selector::Anonymous => false,
    };
    let all_users = deny.users.iter().any(names_all);
    let user = |selector: &Selector| match selector {
        // Its users may have it still, by other names.
        Selector::Anonymous => false,
        _ => all_users || deny.users.contains(selector),
    };
    let repository = |pattern: &RepositoryPattern| {
        deny.repositories.iter().any(|other| other.is_any() || other == pattern)
    };
    deny.tags.is_none()
        && deny.networks.is_none()
        && deny.actions.has_all(rule.actions)
        && rule.users.iter().all(user)
        && rule.repositories.iter().all(repository)
}

/// What `tags` do not say, though it looks so.
fn idle_tags(rule: &AccessRule) -> Option<(String, String)> {
    rule.tags.as_ref()?;
    let help =
        "tags restrict writes only, since a pull by digest has no tag: write a rule of its own for them";
    if rule.deny && !rule.actions.iter().any(|a| a.is_of_tag() || deletes(a)) {
        // Said already: the rule never matches.
        return None;
    }
    let idle = rule.actions.iter().filter(|action| !action.is_of_tag() && !deletes(*action));
    let idle: Vec<_> = idle.map(|action| format!("`{action}`")).collect();
    if !idle.is_empty() {
        let effect = if rule.deny { "does not deny" } else { "allows, for the whole repository," };
        return Some((format!("a rule with `tags` {effect} {}", idle.join(", ")), help.to_owned()));
    }
    if !rule.deny && rule.actions.has(Action::DeleteManifest) {
        let message = "a rule with `tags` never allows `delete-manifest`, which takes all tags of a manifest";
        return Some((message.to_owned(), "write a rule without `tags` for it".to_owned()));
    }
    None
}

/// For whom pulls without a login do not work.
fn of_anonymous(file: &DomainFile, rules: &[AccessRule], problems: &mut Problems) {
    let Some(auth) = file.raw.auth.given() else { return };
    let Setting::Given(_, span) = &auth.anonymous else { return };
    let reads = |rule: &AccessRule| rule.actions.has(Action::Pull) || rule.actions.has(Action::List);
    let is_open = |rule: &AccessRule| !rule.deny && rule.users.contains(&Selector::Anonymous) && reads(rule);
    let mut warn = |message: &str, help: &str| {
        problems.push(Problem::at(&file.source, span, message, help).warning());
    };
    if !rules.is_empty() && !rules.iter().any(is_open) {
        let help = "write a rule with users = [\"@anonymous\"] and actions = [\"pull\"]";
        warn("`auth.anonymous` is \"pull\", and no rule allows `@anonymous` to pull anything", help);
    }
    // A mode that is misspelt is probably not the one that works without being named.
    if matches!(auth.mode, Setting::Invalid) || auth.mode.or_empty() == RawMode::Token {
        return;
    }
    warn(
        "without a login, the classic Docker engine cannot pull from here",
        "it wants a password wherever one is asked for; containerd and Docker with its image store, podman, \
         buildah, skopeo and crane pull without one. With mode = \"token\" in [auth] all of them do",
    );
}
