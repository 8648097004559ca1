//! What is allowed in rules and still cannot be meant: rules that never match, and tags that say
//! nothing.

mod unreachable;

use super::groups::Groups;
use crate::config::access::{AccessRule, Selector};
use crate::config::network::TrustedProxies;
use crate::config::problem::{Problem, Problems};
use crate::config::raw::{RawMode, Setting};
use crate::config::resolve::DomainFile;
use crate::config::vhost::AnonymousAccess;
use crate::registry::action::Action;

/// Notes all warnings about the rules of a file. `rules` are those of the file, one for each.
pub(super) fn note(
    file: &DomainFile,
    rules: &[AccessRule],
    groups: &Groups,
    proxies: &TrustedProxies,
    problems: &mut Problems,
) {
    let auth = file.raw.auth.given();
    let anonymous = auth.map_or(AnonymousAccess::None, |auth| auth.anonymous.or_empty());
    for (source, span, name) in groups.empty() {
        let message = format!("the group `{name}` has nobody in it");
        problems
            .push(Problem::at(source, span, message, "write its users, or leave it out").warning());
    }
    for (rule, raw) in rules
        .iter()
        .zip(file.raw.access.given().into_iter().flatten())
    {
        let mut warn = |span: &_, message: String, help: String| {
            problems.push(Problem::at(&file.source, span, message, help).warning());
        };
        if let Some((message, help)) = unreachable::unreachable_reason(rule, rules, anonymous) {
            warn(
                &raw.span(),
                format!("this rule can never match: {message}"),
                help,
            );
        }
        if let Some((message, help)) = idle_tags(rule) {
            warn(
                raw.get_ref().tags.span().unwrap_or(&raw.span()),
                message,
                help,
            );
        }
        if let Some((message, help)) = moved_tags(rule, rules) {
            warn(
                raw.get_ref().actions.span().unwrap_or(&raw.span()),
                message,
                help,
            );
        }
        for entry in raw.get_ref().repositories.given().into_iter().flatten() {
            if !entry.get_ref().is_possible(None) {
                let name = entry.get_ref().as_str();
                warn(
                    &entry.span(),
                    format!("no repository can be called like `{name}`"),
                    NAMES.to_owned(),
                );
            }
        }
        for entry in raw.get_ref().networks.given().into_iter().flatten() {
            if let Some(proxies) = proxies.overlapping(*entry.get_ref()) {
                let message = format!(
                    "whoever is in `{proxies}` can claim any address, also of `{}`: it is in `trusted_proxies`",
                    entry.get_ref()
                );
                let help = "name the proxies alone in `trusted_proxies` of moorgate.toml, without their neighbours";
                warn(&entry.span(), message, help.to_owned());
            }
        }
    }
    if anonymous == AnonymousAccess::Pull {
        of_anonymous(file, rules, problems);
    }
}

/// What `tags` do not say, though it looks so.
fn idle_tags(rule: &AccessRule) -> Option<(String, String)> {
    rule.tags.as_ref()?;
    let help = "tags restrict writes only, since a pull by digest has no tag: write a rule of its own for them";
    if rule.deny
        && !rule
            .actions
            .iter()
            .any(|a| a.is_of_tag() || a == Action::DeleteManifest)
    {
        // Said already: the rule never matches.
        return None;
    }
    let idle = rule
        .actions
        .iter()
        .filter(|action| !action.is_of_tag() && *action != Action::DeleteManifest);
    let idle: Vec<_> = idle.map(|action| format!("`{action}`")).collect();
    if !idle.is_empty() {
        let effect = if rule.deny {
            "does not deny"
        } else {
            "allows, for the whole repository,"
        };
        return Some((
            format!("a rule with `tags` {effect} {}", idle.join(", ")),
            help.to_owned(),
        ));
    }
    if !rule.deny && rule.actions.has(Action::DeleteManifest) {
        let message =
            "a rule with `tags` never allows `delete-manifest`, which takes all tags of a manifest";
        return Some((
            message.to_owned(),
            "write a rule without `tags` for it".to_owned(),
        ));
    }
    None
}

/// By which way round a rule that keeps tags lets them be moved.
fn moved_tags(rule: &AccessRule, rules: &[AccessRule]) -> Option<(String, String)> {
    let has = |action| rule.actions.has(action);
    let is_kept = rules
        .iter()
        .any(|other| other.deny && other.actions.has(Action::DeleteTag));
    if rule.deny
        || is_kept
        || !has(Action::Push)
        || !has(Action::DeleteTag)
        || has(Action::Overwrite)
    {
        return None;
    }
    let message = "`push` and `delete-tag` together move tags, also without `overwrite`: away first, then pushed anew";
    let help = "add `overwrite` if tags may move; if not, give `delete-tag` to others, or deny it for some tags";
    Some((message.to_owned(), help.to_owned()))
}

/// For whom pulls without a login do not work.
fn of_anonymous(file: &DomainFile, rules: &[AccessRule], problems: &mut Problems) {
    let Some(auth) = file.raw.auth.given() else {
        return;
    };
    let Setting::Given(_, span) = &auth.anonymous else {
        return;
    };
    let reads =
        |rule: &AccessRule| rule.actions.has(Action::Pull) || rule.actions.has(Action::List);
    let is_open =
        |rule: &AccessRule| !rule.deny && rule.users.contains(&Selector::Anonymous) && reads(rule);
    let mut warn = |message: &str, help: &str| {
        problems.push(Problem::at(&file.source, span, message, help).warning());
    };
    if !rules.is_empty() && !rules.iter().any(is_open) {
        let help = "write a rule with users = [\"@anonymous\"] and actions = [\"pull\"]";
        warn(
            "`auth.anonymous` is \"pull\", and no rule allows `@anonymous` to pull anything",
            help,
        );
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

/// What names of repositories are.
const NAMES: &str = "the levels of a name are of lower-case letters and digits, with `.`, `_`, `__` or dashes between them";
