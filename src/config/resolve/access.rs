//! The access rules of one domain file: resolves groups and reports what is missing.

mod groups;
mod warnings;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;

use self::groups::Groups;
use super::DomainFile;
use crate::config::access::{
    AccessRule, AccessSettings, PerUserRepository, RuleLocation, Selector, UserReference,
};
use crate::config::network::TrustedProxies;
use crate::config::problem::{Problem, ProblemSeverity, Problems};
use crate::config::raw::access::RawAccess;
use crate::config::raw::{List, Setting};
use crate::config::source::{Source, Span};
use crate::config::values::access::RawSelector;
use crate::registry::action::Actions;

/// The rules, or `None` after an error. `directory` is the configuration directory, and `proxies`
/// can claim any client address.
pub(super) fn settings(
    file: &DomainFile,
    directory: &Path,
    proxies: &TrustedProxies,
    problems: &mut Problems,
) -> Option<AccessSettings> {
    let errors = problems.count(ProblemSeverity::Error);
    let groups = groups::groups(file, problems);
    let mut rules = Vec::new();
    let mut user_references = groups.user_references();
    let mut per_user_repositories = Vec::new();
    for raw in file.raw.access.given().into_iter().flatten() {
        user_references.extend(user_references_of(&file.source, raw.get_ref()));
        let Some(rule) = rule(file, directory, raw, &groups, problems) else {
            continue;
        };
        per_user_repositories.extend(per_user_repositories_of(&file.source, raw.get_ref(), &rule));
        rules.push(rule);
    }
    if matches!(file.raw.access, Setting::Invalid) {
        return None;
    }
    if problems.count(ProblemSeverity::Error) > errors {
        return None;
    }
    warnings::add(file, &rules, &groups, proxies, problems);
    Some(AccessSettings {
        rules,
        user_references,
        per_user_repositories,
    })
}

/// The user names in a rule.
fn user_references_of(source: &Arc<Source>, raw: &RawAccess) -> Vec<UserReference> {
    let users = raw.users.given().into_iter().flatten();
    let named = users.filter_map(|entry| match entry.get_ref() {
        RawSelector::Name(name) if !name.is_any() => Some(UserReference {
            name: name.clone(),
            file: source.path().to_owned(),
            span: entry.span(),
        }),
        RawSelector::Name(_)
        | RawSelector::Group(_)
        | RawSelector::Authenticated
        | RawSelector::Anonymous => None,
    });
    named.collect()
}

/// The repositories with `${user}` of an allow rule.
fn per_user_repositories_of(
    source: &Arc<Source>,
    raw: &RawAccess,
    rule: &AccessRule,
) -> Vec<PerUserRepository> {
    let repositories = raw.repositories.given().into_iter().flatten();
    let own = repositories
        .filter(|entry| !rule.deny && entry.get_ref().names_user())
        .map(|entry| PerUserRepository {
            repository: entry.get_ref().clone(),
            users: rule.users.clone(),
            file: source.path().to_owned(),
            span: entry.span(),
        });
    own.collect()
}

fn rule(
    file: &DomainFile,
    directory: &Path,
    raw: &Spanned<RawAccess>,
    groups: &Groups,
    problems: &mut Problems,
) -> Option<AccessRule> {
    let RawAccess {
        deny,
        users,
        repositories,
        tags,
        actions,
        networks,
    } = raw.get_ref();
    let place = raw.span();
    let mut lists = ListReader {
        source: &file.source,
        rule: &place,
        problems,
    };
    let users = lists.required("users", users, USERS);
    let repositories = lists.required("repositories", repositories, REPOSITORIES);
    let actions = lists.required("actions", actions, ACTIONS);
    let tags = lists.optional("tags", tags, TAGS);
    let networks = lists.optional("networks", networks, NETWORKS);
    let users = users
        .into_iter()
        .flatten()
        .map(|user| selector(file, &user, groups, problems));
    let users: Option<Vec<_>> = users.collect();
    let path = file.source.path();
    let (line, _) = file.source.position(place.start);
    Some(AccessRule {
        deny: deny.or(false),
        users: users.filter(|users| !users.is_empty())?,
        repositories: plain(repositories?),
        tags: tags?.map(plain),
        actions: plain(actions?)
            .into_iter()
            .fold(Actions::default(), Actions::and),
        networks: networks?.map(plain),
        location: RuleLocation {
            file: path.strip_prefix(directory).unwrap_or(path).to_owned(),
            line,
        },
    })
}

fn plain<T>(list: Vec<Spanned<T>>) -> Vec<T> {
    list.into_iter().map(Spanned::into_inner).collect()
}

fn selector(
    file: &DomainFile,
    entry: &Spanned<RawSelector>,
    groups: &Groups,
    problems: &mut Problems,
) -> Option<Selector> {
    match entry.get_ref() {
        RawSelector::Authenticated => Some(Selector::Authenticated),
        RawSelector::Anonymous => Some(Selector::Anonymous),
        RawSelector::Name(name) => Some(Selector::Name(name.clone())),
        RawSelector::Group(name) => match groups.members(name) {
            Some(members) => Some(Selector::Group {
                name: name.as_str().into(),
                members,
            }),
            None => {
                if groups.is_complete() {
                    let message = format!("`access.users` names the unknown group `@{name}`");
                    problems.push(Problem::at(
                        &file.source,
                        &entry.span(),
                        message,
                        groups.help(),
                    ));
                }
                None
            }
        },
    }
}

/// Reads the lists of one rule, none of which may be empty.
struct ListReader<'a> {
    source: &'a Arc<Source>,
    rule: &'a Span,
    problems: &'a mut Problems,
}

impl ListReader<'_> {
    /// A list that each rule must have.
    fn required<T: Clone>(
        &mut self,
        key: &str,
        list: &List<T>,
        help: &str,
    ) -> Option<Vec<Spanned<T>>> {
        match list {
            Setting::Absent => {
                let message = format!("`access.{key}` is missing in this rule");
                self.report(self.rule, message, help);
                None
            }
            Setting::Invalid => None,
            Setting::Given(entries, span) if entries.is_empty() => {
                let message = format!("`access.{key}` is empty: the rule could never match");
                self.report(span, message, help);
                None
            }
            Setting::Given(entries, _) => Some(entries.clone()),
        }
    }

    /// `Some(None)` if the list is absent.
    fn optional<T: Clone>(
        &mut self,
        key: &str,
        list: &List<T>,
        help: &str,
    ) -> Option<Option<Vec<Spanned<T>>>> {
        if list.is_absent() {
            Some(None)
        } else {
            self.required(key, list, help).map(Some)
        }
    }

    fn report(&mut self, span: &Span, message: String, help: &str) {
        self.problems
            .push(Problem::at(self.source, span, message, help));
    }
}

const USERS: &str = "write users = [\"alice\", \"@devs\"], or [\"*\"] for every user";
const REPOSITORIES: &str = "write repositories = [\"base/**\"], or [\"**\"] for all";
const ACTIONS: &str = "write actions = [\"pull\"], or [\"all\"]";
const TAGS: &str = "write tags, or leave the key out for all tags";
const NETWORKS: &str = "write networks, or leave the key out for all";
