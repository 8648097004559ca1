//! The allowed actions of a principal as a text, for the message of a refusal.

use super::{Policy, Principal, Rule};
use crate::registry::action::{Action, Actions};

/// The maximum number of rules, and half that of the names of each, before the rest is left out.
const MAX_LISTED_RULES: usize = 4;

impl Policy {
    /// The allows for a principal, like "pull base/**; push and overwrite alice/** (tag release)".
    /// `None` if there are none. Denies are left out.
    pub fn summary(&self, principal: Principal<'_>) -> Option<String> {
        let own = |rule: &&Rule| {
            !rule.deny && rule.is_of(principal.user) && rule.is_from(principal.client)
        };
        let descriptions = self
            .rules
            .iter()
            .filter(own)
            .filter_map(|rule| self.describe(rule, principal));
        let mut descriptions: Vec<_> = descriptions.take(MAX_LISTED_RULES + 1).collect();
        if descriptions.len() > MAX_LISTED_RULES {
            descriptions.truncate(MAX_LISTED_RULES);
            descriptions.push("…".to_owned());
        }
        (!descriptions.is_empty()).then(|| descriptions.join("; "))
    }

    fn describe(&self, rule: &Rule, principal: Principal<'_>) -> Option<String> {
        let possible = |action: &Action| principal.user.is_some() || self.anonymous.has(*action);
        let actions: Actions = rule.actions.iter().filter(possible).collect();
        if actions.is_empty() {
            return None;
        }
        let mut text = if actions == Actions::ALL {
            "do everything in".to_owned()
        } else {
            listed(actions.iter().map(|action| action.to_string()), " and ")
        };
        text.push(' ');
        text += &listed(
            rule.repositories
                .iter()
                .map(|pattern| pattern.for_user(principal.user)),
            " and ",
        );
        if let Some(tags) = rule
            .tags
            .as_ref()
            .filter(|_| actions.iter().any(Action::is_of_tag))
        {
            text += if tags.len() == 1 { " (tag " } else { " (tags " };
            text += &listed(tags.iter().map(|tag| tag.as_str().to_owned()), " or ");
            text.push(')');
        }
        Some(text)
    }
}

fn listed(all: impl Iterator<Item = String>, last: &str) -> String {
    let mut all: Vec<_> = all.take(2 * MAX_LISTED_RULES + 1).collect();
    if all.len() > 2 * MAX_LISTED_RULES {
        all.truncate(2 * MAX_LISTED_RULES);
        all.push("…".to_owned());
    }
    match all.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{}{last}{end}", rest.join(", ")),
        _ => all.concat(),
    }
}
