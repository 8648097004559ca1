//! The decision of a domain about a question, as text and as JSON.

use serde::Serialize;

/// The decision of one domain about one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessExplanation {
    pub domain: String,
    pub action: String,
    #[serde(flatten)]
    pub verdict: AccessVerdict,
    /// Whether the domain has no rule at all.
    pub open: bool,
    /// Circumstances in which the decision differs.
    #[serde(rename = "notes")]
    pub caveats: Vec<String>,
    /// Of a group: what its members may, by all rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<AccessVerdict>>,
}

/// Whether a user or a group may do something, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessVerdict {
    /// The name, `@GROUP`, `@authenticated` or `@anonymous`.
    pub user: String,
    /// Whether the htpasswd file contains the user, or a member of the group; others cannot log in.
    pub known: bool,
    pub allowed: bool,
    /// The deciding rule, `FILE:LINE`; `None` if no rule matches.
    pub rule: Option<String>,
    /// The groups of which the user is a member and the rule therefore about the user.
    pub groups: Vec<String>,
    /// The reason as text.
    pub reason: String,
}

impl AccessExplanation {
    /// Whether it is allowed, for a group to each member that can log in.
    pub fn is_allowed(&self) -> bool {
        let mut members = self.members.iter().flatten();
        self.verdict.allowed && members.all(|member| member.allowed || !member.known)
    }

    /// The answer as text, with further lines where there is more to say.
    pub(super) fn text(&self, target: &str) -> String {
        let Self {
            domain,
            action,
            verdict:
                AccessVerdict {
                    user,
                    known: _,
                    allowed,
                    rule: _,
                    groups: _,
                    reason,
                },
            open: _,
            caveats,
            members,
        } = self;
        let members = members
            .iter()
            .flat_map(|members| self.about_members(members));
        let more: String = caveats
            .iter()
            .cloned()
            .chain(members)
            .map(|line| format!("\n  {line}"))
            .collect();
        let verb = verb(*allowed);
        format!("{domain}: {user} {verb} {action} {target}: {reason}{more}")
    }

    /// Who of the members may what the group may, who differs from it, and who cannot log in.
    fn about_members(&self, members: &[AccessVerdict]) -> Vec<String> {
        let (known, unknown): (Vec<_>, Vec<_>) = members.iter().partition(|member| member.known);
        let (same, others): (Vec<_>, Vec<_>) = known
            .into_iter()
            .partition(|member| member.allowed == self.verdict.allowed);
        let mut lines = Vec::new();
        if !same.is_empty() {
            lines.push(format!("this holds for {}", names(&same)));
        }
        let line = |member: &AccessVerdict| {
            let AccessVerdict { user, reason, .. } = member;
            format!("{user} {}: {reason}", verb(member.allowed))
        };
        lines.extend(others.into_iter().map(line));
        if !unknown.is_empty() {
            lines.push(format!("not in the htpasswd file: {}", names(&unknown)));
        }
        lines
    }
}

fn verb(allowed: bool) -> &'static str {
    if allowed { "may" } else { "may not" }
}

fn names(members: &[&AccessVerdict]) -> String {
    let listed = members.iter().take(MAX_NAMED_MEMBERS);
    let mut names: Vec<_> = listed.map(|member| member.user.clone()).collect();
    if members.len() > MAX_NAMED_MEMBERS {
        names.push(format!("{} more", members.len() - MAX_NAMED_MEMBERS));
    }
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// Of members with the same answer; JSON has all of them.
const MAX_NAMED_MEMBERS: usize = 20;
