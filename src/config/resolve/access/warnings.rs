//! Warnings about rules that are valid and hardly intended: rules that never match, tags without
//! effect.

mod unreachable;

use std::sync::Arc;

use toml::Spanned;

use super::groups::Groups;
use crate::config::access::{AccessRule, Selector};
use crate::config::network::TrustedProxies;
use crate::config::problem::{Problem, Problems};
use crate::config::raw::access::RawAccess;
use crate::config::raw::{RawMode, Setting};
use crate::config::resolve::DomainFile;
use crate::config::source::{Source, Span};
use crate::config::vhost::AnonymousAccess;
use crate::registry::action::Action;

/// Adds all warnings about the rules of a file. `rules` are its rules in order.
pub(super) fn add(
    file: &DomainFile,
    rules: &[AccessRule],
    groups: &Groups,
    proxies: &TrustedProxies,
    problems: &mut Problems,
) {
    let auth = file.raw.auth.given();
    let anonymous = auth.map_or(AnonymousAccess::None, |auth| auth.anonymous.or_empty());
    for (source, span, name) in groups.empty() {
        let message = format!("the group `{name}` has no members");
        problems
            .push(Problem::at(source, span, message, "write its users, or leave it out").warning());
    }
    let written = file.raw.access.given().into_iter().flatten();
    for (rule, raw) in rules.iter().zip(written) {
        let about = about_rule(rule, raw, rules, anonymous)
            .into_iter()
            .chain(about_repositories(raw.get_ref()))
            .chain(about_networks(raw.get_ref(), proxies));
        problems.extend(about.map(|warning| warning.into_problem(&file.source)));
    }
    if anonymous == AnonymousAccess::Pull {
        add_about_anonymous(file, rules, problems);
    }
}

/// A warning at a position of the file.
struct Warning {
    span: Span,
    message: String,
    help: String,
}

impl Warning {
    fn into_problem(self, source: &Arc<Source>) -> Problem {
        Problem::at(source, &self.span, self.message, self.help).warning()
    }
}

/// Warnings about a rule as a whole.
fn about_rule(
    rule: &AccessRule,
    raw: &Spanned<RawAccess>,
    rules: &[AccessRule],
    anonymous: AnonymousAccess,
) -> Vec<Warning> {
    let whole = raw.span();
    let RawAccess { tags, actions, .. } = raw.get_ref();
    let unreachable = unreachable::unreachable_reason(rule, rules, anonymous)
        .map(|(reason, help)| (format!("this rule can never match: {reason}"), help));
    let found = [
        (&whole, unreachable),
        (tags.span().unwrap_or(&whole), idle_tags(rule)),
        (actions.span().unwrap_or(&whole), moved_tags(rule, rules)),
    ];
    found
        .into_iter()
        .filter_map(|(span, text)| {
            let (message, help) = text?;
            Some(Warning {
                span: span.clone(),
                message,
                help,
            })
        })
        .collect()
}

/// Warnings about patterns that match no valid name.
fn about_repositories(raw: &RawAccess) -> impl Iterator<Item = Warning> {
    let written = raw.repositories.given().into_iter().flatten();
    let impossible = written.filter(|entry| !entry.get_ref().is_possible(None));
    impossible.map(|entry| Warning {
        span: entry.span(),
        message: format!(
            "no repository name can match `{}`",
            entry.get_ref().as_str()
        ),
        help: NAMES.to_owned(),
    })
}

/// Warnings about networks whose addresses a trusted proxy can claim.
fn about_networks(raw: &RawAccess, proxies: &TrustedProxies) -> impl Iterator<Item = Warning> {
    let written = raw.networks.given().into_iter().flatten();
    written.filter_map(move |entry| {
        let network = entry.get_ref();
        let proxies = proxies.overlapping(*network)?;
        Some(Warning {
            span: entry.span(),
            message: format!(
                "clients in `{proxies}` can claim any address, also of `{network}`: it is in `trusted_proxies`"
            ),
            help: "name the proxies alone in `trusted_proxies` of moorgate.toml, without their neighbours"
                .to_owned(),
        })
    })
}

/// `tags` that do not restrict what they seem to restrict.
fn idle_tags(rule: &AccessRule) -> Option<(String, String)> {
    rule.tags.as_ref()?;
    let help = "tags restrict writes only, since a pull by digest has no tag: write a rule of its own for them";
    if rule.deny
        && !rule
            .actions
            .iter()
            .any(|a| a.is_of_tag() || a == Action::DeleteManifest)
    {
        // Reported already: the rule never matches.
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

/// A rule without `overwrite` that still allows tags to be moved.
fn moved_tags(rule: &AccessRule, rules: &[AccessRule]) -> Option<(String, String)> {
    let has = |action| rule.actions.has(action);
    let is_protected = rules
        .iter()
        .any(|other| other.deny && other.actions.has(Action::DeleteTag));
    if rule.deny
        || is_protected
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

/// Warnings about pulls without a login that do not work.
fn add_about_anonymous(file: &DomainFile, rules: &[AccessRule], problems: &mut Problems) {
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
    // A misspelt mode is probably not the default.
    if matches!(auth.mode, Setting::Invalid) || auth.mode.or_empty() == RawMode::Token {
        return;
    }
    warn(
        "without a login, the classic Docker engine cannot pull from here",
        "it wants a password wherever one is asked for; containerd and Docker with its image store, podman, \
         buildah, skopeo and crane pull without one. With mode = \"token\" in [auth] all of them do",
    );
}

const NAMES: &str = "the levels of a name are of lower-case letters and digits, with `.`, `_`, `__` or dashes between them";
