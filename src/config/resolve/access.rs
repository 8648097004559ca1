//! The access rules of a domain: those of its file and those of `moorgate.toml`, which hold for all
//! domains that do not refuse them. Resolves groups and reports what is missing.

mod conditions;
mod groups;
mod warnings;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;

use self::groups::{Groups, KnownGroups};
use self::warnings::RulesInForce;
use super::lists::{ListReader, plain};
use super::{DomainFile, MainFile, rule_location};
use crate::config::access::{
    AccessRule, AccessSettings, PerUserRepository, Selector, UserReference, WrittenUsers,
};
use crate::config::network::TrustedProxies;
use crate::config::problem::{Problem, ProblemSeverity, Problems};
use crate::config::raw::Setting;
use crate::config::raw::access::{RawAccess, RawRules};
use crate::config::source::Source;
use crate::config::values::access::RawSelector;
use crate::config::vhost::AnonymousAccess;
use crate::registry::action::Actions;

/// The rules and groups of one file, as written.
#[derive(Clone, Copy)]
struct RuleFile<'a> {
    source: &'a Arc<Source>,
    raw: &'a RawRules,
    /// The text of `groups_file`.
    groups_file: Option<&'a Arc<Source>>,
}

impl<'a> RuleFile<'a> {
    fn of_domain(file: &'a DomainFile) -> Self {
        Self {
            source: &file.source,
            raw: &file.raw.rules,
            groups_file: file.groups.as_ref(),
        }
    }

    fn of_main(file: &'a MainFile) -> Self {
        Self {
            source: &file.source,
            raw: &file.raw.rules,
            groups_file: file.groups.as_ref(),
        }
    }

    /// Whether the file certainly has no rule.
    fn is_without_rules(self) -> bool {
        match &self.raw.access {
            Setting::Absent => true,
            Setting::Invalid => false,
            Setting::Given(rules, _) => rules.is_empty(),
        }
    }

    /// The rules in order.
    fn written(self) -> impl Iterator<Item = &'a Spanned<RawAccess>> {
        self.raw.access.given().into_iter().flatten()
    }
}

/// The rules and groups of `moorgate.toml`.
#[derive(Debug)]
pub(super) struct SharedRules {
    /// `None` after an error.
    resolved: Option<FileRules>,
    groups: Groups,
    is_without_rules: bool,
}

impl SharedRules {
    /// What they say of users.
    pub(super) fn written_users(&self) -> WrittenUsers {
        let resolved = self.resolved.as_ref();
        resolved
            .map(|resolved| resolved.users.clone())
            .unwrap_or_default()
    }
}

/// The rules of one file.
#[derive(Debug)]
struct FileRules {
    rules: Vec<AccessRule>,
    users: WrittenUsers,
}

/// The rules and groups of `moorgate.toml`. `directory` is the configuration directory.
pub(super) fn shared(main: &MainFile, directory: &Path, problems: &mut Problems) -> SharedRules {
    let errors = problems.count(ProblemSeverity::Error);
    let file = RuleFile::of_main(main);
    let groups = groups::groups(file, problems);
    let known = KnownGroups {
        own: &groups,
        inherited: None,
    };
    let rules = file_rules(file, directory, known, problems);
    let is_valid = problems.count(ProblemSeverity::Error) == errors;
    SharedRules {
        resolved: rules.filter(|_| is_valid),
        groups,
        is_without_rules: file.is_without_rules(),
    }
}

/// The rules of a domain, or `None` after an error. `proxies` can claim any client address.
pub(super) fn settings(
    file: &DomainFile,
    directory: &Path,
    shared: &SharedRules,
    proxies: &TrustedProxies,
    problems: &mut Problems,
) -> Option<AccessSettings> {
    let errors = problems.count(ProblemSeverity::Error);
    let inherited = inherited(file, shared, problems);
    let own = RuleFile::of_domain(file);
    let groups = groups::groups(own, problems);
    let known = KnownGroups {
        own: &groups,
        inherited: inherited.map(|shared| &shared.groups),
    };
    known.report_doubles(problems);
    let FileRules {
        rules: of_file,
        users: written,
    } = file_rules(own, directory, known, problems)?;
    let mut rules = match inherited {
        Some(shared) => shared.resolved.as_ref()?.rules.clone(),
        None => Vec::new(),
    };
    let count_inherited = rules.len();
    rules.extend(of_file);
    if problems.count(ProblemSeverity::Error) > errors {
        return None;
    }
    conditions::report_unclear_sources(file, &rules, count_inherited, problems);
    let (_, own_rules) = rules.split_at(count_inherited);
    let in_force = RulesInForce {
        file: own,
        own: own_rules,
        all: &rules,
        groups: &groups,
        anonymous: anonymous(file),
        proxies,
    };
    in_force.warn_about_domain(file, problems);
    Some(AccessSettings {
        rules,
        groups: known.all(),
        inherits: inherited.is_some(),
        written,
    })
}

/// Warns about the rules of `moorgate.toml`, as they hold for these domains.
pub(super) fn warn_about_shared(
    main: &MainFile,
    domains: &[&DomainFile],
    shared: &SharedRules,
    proxies: &TrustedProxies,
    problems: &mut Problems,
) {
    let SharedRules {
        resolved,
        groups,
        is_without_rules: _,
    } = shared;
    let Some(FileRules { rules, users: _ }) = resolved else {
        return;
    };
    let inheriting: Vec<_> = domains
        .iter()
        .copied()
        .filter(|domain| domain.raw.inherit.or(true))
        .collect();
    let pulls = |domain: &&DomainFile| anonymous(domain) == AnonymousAccess::Pull;
    let in_force = RulesInForce {
        file: RuleFile::of_main(main),
        own: rules,
        all: rules,
        groups,
        anonymous: if inheriting.iter().any(pulls) {
            AnonymousAccess::Pull
        } else {
            AnonymousAccess::None
        },
        proxies,
    };
    in_force.warn_about_shared(&inheriting, problems);
}

fn anonymous(file: &DomainFile) -> AnonymousAccess {
    let auth = file.raw.auth.given();
    auth.map_or(AnonymousAccess::None, |auth| auth.anonymous.or_empty())
}

/// The rules of `moorgate.toml`, unless the domain refuses them. A domain that asks for them must
/// not be open without them.
fn inherited<'a>(
    file: &DomainFile,
    shared: &'a SharedRules,
    problems: &mut Problems,
) -> Option<&'a SharedRules> {
    match &file.raw.inherit {
        Setting::Given(false, _) => None,
        Setting::Given(true, span) => {
            if shared.is_without_rules {
                let message = "`inherit` is true, and moorgate.toml has no [[access]]";
                let help = "write rules there, or leave `inherit` out: what moorgate.toml says holds anyway";
                problems.push(Problem::at(&file.source, span, message, help));
            }
            Some(shared)
        }
        Setting::Absent | Setting::Invalid => Some(shared),
    }
}

/// The rules of a file; `None` if one of them is wrong.
fn file_rules(
    file: RuleFile<'_>,
    directory: &Path,
    groups: KnownGroups<'_>,
    problems: &mut Problems,
) -> Option<FileRules> {
    let mut rules = Vec::new();
    let mut users = WrittenUsers {
        references: groups.own.user_references(),
        repositories: Vec::new(),
    };
    for raw in file.written() {
        let references = user_references_of(file.source, raw.get_ref());
        users.references.extend(references);
        let Some(rule) = rule(file.source, directory, raw, groups, problems) else {
            continue;
        };
        let repositories = per_user_repositories_of(file.source, raw.get_ref(), &rule);
        users.repositories.extend(repositories);
        rules.push(rule);
    }
    let is_wrong = matches!(file.raw.access, Setting::Invalid);
    let are_all = !is_wrong && rules.len() == file.written().count();
    are_all.then_some(FileRules { rules, users })
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
    source: &Arc<Source>,
    directory: &Path,
    raw: &Spanned<RawAccess>,
    groups: KnownGroups<'_>,
    problems: &mut Problems,
) -> Option<AccessRule> {
    let RawAccess {
        deny,
        users,
        repositories,
        tags,
        actions,
        networks,
        from: _,
        immutable_after: _,
    } = raw.get_ref();
    let place = raw.span();
    let mut lists = ListReader {
        source,
        table: "access",
        rule: &place,
        problems,
    };
    let users = lists.required("users", users, USERS);
    let repositories = lists.required("repositories", repositories, REPOSITORIES);
    let actions = lists.required("actions", actions, ACTIONS);
    let tags = lists.optional("tags", tags, TAGS);
    let networks = lists.optional("networks", networks, NETWORKS);
    let actions = actions.map(|actions| {
        plain(actions)
            .into_iter()
            .fold(Actions::default(), Actions::and)
    });
    let conditions = conditions::conditions(&mut lists, raw.get_ref(), actions.unwrap_or_default());
    let users = users
        .into_iter()
        .flatten()
        .map(|user| selector(source, &user, groups, problems));
    let users: Option<Vec<_>> = users.collect();
    Some(AccessRule {
        deny: deny.or(false),
        users: users.filter(|users| !users.is_empty())?,
        repositories: plain(repositories?),
        tags: tags?.map(plain),
        actions: actions?,
        networks: networks?.map(plain),
        conditions: conditions?,
        location: rule_location(source, directory, &place),
    })
}

fn selector(
    source: &Arc<Source>,
    entry: &Spanned<RawSelector>,
    groups: KnownGroups<'_>,
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
                if groups.are_complete() {
                    let message = format!("`access.users` names the unknown group `@{name}`");
                    problems.push(Problem::at(source, &entry.span(), message, groups.help()));
                }
                None
            }
        },
    }
}

const USERS: &str = "write users = [\"alice\", \"@devs\"], or [\"*\"] for every user";
const REPOSITORIES: &str = "write repositories = [\"base/**\"], or [\"**\"] for all";
const ACTIONS: &str = "write actions = [\"pull\"], or [\"all\"]";
const TAGS: &str = "write tags, or leave the key out for all tags";
const NETWORKS: &str = "write networks, or leave the key out for all";
