//! Follows a class of requests through the directives of a site, in the order in which Caddy runs
//! them: which logins they meet, what refuses them, and which server they reach.

use std::collections::BTreeMap;

use super::known::is_known;
use super::matcher::{
    Conjunction, MatchCondition, NamedMatchers, Relevance, RequestClass, is_matcher, relevance,
    single_path,
};
use crate::import::caddy::parser::Statement;

/// A condition on the way: a matcher that meets a part of the requests, or, after a `handle`, the
/// opposite of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathGate {
    pub(super) conjunction: Conjunction,
    pub(super) is_negated: bool,
}

/// What requests meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowEvent {
    Login,
    Refusal,
    Server,
    /// Something that may refuse them by rules of its own.
    Barrier,
    /// Something that changes the path.
    Rewrite,
}

/// An event and what leads to it.
#[derive(Clone, Debug)]
pub(super) struct FlowStep<'s> {
    pub(super) gates: Vec<PathGate>,
    pub(super) event: FlowEvent,
    pub(super) statement: &'s Statement,
}

impl FlowStep<'_> {
    /// The conditions of the gates that are no opposites.
    pub(super) fn conditions(&self) -> Vec<&MatchCondition> {
        let gates = self.gates.iter().filter(|gate| !gate.is_negated);
        gates.flat_map(|gate| &gate.conjunction).collect()
    }
}

/// What a class of requests meets, in order.
pub(super) fn steps<'s>(
    directives: &'s [Statement],
    class: RequestClass,
    matchers: &NamedMatchers,
) -> Vec<FlowStep<'s>> {
    let mut flow = Flow {
        class,
        matchers,
        steps: Vec::new(),
    };
    flow.level(directives, &[], true);
    flow.steps
}

struct Flow<'s, 'm> {
    class: RequestClass,
    matchers: &'m NamedMatchers,
    steps: Vec<FlowStep<'s>>,
}

impl<'s> Flow<'s, '_> {
    /// Whether all requests have been answered at its end.
    fn level(&mut self, directives: &'s [Statement], gates: &[PathGate], is_sorted: bool) -> bool {
        let ordered = if is_sorted {
            sorted(directives, self.matchers)
        } else {
            directives.iter().collect()
        };
        // After a `handle`, no other one of the level is entered.
        let mut outside_of_handles = gates.to_vec();
        for statement in ordered {
            let conjunction = self.matchers.of(statement);
            let relevance = relevance(&conjunction, self.class);
            if relevance == Relevance::Never {
                continue;
            }
            let gate = (relevance == Relevance::Partly).then_some(PathGate {
                conjunction,
                is_negated: false,
            });
            let is_handle = matches!(statement.name(), "handle" | "handle_path");
            let before: &[PathGate] = if is_handle {
                &outside_of_handles
            } else {
                gates
            };
            let mut inner = before.to_vec();
            inner.extend(gate.clone());
            if self.directive(statement, &inner) && gate.is_none() {
                return true;
            }
            if is_handle {
                match gate {
                    None => outside_of_handles.push(NEVER),
                    Some(gate) => outside_of_handles.push(PathGate {
                        is_negated: true,
                        ..gate
                    }),
                }
            }
        }
        false
    }

    /// Whether it answers all requests that reach it.
    fn directive(&mut self, statement: &'s Statement, gates: &[PathGate]) -> bool {
        if gates.contains(&NEVER) {
            return false;
        }
        let event = match statement.name() {
            "handle" | "handle_path" => {
                if statement.name() == "handle_path" {
                    self.push(FlowEvent::Rewrite, statement, gates);
                }
                return self.level(statement.children(), gates, true);
            }
            "route" => return self.level(statement.children(), gates, false),
            "basic_auth" | "basicauth" => FlowEvent::Login,
            "respond" | "abort" | "error" | "redir" => FlowEvent::Refusal,
            "reverse_proxy" => FlowEvent::Server,
            "rewrite" | "uri" | "try_files" | "method" => FlowEvent::Rewrite,
            name if is_known(name) || name.starts_with('@') => return false,
            _ => FlowEvent::Barrier,
        };
        self.push(event, statement, gates);
        matches!(event, FlowEvent::Refusal | FlowEvent::Server)
    }

    fn push(&mut self, event: FlowEvent, statement: &'s Statement, gates: &[PathGate]) {
        self.steps.push(FlowStep {
            gates: gates.to_vec(),
            event,
            statement,
        });
    }
}

/// What nothing passes.
const NEVER: PathGate = PathGate {
    conjunction: Vec::new(),
    is_negated: true,
};

/// Caddy's order of directives. Of the same kind, longer paths come before shorter ones.
fn sorted<'s>(directives: &'s [Statement], matchers: &NamedMatchers) -> Vec<&'s Statement> {
    let position = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut kinds: BTreeMap<(usize, &str), Vec<&Statement>> = BTreeMap::new();
    for statement in directives {
        let name = statement.name();
        // What is not known may come first.
        let kind = kinds
            .entry((position(name).unwrap_or(0), name))
            .or_default();
        // Caddy's comparison is no order, since not all matchers can be compared: sorted by insertion.
        let compared = if kind.len() < MAX_SORTED {
            kind.as_slice()
        } else {
            &[]
        };
        let later = compared.iter().rev();
        let later = later
            .take_while(|other| is_before(statement, other, matchers))
            .count();
        kind.insert(kind.len() - later, statement);
    }
    kinds.into_values().flatten().collect()
}

fn is_before(statement: &Statement, other: &Statement, matchers: &NamedMatchers) -> bool {
    let [own, others] = [matchers.of(statement), matchers.of(other)];
    match (single_path(&own), single_path(&others)) {
        (Some(own), Some(other)) if own.trim_end_matches('*') == other.trim_end_matches('*') => {
            own.len() < other.len()
        }
        (Some(own), Some(other)) => own.len() > other.len(),
        _ => {
            let has_matcher = |statement: &Statement| statement.argument(1).is_some_and(is_matcher);
            has_matcher(statement) && !has_matcher(other)
        }
    }
}

/// Of one kind, in one block. Bounds the time.
const MAX_SORTED: usize = 1000;

const ORDER: &[&str] = &[
    "tracing",
    "map",
    "vars",
    "fs",
    "root",
    "log_append",
    "skip_log",
    "log_skip",
    "log_name",
    "header",
    "copy_response_headers",
    "request_body",
    "redir",
    "method",
    "rewrite",
    "uri",
    "try_files",
    "basicauth",
    "basic_auth",
    "forward_auth",
    "request_header",
    "encode",
    "push",
    "intercept",
    "templates",
    "invoke",
    "handle",
    "handle_path",
    "route",
    "abort",
    "error",
    "copy_response",
    "respond",
    "metrics",
    "reverse_proxy",
    "php_fastcgi",
    "file_server",
    "acme_server",
];
