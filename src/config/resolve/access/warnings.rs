//! Warnings about rules that are valid and hardly intended: rules that never match, tags without
//! effect.

mod unreachable;

use std::sync::Arc;

use toml::Spanned;

use super::RuleFile;
use super::groups::Groups;
use crate::config::access::{AccessRule, Selector};
use crate::config::network::TrustedProxies;
use crate::config::problem::{Problem, ProblemSeverity, Problems};
use crate::config::raw::access::RawAccess;
use crate::config::raw::{RawMode, Setting};
use crate::config::resolve::DomainFile;
use crate::config::source::{Source, Span};
use crate::config::vhost::AnonymousAccess;
use crate::registry::action::Action;

/// The rules of a file, and all rules that hold beside them.
pub(super) struct RulesInForce<'a> {
    pub(super) file: RuleFile<'a>,
    /// Those of the file, in order.
    pub(super) own: &'a [AccessRule],
    /// All that hold, those of the file included.
    pub(super) all: &'a [AccessRule],
    /// Those of the file.
    pub(super) groups: &'a Groups,
    pub(super) anonymous: AnonymousAccess,
    /// They can claim any client address.
    pub(super) proxies: &'a TrustedProxies,
}

impl RulesInForce<'_> {
    /// Adds all warnings about the rules of a domain file.
    pub(super) fn warn_about_domain(&self, domain: &DomainFile, problems: &mut Problems) {
        self.warn_about_rules(problems);
        if let Some(first) = self.file.written().next().filter(|_| denies_all(self.all)) {
            problems.push(nothing_allowed(self.file.source, &first.span(), &[domain]));
        }
        if self.anonymous == AnonymousAccess::Pull {
            add_about_anonymous(domain, self.all, problems);
        }
    }

    /// Adds all warnings about the rules of `moorgate.toml`, which hold for `domains`.
    pub(super) fn warn_about_shared(&self, domains: &[&DomainFile], problems: &mut Problems) {
        let source = self.file.source;
        let first = self.file.written().next().map(Spanned::span);
        if domains.is_empty() {
            let first = first.map(|span| (source.clone(), span));
            let first = first.or_else(|| self.groups.first());
            // A domain file with an error is not among the domains.
            if let Some((source, span)) =
                first.filter(|_| problems.count(ProblemSeverity::Error) == 0)
            {
                let message = "no domain inherits what moorgate.toml says of access";
                let help =
                    "each domain file says `inherit = false`: leave it out where this is to hold";
                problems.push(Problem::at(&source, &span, message, help).warning());
            }
            return;
        }
        self.warn_about_rules(problems);
        let without_rules = |domain: &&&DomainFile| {
            let own = &domain.raw.rules.access;
            own.is_absent() || own.given().is_some_and(Vec::is_empty)
        };
        let closed: Vec<_> = domains.iter().filter(without_rules).copied().collect();
        if let Some(span) = first.filter(|_| denies_all(self.all) && !closed.is_empty()) {
            problems.push(nothing_allowed(source, &span, &closed));
        }
    }

    fn warn_about_rules(&self, problems: &mut Problems) {
        for (source, span, name) in self.groups.empty() {
            let message = format!("the group `{name}` has no members");
            problems.push(
                Problem::at(source, span, message, "write its users, or leave it out").warning(),
            );
        }
        for (rule, raw) in self.own.iter().zip(self.file.written()) {
            let about = about_rule(rule, raw, self.all, self.anonymous)
                .into_iter()
                .chain(about_repositories(raw.get_ref()))
                .chain(about_networks(raw.get_ref(), self.proxies));
            problems.extend(about.map(|warning| warning.into_problem(self.file.source)));
        }
    }
}

fn denies_all(rules: &[AccessRule]) -> bool {
    !rules.is_empty() && rules.iter().all(|rule| rule.deny)
}

/// The warning about rules that allow nothing.
fn nothing_allowed(source: &Arc<Source>, span: &Span, domains: &[&DomainFile]) -> Problem {
    let named = domains
        .iter()
        .filter_map(|domain| domain.raw.domain.given());
    let mut names: Vec<_> = named.map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(MAX_NAMED_DOMAINS);
    names.truncate(MAX_NAMED_DOMAINS);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    let message = format!(
        "all rules of {} deny, so nothing is allowed there",
        names.join(", ")
    );
    let help = "write a rule that allows the rest, such as users = [\"*\"], repositories = [\"**\"], actions = [\"all\"]";
    Problem::at(source, span, message, help).warning()
}

const MAX_NAMED_DOMAINS: usize = 4;

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
    let RawAccess {
        tags,
        actions,
        from,
        immutable_after,
        ..
    } = raw.get_ref();
    let unreachable = unreachable::unreachable_reason(rule, rules, anonymous)
        .map(|(reason, help)| (format!("this rule can never match: {reason}"), help));
    let found = [
        (&whole, unreachable),
        (tags.span().unwrap_or(&whole), idle_tags(rule)),
        (actions.span().unwrap_or(&whole), moved_tags(rule, rules)),
        (
            from.span().or(immutable_after.span()).unwrap_or(&whole),
            idle_conditions(rule, rules),
        ),
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
    let lists = [&raw.repositories, &raw.from];
    let written = lists.into_iter().filter_map(Setting::given).flatten();
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

/// Conditions that another rule makes void: rules are or-ed.
fn idle_conditions(rule: &AccessRule, rules: &[AccessRule]) -> Option<(String, String)> {
    let (from, immutable_after) = (&rule.conditions.from, rule.conditions.immutable_after);
    let around = |other: &AccessRule| {
        let sets = other.actions.has(Action::Push) || other.actions.has(Action::Overwrite);
        let changes = [Action::Overwrite, Action::DeleteTag, Action::DeleteManifest];
        let changes = changes.iter().any(|action| other.actions.has(*action));
        from.is_some() && other.conditions.from.is_none() && sets
            || immutable_after.is_some() && other.conditions.immutable_after.is_none() && changes
    };
    let other = rules.iter().find(|other| {
        !other.deny && around(other) && unreachable::covers_all_but_actions(other, rule)
    })?;
    let key = if from.is_some() && other.conditions.from.is_none() {
        "from"
    } else {
        "immutable_after"
    };
    let place = unreachable::place(other, rule);
    let message = format!(
        "`access.{key}` does not hold for these users: {place} allows them more without it"
    );
    let help = "one rule that allows something suffices: take the action out of the other, or write the condition there as well";
    Some((message, help.to_owned()))
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
