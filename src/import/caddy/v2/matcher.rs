//! Matchers of version 2, and what they mean for requests of a registry and for web pages.

use std::collections::HashMap;

use crate::config::network::Network;
use crate::import::caddy::parser::Statement;
use crate::import::caddy::scope::{RegistryScope, of_pattern};
use crate::import::caddy::site::RuleLimits;

/// What a matcher requires of a request, all of it.
pub(super) type Conjunction = Vec<MatchCondition>;

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MatchCondition {
    Paths(Vec<String>),
    Methods(Vec<String>),
    Networks(Vec<String>),
    Not(Conjunction),
    /// What no access rule can say.
    Other(String),
}

/// Whether a directive acts on a class of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relevance {
    Never,
    Partly,
    Always,
}

/// The requests that are looked at: those below `/v2/`, and all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestClass {
    Registry,
    Pages,
}

/// The named matchers of a site.
#[derive(Debug, Default)]
pub(super) struct NamedMatchers(HashMap<String, Conjunction>);

impl NamedMatchers {
    pub(super) fn collect(&mut self, statements: &[Statement]) {
        for statement in statements {
            if statement.name().starts_with('@') {
                let definition = definition(statement);
                let name = statement.name().to_owned();
                let known = self.0.entry(name).or_insert_with(|| definition.clone());
                if *known != definition {
                    // Each block may have its own: which one is meant is not followed here.
                    *known = vec![MatchCondition::Other(statement.name().to_owned())];
                }
            } else {
                self.collect(statement.children());
            }
        }
    }

    /// Behind trusted proxies, the address that Caddy compares is another one than moorgate's.
    pub(super) fn distrust_networks(&mut self) {
        self.0.values_mut().for_each(distrust_networks);
    }

    /// The matcher of a directive, if its first argument is one. Without, it acts on all requests.
    pub(super) fn of(&self, statement: &Statement) -> Conjunction {
        match statement.argument(1) {
            Some(name) if name.starts_with('@') => {
                let unknown = || vec![MatchCondition::Other(name.to_owned())];
                self.0.get(name).cloned().unwrap_or_else(unknown)
            }
            Some(path) if path.starts_with('/') => {
                vec![MatchCondition::Paths(vec![path.to_owned()])]
            }
            _ => Vec::new(),
        }
    }
}

fn distrust_networks(conjunction: &mut Conjunction) {
    for condition in conjunction {
        match condition {
            MatchCondition::Networks(_) => {
                *condition = MatchCondition::Other("remote_ip behind trusted proxies".to_owned());
            }
            MatchCondition::Not(inner) => distrust_networks(inner),
            MatchCondition::Paths(_) | MatchCondition::Methods(_) | MatchCondition::Other(_) => {}
        }
    }
}

/// Whether the first argument of a directive is a matcher.
pub(super) fn is_matcher(argument: &str) -> bool {
    argument == "*" || argument.starts_with(['@', '/'])
}

fn definition(statement: &Statement) -> Conjunction {
    let rest = Statement {
        tokens: statement.tokens.get(1..).unwrap_or_default().to_vec(),
        block: statement.block.clone(),
        at: statement.at.clone(),
    };
    if rest.tokens.is_empty() {
        return conjunction(rest.children());
    }
    conjunction(std::slice::from_ref(&rest))
}

fn conjunction(lines: &[Statement]) -> Conjunction {
    let mut all: Conjunction = Vec::new();
    for line in lines {
        let next = condition(line);
        // Paths and methods of several lines are alternatives.
        let joined = all.iter_mut().any(|known| match (known, &next) {
            (MatchCondition::Paths(known), MatchCondition::Paths(more))
            | (MatchCondition::Methods(known), MatchCondition::Methods(more))
            | (MatchCondition::Networks(known), MatchCondition::Networks(more)) => {
                known.extend(more.iter().cloned());
                true
            }
            _ => false,
        });
        if !joined {
            all.push(next);
        }
    }
    all
}

fn condition(line: &Statement) -> MatchCondition {
    let arguments: Vec<String> = line.arguments().into_iter().map(str::to_owned).collect();
    match line.name() {
        "path" if !arguments.is_empty() => MatchCondition::Paths(arguments),
        "method" if !arguments.is_empty() => {
            MatchCondition::Methods(arguments.iter().map(|one| one.to_uppercase()).collect())
        }
        "remote_ip" | "client_ip" => match networks(&arguments) {
            Some(networks) => MatchCondition::Networks(networks),
            None => MatchCondition::Other(line.name().to_owned()),
        },
        "not" if arguments.is_empty() => MatchCondition::Not(conjunction(line.children())),
        "not" => MatchCondition::Not(definition(line)),
        other => MatchCondition::Other(other.to_owned()),
    }
}

/// `None` if one is no network, or where `forwarded` lets clients choose.
fn networks(arguments: &[String]) -> Option<Vec<String>> {
    let mut networks = Vec::new();
    for argument in arguments {
        if argument == "private_ranges" {
            networks.extend(PRIVATE_RANGES.iter().map(ToString::to_string));
            continue;
        }
        Network::parse(argument).ok()?;
        networks.push(argument.clone());
    }
    (!networks.is_empty()).then_some(networks)
}

/// The path of a matcher that has exactly one.
pub(super) fn single_path(conjunction: &Conjunction) -> Option<&str> {
    let mut paths = conjunction.iter().filter_map(|condition| match condition {
        MatchCondition::Paths(paths) => Some(paths.as_slice()),
        MatchCondition::Methods(_)
        | MatchCondition::Networks(_)
        | MatchCondition::Not(_)
        | MatchCondition::Other(_) => None,
    });
    match paths.next() {
        Some([path]) => Some(path),
        _ => None,
    }
}

/// Whether requests of a class meet a matcher.
pub(super) fn relevance(conjunction: &Conjunction, class: RequestClass) -> Relevance {
    let each = conjunction.iter().map(|one| of_condition(one, class));
    let least = each.min_by_key(|relevance| match relevance {
        Relevance::Never => 0,
        Relevance::Partly => 1,
        Relevance::Always => 2,
    });
    least.unwrap_or(Relevance::Always)
}

/// Whether all requests of a registry meet a condition.
pub(super) fn is_always(condition: &MatchCondition) -> bool {
    of_condition(condition, RequestClass::Registry) == Relevance::Always
}

fn of_condition(condition: &MatchCondition, class: RequestClass) -> Relevance {
    match condition {
        MatchCondition::Paths(patterns) => of_paths(patterns, class),
        MatchCondition::Not(inner) => match relevance(inner, class) {
            Relevance::Never => Relevance::Always,
            Relevance::Always => Relevance::Never,
            Relevance::Partly => Relevance::Partly,
        },
        MatchCondition::Methods(_) | MatchCondition::Networks(_) | MatchCondition::Other(_) => {
            Relevance::Partly
        }
    }
}

fn of_paths(patterns: &[String], class: RequestClass) -> Relevance {
    match class {
        RequestClass::Registry => {
            let scopes: Vec<_> = patterns.iter().map(|pattern| of_pattern(pattern)).collect();
            if scopes.contains(&RegistryScope::Whole) {
                Relevance::Always
            } else if scopes.iter().all(|scope| *scope == RegistryScope::Outside) {
                Relevance::Never
            } else {
                Relevance::Partly
            }
        }
        RequestClass::Pages => {
            if patterns
                .iter()
                .any(|pattern| matches!(pattern.as_str(), "*" | "/*"))
            {
                Relevance::Always
            } else if patterns
                .iter()
                .all(|pattern| pattern.to_lowercase().starts_with("/v2"))
            {
                Relevance::Never
            } else {
                Relevance::Partly
            }
        }
    }
}

/// Whether a rule allows what a matcher meets, or denies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleKind {
    Allow,
    Deny,
}

/// The limits of a rule for exactly what a matcher meets; `None` if rules cannot say it. A rule that
/// denies may meet more, one that allows less.
pub(super) fn limits<'c>(
    conditions: impl IntoIterator<Item = &'c MatchCondition>,
    kind: RuleKind,
) -> Option<RuleLimits> {
    let mut limits = RuleLimits::default();
    for condition in conditions {
        match condition {
            MatchCondition::Paths(patterns) => paths(patterns, &mut limits)?,
            MatchCondition::Methods(methods) if limits.actions.is_empty() => {
                limits.actions = actions(methods, kind)?;
            }
            MatchCondition::Networks(networks) if limits.networks.is_empty() => {
                limits.networks.clone_from(networks);
            }
            MatchCondition::Not(inner)
                if relevance(inner, RequestClass::Registry) == Relevance::Never => {}
            MatchCondition::Methods(_)
            | MatchCondition::Networks(_)
            | MatchCondition::Not(_)
            | MatchCondition::Other(_) => return None,
        }
    }
    Some(limits)
}

fn paths(patterns: &[String], limits: &mut RuleLimits) -> Option<()> {
    for pattern in patterns {
        match of_pattern(pattern) {
            RegistryScope::Whole => return Some(()),
            RegistryScope::Repositories(patterns) => limits.repositories.extend(patterns),
            RegistryScope::Outside => {}
            RegistryScope::Catalog if patterns.len() == 1 && limits.actions.is_empty() => {
                limits.actions = vec!["catalog"];
            }
            RegistryScope::Catalog | RegistryScope::Unknown => return None,
        }
    }
    Some(())
}

fn actions(methods: &[String], kind: RuleKind) -> Option<Vec<&'static str>> {
    let has = |method: &str| methods.iter().any(|one| one == method);
    let writes = ["PUT", "POST", "PATCH"].map(has);
    let mut actions = Vec::new();
    let (reads, pushes) = match kind {
        RuleKind::Allow => (
            has("GET"),
            writes.iter().all(|one| *one) && (has("GET") || has("HEAD")),
        ),
        // `push` includes HEAD requests: what denies those must deny pushes, too.
        RuleKind::Deny if has("GET") || has("HEAD") => return None,
        RuleKind::Deny => (false, writes.iter().any(|one| *one)),
    };
    if reads {
        actions.extend(["pull", "list", "catalog"]);
    }
    if pushes {
        actions.extend(["push", "overwrite"]);
    }
    if has("DELETE") {
        actions.extend(["delete-tag", "delete-manifest"]);
    }
    (!actions.is_empty()).then_some(actions)
}

/// As Caddy has them.
const PRIVATE_RANGES: &[&str] = &[
    "192.168.0.0/16",
    "172.16.0.0/12",
    "10.0.0.0/8",
    "127.0.0.0/8",
    "fd00::/8",
    "::1",
];

/// The networks of `private_ranges`.
pub(super) fn private_ranges() -> impl Iterator<Item = String> {
    PRIVATE_RANGES.iter().map(ToString::to_string)
}
