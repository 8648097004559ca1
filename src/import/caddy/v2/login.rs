//! Who may do what at a site of version 2: logins and refusals on the way to the registry, as users
//! and access rules. Nothing that rules cannot say opens anything.

use std::collections::BTreeSet;

use super::flow::{FlowEvent, FlowStep, PathGate};
use super::matcher::{MatchCondition, RuleKind, is_always, is_matcher, limits};
use crate::import::caddy::context::SiteContext;
use crate::import::caddy::parser::Statement;
use crate::import::caddy::site::{ImportedRule, ImportedUser, RuleLimits};
use crate::import::caddy::users;

/// The users that may take a way to the registry.
#[derive(Clone, Debug)]
pub(super) struct RegistryBranch {
    /// `None` for everybody.
    users: Option<BTreeSet<String>>,
    limits: Option<RuleLimits>,
    gates: Vec<PathGate>,
}

impl RegistryBranch {
    fn has_conditions(&self) -> bool {
        self.gates.iter().any(|gate| !gate.is_negated)
    }
}

/// Whether all of what one way leaves out, by a `handle` before it, comes by other gates.
fn takes(gates: &[PathGate], from: &[PathGate], left_out: &PathGate) -> bool {
    let mut own = gates.iter().filter(|gate| !gate.is_negated);
    let is_left_out = |gate: &PathGate| gate.conjunction == left_out.conjunction;
    let has = own.clone().any(is_left_out);
    has && own.all(|gate| is_left_out(gate) || from.contains(gate))
}

/// The users of a `basic_auth`.
#[derive(Debug)]
pub(super) struct LoginGate {
    gates: Vec<PathGate>,
    pub(super) users: Vec<ImportedUser>,
}

impl LoginGate {
    fn names(&self) -> BTreeSet<String> {
        self.users.iter().map(|user| user.name.clone()).collect()
    }

    /// Whether all requests behind these gates meet it.
    fn covers(&self, gates: &[PathGate]) -> bool {
        self.gates.iter().all(|gate| gates.contains(gate))
    }

    /// Whether no request behind these gates meets it.
    fn is_disjoint(&self, gates: &[PathGate]) -> bool {
        self.gates.iter().any(|gate| {
            let opposite = PathGate {
                is_negated: !gate.is_negated,
                ..gate.clone()
            };
            gates.contains(&opposite)
        })
    }
}

/// All logins on the way.
pub(super) fn logins(steps: &[FlowStep<'_>], context: &mut SiteContext<'_>) -> Vec<LoginGate> {
    let logins = steps.iter().filter(|step| step.event == FlowEvent::Login);
    logins
        .map(|step| LoginGate {
            gates: step.gates.clone(),
            users: listed(step.statement, context),
        })
        .collect()
}

fn listed(statement: &Statement, context: &mut SiteContext<'_>) -> Vec<ImportedUser> {
    let mut arguments = statement.arguments();
    if arguments
        .first()
        .is_some_and(|argument| is_matcher(argument))
    {
        arguments.remove(0);
    }
    if let Some(realm) = arguments.get(1) {
        context.site.realm = Some((*realm).to_owned());
    }
    let mut found = Vec::new();
    for line in statement.children() {
        let (Some(name), Some(hash)) = (line.argument(0), line.argument(1)) else {
            context.error(line, "a user has a name and a hash");
            continue;
        };
        let name = context.variables.expand_placeholders(name, &line.at);
        let hash = context.variables.expand_placeholders(hash, &line.at);
        found.push(users::user(&name, users::hashed(&hash), &line.at));
    }
    let names: Vec<_> = found.iter().map(|user| user.name.as_str()).collect();
    let text = format!(
        "users in the htpasswd file: {}",
        super::super::report::one_line(&names.join(", "))
    );
    context.translated(statement, text);
    found
}

/// The names that pass all logins before a server; `None` if there is none.
pub(super) fn passing(logins: &[LoginGate], gates: &[PathGate]) -> Option<BTreeSet<String>> {
    let covering = logins.iter().filter(|login| login.covers(gates));
    covering
        .map(LoginGate::names)
        .reduce(|all, next| &all & &next)
}

/// Decides about one way to the registry.
pub(super) fn branch(
    step: &FlowStep<'_>,
    logins: &[LoginGate],
    context: &mut SiteContext<'_>,
) -> RegistryBranch {
    let conditions = step.conditions();
    let limits = limits(conditions, RuleKind::Allow);
    let partial = logins
        .iter()
        .filter(|login| !login.covers(&step.gates) && !login.is_disjoint(&step.gates));
    let partial: Vec<_> = partial.collect();
    let mut users = passing(logins, &step.gates);
    if users.is_none() && !partial.is_empty() {
        let union = partial.iter().flat_map(|login| login.names()).collect();
        users = Some(union);
        context.decision(
            step.statement,
            "only a part of the requests needed a login in Caddy: now all of them need one (see `anonymous` in [auth] \
             and access rules for \"@anonymous\")",
        );
    }
    for login in partial {
        let Some(all) = &mut users else { continue };
        let excluded: Vec<String> = all.difference(&login.names()).cloned().collect();
        if excluded.is_empty() {
            continue;
        }
        if let Some(limits) = own_limits(login, step) {
            context.site.access.rules.push(ImportedRule {
                users: excluded,
                limits,
                is_deny: true,
            });
            continue;
        }
        *all = &*all & &login.names();
        let text = format!(
            "no access rule can say where only some users may go: until it is decided, {} may do nothing",
            excluded.join(", ")
        );
        context.decision(step.statement, text);
    }
    RegistryBranch {
        users,
        limits,
        gates: step.gates.clone(),
    }
}

/// The requests of a way that meet a login, for a rule that denies them to others.
fn own_limits(login: &LoginGate, step: &FlowStep<'_>) -> Option<RuleLimits> {
    let own = login.gates.iter().filter(|gate| !step.gates.contains(gate));
    let own: Vec<&PathGate> = own.collect();
    let conditions = own.iter().flat_map(|gate| &gate.conjunction);
    let is_plain = own.iter().all(|gate| !gate.is_negated);
    limits(conditions, RuleKind::Deny).filter(|_| is_plain)
}

/// What refuses requests on the way becomes rules that deny, or networks that are allowed.
pub(super) fn refusals(steps: &[FlowStep<'_>], context: &mut SiteContext<'_>) -> Vec<String> {
    let mut networks: Option<Vec<String>> = None;
    for step in steps.iter().filter(|step| step.event == FlowEvent::Refusal) {
        let mut conditions = step.conditions();
        conditions.retain(|one| !is_always(one));
        if conditions.is_empty() {
            // What is refused is what nothing else takes.
            context.redundant(step.statement, "what no rule allows is refused");
            continue;
        }
        let refused = match conditions.as_slice() {
            [MatchCondition::Not(inner)] => match inner.as_slice() {
                [MatchCondition::Networks(allowed)] => Some(allowed),
                _ => None,
            },
            _ => None,
        };
        if let Some(allowed) = refused
            && networks.is_none()
        {
            networks = Some(allowed.clone());
            context.translated(step.statement, "[[access]] with networks");
            continue;
        }
        match limits(conditions, RuleKind::Deny) {
            Some(limits) => {
                context.site.access.rules.push(ImportedRule {
                    users: vec!["*".to_owned()],
                    limits,
                    is_deny: true,
                });
                context.translated(step.statement, "[[access]] with deny = true");
            }
            None => context.closed(
                step.statement,
                "no access rule can refuse exactly these requests",
            ),
        }
    }
    networks.unwrap_or_default()
}

/// A way after a `handle` does not get what that takes: whoever is not let in there must not come by
/// this way.
pub(super) fn fallbacks(
    branches: &mut [RegistryBranch],
    steps: &[FlowStep<'_>],
    context: &mut SiteContext<'_>,
) {
    let refusals = || steps.iter().filter(|step| step.event == FlowEvent::Refusal);
    for index in 0..branches.len() {
        let Some(branch) = branches.get(index).cloned() else {
            continue;
        };
        for left_out in branch.gates.iter().filter(|gate| gate.is_negated) {
            if refusals().any(|step| takes(&step.gates, &branch.gates, left_out)) {
                continue;
            }
            let mut inside = branches
                .iter()
                .filter(|other| takes(&other.gates, &branch.gates, left_out));
            let allowed = inside.try_fold(BTreeSet::new(), |all, other| {
                other.users.as_ref().map(|users| &all | users)
            });
            // Everybody may come by the other way.
            let Some(allowed) = allowed else { continue };
            let limits = limits(&left_out.conjunction, RuleKind::Deny);
            let Some(branch) = branches.get_mut(index) else {
                continue;
            };
            exclude(branch, &allowed, limits, context);
        }
    }
}

/// What another registry answered must not be asked of this one.
pub(super) fn taken_by_others(step: &FlowStep<'_>, context: &mut SiteContext<'_>) {
    match limits(step.conditions(), RuleKind::Deny) {
        Some(limits) => context.site.access.rules.push(ImportedRule {
            users: vec!["*".to_owned()],
            limits,
            is_deny: true,
        }),
        None => context.site.access.close(format!(
            "{}: what another registry answered",
            step.statement.at
        )),
    }
}

/// Keeps all but the allowed users of a way from a part of it, or from all of it.
fn exclude(
    branch: &mut RegistryBranch,
    allowed: &BTreeSet<String>,
    limits: Option<RuleLimits>,
    context: &mut SiteContext<'_>,
) {
    let excluded: Vec<String> = match &branch.users {
        Some(users) => users.difference(allowed).cloned().collect(),
        None if allowed.is_empty() => vec!["*".to_owned()],
        None => {
            return context
                .site
                .access
                .close("a part of the registry was for some users only");
        }
    };
    let access = &mut context.site.access;
    match limits {
        _ if excluded.is_empty() => {}
        Some(limits) => {
            let rule = ImportedRule {
                users: excluded,
                limits,
                is_deny: true,
            };
            let everybody = ImportedRule {
                users: vec!["*".to_owned()],
                ..rule.clone()
            };
            if !access.rules.contains(&rule) && !access.rules.contains(&everybody) {
                access.rules.push(rule);
            }
        }
        None => access.close("no access rule can say which part was for others only"),
    }
}

/// Writes the rules of all ways to the registry, if they need any.
pub(super) fn rules(
    branches: &[RegistryBranch],
    networks: &[String],
    logins: Vec<LoginGate>,
    context: &mut SiteContext<'_>,
) {
    let access = &mut context.site.access;
    let is_simple = matches!(branches, [only] if !only.has_conditions())
        && networks.is_empty()
        && access.rules.is_empty();
    for branch in branches.iter().filter(|_| !is_simple) {
        let Some(mut limits) = branch.limits.clone() else {
            continue;
        };
        if !networks.is_empty() {
            if !limits.networks.is_empty() {
                access.close("networks are limited twice");
            }
            limits.networks = networks.to_vec();
        }
        let everybody = || vec!["@authenticated".to_owned()];
        let users = branch
            .users
            .as_ref()
            .map_or_else(everybody, |users| users.iter().cloned().collect());
        if users.is_empty() {
            continue;
        }
        access.rules.push(ImportedRule {
            users,
            limits,
            is_deny: false,
        });
    }
    if !branches.is_empty() && branches.iter().all(|branch| branch.limits.is_none()) {
        access.close("no access rule can say which requests reached the registry");
    }
    let may = |name: &str| {
        let mut branches = branches.iter();
        branches.any(|branch| {
            branch
                .users
                .as_ref()
                .is_some_and(|users| users.contains(name))
        })
    };
    let all = logins.into_iter().flat_map(|login| login.users);
    let all = all.filter(|user| may(&user.name)).collect();
    context.site.access.users = users::merged(all, context.report);
}
